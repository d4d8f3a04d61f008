"""The layouts of data sets on disk: one file for each, with ``read`` and ``looks_like``. This module chooses.

``read(path, options)`` returns the catalog. ``looks_like(path)`` decides by the names of a few files whether the path
has this layout. docs/design.md says how to add one.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msta.data.catalog import Catalog
from msta.data.layouts import activitynet, folder, hmdb51, kinetics, lists, shards, ssv2, tables, ucf101
from msta.data.layouts.parts import OPTIONS, Options
from msta.data.storage import as_url
from msta.errors import ConfigError, DataError


@dataclass(frozen=True)
class Layout:
    """How a layout is recognised and read, and the options that it takes."""

    read: Callable[[Path, Options], Catalog]
    looks_like: Callable[[Path], bool]
    options: frozenset[str] = frozenset()


_OFFICIAL = frozenset({"annotations", "labels"})

LAYOUTS = {
    "shards": Layout(shards.read, shards.looks_like, frozenset({"labels"})),
    "parquet": Layout(tables.read_parquet, tables.is_parquet, frozenset({"labels"})),
    "list": Layout(lists.read, lists.looks_like, frozenset({"labels", "train_list", "val_list", "test_list"})),
    "kinetics": Layout(kinetics.read, kinetics.looks_like, _OFFICIAL),
    "csv": Layout(tables.read_csv, Path.is_file, frozenset({"labels", "fold"})),
    "ucf101": Layout(ucf101.read, ucf101.looks_like, _OFFICIAL | {"split_number"}),
    "hmdb51": Layout(hmdb51.read, hmdb51.looks_like, _OFFICIAL | {"split_number"}),
    "ssv2": Layout(ssv2.read, ssv2.looks_like, _OFFICIAL),
    "activitynet": Layout(activitynet.read, activitynet.looks_like, _OFFICIAL),
    "folder": Layout(folder.read, Path.is_dir, frozenset({"labels", "split_folders"})),
}
"""Name -> layout, in the order in which they are tried."""


def read_layout(path: Path, layout: str | None, options: Mapping[str, Any]) -> Catalog:
    """Read ``path`` as ``layout``, or as the first that it looks like; see :func:`msta.data.reading.read_catalog`."""
    if unknown := options.keys() - set(OPTIONS):
        raise ConfigError(f"no option {min(unknown)}; there are {', '.join(OPTIONS)}")
    paths: dict[str, Any] = {
        name: Path(value).expanduser() for name, value in options.items() if isinstance(value, str) and name != "fold"
    }
    chosen = Options(**{**options, **paths})
    if layout is not None and layout not in LAYOUTS:
        near = "".join(f"; did you mean {name}?" for name in difflib.get_close_matches(layout.lower(), LAYOUTS, n=1))
        raise ConfigError(f"data.layout: {layout!r} is none of {', '.join(LAYOUTS)}{near}")
    if not path.exists() and as_url(path) is None:
        raise DataError(f"{path}: no such folder or CSV file")
    if layout is None:
        by_lists = {"train_list", "val_list", "test_list"} & set(chosen.given())
        layout = "list" if by_lists else next((name for name, one in LAYOUTS.items() if one.looks_like(path)), None)
        if layout is None:
            raise DataError(f"{path}: neither a folder nor a file")
    for name in chosen.given():
        if name not in LAYOUTS[layout].options and options[name] != "none":
            takers = [other for other, one in LAYOUTS.items() if name in one.options]
            raise ConfigError(f"data.{name}: goes with the layout {' or '.join(takers)}; {path} is read as {layout}")
    return LAYOUTS[layout].read(path, chosen)
