"""Any set of classes to choose among, and when to choose none of them."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from msta.errors import ConfigError, DataError
from msta.files import read_json

_FILES = (".txt", ".csv")


def class_names(text: str) -> list[str]:
    """Names from a command line: "push,hug", or a file: .txt with a name a line, or .csv with ``id,name``.

    Raises:
        ConfigError: an empty name, or no file where one is named.
        DataError: a file without names.
    """
    if not text.lower().endswith(_FILES):
        names = [name.strip() for name in text.split(",")]
        if not all(names):
            raise ConfigError(f"--labels: an empty one in {text!r}")
        return names
    path = Path(text).expanduser()
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise ConfigError(f"--labels: {path}: {error.strerror}") from error
    except UnicodeError as error:
        raise DataError(f"{path}: no UTF-8 text") from error
    if path.suffix.lower() == ".csv":
        rows = [row for row in csv.reader(lines) if any(cell.strip() for cell in row)]
        if rows and [cell.strip().lower() for cell in rows[0]] == ["id", "name"]:
            rows = rows[1:]
        for number, row in enumerate(rows, 1):
            if len(row) != 2 or not row[1].strip():
                raise DataError(f"{path}: row {number}: expected id,name, got {','.join(row)!r}")
        lines = [row[1] for row in rows]
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(f"{path}: no names in it")
    return found


def unknown_threshold(text: str, adapter: Path | None) -> float:
    """The confidence below which a clip is of no known class: a number, or "val", what the adapter's run has chosen.

    Raises:
        ConfigError: neither, or no adapter that was validated.
    """
    if text == "val":
        if adapter is None:
            raise ConfigError(
                "--unknown-below val: goes with --adapter, whose validation clips chose it; give a number"
            )
        chosen = read_json(adapter / "metrics.json", DataError).get("unknown_below")
        if not isinstance(chosen, int | float):
            raise ConfigError(f"--unknown-below val: {adapter} was trained without validation clips; give a number")
        return float(chosen)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"--unknown-below: expected a probability from 0 to 1, or val, got {text!r}")
    return value
