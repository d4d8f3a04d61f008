"""Tables of clips: a CSV, or the Parquet file that ``msta data index`` writes."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from msta.data.catalog import SPLITS, Catalog, Clip
from msta.data.decode import probe
from msta.data.exports import file_of, table_rows
from msta.data.layouts.parts import (
    LONGEST_PATH,
    SPLIT_NAMES,
    Options,
    VideoFiles,
    are_spelled,
    choose_classes,
    given_classes,
    read_classes,
    seconds,
)
from msta.data.names import class_words, is_number
from msta.data.storage import as_url, exists
from msta.data.text_tables import as_columns, tell_columns
from msta.data.video_file import VIDEO_EXTENSIONS, DecodeError
from msta.errors import ConfigError, DataError, in_short
from msta.notices import notice

CLASSES_KEY = b"msta.classes"
"""The key in a Parquet file's metadata for the class names, in order, as JSON."""


def is_parquet(path: Path) -> bool:
    """Whether a file is Parquet, by its name."""
    return path.is_file() and path.suffix.lower() in (".parquet", ".pq")


# ---------------------------------------------------------------- CSV


COLUMNS = {
    "path": (
        "path", "file_path", "filepath", "video_path", "clip_path", "file", "filename", "file_name", "video",
        "video_file", "video_name", "video_url", "clip", "clip_name", "name", "uri", "url",
    ),
    "label": (
        "label", "class", "class_name", "label_name", "category", "action", "action_label", "activity", "tag", "target",
        "classname", "class_id", "label_id", "choice", "choices", "class_label", "gesture", "klasse",
    ),
    "split": ("split", "subset", "set", "partition", "usage"),
    "start": (
        "start", "start_time", "time_start", "t_start", "start_sec", "start_s", "begin", "from", "start_timestamp",
    ),
    "end": ("end", "end_time", "time_end", "t_end", "end_sec", "end_s", "stop", "to", "stop_time", "stop_timestamp",
            "end_timestamp"),
    "duration": ("duration", "duration_sec", "duration_s", "length", "length_sec", "length_s"),
    "start_frame": ("start_frame", "first_frame", "frame_start", "begin_frame"),
    "end_frame": ("end_frame", "last_frame", "frame_end", "stop_frame"),
    "fold": ("fold", "kfold", "k_fold", "cv_fold", "fold_id"),
}  # fmt: skip
"""The columns of a table of clips, and the names that tools give them (Kinetics, Kaggle, Keras, Label Studio, CVAT)."""

MISSING = frozenset(
    ("#N/A", "#N/A N/A", "#NA", "-NaN", "-nan", "<NA>", "N/A", "NA", "NULL", "NaN", "n/a", "nan", "null")
)
"""What pandas reads as an empty cell, but for None, which may be a class."""


def columns_of(header: Sequence[str]) -> dict[int, str]:
    """Position -> column of :data:`COLUMNS`, or ``class_name``, a column of names beside that of the labels.

    Seconds are better than frames, an end than a duration, a split than a fold.
    """
    found = as_columns(header, COLUMNS) or {}
    has = set(found.values())
    left_out = {"fold"} if "split" in has else set()
    left_out |= {"start_frame", "end_frame"} if has & {"start", "end"} else set()
    left_out |= {"duration"} if "end" in has or "start" not in has else set()
    found = {i: column for i, column in found.items() if column not in left_out}
    others = ["" if found.get(i) == "label" else cell for i, cell in enumerate(header)]
    names = as_columns(others, {"class_name": COLUMNS["label"]}) if "label" in has else None
    return dict(sorted(((names or {}) | found).items()))


