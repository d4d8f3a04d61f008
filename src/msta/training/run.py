"""A running training: everything that the loop needs, made once by :func:`msta.training.prepare.prepared`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.backbone.prefix import Tokens
from msta.config import RunConfig
from msta.data.clips import Failures
from msta.training.batches import Source
from msta.training.processes import Processes
from msta.training.report import Clock, RunLog, StepBar
from msta.training.setup import Setup
from msta.training.state import Pace, Progress
from msta.training.status import StatusFile
from msta.training.step import TrainStep


@dataclass
class Stop:
    """Whether someone asked the run to stop."""

    is_set: bool = False


@dataclass(frozen=True)
class Schedule:
    """The schedule of the learning rate over ``steps`` optimizer steps, with ``warmup`` of them; ``end`` are taken."""

    steps: int
    warmup: int
    end: int


Callback = Callable[[dict[str, Any]], Any]
"""Called in the main process with figures of a step or an epoch."""


@dataclass
class Run:
    """Everything that the loop needs, and its position.

    Attributes:
        config: all settings.
        out: the directory of the run.
        console: where plan, progress and result are printed.
        processes: the processes that share the work.
        setup: data, split, descriptions, backbone, model.
        source: batches of clips.
        failures: clips that could not be read.
        anchors: of the descriptions, a tensor per kind; empty without the consistency term.
        prompts: of the classes, in the form that is cheapest to encode in every step.
        optimizer: AdamW, prepared by Accelerate.
        train_step: takes a step.
        schedule: of the learning rate.
        watched: the split that chooses the checkpoint; None: the last one is taken.
        resumed: whether it continues a run that was stopped.
        progress: the position of the loop; saved and restored.
        best: weights of the best checkpoint so far.
        pace: decides when the next state is saved.
        clock: measures the time in the loop.
        status: RUN/status.json.
        log: RUN/log.jsonl and the trackers.
        bar: the progress bar.
        stop: set by Ctrl-C or SIGTERM.
        validated: figures of the last epoch's validation; None if it had none.
        on_epoch: called after every epoch; training ends if it returns True.
    """

    config: RunConfig
    out: Path
    console: Console
    processes: Processes
    setup: Setup
    source: Source
    failures: Failures
    anchors: list[Tensor]
    prompts: Tensor | Tokens
    optimizer: Any
    train_step: TrainStep
    schedule: Schedule
    watched: str | None
    resumed: bool
    progress: Progress
    best: dict[str, Tensor] | None
    pace: Pace
    clock: Clock
    status: StatusFile
    log: RunLog
    bar: StepBar
    stop: Stop
    on_epoch: Callback | None
    validated: dict[str, float] | None = None

    @property
    def model(self) -> AdaptedModel:
        """The adapted model."""
        return self.setup.model

    @property
    def epochs(self) -> int:
        """Epochs of the whole run; 0 if nothing trains."""
        return self.setup.last_epoch

    @property
    def trained(self) -> bool:
        """Whether training is over: after the last epoch, by ``train.patience``, or because a callback ended it."""
        progress, patience = self.progress, self.config.train.patience
        waited = progress.epoch - progress.best["epoch"] if progress.best else 0
        return progress.ended or progress.epoch >= self.epochs or (patience is not None and waited >= patience)

    def caching(self, part: str, done: int, clips: int) -> None:
        """Report that the prefix cache is being filled."""
        self.bar.note(f"caching {done} of {clips} {part} clips")
        self.status.tell(phase=f"caching {done} of {clips} {part} clips")
