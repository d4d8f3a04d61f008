"""Before the first step: make everything that a run works with, once."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from msta.adapters.task import per_class
from msta.backbone.checkpoints import tell_of_toy
from msta.backbone.prefix import Tokens
from msta.config import RunConfig
from msta.data.clips import Failures
from msta.descriptions.anchors import anchors_of
from msta.descriptions.check import mismatched
from msta.files import cache_folder
from msta.notices import notice
from msta.training.batches import Source
from msta.training.lock import locked
from msta.training.processes import Processes
from msta.training.report import Clock, RunLog, StepBar, print_plan
from msta.training.run import Callback, Run, Schedule, Stop
from msta.training.run_folder import check_same_settings, check_same_split, open_run, refuse_run, reported
from msta.training.saving import made_with, restore
from msta.training.setup import Setup, set_up
from msta.training.state import Pace, Progress, load_state, read_progress
from msta.training.step import TrainStep


@contextmanager
def prepared(
    config: RunConfig, out: Path, console: Console, processes: Processes, *, resume: bool, or_resume: bool,
    on_epoch: Callback | None = None,
) -> Iterator[Run]:  # fmt: skip
    """The run, ready for its next step. Its directory is made, or found again, and locked.

    Raises:
        MSTAError: wrong data, files or settings.
    """
    with ExitStack() as held:
        if processes.main and resume:
            held.enter_context(locked(out))
        elif processes.main:
            refuse_run(out, config.data.path)
        processes.barrier()
        with processes.alike():
            if or_resume and resume:
                check_same_settings(out, config)
            saved = read_progress(out / "checkpoints") if resume else None
            step_clips = saved[1].step_clips if saved else config.train.step_clips(processes.count)
            setup = set_up(config, step_clips)
        if processes.main and resume:
            check_same_split(out, setup.catalog, setup.split)
        elif processes.main:
            open_run(out, config, setup.catalog, setup.split)
            held.enter_context(locked(out))
        processes.barrier()
        status = held.enter_context(reported(out, config, processes))
        stop, settings, model, device = Stop(), config.train, setup.model, processes.device
        anchors = _anchors(config, setup, processes)
        model.to(device)
        with processes.accelerator.autocast():
            if torch.is_autocast_enabled(device.type) and not settings.exact_reference:
                model.cast_frozen(torch.get_autocast_dtype(device.type))
        if settings.compile:
            model.compile_prefix()
        failures = Failures(config.data.on_error)
        source = Source(config, model, setup.catalog, setup.split, processes, failures, step_clips, lambda: stop.is_set)
        held.callback(source.close)
        if model.support_views and saved:
            load_state(*saved, model)  # before the optimizer holds the keys: only the clips that were read have some
        elif model.support_views:
            with console.status("reading the training clips"):
                model.add_support(*source.embeddings(model.support_views))
        optimizer = processes.accelerator.prepare(
            torch.optim.AdamW(
                # AdamW refuses an empty list; zero-shot trains nothing
                model.trainable_parameters() or [torch.nn.Parameter(torch.zeros(0, device=device))],
                lr=settings.lr,
                weight_decay=settings.weight_decay,
                fused=True if device.type == "cuda" else None,
            )
        )
        progress = Progress(step_clips=step_clips, batch_size=settings.batch_size, made_with=made_with(model, source))
        best = None
        if saved:
            progress, best = restore(saved, model, source, optimizer, failures, processes)
        schedule = _schedule(setup, settings.warmup_epochs)
        cached = source.plan(setup.last_epoch) if processes.main else None
        print_plan(console, config, setup, progress.step_clips, bool(anchors), cached, processes.count)
        prompts = _prompts(setup, anchors, processes)
        train_step = TrainStep(config, model, optimizer, prompts, anchors, setup.split.train, failures, processes)
        val = "val" if setup.split.val else None
        watched = {"val": val, "last": None, "test-leak": "test"}[settings.select]

        if settings.select == "test-leak":
            notice("The checkpoint is selected on the test clips, as the authors did: the figure will be optimistic.")
        clock = Clock(progress.seconds)
        status.tell(
            now=True, phase="training", step=progress.step, steps=schedule.end, epoch=progress.epoch,
            epochs=setup.last_epoch, processes=processes.count, best=progress.best,
        )  # fmt: skip
        log = held.enter_context(RunLog(out if processes.main else None, progress, processes.accelerator))
        held.enter_context(_interruptible(stop, processes.main))
        bar = held.enter_context(StepBar(console, schedule.end, progress.step))
        yield Run(
            config=config, out=out, console=console, processes=processes, setup=setup, source=source, failures=failures,
            anchors=anchors, prompts=prompts, optimizer=optimizer, train_step=train_step, schedule=schedule,
            watched=watched, resumed=saved is not None, progress=progress, best=best, pace=Pace(settings.save_every),
            clock=clock, status=status, log=log, bar=bar, stop=stop, on_epoch=on_epoch,
        )  # fmt: skip


def _anchors(config: RunConfig, setup: Setup, processes: Processes) -> list[Tensor]:
    """The anchors of the consistency term; none without descriptions, or if nothing trains."""
    if not setup.bank or not setup.model.num_trainable():
        return []
    return anchors_of(
        setup.bank, setup.backbone.to(processes.device), setup.catalog.classes, average=config.descriptions.average,
        exact_reference=config.train.exact_reference, cache=cache_folder("anchors"),
    )  # fmt: skip


def _schedule(setup: Setup, warmup_epochs: float) -> Schedule:
    steps, warmup = setup.epochs * setup.steps_per_epoch, round(warmup_epochs * setup.steps_per_epoch)
    if steps and warmup > steps // 2:
        warmup = steps // 2
        kept = f"it is cut to {warmup} of {steps} steps" if warmup else f"a run of {steps} step has none"
        notice(f"The warm-up is longer than half of the run: {kept}.")
    return Schedule(steps, warmup, setup.last_epoch * setup.steps_per_epoch)


def _prompts(setup: Setup, anchors: list[Tensor], processes: Processes) -> Tensor | Tokens:
    """The class prompts in the form that the steps encode. Gives a notice of classes whose descriptions are misread."""
    model = setup.model
    assert model.task is not None
    tell_of_toy(setup.backbone, setup.catalog.classes)
    ids = model.tokenize(model.task.prompts()).to(processes.device)
    with processes.accelerator.autocast():  # the same in every step
        prompts = model.prepare_prompts(ids)
        if anchors and processes.main:
            _tell_mismatched(setup, anchors, ids)
    return prompts


def _tell_mismatched(setup: Setup, anchors: list[Tensor], ids: Tensor) -> None:
    classes = setup.catalog.classes
    with torch.no_grad():
        own = per_class(setup.backbone.encode_text(ids), len(classes))
    found = mismatched(anchors, own)
    if found:
        some = ", ".join(f"{classes[one]!r} as {classes[other]!r}" for one, other in list(found.items())[:3])
        notice(
            f"Descriptions of {len(found)} of {len(classes)} classes are read as another class's "
            f"({some}{' …' if len(found) > 3 else ''}); the consistency term pulls them there. "
            "See msta descriptions check, or lower descriptions.alpha."
        )


@contextmanager
def _interruptible(stop: Stop, speak: bool) -> Iterator[None]:
    """Ctrl-C or the SIGTERM of a scheduler asks the run to save and stop; a second one stops it at once."""

    def ask(number: int, frame: Any) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.is_set = True
        if speak:
            print("Stopping …", file=sys.stderr)

    if threading.current_thread() is not threading.main_thread():  # which alone hears of signals
        notice("The training runs in a thread: Ctrl-C does not save it; the last saved step can be resumed.")
        yield
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
