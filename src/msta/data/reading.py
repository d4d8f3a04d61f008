"""Read a data set in any layout, and refuse what cannot be right."""

from __future__ import annotations

import math
import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from msta.data.catalog import Catalog, Clip
from msta.data.layouts import read_layout
from msta.data.layouts.parts import LONGEST_NAME
from msta.data.names import notice_numbers, read_as_words
from msta.data.storage import absolute
from msta.errors import DataError, in_short, is_text
from msta.notices import notice


def read_catalog(
    path: str | os.PathLike[str], layout: str | None = None, names: str = "words", **options: Any
) -> Catalog:
    """Read a data set.

    Args:
        path: a folder with one sub-folder per class, itself or inside ``train/``, ``val/``, ``test/``; a CSV or Parquet
            file with the columns path, label (or class) and optionally split, start, end (paths relative to it); shards
            that ``msta data shard`` wrote, also by URL; the folder of a known data set; or a list of "path label". A
            ``classes.csv`` with ``id,name`` beside the classes gives their names and order: an id is the name of a
            folder, or a label.
        layout: a name of :data:`msta.data.layouts.LAYOUTS`. None: the layout that the folder or file looks like.
        names: "words": class names as words, which the text tower reads best (see :func:`class_words`), unless
            ``labels`` spells them; "given": as they are written.
        options: fields of :class:`msta.data.layouts.parts.Options` that the layout takes.

    Raises:
        DataError: one line that names the file, folder, line or class at fault.
        ConfigError: there is no such layout, or it does not take an option.
    """
    path = Path(path).expanduser()
    try:
        catalog = read_layout(path, layout, options)
    except OSError as error:
        raise DataError(f"{in_short(error.filename or path)}: {error.strerror}") from error
    except UnicodeError as error:
        raise DataError(f"{path}: no UTF-8 text") from error
    if long := next((name for name in catalog.classes if len(name) > LONGEST_NAME), None):
        raise DataError(f"{catalog.source}: a class name of {len(long)} characters, {in_short(long)!r}; shorten it")
    if catalog.spelled or names == "given":
        classes = tuple(unicodedata.normalize("NFC", name) for name in catalog.classes)
    else:
        classes = read_as_words(catalog.classes, catalog.source, "data.names=given leaves them")
    catalog = replace(catalog, classes=classes)
    notice_numbers(catalog.source, catalog.classes, "give a CSV of id,name as classes.csv beside them, or data.labels")
    _check(catalog)
    if catalog.missing:
        notice(
            f"{catalog.source}: {len(catalog.missing)} of {len(catalog.missing) + len(catalog.clips)} listed clips are "
            f"not there and left out, {in_short(catalog.missing[0])} for one (msta data index lists them all)"
        )
    return catalog


def _check(catalog: Catalog) -> None:
    if not catalog.clips:
        raise DataError(f"{catalog.source}: no video files in it")
    seen: set[str] = set()
    for name in catalog.classes:
        if name.casefold() in seen:
            raise DataError(f"{catalog.source}: two classes are called {name!r}; text could not tell them apart")
        seen.add(name.casefold())
        if not is_text(name):
            raise DataError(f"{catalog.source}: the class {name!r} is no valid text; rename its folder")
    for clip in catalog.clips:
        check_range(catalog.source, clip)
    for path, clips in _sharing_a_file(catalog.clips).items():
        if len(clips) > 1:
            _check_apart(catalog.source, path, clips)


def check_range(source: str, clip: Clip) -> None:
    """Raise DataError if the clip is no range of a video."""
    if not 0 <= (clip.start or 0.0) < (math.inf if clip.end is None else clip.end):
        raise DataError(f"{source}: {clip.name}: a range must begin at 0 s or later, and before it ends")


def _sharing_a_file(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """The clips of each file that has several clips. Hashes find them: a million paths would take twice the memory."""
    hashes = np.fromiter((hash(absolute(clip.path)) for clip in clips), np.int64, len(clips))
    order = np.argsort(hashes, kind="stable")
    alike = hashes[order[1:]] == hashes[order[:-1]]
    shared = np.zeros(len(clips), bool)
    shared[order[1:][alike]] = shared[order[:-1][alike]] = True
    files: dict[str, list[Clip]] = defaultdict(list)
    for number in np.flatnonzero(shared).tolist():
        files[absolute(clips[number].path)].append(clips[number])
    return files


def _check_apart(source: str, path: str, clips: Sequence[Clip]) -> None:
    """No part of a file may occur twice, or be in two splits."""
    ends: dict[str, float] = {}  # split -> how far its clips reach
    before = ""
    for clip in sorted(clips, key=lambda c: (c.start or 0.0, math.inf if c.end is None else c.end)):
        split, what = clip.split or "train", replace(clip, path=path).name
        for other, end in ends.items():
            if other != split and end > (clip.start or 0.0):
                raise DataError(f"{source}: {what} is both in {other} and in {split}; take it out of one of them")
        if what == before:
            raise DataError(f"{source}: {what} is listed twice")
        ends[split] = max(ends.get(split, 0.0), math.inf if clip.end is None else clip.end)
        before = what
