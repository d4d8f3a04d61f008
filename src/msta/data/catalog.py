"""Catalog: which clips there are, of which class, in which split. ``layouts/`` reads it, this file says what it is."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from msta.data.storage import absolute, exists, shown
from msta.errors import DataError, is_text
from msta.notices import notice

SPLITS = ("train", "val", "test")

Span = tuple[float | None, float | None]
"""(start, end) in seconds from a video's first frame; None: its beginning, its end."""

WHOLE: Span = (None, None)


@dataclass(frozen=True, slots=True)
class Clip:
    """One labelled clip: a video file, or the time from ``start`` to ``end`` [s] of one.

    ``label`` indexes the catalog's classes; ``split`` is None where none is given.
    """

    path: str
    label: int
    split: str | None = None
    start: float | None = None
    end: float | None = None

    @property
    def span(self) -> Span:
        """What part of the file it is."""
        return self.start, self.end

    @property
    def name(self) -> str:
        """What tells it from every other clip: its path, and its time range if it has one."""
        path = shown(self.path)
        if not self.start and self.end is None:
            return path
        return f"{path} [{self.start or 0.0}-{'end' if self.end is None else self.end} s]"


@dataclass(frozen=True)
class Catalog:
    """A data set: class names as text, and clips. ``missing`` names what its lists have and its folder has not."""

    source: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...] = field(repr=False)
    missing: tuple[str, ...] = field(default=(), repr=False)

    @property
    def has_splits(self) -> bool:
        """Whether the data came with splits of its own."""
        return any(clip.split for clip in self.clips)

    def counts(self, split: str | None = None) -> list[int]:
        """Clips a class, of all splits or of one."""
        counter = Counter(clip.label for clip in self.clips if split in (None, clip.split))
        return [counter[i] for i in range(len(self.classes))]


def read_catalog(path: str | os.PathLike[str], layout: str | None = None, **options: Any) -> Catalog:
    """Read a data set.

    Args:
        path: a folder with a sub-folder a class, itself or inside ``train/``, ``val/``, ``test/``; a CSV or Parquet
            file with the columns path, label (or class) and, if there are any, split, start, end (paths relative to
            it); shards that ``msta data shard`` wrote, also by URL; the folder of a known data set; or a list of "path
            label". A ``classes.csv`` with ``id,name`` beside
            the classes says how they are called and in which order: an id is a folder's name or the label in the CSV.
        layout: a name of :data:`msta.data.layouts.LAYOUTS`. None: what the folder or file looks like.
        options: fields of :class:`msta.data.layouts.options.Options`, as far as the layout takes them.

    Raises:
        DataError: one line that names the file, folder, line or class at fault.
        ConfigError: no such layout, or an option it does not take.
    """
    from msta.data.layouts import read_layout  # the layouts are made of what is in this file

    path = Path(path).expanduser()
    try:
        catalog = read_layout(path, layout, options)
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror}") from error
    except UnicodeError as error:
        raise DataError(f"{path}: no UTF-8 text") from error
    # A name may be spelled with accents apart, as in archives made on a Mac; it is the same class.
    catalog = replace(catalog, classes=tuple(unicodedata.normalize("NFC", name) for name in catalog.classes))
    _check(catalog)
    if catalog.missing:
        notice(
            f"{catalog.source}: {len(catalog.missing)} of {len(catalog.missing) + len(catalog.clips)} listed clips are "
            f"not there and left out, {catalog.missing[0]} for one (msta data index lists them all)"
        )
    return catalog


def class_text(name: str) -> str:
    """A folder's name as words: ``swipe_left`` -> "swipe left", ``ApplyEyeMakeup`` -> "Apply Eye Makeup"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\-\s]+", " ", name))
    return words.strip() or name


def require_files(catalog: Catalog, sample: int = 32) -> None:
    """Refuse a catalog whose files have moved; one that lacks some is met file by file, when they are read.

    Raises:
        DataError: not one of ``sample`` clips' files, from all over the catalog, exists.
    """
    clips = catalog.clips
    chosen = clips[:: max(1, len(clips) // sample)]
    if chosen and not any(exists(clip.path) for clip in chosen):
        raise DataError(
            f"{catalog.source}: {chosen[0].name} does not exist, nor do {len(chosen) - 1} other files looked for; "
            "if the videos have moved, write the list again (msta data index) or move them back"
        )


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
        start, end = clip.start or 0.0, math.inf if clip.end is None else clip.end
        if not 0 <= start < end:
            raise DataError(f"{catalog.source}: {clip.name}: a range must begin at 0 s or later, and before it ends")
    for path, clips in _sharing_a_file(catalog.clips).items():
        if len(clips) > 1:
            _check_apart(catalog.source, path, clips)


def _sharing_a_file(clips: Sequence[Clip]) -> dict[str, list[Clip]]:
    """The clips of each file that several have. Hashes find them: a million paths would take twice the memory."""
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
    """Of one file no part may come twice, nor be in two splits."""
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


def write_catalog(path: Path, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    """Write what :func:`read_catalog` takes back: a CSV with absolute paths, and ``classes.csv`` beside it."""
    columns = ["path", "label", "split"]
    rows: Iterable[list[object]] = ([absolute(c.path), c.label, c.split or ""] for c in clips)
    if any(clip.span != WHOLE for clip in clips):
        columns += ["start", "end"]
        rows = ([*row, *("" if t is None else t for t in c.span)] for row, c in zip(rows, clips, strict=True))
    write_rows(path.with_name("classes.csv"), [("id", "name"), *enumerate(classes)])
    write_rows(path, chain([columns], rows))


def fingerprint(classes: Sequence[str], clips: Iterable[Clip]) -> str:
    """What tells a list of clips from any other: a SHA-256 of names, paths, labels, splits and time ranges."""
    digest = hashlib.sha256(json.dumps(list(classes)).encode())
    for clip in clips:
        digest.update(repr((absolute(clip.path), clip.label, clip.split, clip.span)).encode(errors="backslashreplace"))
    return digest.hexdigest()


def write_rows(file: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write a CSV; paths that are no UTF-8 keep their bytes."""
    with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
        csv.writer(stream).writerows(rows)
