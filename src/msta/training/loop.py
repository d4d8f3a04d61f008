"""Training, from a config to an adapter on disk. Read it top to bottom: data, model, plan, steps, test."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import torch
from rich.console import Console
from torch import Tensor

from msta.adapters.task import per_class
from msta.config import RunConfig, read_config
from msta.data.catalog import Catalog, fingerprint, write_catalog
from msta.data.clips import Failures
from msta.data.reading import read_catalog
from msta.data.splits import Split
from msta.descriptions.anchors import anchor_folder, anchors_of
from msta.descriptions.check import astray
from msta.errors import CheckpointError, ConfigError, DataError, Interrupted, MSTAError, is_text
from msta.evaluation.calibration import calibrated
from msta.evaluation.evaluate import evaluate
from msta.evaluation.predictions import Recorder
from msta.files import new_directory, read_json, refuse_existing, write_json
from msta.memory import keep_freed_memory
from msta.notices import notice
from msta.training.batches import Source
from msta.training.lock import locked
from msta.training.processes import Processes
from msta.training.report import Clock, RunLog, print_plan, print_result, progress_bar
from msta.training.setup import Setup, set_up
from msta.training.state import (
    Pace,
    Progress,
    State,
    load_state,
    random_state,
    read_progress,
    restore_random,
    save_state,
)
from msta.training.status import StatusFile
from msta.training.step import OutOfMemory, Stepper, Taken
from msta.training.trackers import start_trackers, tracker_names

_SETTLED = 3
"""Steps after which the pace says something: the first ones pay for warming up."""


def train(
    config: RunConfig, out: Path, console: Console, *, resume: bool = False, or_resume: bool = False
) -> dict[str, Any]:
    """Train, select, test, and save.

    Started several times by ``torchrun`` or ``accelerate launch``, the processes share the work; the first one writes
    and prints.

    Args:
        config: the run.
        out: its directory: config.yaml, split.csv, log.jsonl, tensorboard/, status.json, checkpoints/, predictions/,
            adapter/, metrics.json.
        console: where the plan, the progress and the result are printed.
        resume: go on with the run in ``out`` from its last saved step.
        or_resume: begin a run, or go on if ``out`` holds it already.

    Returns:
        What is written to metrics.json: "top1", "top5", "mean_class" in percent on the test clips, and more.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    processes = Processes(config.train, log_with=tracker_names(config.train) or None, project_dir=out)
    console = console if processes.main else Console(quiet=True)
    if or_resume:  # the main process looks: another one might see the folder that it has just made
        resume = processes.any(processes.main and (out / "config.yaml").exists())
    if resume and processes.any(processes.main and (out / "metrics.json").exists()):
        console.print(f"{out} is finished already.")
        return read_json(out / "metrics.json", MSTAError)
    with ExitStack() as held:
        if processes.main and resume:
            held.enter_context(locked(out))
        elif processes.main:
            _refuse_run(out, config.data.path)
        processes.wait()
        with processes.alike():
            if or_resume and resume:
                _check_same_settings(out, config)
            saved = read_progress(out / "checkpoints") if resume else None
            step_clips = saved[1].step_clips if saved else config.train.step_clips(processes.count)
            made = set_up(config, step_clips)
        if processes.main and resume:
            _check_same_split(out, made.catalog, made.split)
        elif processes.main:
            _open_run(out, config, made.catalog, made.split)
            held.enter_context(locked(out))
        processes.wait()
        status = held.enter_context(_reported(out, config, processes))
        run = _Run(config, out, console, processes, made, saved, step_clips, status)
        held.callback(run.source.close)
        return run.go()