def classes_of(source: Path, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Label -> name, in order, of the (label, name) in the rows of a table. Numbers of one value are one label.

    A label is its own name, unless the labels are numbers and each has one name of its own.
    """
    each: dict[str, tuple[str, set[str]]] = {}
    for label, name in sorted(pairs, key=lambda pair: _numbers_in_order(pair[0])):
        if label and label not in MISSING:
            each.setdefault(_number(label), (label, set()))[1].add(name)
    if "None" in each:
        notice(f"{source}: None, which Python writes for an empty cell, is a class; else take its rows out.")
    names = [name for _, some in each.values() for name in some]
    are_names = not any(not name or name in MISSING or is_number(name) for name in names)
    if are_names and all(map(is_number, each)) and len(each) == len(names) == len(set(names)):
        return {label: name for (label, _), name in zip(each.values(), names, strict=True)}
    return {label: label for label, _ in each.values()}


class Labels:
    """The index of the class that a cell means: by its id, its name, or the value of its number."""

    def __init__(self, names: Mapping[str, str], source: str) -> None:
        self.known = f"the {len(names)} of {source}"
        self.by_id = {_number(key): label for label, key in enumerate(names)}
        self.by_id |= {name: label for label, name in enumerate(names.values())}
        self.by_id |= {key: label for label, key in enumerate(names)}

    def of(self, where: str, text: str) -> int:
        """The index of the label ``text``. Raises DataError, with the place ``where``, if there is none."""
        label = self.by_id.get(text)
        if label is None and is_number(text):  # 0.0, as spreadsheets write 0
            label = self.by_id.get(_number(text))
        if label is None and (not text or text in MISSING):
            raise DataError(f"{where}: no label{f' but {text}' if text else ''}; write one, or take the row out")
        if _is_json(text):
            raise DataError(f"{where}: expected one label, got {in_short(text)!r}; a clip is of one class")
        if label is None:
            raise DataError(f"{where}: the label {in_short(text)!r} is not among {self.known}; the two disagree")
        return label


def read_csv(path: Path, options: Options) -> Catalog:
    """Columns path and label (without a header, in this order); optionally split, start, end [s]."""
    if not path.is_file():
        raise DataError(f"{path}: a folder; the layout csv is read from a file")
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        raise DataError(f"{path}: a video; the data are a folder with a sub-folder for each class, or a table of clips")
    named = False
    if options.labels is not None:
        names: dict[str, str] | None = given_classes(options.labels)
    else:
        names = read_classes(path.parent / "classes.csv") if path.name != "classes.csv" else None
    if names is None:
        found = classes_of(path, {(row["label"], row.get("class_name", "")) for _, row in _csv_cells(path)})
        named = any(label != name for label, name in found.items())
        names = {label: class_words(name) for label, name in found.items()}
    labels = Labels(names, options.labels.name if options.labels else "classes.csv")
    files = _Files(path)
    splits = _Splits(path, options.fold)
    clips = [
        _clip(f"{path}, line {line}", row, labels, splits, files)
        for line, row in _csv_cells(path, tell=True, named=named)
    ]
    if not clips:
        raise DataError(f"{path}: no clips in it")
    files.tell()
    splits.check()
    spelled = options.labels is not None or are_spelled(path.parent / "classes.csv")
    return Catalog(str(path), tuple(names.values()), tuple(clips), spelled=spelled)


def _csv_cells(path: Path, tell: bool = False, named: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> cell) of every clip. It is read twice, so a file of a million rows is never in memory.

    With ``tell``, notices say what the columns were taken for; ``named``: the column class_name is used.
    """
    columns, first = {0: "path", 1: "label", 2: "split"}, True  # split may be missing
    width = 3
    for line, row in table_rows(path):
        if first:
            first = False
            found = columns_of(row)
            if {"path", "label"} <= set(found.values()):
                columns, width = found, len(row)
                if tell:
                    tell_columns(path, row, {i: c for i, c in columns.items() if named or c != "class_name"})
                continue
            if found or not _is_a_clip(row):
                path_names, label_names = (", ".join(COLUMNS[column][1:7]) for column in ("path", "label"))
                raise DataError(
                    f"{path}: expected a column of paths and one of labels, found {in_short(', '.join(row))!r}; "
                    f"understood are path ({path_names} …), label ({label_names} …), split, start, end"
                )
        cells = {c: row[i] if c == "path" else row[i].strip() for i, c in columns.items() if i < len(row)}
        if len(row) > width or "path" not in cells or "label" not in cells:
            wanted = ",".join(columns.values())
            raise DataError(
                f"{path}, line {line}: expected {wanted}, separated by commas, got {in_short(','.join(row))!r}"
            )
        yield line, cells


def _is_a_clip(row: Sequence[str]) -> bool:
    """Whether the first row of a table may be a clip and not a header: its first cell looks like a video's path."""
    cell = row[0].strip()
    return not cell or os.path.splitext(cell)[1] != "" or "/" in cell or "\\" in cell or os.path.exists(cell)


def _is_json(text: str) -> bool:
    """Whether a cell holds a list or a record that is not empty. Labelling tools export several labels like this."""
    if not text.startswith(("{", "[")):
        return False
    try:
        return bool(json.loads(text))
    except ValueError:
        return False


def _clip(where: str, row: dict[str, str], labels: Labels, splits: _Splits, files: _Files) -> Clip:
    label = labels.of(where, row["label"])
    split = splits.of(where, row)
    if not row["path"].strip(" \t"):
        raise DataError(f"{where}: no path")
    path = files.find(row["path"], row["label"])
    start, end = times_in(where, row)
    if "start_frame" in row or "end_frame" in row:
        frames = (seconds(where, row.get(name, "")) for name in ("start_frame", "end_frame"))
        start, end = (None if frame is None else frame / _frame_rate(path) for frame in frames)
    return Clip(path, label, split, start, end)


def times_in(where: str, row: Mapping[str, str]) -> tuple[float | None, float | None]:
    """Start and end of a row's clip in seconds, None for what it does not say."""
    start, end, duration = (seconds(where, row.get(name, "")) for name in ("start", "end", "duration"))
    return start, end if duration is None else (start or 0.0) + duration


class _Splits:
    """The splits of a table's clips: from its column, or one fold to test on and the others to train on."""

    def __init__(self, table: Path, fold: int | str | None) -> None:
        self.table, self.fold = table, fold
        self.folds: dict[str, None] = {}

    def of(self, where: str, row: dict[str, str]) -> str | None:
        """The split of a clip."""
        text = row.get("split", row.get("fold", "")).lower()
        if "fold" in row and text not in SPLIT_NAMES:
            self.folds[text] = None
            if self.fold == "none":
                return None
            return "test" if _number(text) == _number(str(self.fold).lower()) else "train"
        if text and text not in SPLIT_NAMES:
            raise DataError(f"{where}: the split {in_short(text)!r} is none of {', '.join(SPLITS)}")
        return SPLIT_NAMES[text] if text else None

    def check(self) -> None:
        """Refuse folds if none was chosen to test on, or if the chosen one does not exist."""
        folds = sorted(self.folds, key=_numbers_in_order)
        if self.fold == "none" or (self.fold is None and not folds):
            return
        if self.fold is None or _number(str(self.fold).lower()) not in map(_number, folds):
            if not folds:
                raise ConfigError(f"data.fold: {self.table} has no column fold")
            raise ConfigError(
                f"{self.table}: has the folds {in_short(', '.join(folds))}; data.fold={in_short(folds[0])} tests on "
                "that one and trains on the others, data.fold=none forgets them"
            )


def _number(text: str) -> str:
    """1.0 and 01 become 1."""
    return format(Decimal(text).normalize(), "f") if is_number(text) else text


@functools.lru_cache(4096)
def _frame_rate(path: str) -> float:
    try:
        return probe(path).fps or 25.0
    except DecodeError:
        return 25.0  # met when it is read


class _Files:
    """The files that a table names: relative to it, absolute, URLs; or found by name below its folder.

    They are looked for by name, with ``look``, if the first is not at its path, or any one in the export of a tool.
    """

    def __init__(self, table: Path, look: bool = True) -> None:
        self.table, self.look = table, look
        self.by_name: VideoFiles | None = None
        self.count = 0
        self.found: dict[str, str] = {}  # as written -> found elsewhere

    def find(self, name: str, label: str) -> str:
        """The path of a clip's file. If the file is not found, it is the path in the table."""
        path = beside_table(self.table, name)
        self.count += 1
        if self.look and self.by_name is None:  # a CSV may have a million rows
            looks = self.count == 1 or self.table.suffix.lower() in (".json", ".xml")
            self.by_name = VideoFiles(self.table.parent) if looks and not exists(path) else None
        if self.by_name is None or exists(path):
            return path
        written = name.strip().replace("\\", "/")
        for one in dict.fromkeys((written, file_of(written))):
            if (file := self.by_name.find(one, label, sure=True)) is not None:
                self.found[name] = file
                return file
        return path

    def tell(self) -> None:
        """Give a notice of files that are not at their path."""
        if self.found:
            written, file = next(iter(self.found.items()))
            notice(
                f"{self.table}: {len(self.found)} paths are not there and were found by name, {written!r} as {file!r}."
            )


def beside_table(table: Path, name: str) -> str:
    """A path in a table: absolute, a URL, or relative to the table. Raises DataError if it is too long for a path."""
    if len(name) > LONGEST_PATH:
        raise DataError(f"{table}: a path of {len(name)} characters, {in_short(name)!r}; correct the table")
    if name.startswith("/") and "//" not in name and "/." not in name:
        return name  # as most of a million are
    if name != name.strip(" \t") and not os.path.exists(table.parent / name):
        name = name.strip(" \t")
    if "\\" in name and not os.path.exists(table.parent / name):  # written on Windows
        name = name.replace("\\", "/")
    return as_url(name) or str(table.parent / name)


def _numbers_in_order(label: str) -> tuple[float, str]:
    """A sort key: numbers by value, then names."""
    return (float(label), label) if is_number(label) else (math.inf, label)


# ---------------------------------------------------------------- Parquet


def read_parquet(path: Path, options: Options) -> Catalog:
    """Columns path and class or label; optionally split, start, end [s]. Names of columns are read as in a CSV."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        of_clips = ("path", "label", "class_name", "split", "start", "end", "duration")
        found = {i: column for i, column in columns_of(names).items() if column in of_clips}
        called = {column: names[i] for i, column in found.items()}
        if not {"path", "label"} <= called.keys():
            raise DataError(f"{path}: expected the columns path and class, found {in_short(', '.join(names))}")
        named = False
        stored = (file.schema_arrow.metadata or {}).get(CLASSES_KEY)
        if stored:
            classes = {name: name for name in json.loads(stored)}
        else:
            pairs = _parquet_cells(file, [called["label"], called.get("class_name", called["label"])])
            classes = classes_of(path, {(label, name) for label, name in pairs})
            named = any(label != name for label, name in classes.items())
        tell_columns(path, names, {i: c for i, c in found.items() if named or c != "class_name"})
        labels = Labels(classes, "the file's metadata")
        files, splits, rows = _Files(path, False), _Splits(path, None), _parquet_cells(file, list(called.values()))
        clips = [
            _clip(f"{path}, row {number}", dict(zip(called, row, strict=True)), labels, splits, files)
            for number, row in enumerate(rows, 1)
        ]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet file that can be read ({in_short(error)})") from error
    if not clips:
        raise DataError(f"{path}: no clips in it")
    return choose_classes(
        Catalog(str(path), tuple(classes.values()), tuple(clips), spelled=bool(stored)), options.labels
    )


def _parquet_cells(file: Any, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """The texts of the cells, row by row, with a part of the file in memory at a time."""
    for batch in file.iter_batches(65536, columns=list(dict.fromkeys(columns))):
        cells = (("" if cell is None else str(cell) for cell in batch[name].to_pylist()) for name in columns)
        yield from zip(*cells, strict=True)
