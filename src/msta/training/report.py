"""The reports of a run: its plan, pace, log and result."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psutil
import torch
from accelerate import Accelerator
from accelerate.utils import is_tensorboard_available
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBar

from msta.adapters.inputs import clip_format
from msta.config import RunConfig
from msta.data.catalog import Catalog
from msta.data.splits import FEW
from msta.errors import one_line
from msta.evaluation.metrics import in_words
from msta.files import write_bytes
from msta.settings import DescriptionSettings
from msta.training.setup import Setup
from msta.training.state import Progress

LOG = "log.jsonl"
_LATE = 20
"""The pace is the mean of this many steps."""


def print_plan(
    console: Console, config: RunConfig, setup: Setup, step_clips: int, consistent: bool, cached: str | None,
    processes: int,
) -> None:  # fmt: skip
    """Print before the first step what is frozen and what trains, on which clips, for how many steps."""
    model, catalog, split, steps = setup.model, setup.catalog, setup.split, setup.steps_per_epoch
    epochs = setup.last_epoch
    total = sum(p.numel() for p in model.parameters())
    trained = model.num_trainable()
    a = model.backbone.architecture
    form = clip_format(model)
    lines = [
        ("backbone", f"{config.backbone}: {a.attention} attention, {form.frames} frames of {form.size} px"),
        ("frozen", f"{total - trained:,} parameters ({100 * (total - trained) / total:.2f} %): {model.frozen}"),
        ("trained", f"{trained:,} parameters ({100 * trained / total:.2f} %): {model.trains}"),
        ("clips", f"{len(split.train)} train, {len(split.val)} val, {len(split.test)} test; "
                  f"{len(catalog.classes)} classes of {catalog.source}"),
        ("hint", "few clips per class: --folds 5 tests on every clip, and trains the adapter on all of them"
                 if _wastes_clips(config, catalog) else None),
        ("prompts", f"{_prompt(config.data.template)}, consistency term "
                    + (_consistency(config.descriptions) if consistent else "off")),
        ("steps", f"{epochs} {'epoch' if epochs == 1 else 'epochs'} x {steps} = {epochs * steps}, "
                  f"{step_clips} clips each, {config.train.precision}"
                  + (f", shared by {processes} processes" if processes > 1 else "")),
        ("cache", cached),
        ("dropping", f"{config.train.keep_tokens:.0%} of the patches are kept in training"
                     if config.train.keep_tokens < 1 else None),
    ]  # fmt: skip
    for name, text in lines:
        if text is None:
            continue
        console.print(f"{name:>9}  {text}", markup=False, highlight=False, soft_wrap=True)


def _wastes_clips(config: RunConfig, catalog: Catalog) -> bool:
    """Whether clips are held out although there are few, and nobody asked for it."""
    chosen = config.train.on_all_clips or config.data.shots is not None or catalog.has_splits
    return not chosen and min(catalog.counts()) < FEW


def _prompt(template: str | tuple[str, ...]) -> str:
    return f'"{template}"' if isinstance(template, str) else f'{len(template)} per class, "{template[0]}" and others'


def _consistency(settings: DescriptionSettings) -> str:
    """The consistency term in words. Settings that are those of the paper are left out."""
    words = [f"at alpha {settings.alpha:g}"]
    if settings.alpha_warmup:
        words.append(f"rising for {settings.alpha_warmup:g} epochs")
    if settings.kinds != "both":
        words.append(f"{settings.kinds} sentences only")
    if settings.distance != "cosine":
        words.append(settings.distance)
    if settings.average == "sentences":
        words.append("sentence by sentence")
    return ", ".join(words)


class StepBar:
    """A progress bar with steps done, time to go and the loss. It disappears at the end."""

    def __init__(self, console: Console, steps: int, done: int) -> None:
        self.bar = ProgressBar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            transient=True,
        )
        self.task = self.bar.add_task("training", total=steps, completed=done, note="")
        self._validated = ""

    def __enter__(self) -> StepBar:
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, step: int, loss: float) -> None:
        """Count a step."""
        self.bar.update(self.task, completed=step, note=f"loss {loss:.3f}{self._validated}")

    def note(self, text: str) -> None:
        """Show other work that is being done."""
        self.bar.update(self.task, note=text)

    def epoch(self, facts: dict[str, Any]) -> None:
        """Report an epoch, see :func:`msta.training.loop.end_epoch`: in the bar, or in a line of a log."""
        val, best, loss = facts["val"], facts["best"], facts["loss"]
        if val:
            self._validated = f", val top-1 {val['top1']:.1f} % (best {best['top1']:.1f} %, epoch {best['epoch']})"
        if not self.bar.console.is_terminal:
            said = "" if loss is None else f"loss {loss:.3f}{self._validated if val else ''}"
            self.bar.console.print(f"epoch {facts['epoch']} of {facts['epochs']}: {said}", highlight=False)

    def close(self) -> None:
        """Remove the bar."""
        self.bar.stop()


class Clock:
    """Time spent in the loop, and the forecast for the rest."""

    def __init__(self, seconds_before: float) -> None:
        self.before = seconds_before
        self.start = time.perf_counter()
        self.ticks = 0
        self.late: deque[float] = deque(maxlen=_LATE)  # when the last steps ended, without the time of validations
        self.away = 0.0

    def tick(self) -> None:
        """Count a step."""
        self.ticks += 1
        self.late.append(time.perf_counter() - self.away)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """A block whose time belongs to no step, such as a validation or a save."""
        start = time.perf_counter()
        yield
        self.away += time.perf_counter() - start

    def seconds(self) -> float:
        """Seconds in the loop so far, including those before a run was resumed."""
        return self.before + time.perf_counter() - self.start

    @property
    def pace(self) -> float | None:
        """Seconds per step over the last steps. The first step, which includes warming up, soon drops out."""
        if len(self.late) < 2:
            return None
        return (self.late[-1] - self.late[0]) / (len(self.late) - 1)

    def forecast(self, steps_left: int, device: torch.device, saving: float) -> str:
        """The pace, the memory (including decoding processes), and how soon a SIGTERM takes effect."""
        pace = self.pace or 0.0
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        else:
            here = psutil.Process()
            memory = sum(p.memory_info().rss for p in (here, *here.children(recursive=True)))
        left = timedelta(seconds=round(pace * steps_left))
        return (
            f"{pace:.2f} s per step: about {left} to go, plus validation; {memory / 2**30:.1f} GB of memory in use; "
            f"stopping takes up to {pace + saving:.2g} s"
        )


def read_log(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's log so far. The last line of a running training may be half written, and is left out."""
    written = (run / LOG).read_text(encoding="utf-8").splitlines() if (run / LOG).exists() else []
    lines = []
    for number, line in enumerate(written, 1):
        try:
            lines.append(json.loads(line))
        except ValueError:
            if number < len(written):
                raise
    return lines