class _Run:
    """A run under way: what :func:`train` has set up, and how far it got."""

    def __init__(
        self,
        config: RunConfig,
        out: Path,
        console: Console,
        processes: Processes,
        made: Setup,
        saved: tuple[Path, Progress] | None,
        step_clips: int,
        status: StatusFile,
    ) -> None:
        self.config, self.out, self.console, self.processes, self.made = config, out, console, processes, made
        self.status, self.resumed = status, saved is not None
        self.model, self.epochs = made.model, made.epochs
        self.stop = stop = _Stop()  # others hold it, and not this run, which would outlive its end in a cycle
        settings, device, model = config.train, processes.device, made.model
        if not settings.exact_reference:
            keep_freed_memory()
        self.anchors: list[Tensor] = []
        if made.bank and model.num_trainable():
            self.anchors = anchors_of(
                made.bank, made.backbone.to(device), made.catalog.classes, average=config.descriptions.average,
                exact_reference=settings.exact_reference, cache=anchor_folder(),
            )  # fmt: skip
        model.to(device)
        with processes.accelerator.autocast():
            if torch.is_autocast_enabled(device.type) and not settings.exact_reference:
                model.cast_frozen(torch.get_autocast_dtype(device.type))
        self.failures = Failures(config.data.on_error)
        self.source = Source(
            config, model, made.catalog, made.split, processes, self.failures, step_clips, lambda: stop.is_set
        )
        if model.clip_views:
            with console.status("reading the training clips"):
                model.see(*self.source.embeddings(model.clip_views))
        optimizer = torch.optim.AdamW(
            # AdamW refuses an empty list; zero-shot trains nothing
            model.trainable_parameters() or [torch.nn.Parameter(torch.zeros(0))],
            lr=settings.lr,
            weight_decay=settings.weight_decay,
        )
        self.optimizer = processes.accelerator.prepare(optimizer)
        self.best: dict[str, Tensor] | None = None
        self.pace = Pace(settings.save_every)
        self.progress = Progress(step_clips=step_clips, batch_size=settings.batch_size, made_with=self._made_with())
        if saved:
            self._go_on_from(*saved)

    def go(self) -> dict[str, Any]:
        """Plan, train, test. Returns the metrics."""
        config, settings, model, progress = self.config, self.config.train, self.model, self.progress
        # ------------------------------------------------------------ plan
        self.steps = self.epochs * self.made.steps_per_epoch
        self.warmup = round(settings.warmup_epochs * self.made.steps_per_epoch)
        if self.steps and self.warmup > self.steps // 2:
            self.warmup = self.steps // 2
            notice(f"The warm-up is longer than half of the run: it is cut to {self.warmup} steps.")
        kept = self.source.plan(self.epochs) if self.processes.main else None
        print_plan(
            self.console, config, model, self.made.catalog, self.made.split, self.epochs, self.made.steps_per_epoch,
            progress.step_clips, bool(self.anchors), kept, self.processes.count,
        )  # fmt: skip
        assert model.task is not None
        ids = model.tokenize(model.task.prompts()).to(self.processes.device)
        with self.processes.accelerator.autocast():  # the same in every step
            self.prompts = model.prepare_prompts(ids)
            if self.anchors and self.processes.main:
                self._tell_astray(ids)
        self.stepper = Stepper(
            config, model, self.optimizer, self.prompts, self.anchors, self.made.split.train, self.failures,
            self.processes,
        )  # fmt: skip
        val = "val" if self.made.split.val else None
        self.watched = {"val": val, "last": None, "test-leak": "test"}[settings.select]
        if settings.select == "test-leak":
            notice("The checkpoint is selected on the test clips, as the authors did: the figure will be optimistic.")

        # ------------------------------------------------------------ steps
        self.clock = Clock(progress.seconds)
        self.status.tell(
            now=True, phase="training", step=progress.step, steps=self.steps, epoch=progress.epoch, epochs=self.epochs,
            processes=self.processes.count, best=progress.best,
        )  # fmt: skip
        main, accelerator = self.processes.main, self.processes.accelerator
        with (
            RunLog(self.out if main else None, progress, accelerator) as self.log,
            _interruptible(self.stop, main),
            progress_bar(self.console) as self.bar,
        ):
            self.task = self.bar.add_task("training", total=self.steps, completed=progress.step, note="")
            if self.epochs and not self.resumed:
                self._save()
            while progress.epoch < self.epochs:
                self._epoch()
                self._validate()
                progress.epoch, progress.clips = progress.epoch + 1, 0
                if progress.epoch == self.epochs or self.processes.any(self.pace.due() and main):
                    self._save()

            # ------------------------------------------------------------ test and save
            if self.watched and self.best is not None:
                model.load_adapter_state(self.best)
            tested = self._test()
        if tested is None:
            error = DataError(f"{self.made.catalog.source}: not one of the test clips can be read")
            raise self.processes.common(error)
        metrics = self._metrics(tested)
        print_result(self.console, self.out, metrics)
        if main:
            shutil.rmtree(self.out / "adapter", ignore_errors=True)  # of this run, stopped before it wrote its metrics
            model.save(self.out / "adapter", metrics)
            write_json(self.out / "metrics.json", metrics)
        self.processes.wait()
        return metrics

    def _tell_astray(self, ids: Tensor) -> None:
        """Say which classes the consistency term would pull towards another."""
        classes = self.made.catalog.classes
        with torch.no_grad():
            home = per_class(self.made.backbone.encode_text(ids), len(classes))
        found = astray(self.anchors, home)
        if found:
            some = ", ".join(f"{classes[own]!r} as {classes[other]!r}" for own, other in list(found.items())[:3])
            notice(
                f"Descriptions of {len(found)} of {len(classes)} classes are read as another class's "
                f"({some}{' …' if len(found) > 3 else ''}); the consistency term pulls them there. "
                "See msta descriptions check, or lower descriptions.alpha."
            )

    # ---------------------------------------------------------------- steps

    def _epoch(self) -> None:
        """The steps of the epoch under way that are still to be taken."""
        progress, split = self.progress, self.made.split
        batches = iter(self.source.train(progress.epoch, progress.clips, self._filling))
        self._heed()
        while progress.clips < len(split.train):
            whole = min(progress.step_clips, len(split.train) - progress.clips)
            alpha = self.config.descriptions.alpha_at(progress.step, self.made.steps_per_epoch)
            lr = self.config.train.lr * lr_factor(progress.step, self.steps, self.warmup)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            own = _clips(batches, len(self.processes.share(whole)))
            try:
                taken = self.stepper(own, whole, alpha, lambda: self.stop.is_set, self.pace.due())
            except OutOfMemory as error:
                self._read_less(error)
                batches = iter(self.source.train(progress.epoch, progress.clips, self._filling))
                continue
            if taken.stopped:
                self._stopped()
            if taken.bad:
                self._save()
                raise self.processes.common(
                    MSTAError(
                        f"{self.out}: loss or gradient is no number in step {progress.step + 1}; the state before it "
                        f"is saved. Its clips: {', '.join(taken.bad)}. Lower train.lr, or see what is in them"
                    )
                )
            progress.clips += whole
            if taken.clips:
                self._took(taken, lr)
            if taken.save:
                self._save()
        for others in self.processes.gather(self.failures.reasons):
            self.failures.add(others.items())
        if len(self.failures.reasons) >= len(split.train) and not progress.step:
            nothing = DataError(f"{self.made.catalog.source}: not one of the training clips can be read")
            raise self.processes.common(nothing)

    def _took(self, taken: Taken, lr: float) -> None:
        """Count and tell a step."""
        progress, clock, losses = self.progress, self.clock, taken.losses
        progress.step += 1
        clock.tick()
        self.log.step(progress, taken.ids, lr=lr, **losses)
        self.bar.update(self.task, completed=progress.step, note=f"loss {losses['loss']:.3f}")
        if clock.ticks == _SETTLED + 1:
            self.console.print(
                clock.forecast(self.steps - progress.step, self.processes.device, self.pace.took), soft_wrap=True
            )
        pace = clock.pace
        if pace:
            left = pace * (self.steps - progress.step)
            self.status.tell(clips_per_second=round(taken.clips / pace, 3), seconds_left=round(left, 1))
        self.status.tell(
            phase="training", step=progress.step, epoch=progress.epoch, loss=losses["loss"], lr=lr,
            unreadable=len(self.failures.reasons),
        )  # fmt: skip

    def _read_less(self, error: OutOfMemory) -> None:
        """Half as many clips at a time, if that is wanted."""
        source = self.source
        if source.batch_size == 1 or not self.config.train.auto_batch:
            lower = "data.frames or data.size" if source.batch_size == 1 else "train.batch_size"
            raise MSTAError(
                f"out of memory with {source.batch_size} clips at a time ({error}): lower {lower}; with --auto-batch "
                "a run halves train.batch_size by itself and keeps the global batch"
            ) from None
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.progress.batch_size = source.batch_size = source.batch_size // 2
        notice(f"Out of memory: going on with {source.batch_size} clips at a time, {self.progress.step_clips} a step.")

    # ---------------------------------------------------------------- measuring

    def _validate(self) -> None:
        """After an epoch, where it is wanted: measure, and keep the best."""
        progress, settings = self.progress, self.config.train
        done = progress.epoch + 1
        if not self.watched or (done % settings.eval_every and done != self.epochs):
            return
        measured = self._measure(self.watched, record := self._recorder(self.watched))
        self.log.epoch(progress, self.watched, measured)
        if measured and _better(measured, progress.best):
            progress.best = {**measured, "epoch": done}
            self.best = {name: tensor.clone() for name, tensor in self.model.adapter_state().items()}
            self._keep(record, self.watched)
            self.status.tell(best=progress.best)
        if settings.watch_test and self.watched != "test":
            self.log.epoch(progress, "test", self._measure("test"))

    def _test(self) -> dict[str, float] | None:
        """The figures of the test clips; None if none can be read."""
        tested = self._measure("test", record := self._recorder("test"))
        if not tested:
            return None
        self._keep(record, "test")
        lacking = self.processes.any(self.processes.main and not self._kept_file("val").exists())
        if self.made.split.val and record and lacking and self._measure("val", record := self._recorder("val")):
            self._keep(record, "val")  # nothing was trained, or not selected by these clips
        return tested

    def _measure(self, part: str, recorder: Recorder | None = None) -> dict[str, float]:
        self.status.tell(now=True, phase=f"measuring the {part} clips")
        with self.clock.elsewhere():
            with torch.no_grad(), self.processes.accelerator.autocast():
                text = per_class(self.model.encode_text(self.prompts), len(self.made.catalog.classes))
            measured = evaluate(
                self.model, self.source.test(part, self._filling), text, self.failures, recorder=recorder,
                autocast=self.processes.accelerator.autocast, gather=self.processes.gather,
            )  # fmt: skip
        self._heed()
        return measured

    def _recorder(self, part: str) -> Recorder | None:
        keep, clips = self.config.eval.keep, self.source.datasets[part].clips
        if keep == "nothing":
            return None
        return Recorder(clips, self.made.catalog.classes, embeddings=keep == "embeddings")

    def _kept_file(self, part: str) -> Path:
        return self.out / "predictions" / f"{part}.parquet"

    def _keep(self, record: Recorder | None, part: str) -> None:
        if record is not None and self.processes.main:
            record.write(self._kept_file(part), split=part, method=self.model.config.name)

    def _metrics(self, tested: dict[str, float]) -> dict[str, Any]:
        progress, bank = self.progress, self.made.bank
        return {
            **tested,
            "split": "test",
            "selected_by": self.config.train.select if progress.best else "last",
            "selected_at": progress.best,
            "method": self.model.config.name,
            "label": self.model.label,
            "trainable_parameters": self.model.num_trainable(),
            "steps": progress.step,
            "seconds": round(self.clock.seconds(), 1),
            "consistency": self.config.descriptions.summary(bank if self.anchors else None),
            **(calibrated(self._kept_file("val")) if self.processes.main else {}),
            "approximations": self.config.approximations(),
            "unreadable": self.failures.reasons,
        }

    # ---------------------------------------------------------------- stopping and going on

    def _filling(self, part: str, done: int, clips: int) -> None:
        self.bar.update(self.task, note=f"caching {done} of {clips} {part} clips")
        self.status.tell(phase=f"caching {done} of {clips} {part} clips")

    def _heed(self) -> None:
        """Stop if some process was asked to."""
        if self.processes.any(self.stop.is_set):
            self._stopped()

    def _stopped(self) -> NoReturn:
        if self.progress.epoch < self.epochs:  # else it is saved, and the model may be the best one already
            self._save()
        step = f"step {self.progress.step} of {self.steps}"
        said = f"Stopped at {step}, saved. Go on with: msta train --resume {self.out}"
        raise self.processes.common(Interrupted(said))

    def _save(self) -> None:
        """Everything that the next step depends on."""
        progress, start = self.progress, time.monotonic()
        progress.seconds = self.clock.seconds()
        datasets = self.source.datasets.values()
        given_up = {dataset.clips[i].name: why for dataset in datasets for i, why in dataset.given_up.items()}
        everybody = self.processes.gather((random_state(), self.failures.reasons, given_up))
        for _, failures, others_given_up in everybody:
            self.failures.add(failures.items())
            progress.given_up |= others_given_up
        progress.failures = dict(self.failures.reasons)
        if self.processes.main:
            scaler = self.processes.accelerator.scaler
            optimizer = {"optimizer": self.optimizer.state_dict(), "scaler": scaler.state_dict() if scaler else None}
            state = State(progress, self.model.adapter_state(), self.best, optimizer, [each[0] for each in everybody])
            with self.clock.elsewhere():
                save_state(self.out / "checkpoints", state)
        self.pace.saved(time.monotonic() - start)
        self.status.tell(saved=progress.step, save_seconds=round(self.pace.took, 4))

    def _go_on_from(self, path: Path, progress: Progress) -> None:
        state = load_state(path, progress, self.model)
        if progress.made_with != self._made_with():
            raise CheckpointError(f"{path}: was made with {progress.made_with}, not {self._made_with()}")
        self.progress, self.best = progress, state.best
        try:
            self.optimizer.load_state_dict(state.optimizer["optimizer"])
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path}: cannot go on from it ({error})") from error
        if self.processes.accelerator.scaler and state.optimizer["scaler"]:
            self.processes.accelerator.scaler.load_state_dict(state.optimizer["scaler"])
        if self.processes.rank < len(state.random):
            restore_random(state.random[self.processes.rank])
        self.source.batch_size = min(progress.batch_size, self.config.train.batch_size)
        self.failures.reasons.update(progress.failures)
        given_up = progress.given_up
        for dataset in self.source.datasets.values():
            dataset.given_up |= {i: given_up[c.name] for i, c in enumerate(dataset.clips) if c.name in given_up}

    def _made_with(self) -> dict[str, Any]:
        """What decides the numbers besides the settings."""
        cache = self.source.cache
        return {"backbone": self.model.origin["fingerprint"], "cache": cache and cache.settings}


