"""The data sets of a protocol: ``NAME=PATH?setting=value`` is parsed, read, checked, divided and written down."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from msta.config import explain
from msta.data.catalog import Catalog, Clip, write_catalog
from msta.data.layouts.parts import OPTIONS
from msta.data.names import class_words
from msta.data.reading import read_catalog
from msta.data.storage import DIGITS, absolute, content_hash, exists, real, size_of
from msta.errors import ConfigError, DataError
from msta.files import new_directory, typed_path
from msta.settings import DataSettings

READING = ("layout", "names", *OPTIONS)
"""The ``data`` settings that say how a data set is read. Each of several data sets may have its own."""


@dataclass(frozen=True)
class DatasetSplit:
    """One division of a data set; three official splits are three parts of one name.

    Attributes:
        dataset: its name in tables.
        number: which of several parts, from 1; 0 if it is the only one.
        path: of the folder or file.
        settings: ``data`` settings for this part alone, with names in :data:`READING`.
    """

    dataset: str
    number: int
    path: Path
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """Its name in paths."""
        return f"{self.dataset}-{self.number}" if self.number else self.dataset

    def read(self) -> Catalog:
        """The clips and classes.

        Raises:
            MSTAError: the data cannot be read, or its files have moved.
        """
        try:
            settings = DataSettings(path=self.path, **self.settings)
        except ValidationError as error:
            raise ConfigError(explain(error, "data.")) from error
        catalog = settings.read()
        gone = [clip.path for clip in catalog.clips if not exists(clip.path)]
        if gone:
            raise DataError(
                f"{catalog.source}: {len(gone)} of its {len(catalog.clips)} files are not where it says, {gone[0]} for "
                "one; if they moved, write it again (msta data index), which also leaves out those that are lost"
            )
        return catalog


def parse_datasets(texts: Sequence[str], option: str) -> list[DatasetSplit]:
    """``[NAME=]PATH[?setting=value&…]`` each. If a name is given several times, its parts are averaged.

    Raises:
        ConfigError: not of that form, or two data sets would get the same name by chance.
    """
    parsed: list[tuple[str, bool, DatasetSplit]] = []
    for text in texts:
        name, equals, rest = text.partition("=")
        if not equals or os.sep in name or "?" in name or os.path.exists(text):
            name, rest = "", text
        path, settings = rest, {}
        if "?" in rest and not os.path.exists(rest):
            path, _, query = rest.partition("?")
            for pair in query.split("&"):
                key, equals, value = pair.partition("=")
                if not key or not equals:
                    raise ConfigError(f"{option}: expected PATH?setting=value, got {text!r}")
                settings[key] = value
        for key in settings.keys() - {*READING}:
            raise ConfigError(f"{option}: {key} does not say how data are read; {', '.join(READING)} do")
        where = typed_path(path)
        if not where.exists():
            raise DataError(f"{option}: {path}: no such folder or file")
        own = name or (where.stem if where.is_file() else where.name)
        parsed.append((own, bool(name), DatasetSplit(own, 0, where, settings)))
    counts = Counter(own for own, _, _ in parsed)
    for own, named, _ in parsed:
        if counts[own] > 1 and not named:
            raise ConfigError(
                f"{option}: {counts[own]} data sets are called {own!r}; say NAME=PATH; splits of one set share a NAME"
            )
        if not own or own != own.strip() or "/" in own or own.startswith("."):
            raise ConfigError(f"{option}: {own!r} is no name for a data set; say NAME=PATH")
    seen: Counter[str] = Counter()
    parts = []
    for own, _, part in parsed:
        seen[own] += 1
        parts.append(replace(part, number=seen[own] if counts[own] > 1 else 0))
    return parts


def write_once(folder: Path, catalog: Catalog) -> Path:
    """Write ``folder``/split.csv with the catalog's clips, if it does not exist.

    Raises:
        DataError: it exists with other clips, so the data changed since the protocol began.
    """
    csv = folder / "split.csv"
    if not csv.exists():
        with new_directory(folder) as aside:
            write_catalog(aside / "split.csv", catalog.classes, catalog.clips)
        return csv
    then = read_catalog(csv)
    same = then.classes == catalog.classes and {(c.path, c.span, c.label, c.split) for c in then.clips} == {
        (absolute(c.path), c.span, c.label, c.split) for c in catalog.clips
    }
    if not same:
        raise DataError(
            f"{catalog.source}: the data, or the most shots, are not those that {csv} was made of; take another --out"
        )
    return csv


def refuse_overlap(train: Sequence[Clip], test: Sequence[Clip], what: str) -> None:
    """Raise if a test clip is also trained on: the same file under any name, or the same bytes.

    Time ranges of one video that do not overlap are different clips.

    Raises:
        DataError: the message names both clips.
    """
    by_file: dict[str, list[Clip]] = {}
    by_size: dict[int, set[str]] = {}
    for clip in train:
        file = real(clip.path)
        by_file.setdefault(file, []).append(clip)
        by_size.setdefault(size_of(file), set()).add(file)
    digests: dict[str, str] = {}

    def digest(file: str) -> str:
        if file not in digests:
            digests[file] = content_hash(file)[:DIGITS]
        return digests[file]

    for clip in test:
        file = real(clip.path)
        files = [file] if file in by_file else []
        alike = by_size.get(size_of(file), set()) - {file}
        files += [other for other in sorted(alike) if digest(other) == digest(file)]
        for same in (c for other in files for c in by_file[other] if _overlap(c, clip)):
            alias = f", as {same.name}" if same.name != clip.name else ""
            raise DataError(f"{what}: the test clip {clip.name} is also trained on{alias}; take it out of one of them")


def _overlap(one: Clip, other: Clip) -> bool:
    (a, b), (c, d) = ((start or 0.0, math.inf if end is None else end) for start, end in (one.span, other.span))
    return a < d and c < b


def shared_classes(source: Catalog, target: Catalog) -> list[str]:
    """Classes of ``target`` whose names ``source`` has too. They are not zero-shot classes."""
    known = {class_words(name).casefold() for name in source.classes}
    return [name for name in target.classes if class_words(name).casefold() in known]