class RunLog:
    """Writes log.jsonl, one line per step and one per validation; also TensorBoard, if installed, and the trackers.

    Args:
        out: the directory of the run; None: nothing is written.
        progress: where the run continues. Lines that a killed run wrote after this point are removed.
        accelerator: has the trackers.
    """

    def __init__(self, out: Path | None, progress: Progress, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.file = None
        self.board: Any = None
        if out is None:
            return
        before = (out / LOG).read_text().splitlines() if (out / LOG).exists() else []
        kept = [line for line in before if _is_before(line, progress)]
        write_bytes(out / LOG, "".join(f"{line}\n" for line in kept).encode())
        self.file = (out / LOG).open("a", encoding="utf-8")
        if is_tensorboard_available():
            from torch.utils import tensorboard

            self.board = tensorboard.SummaryWriter(str(out / "tensorboard"), purge_step=progress.step + 1)

    def __enter__(self) -> RunLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self.file:
            self.file.close()
        if self.board:
            self.board.close()

    def step(self, progress: Progress, clips: list[int], **values: float) -> None:
        """A training step's figures and, if asked for, the numbers of its clips."""
        line: dict[str, Any] = {"step": progress.step, "epoch": progress.epoch, **values}
        self._write(line | ({"clips": clips} if clips else {}), "train", values, progress.step)

    def epoch(self, progress: Progress, part: str, values: dict[str, float]) -> None:
        """The figures of a validation after the current epoch; ``part`` is its split."""
        line = {"step": progress.step, "epoch": progress.epoch + 1, part: values}
        self._write(line, part, values, progress.step)

    def _write(self, line: dict[str, Any], group: str, values: dict[str, float], step: int) -> None:
        if self.file is None:
            return
        try:
            self.file.write(json.dumps(line) + "\n")
            self.file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, self.file.name) from error
        for name, value in values.items() if self.board else ():
            self.board.add_scalar(f"{group}/{name}", value, step)
        self.accelerator.log({f"{group}/{name}": value for name, value in values.items()}, step=step)


def _is_before(line: str, progress: Progress) -> bool:
    """Whether the saved state includes what a line of the log reports. A kill may have cut off the last line."""
    try:
        told = json.loads(line)
    except ValueError:
        return False
    return told["step"] <= progress.step and ("loss" in told or told["epoch"] <= progress.epoch)


def print_result(console: Console, out: Path, metrics: dict[str, Any]) -> None:
    """Print at the end: the files left out, the accuracy, and where the adapter is."""
    unreadable = metrics["unreadable"]
    if unreadable:
        console.print(f"{len(unreadable)} file(s) could not be read and were left out:", highlight=False)
        for path, reason in unreadable.items():
            console.print(one_line(f"  {path}: {reason}"), markup=False, highlight=False, soft_wrap=True)
    for approximation in metrics["approximations"]:
        console.print(f"Approximate: {approximation}", highlight=False, soft_wrap=True)
    measured = f"{in_words(metrics)} of {metrics['clips']} clips"
    if "measured" in metrics:
        low, high = metrics["interval"]
        measured += f" (95 % interval {low:.1f} to {high:.1f} %), {metrics['measured']}"
    console.print(
        f"Test: {measured}. Adapter: {out / 'adapter'}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
