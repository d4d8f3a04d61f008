"""Tables of clips: a CSV, or the Parquet file that ``msta data index`` writes."""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msta.data.catalog import SPLITS, Catalog, Clip
from msta.data.decode import probe
from msta.data.exports import file_of, table_rows
from msta.data.layouts.parts import (
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
        "classname", "class_id", "label_id", "choice", "choices",
    ),
    "split": ("split", "subset", "set", "partition", "usage"),
    "start": (
        "start", "start_time", "time_start", "t_start", "start_sec", "start_s", "begin", "from", "start_timestamp",
    ),
    "end": ("end", "end_time", "time_end", "t_end", "end_sec", "end_s", "stop", "to", "stop_time", "stop_timestamp",
            "end_timestamp"),
    "start_frame": ("start_frame", "first_frame", "frame_start", "begin_frame"),
    "end_frame": ("end_frame", "last_frame", "frame_end", "stop_frame"),
    "fold": ("fold", "kfold", "k_fold", "cv_fold", "fold_id"),
}  # fmt: skip
"""The columns of a table of clips, and the names that tools give them (Kinetics, Kaggle, Keras, Label Studio, CVAT)."""


def read_csv(path: Path, options: Options) -> Catalog:
    """Columns path and label (without a header, in this order); optionally split, start, end [s]."""
    if not path.is_file():
        raise DataError(f"{path}: a folder; the layout csv is read from a file")
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        raise DataError(f"{path}: a video; the data are a folder with a sub-folder for each class, or a table of clips")
    if options.labels is not None:
        names: dict[str, str] | None = given_classes(options.labels)
    else:
        names = read_classes(path.parent / "classes.csv") if path.name != "classes.csv" else None
    if names is None:
        found = sorted({row["label"] for _, row in _csv_cells(path)}, key=numbers_in_order)
        names = {label: class_words(label) for label in found}
    by_id = {key: label for label, key in enumerate(names)}
    by_id = {name: label for label, name in enumerate(names.values())} | by_id
    source = options.labels.name if options.labels else "classes.csv"
    known = f"{len(names)} of {source}"
    files = _Files(path)
    splits = _Splits(path, options.fold)
    clips = [_csv_clip(files, line, row, by_id, known, splits) for line, row in _csv_cells(path, tell=True)]
    if not clips:
        raise DataError(f"{path}: no clips in it")
    files.tell()
    splits.check()
    spelled = options.labels is not None or are_spelled(path.parent / "classes.csv")
    return Catalog(str(path), tuple(names.values()), tuple(clips), spelled=spelled)


