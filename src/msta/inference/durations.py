"""What is said on a command line about time, and what adapters are called there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from msta.errors import ConfigError

_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}


def parse_seconds(text: str, option: str) -> float:
    """ "2s", "500ms", "1.5", "2m" -> seconds.

    Raises:
        ConfigError: anything else.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS:
        raise ConfigError(f"{option}: expected a time such as 2s or 500ms, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def short_names(adapters: Sequence[Path]) -> list[str]:
    """What to call them: their run's folder, where that tells them apart; else their path.

    Raises:
        ConfigError: one is given twice.
    """
    if len(set(adapters)) < len(adapters):
        raise ConfigError(f"--adapter: {next(a for a in adapters if adapters.count(a) > 1)} is given twice")
    names = [(a.parent if a.name == "adapter" else a).name for a in adapters]
    return names if len(set(names)) == len(names) and all(names) else [str(a) for a in adapters]
