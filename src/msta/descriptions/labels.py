"""Read class names from any file that has them."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from msta.data.exports import read_json_text
from msta.data.folders import is_video
from msta.data.layouts.parts import LONGEST_NAME, class_table
from msta.data.layouts.tables import COLUMNS
from msta.data.names import is_number, notice_numbers, read_as_words
from msta.data.text_tables import as_columns, csv_rows, open_text, tell_columns
from msta.descriptions.bank import key
from msta.errors import ConfigError, DataError, in_short, is_text

_LISTS = ("id2label", "label2id", "names", "classes", "class_names", "labels", "label_names", "categories")
"""The keys under which the JSON and YAML files of others have the class names, the best first."""
_BETWEEN = r"\s_#*+,./:;<=>@\\^|~\u2013\u2014\u2192-"
_INDEXED = (
    (r"(?P<index>\d+)[.):]*\s+(?P<name>\w.*)", False),
    (rf"\W*(?P<index>\d+)[)\]}}{_BETWEEN}]+(?P<name>.+)", True),
    (rf"(?P<name>.+?)[(\[{{{_BETWEEN}]+(?P<index>\d+)\W*", True),
)
"""Lines with an index before or after the name, and whether the indices must be 0, 1, 2 … or 1, 2, 3 …"""


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
        DataError: the file does not exist, cannot be read or has no names; or two names read the same.
    """
    path = Path(text).expanduser()
    like_a_file = r"(?i).*\.(txt|csv|tsv|json|parquet)|[^,;]*\.[a-z]\w+"
    if text.strip() and (os.path.exists(path) or re.fullmatch(like_a_file, text)):
        return read_labels(path)
    written = text.split("," if "," in text else ";")
    if not all(name.strip() for name in written):
        raise ConfigError(
            f"--labels: an empty name in '{text.strip() and in_short(text)}'; give names, or a file of them"
        )
    return given_names(written, "--labels")


def _distinct(names: Iterable[str], source: str) -> tuple[str, ...]:
    """The names, after a check that there are some, none is empty, and no two read the same."""
    written = tuple(name.strip() for name in names)
    if not written:
        raise DataError(f"{source}: no class names in it")
    seen: dict[str, str] = {}
    for name in written:
        if not name or not is_text(name) or len(name) > LONGEST_NAME:
            raise DataError(f"{source}: a class name is empty, too long or no text: '{name and in_short(name)}'")
        if (same := seen.setdefault(key(name), name)) != name or written.count(name) > 1:
            both = f"{in_short(same)!r} and {in_short(name)!r}"
            raise DataError(f"{source}: two classes read the same, or one is there twice: {both}")
    return written


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names, in the order of their indices if there are such, else as they come.

    Args:
        path: a table with a column of names, such as ``classes.csv`` (id,name; other headers, separators and orders are
            understood); a text file with one name per line, numbered or not; JSON or YAML with a list of names, a list
            of records, or an object of index -> name, name -> index, or name -> anything, itself or under a key such as
            ``names`` or ``id2label``; or a data set, which is a folder or table that
            :func:`msta.data.reading.read_catalog` reads.

    Raises:
        DataError: the file cannot be read or has no names, or two names read the same.
    """
    if path.is_dir() or path.suffix.lower() in (".parquet", ".pq"):
        return _distinct(_of_data(path), str(path))
    try:
        content = _content(path)
        names = _of_lines(path) if content is None else _of_content(path, content)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error
    return given_names(names, str(path))


def _content(path: Path) -> Any:
    """What a file of JSON or YAML holds; None for another text."""
    suffix = path.suffix.lower()
    with open_text(path) as file:
        if suffix in (".yaml", ".yml"):
            try:
                return yaml.load(file, yaml.BaseLoader) or []  # in which "no" is a text
            except yaml.YAMLError as error:
                raise DataError(f"{path}: no valid YAML ({in_short(error)})") from error
        head = file.read(200).lstrip()
    if suffix in (".json", ".jsonl", ".ndjson"):
        return read_json_text(path, unique=True)
    with contextlib.suppress(DataError):
        return read_json_text(path, unique=True) if head.startswith(("{", "[")) else None
    return None


def _of_content(path: Path, content: Any) -> Iterable[str]:
    if isinstance(content, dict):
        inner = next((content[name] for name in _LISTS if isinstance(content.get(name), (dict, list))), None)
        if inner is not None:
            return _of_content(path, inner)
        pairs = [(name, _text(path, value, name)) for name, value in content.items()]
        if not any(name.isdecimal() for name in content):  # name -> index, or anything
            pairs = [(str(value), name) for name, value in content.items()]
        return _by_index(pairs)
    if isinstance(content, list) and all(isinstance(name, str) for name in content):
        return content
    if isinstance(content, list) and all(isinstance(record, dict) for record in content):
        header = list(dict.fromkeys(name for record in content for name in record))
        names = _of_table(path, [header, *([str(record.get(name, "")) for name in header] for record in content)])
        if names is not None:
            return names
    raise DataError(f"{path}: expected class names: a list, records of id and name, or a JSON object of index -> name")


def _by_index(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Names of (index, name), in the order of the indices if these are 0, 1, 2 … or 1, 2, 3 …, else as they come."""
    numbers = [float(index) if index.strip().isdecimal() else -1 for index, _ in pairs]
    if sorted(numbers) in (list(range(len(pairs))), list(range(1, len(pairs) + 1))):
        return [name for _, (_, name) in sorted(zip(numbers, pairs, strict=True))]
    return [name for _, name in pairs]


