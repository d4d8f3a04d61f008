"""What a run needs to go on after any interruption: adapter, optimizer, and how far it got."""

from __future__ import annotations

import io
import pickle
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.optim import Optimizer

from msta.errors import CheckpointError, in_short
from msta.files import write_bytes
from msta.methods.base import AdaptedModel


@dataclass
class Progress:
    """How far a run got.

    Attributes:
        epoch: the epoch under way, from 0.
        batches: batches of it that are done.
        step: optimizer steps so far.
        seconds: spent in the loop so far.
        best: figures of the best checkpoint so far, with its "epoch"; empty before the first.
        failures: files that could not be read, and why.
    """

    epoch: int = 0
    batches: int = 0
    step: int = 0
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def save_state(path: Path, model: AdaptedModel, optimizer: Optimizer, progress: Progress) -> None:
    """Write everything to one file, aside, then rename."""
    buffer = io.BytesIO()
    state = {
        "adapter": model.adapter_state(),
        "optimizer": optimizer.state_dict(),
        "progress": asdict(progress),
    }
    torch.save(state, buffer)
    path.parent.mkdir(exist_ok=True)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path, model: AdaptedModel, optimizer: Optimizer) -> Progress:
    """Put a saved state back into ``model`` and ``optimizer``.

    Raises:
        CheckpointError: unreadable, damaged, or of another run.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_adapter_state(state["adapter"])
        optimizer.load_state_dict(state["optimizer"])
        return Progress(**state["progress"])
    except (
        OSError,
        RuntimeError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
        pickle.UnpicklingError,
    ) as error:
        raise CheckpointError(f"{path}: cannot go on from it ({in_short(error)})") from error