def _clips(batches: Iterator[dict[str, Any]], count: int) -> Iterator[dict[str, Any]]:
    """Batches until they held so many clips, readable or not; fewer if they end early, as when the run is stopped."""
    while count > 0:
        batch = next(batches, None)
        if batch is None:
            return
        count -= len(batch["label"]) + len(batch["failures"])
        yield batch


# ---------------------------------------------------------------- before the first step


def _refuse_run(out: Path, data: Path) -> None:
    """Raise unless a run may be made in ``out``: new, and outside the data."""
    if not is_text(str(out)):
        raise ConfigError(f"--out: {str(out)!r} is no valid text")
    if (out / "config.yaml").exists() and (out / "split.csv").exists():
        raise MSTAError(
            f"{out}: holds a run already; go on with it by msta train --resume {out}, or choose another name"
        )
    refuse_existing(out)
    if Path(os.path.abspath(out)).is_relative_to(data):
        raise ConfigError(f"--out: {out} lies inside the data, where it would be taken for a class")


def _check_same_settings(out: Path, config: RunConfig) -> None:
    if read_config(out / "config.yaml") != config:
        raise ConfigError(f"{out}: its run has other settings, see its config.yaml; --resume takes them as they are")


def _open_run(out: Path, config: RunConfig, catalog: Catalog, split: Split) -> None:
    with new_directory(out) as folder:
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        write_catalog(folder / "split.csv", catalog.classes, split.all())


