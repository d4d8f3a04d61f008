"""Kinetics-400/600/700: CSVs of label,youtube_id,time_start,time_end,split, or its JSON; videos by class or flat."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from msta.data.catalog import SPLITS, Catalog
from msta.data.decode import probe
from msta.data.exports import table_rows
from msta.data.layouts.parts import SPLIT_NAMES, Listed, Options, VideoFiles, gather, not_empty, places, seconds
from msta.data.text_tables import as_utf8
from msta.data.video_file import DecodeError
from msta.errors import DataError, in_short
from msta.notices import notice

FOLDERS = ("annotations", "kinetics400", "kinetics600", "kinetics700", "k400", "k600", "csv")
_COLUMNS = ("youtube_id", "time_start", "time_end")
_JSON = re.compile(r'"annotations":\s*\{[^{}]*"segment"')  # ActivityNet's annotations are lists


def looks_like(path: Path) -> bool:
    """Whether the folder has a CSV with these columns, or the JSON, or the path is such a file."""
    return next(_annotation_files([path] if path.is_file() else places(path, None, *FOLDERS)), None) is not None


def read(root: Path, options: Options) -> Catalog:
    """Classes in alphabetical order. The validation set is read as "test", because the field reports on it.

    A file ``id_000010_000020.mp4`` is the clip. A file ``id.mp4`` is the whole video, and the clip is a time range of
    it, unless the video is too short for that. If ``root`` is an annotation file, the videos are beside it.
    """
    where = [root] if root.is_file() else places(root, options.annotations, *FOLDERS)
    root = root.parent if root.is_file() else root
    rows: dict[tuple[str, str, float, float], tuple[str, str]] = {}  # (split, id, start, end) -> (label, place)
    for file in _annotation_files(where):
        found = list(_rows(file))
        not_empty(file, found)
        for place, split, label, video, start, end in found:
            if not label:  # as in some test lists
                continue
            known = rows.setdefault((split, video, start, end), (label, place))
            if known[0] != label:
                here, there = in_short(f"{video} is {label!r}"), in_short(known[0])
                raise DataError(f"{place}: {here} here and {there!r} in {known[1]}; the lists disagree")
    if not rows:
        raise DataError(f"{where[0]}: no CSV of {', '.join(_COLUMNS)} with labels; give its folder as data.annotations")
    if any(split == "val" for split, *_ in rows):
        if any(split == "test" for split, *_ in rows):
            notice(f"{root}: its test list is left out; Kinetics is measured on its validation set")
        rows = {key: row for key, row in rows.items() if key[0] != "test"}
    classes = sorted({label for label, _ in rows.values()})
    labels = {name: label for label, name in enumerate(classes)}
    files = VideoFiles(root)
    whole = _are_whole(files, rows)
    listed = []
    for (split, video, start, end), (label, _) in rows.items():
        kept = "train" if split == "train" else "test"
        trimmed = f"{video}_{int(start):06}_{int(end):06}"
        if video in whole:
            listed.append(Listed((video,), labels[label], kept, (start, end)))
        else:
            listed.append(Listed((trimmed, video), labels[label], kept))
    return gather(root, classes, listed, options.labels, files)


def _annotation_files(where: list[Path]) -> Iterator[Path]:
    """CSVs with Kinetics' columns and JSON files in its form, among or in these places."""
    every = ([place] if place.is_file() else sorted(place.glob("*.*")) for place in where)
    for file in itertools.chain.from_iterable(every):
        if file.suffix.lower() not in (".csv", ".json"):
            continue
        with file.open("rb") as stream:
            head = as_utf8(stream.read(2000)).decode(errors="replace")
        first = head.partition("\n")[0].lower()
        of_csv = file.suffix.lower() == ".csv" and all(column in first for column in _COLUMNS) and "path" not in first
        if of_csv or (file.suffix.lower() == ".json" and _JSON.search(head)):
            yield file


def _rows(file: Path) -> Iterator[tuple[str, str, str, str, float, float]]:
    """(place, split, label, id, start, end); some test lists have no labels."""
    columns: list[str] | None = None
    words = [word for word in SPLIT_NAMES if word in file.stem.lower()]
    by_name = SPLIT_NAMES[max(words, key=len)] if words else ""
    for line, row in table_rows(file):
        if columns is None:
            columns = [cell.strip().lower() for cell in row]
            continue
        place, cells = f"{file}, line {line}", dict(zip(columns, map(str.strip, row), strict=False))
        start, end = (seconds(place, cells.get(name, "")) for name in ("time_start", "time_end"))
        if not cells.get("youtube_id") or start is None or end is None or not 0 <= start < end:
            raise DataError(
                f"{place}: expected {', '.join(_COLUMNS)} with the start before the end, got {in_short(row)}"
            )
        split = cells.get("split", "").lower()
        if split and split not in SPLIT_NAMES:
            raise DataError(f"{place}: the split {in_short(split)!r} is none of {', '.join(SPLITS)}")
        if not (split or by_name):
            raise DataError(f"{place}: no split, and none in the file's name; add a column split")
        yield place, SPLIT_NAMES.get(split, by_name), cells.get("label", ""), cells["youtube_id"], start, end


def _are_whole(files: VideoFiles, rows: dict[tuple[str, str, float, float], tuple[str, str]]) -> set[str]:
    """Ids whose file is the whole video: all files that are named by the id alone, or none, judged by eight of them.

    Raises:
        DataError: some of the eight are whole, and some are cut.
    """
    alone = {}
    for _, video, start, end in rows:
        if files.find(f"{video}_{int(start):06}_{int(end):06}", "") is None and (path := files.find(video, "")):
            alone[video] = (path, start, end)
    long_enough = {}
    # A late start tells most: a whole video must be longer than that.
    for path, start, end in sorted(alone.values(), key=lambda one: -one[1])[:8]:
        with contextlib.suppress(DecodeError):
            long_enough[path] = probe(path).duration > end - start + 1
    if len(set(long_enough.values())) == 2:
        cut, whole = (
            next(path for path, long in long_enough.items() if long == is_whole) for is_whole in (False, True)
        )
        raise DataError(f"{cut}: a clip, while {whole} is a whole video; call clips ID_000010_000020, by their seconds")
    if not any(long_enough.values()):
        return set()
    notice(f"{files.root}: files called by their YouTube id alone are read as whole videos, and cut by time")
    return set(alone)
