"""Saved states, from which a run continues after any interruption: one directory per save, RUN/checkpoints/step-N.

    adapter.safetensors  optimizer.pt  random.pt  best.safetensors  progress.json  manifest.json

A state is written to another name, flushed to the disk and renamed. manifest.json has the SHA-256 of the other files,
and reading checks them. The last two states are kept. If one is damaged, the one before it is used.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import random
import re
import shutil
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.errors import CheckpointError, in_short
from msta.files import sha256_of
from msta.notices import notice

KEPT = 2
_NAME = re.compile(r"step-(\d+)(?:\.(\d+))?")


@dataclass
class Progress:
    """The position of a run.

    Attributes:
        epoch: the current epoch, from 0; it ends with its validation.
        clips: clips of this epoch used so far, by all processes together: the position of the sampler.
        step: optimizer steps so far: the position of the schedule.
        seconds: spent in the loop so far.
        best: figures of the best checkpoint so far, with its "epoch"; empty before the first.
        failures: clips that could not be read, and why.
        given_up: clips that are not tried again, and why: the decoder hung or died.
        step_clips: clips per step, of all processes together.
        batch_size: clips that a process reads at a time.
        made_with: what the state depends on besides the settings: the backbone, and the inputs to the keys of the
            prefix cache.
        ended: whether a callback ended the training.
    """

    epoch: int = 0
    clips: int = 0
    step: int = 0
    seconds: float = 0.0
    best: dict[str, float] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    step_clips: int = 0
    batch_size: int = 0
    made_with: dict[str, Any] = field(default_factory=dict)
    ended: bool = False


@dataclass(frozen=True)
class State:
    """A saved state.

    Attributes:
        progress: the position of the run.
        adapter: weights.
        best: weights of the best checkpoint; None before the first.
        optimizer: its state, and that of the gradient scaler in fp16.
        random: for each process, the result of :func:`random_state`.
    """

    progress: Progress
    adapter: dict[str, Tensor]
    best: dict[str, Tensor] | None
    optimizer: dict[str, Any]
    random: list[dict[str, Any]]


def save_state(folder: Path, state: State) -> Path:
    """Write a state into a new directory in ``folder``, and remove all but the last two.

    Raises:
        CheckpointError: it cannot be written; the earlier states are kept.
    """
    kept = saved_states(folder)
    aside = folder / f".step.{os.getpid()}.part"
    try:
        _sweep(folder)
        aside.mkdir(parents=True)
        save_file(state.adapter, aside / "adapter.safetensors")
        if state.best is not None:
            save_file(state.best, aside / "best.safetensors")
        torch.save(state.optimizer, aside / "optimizer.pt")
        torch.save(state.random, aside / "random.pt")
        (aside / "progress.json").write_text(json.dumps(asdict(state.progress), indent=1))
        files = {file.name: sha256_of(file) for file in sorted(aside.iterdir())}
        (aside / "manifest.json").write_text(json.dumps({"format": "msta-state-1", "sha256": files}, indent=1))
        for path in (*aside.iterdir(), aside):
            _flush(path)
        target = _free_name(folder, state.progress.step)
        os.replace(aside, target)
        _flush(folder)
        for old in kept[KEPT - 1 :]:
            shutil.rmtree(old, ignore_errors=True)
        return target
    except (OSError, RuntimeError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        left = f"{kept[0].name} is kept" if kept else "there is none before it"
        raise CheckpointError(
            f"{folder}: cannot save step {state.progress.step} ({_why(error)}); {left}. "
            f"Make room, then go on with: msta train --resume {folder.parent}"
        ) from error


def saved_states(folder: Path) -> list[Path]:
    """The directories of states, newest first."""
    found = [(_NAME.fullmatch(path.name), path) for path in folder.glob("step-*")]
    ordered = [((int(m[1]), int(m[2] or 0)), path) for m, path in found if m]
    return [path for _, path in sorted(ordered, reverse=True)]


def read_progress(folder: Path) -> tuple[Path, Progress] | None:
    """The newest undamaged state, and its position; None if no state was saved.

    Raises:
        CheckpointError: all are damaged.
    """
    saved = saved_states(folder)
    faults = []
    for path in saved:
        fault = _fault(path)
        if fault is None:
            given = json.loads((path / "progress.json").read_text())
            known = {f.name for f in dataclasses.fields(Progress)}
            return path, Progress(**{name: value for name, value in given.items() if name in known})
        faults.append(f"{path}: {fault}")
        notice(f"Damaged, passed over for the state before it: {faults[-1]}")
    if faults:
        raise CheckpointError(f"{'; '.join(faults)}: cannot go on")
    return None


def load_state(path: Path, progress: Progress, model: AdaptedModel) -> State:
    """Read a state that :func:`read_progress` found, and put the weights into ``model``.

    Raises:
        CheckpointError: it belongs to another run, or cannot be read although its hashes match.
    """
    try:
        best = path / "best.safetensors"
        state = State(
            progress,
            load_file(path / "adapter.safetensors"),
            load_file(best) if best.exists() else None,
            torch.load(path / "optimizer.pt", map_location="cpu", weights_only=True),
            torch.load(path / "random.pt", map_location="cpu", weights_only=True),
        )
        model.load_adapter_state(state.adapter)
        return state
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (OSError, RuntimeError, EOFError, KeyError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot go on from it ({in_short(error)})") from error


def random_state() -> dict[str, Any]:
    """The state of every random generator in this process."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "torch": torch.get_rng_state(),
        "accelerator": _accelerator_state(),
        "numpy": [kind, torch.from_numpy(np.array(keys, dtype=np.int64)), *rest],
        "python": random.getstate(),
    }


