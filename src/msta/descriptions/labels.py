"""Read class names from any file that has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msta.data.layouts.parts import CLASS_COLUMNS
from msta.data.layouts.tables import COLUMNS
from msta.data.names import is_number, notice_numbers, read_as_words
from msta.data.text_tables import as_columns, csv_rows, open_text, tell_columns
from msta.descriptions.bank import key
from msta.errors import ConfigError, DataError, in_short, is_text
from msta.files import read_json


def given_names(names: Iterable[str], source: str) -> tuple[str, ...]:
    """Class names that a user typed, as words (see :func:`msta.data.names.class_words`).

    Args:
        names: in order.
        source: a file or an option, for messages.

    Raises:
        DataError: there is no name, a name is empty, or two read the same.
    """
    words = read_as_words(_distinct(names, source), source)
    notice_numbers(source, words, "write what is to be seen")
    return words


def named_classes(text: str) -> tuple[str, ...]:
    """Class names, as words, from the argument of ``--labels``: names ("push,hug"), or what :func:`read_labels` reads.

    Raises:
        ConfigError: a name is empty.
        DataError: the file cannot be read or has no names, or two names read the same.
    """
    path = Path(text).expanduser()
    if text.lower().endswith((".txt", ".csv", ".tsv", ".json", ".parquet")) or path.is_dir():
        return read_labels(path)
    written = text.split("," if "," in text else ";")
    if not all(name.strip() for name in written):
        raise ConfigError(f"--labels: an empty one in {text!r}")
    return given_names(written, "--labels")


def _distinct(names: Iterable[str], source: str) -> tuple[str, ...]:
    """The names, after a check that there are some, none is empty, and no two read the same."""
    written = tuple(name.strip() for name in names)
    if not written:
        raise DataError(f"{source}: no class names in it")
    seen: dict[str, str] = {}
    for name in written:
        if not name or not is_text(name):
            raise DataError(f"{source}: a class name is empty or no text: {name!r}")
        if (same := seen.setdefault(key(name), name)) != name or written.count(name) > 1:
            raise DataError(f"{source}: two classes read the same, or one is there twice: {same!r} and {name!r}")
    return written


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, in the order of their indices if there are such, else as they come.

    Args:
        path: a table with a column of names, such as ``classes.csv`` (id,name; other headers, separators and orders are
            understood); a text file with one name per line, numbered or not; a JSON object of index -> name, name ->
            index, or name -> anything; an adapter's ``classes.json``; or a data set, which is a folder or table that
            :func:`msta.data.reading.read_catalog` reads.

    Raises:
        DataError: the file cannot be read or has no names, or two names read the same.
    """
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        return _distinct(_of_data(path), str(path))
    return given_names(_of_json(path) if path.suffix.lower() == ".json" else _of_lines(path), str(path))


def _of_json(path: Path) -> list[str]:
    content = read_json(path, DataError, unique=True)
    own = content.get("names")
    if isinstance(own, list) and all(isinstance(name, str) for name in own):  # an adapter's
        return own
    pairs = [(name, _text(path, value, name)) for name, value in content.items()]
    if not any(name.isdecimal() for name in content):  # name -> index, or anything
        pairs = [(str(value), name) for name, value in content.items()]
    return _by_index(pairs)


def _by_index(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names of (index, name), in the order of the indices if these are 0, 1, 2 … or 1, 2, 3 …, else as they come."""
    numbers = [int(index) if index.strip().isdecimal() else -1 for index, _ in pairs]
    if sorted(numbers) in (list(range(len(pairs))), list(range(1, len(pairs) + 1))):
        return [name for _, (_, name) in sorted(zip(numbers, pairs, strict=True))]
    return [name for _, name in pairs]


def _of_data(path: Path) -> Iterable[str]:
    from msta.data.reading import read_catalog  # PyAV comes with it

    return read_catalog(path).classes


def _of_lines(path: Path) -> Iterable[str]:
    try:
        rows = [row for _, row in csv_rows(path) if not row[0].lstrip().startswith("#")]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    if not rows:
        return []
    columns: dict[int, str] = as_columns(rows[0], CLASS_COLUMNS) or {}
    clips: dict[int, str] = as_columns(rows[0], COLUMNS) or {}
    if {"path", "label"} <= set(clips.values()) and len(columns) < 2:
        return _of_data(path)
    if "name" in columns.values() and (len(rows[0]) > 1 or len(rows) > 1):
        at = next(i for i, column in columns.items() if column == "name")
        tell_columns(path, rows[0], columns)
        short = next((row for row in rows[1:] if len(row) <= at), None)
        if short:
            raise DataError(f"{path}: expected {','.join(rows[0])}, got {in_short(','.join(short))!r}")
        index = next((i for i, column in columns.items() if column == "id"), None)
        return _by_index([("" if index is None or index >= len(row) else row[index], row[at]) for row in rows[1:]])
    if all(len(row) == 2 and is_number(row[0]) for row in rows):  # 0,push
        return _by_index([(row[0], row[1]) for row in rows])
    if len(rows) == 1 and len(rows[0]) > 1 and not _is_one_name(path):  # push,pull,wave
        return rows[0]
    if all(len(row) == 1 for row in rows):
        lines = [row[0].strip() for row in rows]
        numbered = [line.split(None, 1) for line in lines]
        if all(len(words) == 2 and words[0].rstrip(".):").isdecimal() for words in numbered):  # 0 push
            return _by_index([(words[0].rstrip(".):"), words[1]) for words in numbered])
        return lines
    if path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(
            f"{path}: expected one name per line, or the columns id,name, found {in_short(', '.join(rows[0]))!r}"
        )
    with open_text(path) as file:  # a text file whose names hold commas
        return [line.strip() for line in file if line.strip() and not line.lstrip().startswith("#")]


def _is_one_name(path: Path) -> bool:
    """Whether the only line of a text file is one name with commas, as in "putting something, something and so on"."""
    with open_text(path) as file:
        return path.suffix.lower() not in (".csv", ".tsv") and ", " in file.read()


def _text(path: Path, value: Any, name: str) -> str:
    """The name in an entry of an object: the value if the key is an index, else the key."""
    if not name.isdecimal():
        return name
    if not isinstance(value, str):
        raise DataError(f"{path}: expected the name of class {name}, found {type(value).__name__}")
    return value
