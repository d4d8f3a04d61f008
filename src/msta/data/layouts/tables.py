"""Tables of clips: a CSV, or the Parquet file that ``msta data index`` writes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from msta.data.catalog import SPLITS, Catalog, Clip, class_text
from msta.data.layouts.options import Options
from msta.data.layouts.parts import SPLIT_NAMES, choose_classes, csv_rows, given_classes, read_classes, seconds
from msta.data.storage import as_url
from msta.errors import DataError, in_short
from msta.notices import notice

CLASSES_KEY = b"msta.classes"
"""Where a Parquet file's metadata hold the class names, in order, as JSON."""


def is_parquet(path: Path) -> bool:
    """By its name."""
    return path.is_file() and path.suffix.lower() in (".parquet", ".pq")


# ---------------------------------------------------------------- CSV


def read_csv(path: Path, options: Options) -> Catalog:
    """Columns path and label (or class), without a header in this order; split, start, end [s] if there are any."""
    if not path.is_file():
        raise DataError(f"{path}: a folder; the layout csv is read from a file")
    if options.labels is not None:
        names: dict[str, str] | None = given_classes(options.labels)
    else:
        names = read_classes(path.parent / "classes.csv") if path.name != "classes.csv" else None
    if names is None:
        found = sorted({row["label"].strip() for _, row in _csv_cells(path)}, key=numbers_in_order)
        if found and all(label.isdecimal() for label in found):
            notice(f"{path}: labels are numbers and there is no classes.csv beside it; prompts will say the numbers.")
        names = {label: class_text(label) for label in found}
    by_id = {key: label for label, key in enumerate(names)}
    by_id = {name: label for label, name in enumerate(names.values())} | by_id
    source = options.labels.name if options.labels else "classes.csv"
    known = f"{len(names)} of {source}"
    clips = [_csv_clip(path, line, row, by_id, known) for line, row in _csv_cells(path)]
    if not clips:
        raise DataError(f"{path}: no clips in it")
    return Catalog(str(path), tuple(names.values()), tuple(clips))


def _csv_cells(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, column -> cell) of every clip. Read twice, a file of a million is never in memory."""
    columns, first = ["path", "label", "split"], True  # split may be missing
    for line, row in csv_rows(path):
        if first:
            header = [cell.strip().lower() for cell in row]
            if "path" in header and {"label", "class"} & set(header):
                columns = header if "label" in header else ["label" if name == "class" else name for name in header]
                continue
            if len(header) > 1 and header[1] in ("label", "class"):
                raise DataError(f"{path}, line {line}: expected the columns path,label, found {','.join(row)!r}")
        first = False
        cells = dict(zip(columns, row, strict=False))
        if len(row) > len(columns) or "path" not in cells or "label" not in cells:
            raise DataError(f"{path}, line {line}: expected {','.join(columns)}, separated by commas, got {row}")
        yield line, cells


def _csv_clip(file: Path, line: int, row: dict[str, str], labels: dict[str, int], known: str) -> Clip:
    where = f"{file}, line {line}"
    label = labels.get(row["label"].strip())
    if label is None:
        raise DataError(f"{where}: the label {row['label'].strip()!r} is not among the {known}")
    split = row.get("split", "").strip().lower()
    if split and split not in SPLIT_NAMES:
        raise DataError(f"{where}: the split {split!r} is none of {', '.join(SPLITS)}")
    if not row["path"]:
        raise DataError(f"{where}: no path")
    start, end = (seconds(where, row.get(name, "")) for name in ("start", "end"))
    return Clip(_beside(file, row["path"]), label, SPLIT_NAMES[split] if split else None, start, end)


def _beside(table: Path, name: str) -> str:
    """A path in a table: absolute, a URL, or relative to the table."""
    if name.startswith("/") and "//" not in name and "/." not in name:
        return name  # as most of a million are
    return as_url(name) or str(table.parent / name)


def numbers_in_order(label: str) -> tuple[int, str]:
    """A sort key: numbers by value, then names."""
    return (int(label), "") if label.isdecimal() else (1 << 62, label)


# ---------------------------------------------------------------- Parquet


def read_parquet(path: Path, options: Options) -> Catalog:
    """Columns path and class (or label, as text); split, start, end [s] if there are any. Others are left alone."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        called = {name.lower(): name for name in file.schema_arrow.names}
        named = called.get("class", called.get("label"))
        if "path" not in called or named is None:
            raise DataError(f"{path}: expected the columns path and class, found {', '.join(called.values())}")
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
    return choose_classes(Catalog(str(path), tuple(classes), tuple(clips)), options.labels)


def _parquet_cells(file: Any, columns: Sequence[str | None]) -> Iterator[tuple[Any, ...]]:
    """Row by row, a part of the file in memory at a time; None for a column that it has not."""
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
    return Clip(_beside(table, str(name)), label, SPLIT_NAMES.get(split), *times)
