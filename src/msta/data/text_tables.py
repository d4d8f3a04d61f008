"""Tables in text files, with the separators, encodings and headers that people use."""

from __future__ import annotations

import codecs
import csv
import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from msta.errors import DataError
from msta.notices import notice

_HEAD = 1 << 16
_SEPARATORS = ",;\t"
_OURS = frozenset({"duration", "frames"})  # of `msta data index`, for people
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not blank.

    The separator is the comma, semicolon or tab, whichever is most frequent in the first line. The encoding is UTF-8,
    UTF-16 if the file begins with its mark, or Windows' cp1252, with a notice. Paths that are valid in none of them
    keep their bytes.

    Raises:
        DataError: the file is not text, or a row is not CSV.
    """
    with open_text(path) as file:
        head = file.readline()
        file.seek(0)
        separator = max(_SEPARATORS, key=lambda s: (head.count(s), -_SEPARATORS.index(s)))
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def open_text(path: Path) -> IO[str]:
    """Open a text file in its encoding.

    Raises:
        DataError: it is binary.
        OSError: it cannot be read.
    """
    status = os.stat(path)
    encoding, errors = _encoding(path, status.st_mtime_ns, status.st_size)
    return open(path, encoding=encoding, errors=errors, newline="")


@functools.lru_cache(64)
def _encoding(path: Path, changed: int, size: int) -> tuple[str, str]:
    """The encoding of a file, and how to treat bytes that do not fit. Tables are read twice but examined once."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_UTF16):
        return "utf-16", "strict"
    has_nulls = b"\0" in head
    if not has_nulls and _is_utf8(path):
        return "utf-8-sig", "strict"
    if has_nulls or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 50:
        raise DataError(f"{path}: a binary file; expected a folder of clips, or a table (CSV, Parquet)")
    if _names_files(path):  # whose names are no text in any encoding
        return "utf-8-sig", "surrogateescape"
    notice(f"{path}: is not UTF-8 text and is read as Windows' cp1252; save it as UTF-8 if names come out wrong.")
    return "cp1252", "replace"


def _is_utf8(path: Path) -> bool:
    try:
        with open(path, encoding="utf-8", newline="") as file:
            while file.read(_HEAD):
                pass
    except UnicodeDecodeError:
        return False
    return True


def _names_files(path: Path) -> bool:
    """Whether a first cell, taken as bytes, is the name of a file: beside the table, or anywhere."""
    with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        for line in file:
            cell = next(csv.reader([line.strip()]), [""])[0] if not line.isascii() else ""
            odd = any("\udc80" <= c <= "\udcff" for c in cell)
            if odd and os.path.exists(os.path.join(path.parent, cell)):
                return True
    return False


def as_columns(header: Sequence[str], known: Mapping[str, tuple[str, ...]]) -> dict[int, str] | None:
    """The ``known`` column that each cell of a header names: position -> column.

    Args:
        header: the first row.
        known: column -> its possible names, in lower case, the best first.

    Returns:
        None if no cell of the row names a column. If several name one column, the best name counts.
    """
    cells = [cell.strip().lower().replace(" ", "_").replace("-", "_") for cell in header]
    found: dict[int, str] = {}
    for column, names in known.items():
        at = next((cells.index(name) for name in names if name in cells), None)
        if at is not None and at not in found:
            found[at] = column
    return dict(sorted(found.items())) or None


def tell_columns(path: Path, header: Sequence[str], columns: dict[int, str]) -> None:
    """Give a notice of what each column was taken for, unless that is obvious, and of the columns that are ignored."""
    taken = [
        f"{header[i].strip()} as {column}"
        for i, column in columns.items()
        if header[i].strip().lower() not in (column, "class")
    ]
    known = {*columns, *(i for i, cell in enumerate(header) if cell.strip().lower() in _OURS)}
    ignored = [cell.strip() for i, cell in enumerate(header) if i not in known and cell.strip()]
    said = ([f"takes {', '.join(taken)}"] if taken else []) + ([f"ignores {', '.join(ignored)}"] if ignored else [])
    if said:
        notice(f"{path}: of the columns {', '.join(cell.strip() for cell in header)} it {' and '.join(said)}.")