def restore_random(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["torch"])
    if state["accelerator"].keys() == _accelerator_state().keys():
        for saved in state["accelerator"].values():
            torch.get_device_module().set_rng_state(saved)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))


def _accelerator_state() -> dict[str, torch.Tensor]:
    """The kind of this process's accelerator and the state of its generator; empty on a CPU."""
    kind = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return {kind.type: torch.get_device_module(kind).get_rng_state()} if kind else {}


class Pace:
    """Decides when to save: after so many seconds, or later if saving would take more than a twentieth of the time."""

    def __init__(self, every: float) -> None:
        self.every, self.last_save, self.took = every, time.monotonic(), 0.0

    def due(self) -> bool:
        """Whether a save is due."""
        return time.monotonic() - self.last_save >= max(self.every, 20 * self.took if self.every else 0)

    def saved(self, seconds: float) -> None:
        """Note that a state was saved just now, and how long it took."""
        self.took, self.last_save = seconds, time.monotonic()


def _free_name(folder: Path, step: int) -> Path:
    """step-N; or step-N.1 and so on for later states of the same step, such as after a validation."""
    found = (_NAME.fullmatch(path.name) for path in saved_states(folder))
    numbers = [int(m[2] or 0) for m in found if m and int(m[1]) == step]
    return folder / (f"step-{step}.{max(numbers) + 1}" if numbers else f"step-{step}")


def _fault(path: Path) -> str | None:
    """What is wrong with the files of a state; None if nothing is."""
    try:
        digests: dict[str, str] = json.loads((path / "manifest.json").read_text())["sha256"]
        for name, digest in digests.items():
            if sha256_of(path / name) != digest:
                return f"{name} is not what was written"
    except OSError as error:
        return f"{Path(error.filename or path).name}: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return "manifest.json is no manifest"
    return None if "progress.json" in digests else "manifest.json is no manifest"


def _sweep(folder: Path) -> None:
    """Remove what a kill left half-written."""
    for part in folder.glob(".step.*.part"):
        shutil.rmtree(part, ignore_errors=True)


def _flush(path: Path) -> None:
    """Write a file to the disk, so that a power cut does not leave its name without its content."""
    if sys.platform == "win32" and path.is_dir():  # which cannot be opened there
        return
    handle = os.open(path, os.O_RDWR if sys.platform == "win32" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _why(error: BaseException) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else in_short(error)
