"""Tables of clips: a CSV, or the Parquet file that ``msta data index`` writes."""

from __future__ import annotations

import json
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
    columns = ["path", "label", "split"]  # split may be missing
    rows: list[tuple[int, dict[str, str]]] = []
    for line, row in csv_rows(path):
        header = [cell.strip().lower() for cell in row]
        if not rows and "path" in header and {"label", "class"} & set(header):
            columns = header if "label" in header else ["label" if name == "class" else name for name in header]
            continue
        if not rows and len(header) > 1 and header[1] in ("label", "class"):
            raise DataError(f"{path}, line {line}: expected the columns path,label, found {','.join(row)!r}")
        cells = dict(zip(columns, row, strict=False))
        if len(row) > len(columns) or not {"path", "label"} <= cells.keys():
            raise DataError(f"{path}, line {line}: expected {','.join(columns)}, separated by commas, got {row}")
        rows.append((line, cells))
    if not rows:
        raise DataError(f"{path}: no clips in it")
    if names is None:
        found = sorted({row["label"].strip() for _, row in rows}, key=numbers_in_order)
        if all(label.isdecimal() for label in found):
            notice(f"{path}: labels are numbers and there is no classes.csv beside it; prompts will say the numbers.")
        names = {label: class_text(label) for label in found}
    by_id = {key: label for label, key in enumerate(names)}
    by_id = {name: label for label, name in enumerate(names.values())} | by_id
    source = options.labels.name if options.labels else "classes.csv"
    clips = [_csv_clip(path, line, row, by_id, f"{len(names)} of {source}") for line, row in rows]
    return Catalog(str(path), tuple(names.values()), tuple(clips))


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
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet file that can be read ({in_short(error)})") from error
    columns: dict[str, list[Any]] = {name.lower(): table[name].to_pylist() for name in table.column_names}
    named = columns.get("class", columns.get("label"))
    if "path" not in columns or named is None:
        raise DataError(f"{path}: expected the columns path and class, found {', '.join(table.column_names)}")
    if not named:
        raise DataError(f"{path}: no clips in it")
    for row, (file, name) in enumerate(zip(columns["path"], named, strict=True), 1):
        if not file or name is None:
            raise DataError(f"{path}, row {row}: no {'class' if file else 'path'}")
    texts = [str(name) for name in named]
    stored = (table.schema.metadata or {}).get(CLASSES_KEY)
    classes = json.loads(stored) if stored else sorted(set(texts), key=numbers_in_order)
    labels = {name: label for label, name in enumerate(classes)}
    clips = []
    nothing: list[Any] = [None] * len(texts)
    others = (columns.get(name, nothing) for name in ("split", "start", "end"))
    for row, (file, text, split, start, end) in enumerate(zip(columns["path"], texts, *others, strict=True), 1):
        where, split = f"{path}, row {row}", str(split or "").lower()
        if text not in labels:
            raise DataError(f"{where}: the class {text!r} is not among the {len(labels)} in the file's metadata")
        if split and split not in SPLIT_NAMES:
            raise DataError(f"{where}: the split {split!r} is none of {', '.join(SPLITS)}")
        times = [seconds(where, "" if time is None else str(time)) for time in (start, end)]
        clips.append(Clip(_beside(path, str(file)), labels[text], SPLIT_NAMES.get(split), *times))
    return choose_classes(Catalog(str(path), tuple(classes), tuple(clips)), options.labels)
