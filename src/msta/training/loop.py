"""Training, from a config to an adapter on disk: prepare; per epoch, per batch: step, log; validate; save; test.

To see what happens in one step, read this file, batches.py (clips in), step.py (encode, loss, backward, update),
losses.py (the loss), backbone/prefix.py (the shortcuts), and the method's own file, such as methods/msta.py.
docs/design.md lists all of them in order, with the shapes.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelerate.utils.memory import clear_device_cache
from rich.console import Console

from msta.backbone.device import best_device
from msta.config import RunConfig
from msta.data.processes import check_main_guard
from msta.errors import ConfigError, DataError, MSTAError
from msta.files import read_json, write_json
from msta.notices import notice
from msta.training.measure import test, validate
from msta.training.prepare import prepared
from msta.training.processes import Processes
from msta.training.report import print_result
from msta.training.run import Callback, Run
from msta.training.run_folder import check_same_settings
from msta.training.saving import save, save_and_stop, stop_if_asked
from msta.training.step import OutOfMemory, StepResult
from msta.training.trackers import tracker_names

_SETTLED = 3
"""Steps to wait before the pace is announced, because the first ones include warming up."""

Batch = tuple[Iterator[dict[str, Any]], int]
"""The micro-batches of this process, and the number of clips of the step in all processes together."""


def train(
    config: RunConfig,
    out: Path,
    console: Console,
    *,
    resume: bool = False,
    or_resume: bool = False,
    on_epoch: Callback | None = None,
    estimate: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train, select, test, and save.

    Started several times by ``torchrun`` or ``accelerate launch``, the processes share the work; the first one writes
    and prints.

    Args:
        config: the run.
        out: its directory: config.yaml, split.csv, log.jsonl, tensorboard/, status.json, checkpoints/, predictions/,
            adapter/, metrics.json; last/, the adapter after the last epoch, if it is not the best.
        console: where the plan, the progress and the result are printed.
        resume: continue the run in ``out`` from its last saved step.
        or_resume: begin a run, or continue it if ``out`` has it already.
        on_epoch: called in the main process after every epoch, see :func:`end_epoch`; if it returns True, training
            ends.
        estimate: the figures of a run that trains on all clips and has none to test on, see
            :func:`msta.training.fit.fit`.

    Returns:
        What is written to metrics.json: "top1", "top5", "mean_class" in percent on the test clips, and more.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    if config.train.on_all_clips and estimate is None:
        raise ConfigError("train.refit and train.folds go with msta train: other commands measure in their own way")
    if config.data.workers != 0:
        check_main_guard()  # before there is a folder
    config = config.on(best_device())
    processes = Processes(config.train, log_with=tracker_names(config.train) or None, project_dir=out)
    console = console if processes.main else Console(quiet=True)
    if or_resume:  # the main process looks: another one might see the folder that it has just made
        resume = processes.any_rank(processes.main and (out / "config.yaml").exists())
    if resume and processes.any_rank(processes.main and (out / "metrics.json").exists()):
        if or_resume:
            check_same_settings(out, config)
        console.print(f"{out} is finished already.")
        return read_json(out / "metrics.json", MSTAError)

    with prepared(config, out, console, processes, resume=resume, or_resume=or_resume, on_epoch=on_epoch) as run:
        progress = run.progress
        if run.epochs and not run.resumed:
            save(run)
        while not run.trained:
            for batch in batches_of_epoch(run):
                result = take_step(run, batch)
                if result is not None:
                    log_step(run, result)
                    if result.save:
                        save(run)
            share_failures(run)
            validate(run)
            progress.epoch, progress.clips = progress.epoch + 1, 0
            end_epoch(run)
            if run.trained or processes.any_rank(run.pace.due() and processes.main):
                save(run)

        if run.watched and run.best is not None:
            if processes.main and progress.best["epoch"] != progress.epoch:
                shutil.rmtree(out / "last", ignore_errors=True)  # of this run, stopped before it wrote its metrics
                run.model.save(out / "last")
            run.model.load_adapter_state(run.best)
        metrics = test(run, estimate)
        run.bar.close()
        print_result(console, out, metrics)
        if processes.main:
            shutil.rmtree(out / "adapter", ignore_errors=True)  # of this run, stopped before it wrote its metrics
            run.model.save(out / "adapter", metrics)
            write_json(out / "metrics.json", metrics)
        processes.barrier()
        return metrics


def batches_of_epoch(run: Run) -> Iterator[Batch]:
    """The remaining batches of the current epoch. If the micro-batches become smaller, they are read again."""
    progress, clips = run.progress, len(run.setup.split.train)
    micro_batches = iter(run.source.train(progress.epoch, progress.clips, run.caching))
    size = run.source.batch_size
    stop_if_asked(run)
    while progress.clips < clips:
        if run.source.batch_size != size:
            micro_batches = iter(run.source.train(progress.epoch, progress.clips, run.caching))
            size = run.source.batch_size
        whole = min(progress.step_clips, clips - progress.clips)
        yield _until(micro_batches, len(run.processes.share(whole))), whole


def _until(micro_batches: Iterator[dict[str, Any]], clips: int) -> Iterator[dict[str, Any]]:
    """Batches with so many clips, readable or not; fewer if the batches end early because the run is stopped."""
    while clips > 0:
        batch = next(micro_batches, None)
        if batch is None:
            return
        clips -= len(batch["label"]) + len(batch["failures"])
        yield batch


def take_step(run: Run, batch: Batch) -> StepResult | None:
    """Take a step and count it. None: memory ran out, nothing changed, and the batch comes again in smaller parts.

    Raises:
        MSTAError: the loss is not a number; the state before the step is saved.
        Interrupted: the run was asked to stop.
    """
    progress, settings = run.progress, run.config.train
    micro_batches, clips = batch
    for group in run.optimizer.param_groups:
        group["lr"] = settings.lr * lr_factor(progress.step, run.schedule.steps, run.schedule.warmup)
    alpha = run.config.descriptions.alpha_at(progress.step, run.setup.steps_per_epoch)
    try:
        result = run.train_step(micro_batches, clips, alpha, lambda: run.stop.is_set, run.pace.due())
    except OutOfMemory as error:
        _halve_micro_batches(run, error)
        return None
    if result.stopped:
        save_and_stop(run)
    if result.bad:
        save(run)
        raise run.processes.common(
            MSTAError(
                f"{run.out}: loss or gradient is no number in step {progress.step + 1}; the state before it "
                f"is saved. Its clips: {', '.join(result.bad)}. Lower train.lr, or see what is in them"
            )
        )
    progress.clips += clips
    progress.step += bool(result.clips)
    return result


def log_step(run: Run, result: StepResult) -> None:
    """Report a step on disk, on the terminal and to the trackers."""
    if not result.clips:
        return
    progress, clock, left = run.progress, run.clock, run.schedule.end - run.progress.step
    clock.tick()
    lr = run.optimizer.param_groups[0]["lr"]
    run.log.step(progress, result.ids, lr=lr, **result.losses)
    run.bar.update(progress.step, result.losses["loss"])
    if clock.ticks == _SETTLED + 1:
        run.console.print(clock.forecast(left, run.processes.device, run.pace.took), soft_wrap=True)
    if clock.pace:
        run.status.tell(clips_per_second=round(result.clips / clock.pace, 3), seconds_left=round(clock.pace * left, 1))
    run.status.tell(
        phase="training", step=progress.step, epoch=progress.epoch, loss=result.losses["loss"], lr=lr,
        unreadable=len(run.failures.reasons),
    )  # fmt: skip


def end_epoch(run: Run) -> None:
    """Report an epoch, and ask the callback whether training should end.

    The callback gets "epoch" (epochs done), "epochs", "step", "loss" (of the last step), "val" (figures of this epoch's
    validation, None without one) and "best" (the best figures so far).
    """
    progress = run.progress
    run.status.tell(epoch=progress.epoch)
    facts = {
        "epoch": progress.epoch, "epochs": run.epochs, "step": progress.step, "loss": run.status.facts.get("loss"),
        "val": run.validated, "best": progress.best or None,
    }  # fmt: skip
    run.bar.epoch(facts)
    wanted = run.on_epoch is not None and run.processes.main and run.on_epoch(facts) is True
    progress.ended = run.processes.any_rank(wanted)
    if run.trained and progress.epoch < run.epochs:
        run.console.print(f"Ended early, after epoch {progress.epoch} of {run.epochs}.", highlight=False)


def share_failures(run: Run) -> None:
    """After an epoch, tell every process which clips could not be read.

    Raises:
        DataError: no training clip could be read.
    """
    for others in run.processes.gather(run.failures.reasons):
        run.failures.add(others.items())
    if len(run.failures.reasons) >= len(run.setup.split.train) and not run.progress.step:
        nothing = DataError(f"{run.setup.catalog.source}: not one of the training clips can be read")
        raise run.processes.common(nothing)


def _halve_micro_batches(run: Run, error: OutOfMemory) -> None:
    """Halve the number of clips at a time, if the settings allow it.

    Raises:
        MSTAError: they do not allow it, or there is nothing to halve.
    """
    source = run.source
    if source.batch_size == 1 or not run.config.train.auto_batch:
        lower = "data.frames or data.size" if source.batch_size == 1 else "train.batch_size"
        raise MSTAError(
            f"out of memory with {source.batch_size} clips at a time ({error}): lower {lower}; with --auto-batch "
            "a run halves train.batch_size by itself and keeps the global batch"
        ) from None
    clear_device_cache()
    run.progress.batch_size = source.batch_size = source.batch_size // 2
    notice(f"Out of memory: going on with {source.batch_size} clips at a time, {run.progress.step_clips} a step.")


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """The factor on the learning rate in a step, counted from 0: linear warm-up, then half a cosine to zero."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))