def _check_same_split(out: Path, catalog: Catalog, split: Split) -> None:
    if fingerprint((), read_catalog(out / "split.csv").clips) != fingerprint((), split.all()):
        raise DataError(f"{catalog.source}: its clips are not those the run in {out} began with (see its split.csv)")


@contextmanager
def _reported(out: Path, config: RunConfig, processes: Processes) -> Iterator[StatusFile]:
    """The run's status file, which learns how the run ended."""
    status = StatusFile(out if processes.main else None, config.train.prometheus)
    start_trackers(processes, config, out)
    try:
        yield status
        status.tell(now=True, ended="finished", phase="finished")
    except (Interrupted, KeyboardInterrupt):
        status.tell(now=True, ended="stopped")
        raise
    except Exception as error:
        status.tell(now=True, ended="failed", errors=[str(error) or type(error).__name__])
        raise
    finally:
        processes.accelerator.end_training()


# ---------------------------------------------------------------- during the steps


def lr_factor(step: int, steps: int, warmup: int) -> float:
    """Linear warm-up, then half a cosine to zero; per step, from 0."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _better(measured: dict[str, float], best: dict[str, float]) -> bool:
    """Higher top-1; among equals, which few validation clips make many, lower negative log likelihood."""
    return not best or (measured["top1"], -measured["nll"]) > (best["top1"], -best["nll"])


@dataclass
class _Stop:
    is_set: bool = False


@contextmanager
def _interruptible(stop: _Stop, speak: bool) -> Iterator[None]:
    """Ctrl-C or a scheduler's SIGTERM asks the run to save and stop; a second one stops it at once."""

    def ask(number: int, frame: Any) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.is_set = True
        if speak:
            print("Stopping …", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
