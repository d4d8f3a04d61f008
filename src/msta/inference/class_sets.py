"""Any set of classes to choose among, and when to choose none of them."""

from __future__ import annotations

import math
from pathlib import Path

from msta.descriptions.labels import read_labels
from msta.errors import ConfigError, DataError
from msta.files import read_json


def class_names(text: str) -> list[str]:
    """Names from a command line: "push,hug", or a file of them, see :func:`read_labels`.

    Raises:
        ConfigError: an empty name.
        DataError: a file that cannot be read, or without names.
    """
    if text.lower().endswith((".txt", ".csv", ".json")):
        return list(read_labels(Path(text).expanduser()))
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise ConfigError(f"--labels: an empty one in {text!r}")
    return names


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