def _of_data(path: Path) -> Iterable[str]:
    from msta.data.reading import read_catalog  # PyAV comes with it

    return read_catalog(path).classes


def _of_lines(path: Path) -> Iterable[str]:
    rows = [row for _, row in csv_rows(path) if not row[0].lstrip().startswith("#")]
    if not rows:
        return []
    names = _of_table(path, rows)
    if names is not None:
        return names
    if len(rows) == 1 and len(rows[0]) > 1 and not _is_one_name(path):  # push,pull,wave
        return rows[0]
    if all(len(row) == 1 for row in rows):
        lines = [row[0].strip() for row in rows]
    elif path.suffix.lower() in (".csv", ".tsv"):
        raise DataError(
            f"{path}: expected one name per line, or the columns id,name, found {in_short(', '.join(rows[0]))!r}"
        )
    else:  # a text file whose names hold commas
        with open_text(path) as file:
            lines = [line.strip() for line in file if line.strip() and not line.lstrip().startswith("#")]
    if odd := next((line for line in lines if line.endswith("{") or line.startswith("<")), None):
        raise DataError(f"{path}: expected one class name per line, found {in_short(odd)!r}; write a CSV of id,name")
    return _without_index(lines)


def _of_table(path: Path, rows: Sequence[Sequence[str]]) -> Iterable[str] | None:
    """The names in rows with a header, or of two columns of which one is numbers; None for other rows."""
    columns, headed = class_table(rows, needed=1)
    clips = {column: i for i, column in (as_columns(rows[0], COLUMNS) or {}).items()}
    if {"path", "label"} <= clips.keys():
        ids = [row[columns["id"]] for row in rows if "id" in columns and len(row) > columns["id"]]
        files = [row[clips["path"]] for row in rows if len(row) > clips["path"]]
        if "id" not in columns or len(set(ids)) < len(ids) or any(map(is_video, files)):
            return _of_data(path)
    if not headed and not all(len(row) == 2 and is_number(row[columns["id"]]) for row in rows):
        return None
    if headed:
        tell_columns(path, rows[0], {i: column for column, i in columns.items()})
    index, at = columns.get("id", -1), columns["name"]
    if short := next((row for row in rows if len(row) <= at), None):
        raise DataError(f"{path}: expected {in_short(','.join(rows[0]))}, got {in_short(','.join(short))!r}")
    return _by_index([(row[index] if 0 <= index < len(row) else "", row[at]) for row in rows[headed:]])


def _without_index(lines: Sequence[str]) -> list[str]:
    """The names in lines that all begin with an index, or all end with one, in their order; else the lines."""
    for pattern, in_turn in _INDEXED:
        found = [match for line in lines if (match := re.fullmatch(pattern, line))]
        indices, names = [float(match["index"]) for match in found], {match["name"] for match in found}
        runs = sorted(indices) in (list(range(len(lines))), list(range(1, len(lines) + 1)))
        if len(names) == len(set(indices)) == len(lines) and (runs or not in_turn) and not any(map(is_number, names)):
            return _by_index([(match["index"], match["name"]) for match in found])
    return list(lines)


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
