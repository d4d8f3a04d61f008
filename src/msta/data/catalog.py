"""Catalog: the clips of a data set, each with its class and split. ``reading.py`` reads one."""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from msta.data.names import class_words
from msta.data.storage import absolute, exists, shown
from msta.errors import DataError

SPLITS = ("train", "val", "test")

Span = tuple[float | None, float | None]
"""(start, end) in seconds from the first frame of a video; None: the beginning, the end."""

WHOLE: Span = (None, None)


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled clip: a video file, or the time from ``start`` to ``end`` [s] of one.

    ``label`` is an index into the catalog's classes; ``split`` is None if the data gives none.
    """

    path: str
    label: int
    split: str | None = None
    start: float | None = None
    end: float | None = None

    @property
    def span(self) -> Span:
        """The part of the file that the clip is."""
        return self.start, self.end

    @property
    def name(self) -> str:
        """A unique name: its path, and its time range if it has one."""
        path = shown(self.path)
        if not self.start and self.end is None:
            return path
        return f"{path} [{self.start or 0.0}-{'end' if self.end is None else self.end} s]"


@dataclass(frozen=True)
class Catalog:
    """A data set: class names as text, and clips.

    ``missing`` names the clips that the annotations list but the folder does not have. If ``spelled``, the user chose
    the spelling of the class names, and it is kept.
    """

    source: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...] = field(repr=False)
    missing: tuple[str, ...] = field(default=(), repr=False)
    spelled: bool = field(default=False, repr=False, compare=False)

    @property
    def has_splits(self) -> bool:
        """Whether the data has splits of its own."""
        return any(clip.split for clip in self.clips)

    def counts(self, split: str | None = None) -> list[int]:
        """Clips per class, of all splits or of one."""
        counter = Counter(clip.label for clip in self.clips if split in (None, clip.split))
        return [counter[i] for i in range(len(self.classes))]


def require_files(catalog: Catalog, sample: int = 32) -> None:
    """Refuse a catalog whose files have moved. If only some files are missing, reading reports each of them.

    Raises:
        DataError: none of ``sample`` clips, taken from all over the catalog, has its file.
    """
    clips = catalog.clips
    chosen = clips[:: max(1, len(clips) // sample)]
    if chosen and not any(exists(clip.path) for clip in chosen):
        raise DataError(
            f"{catalog.source}: {chosen[0].name} does not exist, nor do {len(chosen) - 1} other files looked for; "
            "if the videos have moved, write the list again (msta data index) or move them back"
        )


def write_catalog(path: Path, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    """Write a CSV of absolute paths and ``classes.csv``, which :func:`msta.data.reading.read_catalog` reads."""
    columns = ["path", "label", "split"]
    rows: Iterable[list[object]] = ([absolute(c.path), c.label, c.split or ""] for c in clips)
    if any(clip.span != WHOLE for clip in clips):
        columns += ["start", "end"]
        rows = ([*row, *("" if t is None else t for t in c.span)] for row, c in zip(rows, clips, strict=True))
    write_classes(path.with_name("classes.csv"), dict(enumerate(classes)))
    write_rows(path, chain([columns], rows))


def write_classes(file: Path, names: Mapping[Any, str]) -> None:
    """Write ``classes.csv``: id -> name. The column is ``spelling`` if reading a name as words would change it."""
    header = "name" if all(name == class_words(name) for name in names.values()) else "spelling"
    write_rows(file, [("id", header), *names.items()])


def fingerprint(classes: Sequence[str], clips: Iterable[Clip]) -> str:
    """A SHA-256 of names, paths, labels, splits and time ranges, which identifies a list of clips."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for clip in clips:
        digest.update(repr((absolute(clip.path), clip.label, clip.split, clip.span)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def write_parquet_rows(
    file: Path, columns: Mapping[str, str], rows: Iterable[Sequence[Any]], metadata: dict[bytes, bytes] | None = None
) -> None:
    """Write rows to a Parquet file, some at a time. ``columns``: name -> Arrow's name for its type.

    Raises:
        UnicodeEncodeError: a text is not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.type_for_alias(kind)) for name, kind in columns.items()], metadata=metadata)
    left = iter(rows)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while some := list(islice(left, 65536)):
            arrays = [pa.array(cells, kind) for cells, kind in zip(zip(*some, strict=True), schema.types, strict=True)]
            writer.write_table(pa.table(arrays, schema=schema))


def write_rows(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV. Paths that are not UTF-8 keep their bytes."""
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerows(rows)
