"""A training that is one of many: begun once, gone on with after a stop, never run again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from msta.config import RunConfig, read_config
from msta.errors import Interrupted, MSTAError
from msta.training.loop import train


def train_part(config: RunConfig, run: Path, console: Console) -> dict[str, Any]:
    """What is in ``run``/metrics.json, after as much training as that takes.

    Raises:
        MSTAError: ``run`` holds a run with other settings; :class:`Interrupted` after Ctrl-C.
    """
    begun = run / "config.yaml"
    if begun.exists() and read_config(begun) != config:
        raise MSTAError(f"{run}: was run with other settings; take another --out, or remove that folder")
    try:
        return train(config, run, console, resume=begun.exists())
    except Interrupted as error:
        raise Interrupted(f"Stopped in {run}, saved. The same command goes on from there.") from error
