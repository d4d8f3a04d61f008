"""Class names from whatever file has them."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msta.descriptions.bank import key
from msta.errors import DataError, is_text
from msta.files import read_json


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, in order.

    Args:
        path: ``classes.csv`` (id,name), a text file of one name a line, a JSON object of index -> name (or name ->
            anything); or a data set, a folder or table that :func:`msta.data.reading.read_catalog` reads.

    Raises:
        DataError: unreadable, no names in it, or two that read the same.
    """
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        names = _of_data(path)
    elif path.suffix.lower() == ".json":
        names = [_text(path, value, name) for name, value in read_json(path, DataError, unique=True).items()]
    else:
        names = _of_lines(path)
    names = [name.strip() for name in names]
    if not names:
        raise DataError(f"{path}: no class names in it")
    seen: dict[str, str] = {}
    for name in names:
        if not name or not is_text(name):
            raise DataError(f"{path}: a class name is empty or no text: {name!r}")
        if (same := seen.setdefault(key(name), name)) != name or names.count(name) > 1:
            raise DataError(f"{path}: two classes read the same: {same!r} and {name!r}")
    return tuple(names)


def _of_data(path: Path) -> Iterable[str]:
    from msta.data.reading import read_catalog  # PyAV comes with it

    return read_catalog(path).classes


def _of_lines(path: Path) -> Iterable[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: no UTF-8 text") from error
    try:
        rows = [row for row in csv.reader(lines, skipinitialspace=True) if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise DataError(f"{path}: {error}") from error
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    if "path" in header and "label" in header:
        return _of_data(path)
    if header != ["id", "name"]:
        return [line for line in lines if line.strip()]
    for row in rows[1:]:
        if len(row) != 2:
            raise DataError(f"{path}: expected id,name, got {','.join(row)!r}")
    return [name for _, name in rows[1:]]


def _text(path: Path, value: Any, name: str) -> str:
    """An object's value is the name if the key is an index, else the key is."""
    if not name.isdecimal():
        return name
    if not isinstance(value, str):
        raise DataError(f"{path}: expected the name of class {name}, found {type(value).__name__}")
    return value