def _csv_cells(path: Path, tell: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> cell) of every clip. It is read twice, so a file of a million rows is never in memory."""
    columns, first = {0: "path", 1: "label", 2: "split"}, True  # split may be missing
    width = 3
    for line, row in table_rows(path):
        if first:
            first = False
            found = as_columns(row, COLUMNS) or {}
            if "start" in found.values() or "end" in found.values():  # seconds are better than frames
                found = {i: column for i, column in found.items() if not column.endswith("_frame")}
            if "split" in found.values():
                found = {i: column for i, column in found.items() if column != "fold"}
            if {"path", "label"} <= set(found.values()):
                columns, width = found, len(row)
                if tell:
                    tell_columns(path, row, columns)
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


def _csv_clip(
    files: _Files, line: int, row: dict[str, str], labels: dict[str, int], known: str, splits: _Splits
) -> Clip:
    where = f"{files.table}, line {line}"
    text = row["label"]
    if not text:
        raise DataError(f"{where}: no label")
    label = labels.get(text)
    if label is None and is_number(text):  # 0.0, as spreadsheets write 0
        label = labels.get(f"{float(text):g}")
    if _is_json(text):
        raise DataError(f"{where}: expected one label, got {in_short(text)!r}; a clip is of one class")
    if label is None:
        raise DataError(f"{where}: the label {in_short(text)!r} is not among the {known}")
    split = splits.of(where, row)
    if not row["path"].strip(" \t"):
        raise DataError(f"{where}: no path")
    path = files.find(row["path"], text)
    start, end = (seconds(where, row.get(name, "")) for name in ("start", "end"))
    if "start_frame" in row or "end_frame" in row:
        frames = (seconds(where, row.get(name, "")) for name in ("start_frame", "end_frame"))
        start, end = (None if frame is None else frame / _frame_rate(path) for frame in frames)
    return Clip(path, label, split, start, end)


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
            raise DataError(f"{where}: the split {text!r} is none of {', '.join(SPLITS)}")
        return SPLIT_NAMES[text] if text else None

    def check(self) -> None:
        """Refuse folds if none was chosen to test on, or if the chosen one does not exist."""
        folds = sorted(self.folds, key=numbers_in_order)
        if self.fold == "none" or (self.fold is None and not folds):
            return
        if self.fold is None or _number(str(self.fold).lower()) not in map(_number, folds):
            if not folds:
                raise ConfigError(f"data.fold: {self.table} has no column fold")
            raise ConfigError(
                f"{self.table}: has the folds {in_short(', '.join(folds))}; data.fold={folds[0]} tests on that one and "
                "trains on the others, data.fold=none forgets them"
            )


def _number(text: str) -> str:
    """1.0 and 01 become 1."""
    return f"{float(text):g}" if is_number(text) else text


@functools.lru_cache(4096)
def _frame_rate(path: str) -> float:
    try:
        return probe(path).fps or 25.0
    except DecodeError:
        return 25.0  # met when it is read


class _Files:
    """The files that a table names: relative to it, absolute, URLs; or found by name below its folder.

    They are looked for by name if the first one is not at its path, or any one in the export of a tool.
    """

    def __init__(self, table: Path) -> None:
        self.table = table
        self.by_name: VideoFiles | None = None
        self.count = 0
        self.found: dict[str, str] = {}  # as written -> found elsewhere

    def find(self, name: str, label: str) -> str:
        """The path of a clip's file. If the file is not found, it is the path in the table."""
        path = beside_table(self.table, name)
        self.count += 1
        looks = self.count == 1 or self.table.suffix.lower() in (".json", ".xml")  # a CSV may have a million rows
        if self.by_name is None and looks and not exists(path):
            self.by_name = VideoFiles(self.table.parent)
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
    """A path in a table: absolute, a URL, or relative to the table."""
    if name.startswith("/") and "//" not in name and "/." not in name:
        return name  # as most of a million are
    if name != name.strip(" \t") and not os.path.exists(table.parent / name):
        name = name.strip(" \t")
    if "\\" in name and not os.path.exists(table.parent / name):  # written on Windows
        name = name.replace("\\", "/")
    return as_url(name) or str(table.parent / name)


def numbers_in_order(label: str) -> tuple[float, str]:
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
        of_clips = ("path", "label", "split", "start", "end")
        found = {i: column for i, column in (as_columns(names, COLUMNS) or {}).items() if column in of_clips}
        called = {column: names[i] for i, column in found.items()}
        named = next((name for name in names if name.lower() == "class"), called.get("label"))
        if "path" not in called or named is None:
            raise DataError(f"{path}: expected the columns path and class, found {', '.join(names)}")
        tell_columns(path, names, found)
        stored = (file.schema_arrow.metadata or {}).get(CLASSES_KEY)
        if stored:
            classes = json.loads(stored)
        else:
            texts = {str(t) for (t,) in _parquet_cells(file, [named]) if t is not None}
            classes = sorted(texts, key=numbers_in_order)
        labels = {name: label for label, name in enumerate(classes)}
        columns = [called["path"], named, *(called.get(name) for name in ("split", "start", "end"))]
        cells = enumerate(_parquet_cells(file, columns), 1)
        clips = [_parquet_clip(path, number, row, labels) for number, row in cells]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet file that can be read ({in_short(error)})") from error
    if not clips:
        raise DataError(f"{path}: no clips in it")
    return choose_classes(Catalog(str(path), tuple(classes), tuple(clips), spelled=bool(stored)), options.labels)


def _parquet_cells(file: Any, columns: Sequence[str | None]) -> Iterator[tuple[Any, ...]]:
    """Row by row, with a part of the file in memory at a time; None for a column that does not exist."""
    for batch in file.iter_batches(65536, columns=[name for name in columns if name is not None]):
        nothing = [None] * batch.num_rows
        yield from zip(*(nothing if name is None else batch[name].to_pylist() for name in columns), strict=True)


def _parquet_clip(table: Path, number: int, row: tuple[Any, ...], labels: dict[str, int]) -> Clip:
    name, text, split, start, end = row
    if not name or text is None:
        raise DataError(f"{table}, row {number}: no {'class' if name else 'path'}")
    label = labels.get(str(text))
    if label is None:
        what = f"{len(labels)} in the file's metadata"
        raise DataError(f"{table}, row {number}: the class {str(text)!r} is not among the {what}")
    split = str(split or "").lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(f"{table}, row {number}: the split {split!r} is none of {', '.join(SPLITS)}")
    times = (None if t is None else seconds(f"{table}, row {number}", str(t)) for t in (start, end))
    return Clip(beside_table(table, str(name)), label, SPLIT_NAMES.get(split), *times)
