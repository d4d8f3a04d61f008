"""Tables in text files, with the separators, encodings and headers that people use."""

from __future__ import annotations

import codecs
import csv
import functools
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from msta.errors import DataError, in_short
from msta.notices import notice

_HEAD = 1 << 16
_SEPARATORS = ",;\t|"
_OURS = frozenset({"duration", "frames"})  # of `msta data index`, for people
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not blank.

    The separator is the one that Excel's line ``sep=;`` names; else the comma, semicolon, tab or bar, whichever is most
    frequent in the first line that is not blank. For the encoding see :func:`open_text`.

    Raises:
        DataError: the file is not text, or a row is not CSV.
    """
    with open_text(path) as file:
        head = next(filter(str.strip, file), "")
        file.seek(0)
        said = re.fullmatch("(?i:sep)=(.)\\s*", head)
        separator = said[1] if said else max(_SEPARATORS, key=head.count)  # the first of those that are equal
        reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
        try:
            for row in reader:
                if any(cell.strip() for cell in row) and row[0].lower() != "sep=":
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def open_text(path: Path) -> IO[str]:
    """Open a text file in its encoding: UTF-8, UTF-16, or Windows' cp1252, with a notice.

    Paths that are valid in none of them keep their bytes.

    Raises:
        DataError: it is binary.
        OSError: it cannot be read.
    """
    status = os.stat(path)
    encoding, errors = _encoding(path, status.st_mtime_ns, status.st_size)
    return open(path, encoding=encoding, errors=errors, newline="")


def as_utf8(content: bytes) -> bytes:
    """Bytes of UTF-8 or UTF-16, well enough to look for ASCII words in them: cheaper than :func:`open_text`."""
    return content.replace(b"\0", b"")


@functools.lru_cache(64)
def _encoding(path: Path, changed: int, size: int) -> tuple[str, str]:
    """The encoding of a file, and how to treat bytes that do not fit. Tables are read twice but examined once."""
    with open(path, "rb") as file:
        head = file.read(_HEAD)
    if head.startswith(_UTF16):
        return "utf-16", "strict"
    for encoding, high in (("utf-16-le", head[1::2]), ("utf-16-be", head[::2])):
        if high.count(0) * 2 > len(high) and not _has_controls(head.decode(encoding, "ignore")):
            return encoding, "strict"
    if b"\0" not in head and _is_utf8(path):
        return "utf-8-sig", "strict"
    if b"\0" in head or _has_controls(head.decode("latin-1")):
        raise DataError(f"{path}: a binary file; expected a table (CSV, JSON, Parquet), or a folder")
    if _names_files(path):  # whose names are no text in any encoding
        return "utf-8-sig", "surrogateescape"
    notice(f"{path}: is not UTF-8 text and is read as Windows' cp1252; save it as UTF-8 if names come out wrong.")
    return "cp1252", "replace"


def _has_controls(text: str) -> bool:
    return sum(c < "\t" or "\r" < c < " " for c in text) > len(text) // 50


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
        at = next((at for name in names if name in cells and (at := cells.index(name)) not in found), None)
        if at is not None:
            found[at] = column
    return dict(sorted(found.items())) or None


def tell_columns(path: Path, header: Sequence[str], columns: dict[int, str]) -> None:
    """Give a notice of what each column was taken for, unless that is obvious, and of the columns that are ignored."""
    taken = [
        f"{header[i].strip()} as {column}"
        for i, column in columns.items()
        if header[i].strip().lower() not in (column, "class")
    ]
    ours = _OURS if "end" in columns.values() or "start" not in columns.values() else frozenset[str]()
    known = {*columns, *(i for i, cell in enumerate(header) if cell.strip().lower() in ours)}
    ignored = [cell.strip() for i, cell in enumerate(header) if i not in known and cell.strip()]
    said = ([f"takes {', '.join(taken)}"] if taken else []) + ([f"ignores {', '.join(ignored)}"] if ignored else [])
    if said:
        every = ", ".join(cell.strip() for cell in header)
        notice(f"{path}: of the columns {in_short(every)} it {in_short(' and '.join(said))}.")
