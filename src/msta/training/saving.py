"""Save and restore a run's state, in the form of :mod:`msta.training.state`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.data.clips import Failures
from msta.errors import CheckpointError, Interrupted
from msta.training.batches import Source
from msta.training.processes import Processes
from msta.training.state import Progress, State, load_state, random_state, restore_random, save_state

if TYPE_CHECKING:
    from msta.training.run import Run


def save(run: Run) -> None:
    """Save everything that the next step depends on."""
    progress, processes, start = run.progress, run.processes, time.monotonic()
    progress.seconds = run.clock.seconds()
    datasets = run.source.datasets.values()
    given_up = {dataset.clips[i].name: why for dataset in datasets for i, why in dataset.given_up.items()}
    everybody = processes.gather((random_state(), run.failures.reasons, given_up))
    for _, failures, others_given_up in everybody:
        run.failures.add(failures.items())
        progress.given_up |= others_given_up
    progress.failures = dict(run.failures.reasons)
    if processes.main:
        scaler = processes.accelerator.scaler
        optimizer = {"optimizer": run.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}
        state = State(progress, run.model.adapter_state(), run.best, optimizer, [each[0] for each in everybody])
        with run.clock.elsewhere():
            save_state(run.out / "checkpoints", state)
    run.pace.saved(time.monotonic() - start)
    run.status.tell(saved=progress.step, save_seconds=round(run.pace.took, 4))


def restore(
    saved: tuple[Path, Progress],
    model: AdaptedModel,
    source: Source,
    optimizer: Any,
    failures: Failures,
    processes: Processes,
) -> tuple[Progress, dict[str, Tensor] | None]:
    """Restore a saved state. Returns the position of the run, and its best weights.

    Raises:
        CheckpointError: the state belongs to another run, or cannot be read.
    """
    path, progress = saved
    state = load_state(path, progress, model)
    now = made_with(model, source)
    if progress.made_with != now:
        raise CheckpointError(f"{path}: was made with {progress.made_with}, not {now}")
    try:
        optimizer.load_state_dict(state.optimizer["optimizer"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot go on from it ({error})") from error
    if processes.accelerator.scaler and state.optimizer["scaler"]:
        processes.accelerator.scaler.load_state_dict(state.optimizer["scaler"])
    if processes.rank < len(state.random):
        restore_random(state.random[processes.rank])
    source.batch_size = min(progress.batch_size, source.batch_size)
    failures.reasons.update(progress.failures)
    given_up = progress.given_up
    for dataset in source.datasets.values():
        dataset.given_up |= {i: given_up[c.name] for i, c in enumerate(dataset.clips) if c.name in given_up}
    return progress, state.best


def made_with(model: AdaptedModel, source: Source) -> dict[str, Any]:
    """What the results depend on besides the settings."""
    return {"backbone": model.origin["fingerprint"], "cache": source.cache and source.cache.settings}


def stop_if_asked(run: Run) -> None:
    """Save and stop if a process was asked to."""
    if run.processes.any_rank(run.stop.is_set):
        save_and_stop(run)


def save_and_stop(run: Run) -> NoReturn:
    """Save, and raise Interrupted with the command that continues the run."""
    if not run.trained:  # else it is saved, and the model may be the best one already
        save(run)
    step = f"step {run.progress.step} of {run.schedule.end}"
    said = f"Stopped at {step}, saved. Go on with: msta train --resume {run.out}"
    raise run.processes.common(Interrupted(said))
