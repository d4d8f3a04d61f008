"""Training, from a config to an adapter on disk. Read it top to bottom: data, model, plan, steps, test."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from rich.console import Console
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from msta.config import RunConfig, TrainSettings
from msta.data.catalog import Catalog, read_catalog, write_catalog
from msta.data.clips import Failures
from msta.data.splits import Split
from msta.data.storage import absolute
from msta.descriptions.anchors import anchor_folder, anchors_of
from msta.errors import ConfigError, DataError, Interrupted, MSTAError, is_text
from msta.evaluation.calibration import calibrated
from msta.evaluation.evaluate import evaluate, views_of
from msta.evaluation.predictions import Recorder
from msta.files import new_directory, read_json, refuse_existing, write_bytes, write_json
from msta.memory import keep_freed_memory
from msta.methods.task import per_class
from msta.notices import notice
from msta.training.batches import Source
from msta.training.losses import objective
from msta.training.report import Clock, RunLog, print_plan, print_result, progress_bar
from msta.training.setup import set_up
from msta.training.state import Progress, load_state, save_state

_SETTLED = 3
"""Steps after which the pace says something: the first ones pay for warming up."""


def train(config: RunConfig, out: Path, console: Console, *, resume: bool = False) -> dict[str, Any]:
    """Train, select, test, and save.

    Args:
        config: the run.
        out: its directory: config.yaml, split.csv, log.jsonl, tensorboard/, checkpoints/, predictions/, adapter/,
            metrics.json.
        console: where the plan, the progress and the result are printed.
        resume: go on with the run in ``out`` from its last saved step.

    Returns:
        What is written to metrics.json: "top1", "top5", "mean_class" in percent on the test clips, and more.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    if resume and (out / "metrics.json").exists():
        console.print(f"{out} is finished already.")
        return read_json(out / "metrics.json", MSTAError)
    if not resume:
        _refuse_run(out, config.data.path)

    # ------------------------------------------------------------ data and model
    settings = config.train
    if not settings.exact_reference:
        keep_freed_memory()
    made = set_up(config)
    catalog, split, model, bank = made.catalog, made.split, made.model, made.bank
    accelerator = _accelerator(settings)
    device = accelerator.device
    anchor_list: list[Tensor] = []
    if bank and model.num_trainable():
        anchor_list = anchors_of(
            bank, made.backbone.to(device), catalog.classes, average=config.descriptions.average,
            exact_reference=settings.exact_reference, cache=anchor_folder(),
        )  # fmt: skip
    model.to(device)
    with accelerator.autocast():
        if torch.is_autocast_enabled(device.type) and not settings.exact_reference:
            model.cast_frozen(torch.get_autocast_dtype(device.type))
    failures = Failures(config.data.on_error)
    source = Source(config, model, catalog, split, accelerator, failures)
    if model.clip_views:
        with console.status("reading the training clips"):
            model.see(*source.embeddings(model.clip_views))
    optimizer = torch.optim.AdamW(
        # AdamW refuses an empty list; zero-shot trains nothing
        model.trainable_parameters() or [torch.nn.Parameter(torch.zeros(0))],
        lr=settings.lr,
        weight_decay=settings.weight_decay,
    )
    if resume:
        _check_same_split(out, catalog, split)
    else:
        _open_run(out, config, catalog, split)
    state_file, best_file = out / "checkpoints" / "last.pt", out / "checkpoints" / "best.safetensors"
    progress = load_state(state_file, model, optimizer) if resume and state_file.exists() else Progress()
    failures.reasons.update(progress.failures)
    network, optimizer = accelerator.prepare(model, optimizer)

    # ------------------------------------------------------------ plan
    epochs, steps_per_epoch = made.epochs, made.steps_per_epoch
    steps = epochs * steps_per_epoch
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if steps and warmup > steps // 2:
        warmup = steps // 2
        notice(f"The warm-up is longer than half of the run: it is cut to {warmup} steps.")
    kept = source.plan(epochs)
    print_plan(console, config, model, catalog, split, epochs, steps_per_epoch, bool(anchor_list), kept)
    assert model.task is not None
    ids = model.tokenize(model.task.prompts()).to(device)
    with accelerator.autocast():  # the same in every step
        prompts = model.prepare_prompts(ids)

    # ------------------------------------------------------------ steps
    def measure(part: str, recorder: Recorder | None = None) -> dict[str, float]:
        with torch.no_grad(), accelerator.autocast():
            text = per_class(model.encode_text(prompts), len(catalog.classes))
        batches = source.test(part, fill)
        return evaluate(model, batches, text, failures, autocast=accelerator.autocast, recorder=recorder)

    def recorder(part: str) -> Recorder | None:
        embeddings = config.eval.keep == "embeddings"
        clips = source.datasets[part].clips
        return None if config.eval.keep == "nothing" else Recorder(clips, catalog.classes, embeddings=embeddings)

    def kept_file(part: str) -> Path:
        return out / "predictions" / f"{part}.parquet"

    def keep(record: Recorder | None, part: str) -> None:
        if record is not None:
            record.write(kept_file(part), split=part, method=model.config.name)

    watched = {"val": "val" if split.val else None, "last": None, "test-leak": "test"}[settings.select]
    if settings.select == "test-leak":
        notice("The checkpoint is selected on the test clips, as the authors did: the figure will be optimistic.")
    clock = Clock(progress.seconds)
    with RunLog(out, progress.step) as log, _interruptible() as stop, progress_bar(console) as bar:
        task = bar.add_task("training", total=steps, completed=progress.step, note="")

        def fill(part: str, done: int, clips: int) -> None:
            bar.update(task, note=f"caching {done} of {clips} {part} clips")

        while progress.epoch < epochs:
            for batch in source.train(progress.epoch, progress.batches * settings.batch_size, fill):
                progress.batches += 1
                failures.add(batch["failures"])
                with accelerator.autocast():
                    views = views_of(batch, model, device)
                if views is None:
                    if stop.is_set:
                        break
                    continue
                with accelerator.accumulate(network):
                    _set_lr(optimizer, settings, progress.step, steps, warmup)
                    video, text = network(views[0], prompts)
                    loss, parts = objective(
                        video,
                        per_class(text, len(catalog.classes)),
                        batch["label"],
                        model.logits,
                        anchor_list,
                        config.descriptions.alpha_at(progress.step, steps_per_epoch),
                        config.descriptions.distance,
                    )
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and settings.clip_grad:
                        accelerator.clip_grad_norm_(model.trainable_parameters(), settings.clip_grad)
                    optimizer.step()
                    optimizer.zero_grad()
                if not accelerator.sync_gradients:
                    continue
                progress.step += 1
                clock.tick()
                values = {"loss": loss.item(), **{name: value.item() for name, value in parts.items()}}
                if not math.isfinite(values["loss"]):
                    raise MSTAError(f"{out}: the loss is {values['loss']} at step {progress.step}; lower train.lr")
                log.step(progress, lr=optimizer.param_groups[0]["lr"], **values)
                bar.update(task, completed=progress.step, note=f"loss {values['loss']:.3f}")
                if clock.ticks == _SETTLED + 1:
                    console.print(clock.forecast(steps - progress.step, device))
                if stop.is_set:
                    break
            if not stop.is_set:
                progress.epoch += 1
                progress.batches = 0
                if watched and (progress.epoch % settings.eval_every == 0 or progress.epoch == epochs):
                    measured = measure(watched, record := recorder(watched))
                    log.epoch(progress, watched, measured)
                    if measured and _better(measured, progress.best):
                        progress.best = {**measured, "epoch": progress.epoch}
                        best_file.parent.mkdir(exist_ok=True)
                        write_bytes(best_file, to_safetensors(model.adapter_state()))
                        keep(record, watched)
                    if settings.watch_test and watched != "test":
                        log.epoch(progress, "test", measure("test"))
                if len(failures.reasons) >= len(split.train) and not progress.step:
                    raise DataError(f"{catalog.source}: not one of the training clips can be read")
            progress.seconds, progress.failures = clock.seconds(), dict(failures.reasons)
            save_state(state_file, model, optimizer, progress)
            if stop.is_set:
                raise Interrupted(
                    f"Stopped at step {progress.step} of {steps}, saved. Go on with: msta train --resume {out}"
                )

    # ------------------------------------------------------------ test and save
    if watched and progress.best:
        model.load_adapter_state(load_file(best_file))
    tested = measure("test", record := recorder("test"))
    if not tested:
        raise DataError(f"{catalog.source}: not one of the test clips can be read")
    keep(record, "test")
    if split.val and record and not kept_file("val").exists() and measure("val", record := recorder("val")):
        keep(record, "val")  # nothing was trained, or not by these clips selected
    metrics = {
        **tested,
        "split": "test",
        "selected_by": settings.select if progress.best else "last",
        "selected_at": progress.best,
        "method": model.config.name,
        "trainable_parameters": model.num_trainable(),
        "steps": progress.step,
        "seconds": round(clock.seconds(), 1),
        "consistency": config.descriptions.summary(bank if anchor_list else None),
        **calibrated(kept_file("val")),
        "approximations": config.approximations(),
        "unreadable": failures.reasons,
    }
    print_result(console, out, metrics)
    if resume:
        shutil.rmtree(out / "adapter", ignore_errors=True)  # of this run, stopped before it wrote its metrics
    model.save(out / "adapter", metrics)
    write_json(out / "metrics.json", metrics)
    return metrics


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


def _open_run(out: Path, config: RunConfig, catalog: Catalog, split: Split) -> None:
    with new_directory(out) as folder:
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        write_catalog(folder / "split.csv", catalog.classes, split.all())


def _check_same_split(out: Path, catalog: Catalog, split: Split) -> None:
    then = {(c.path, c.span, c.split) for c in read_catalog(out / "split.csv").clips}
    now = {(absolute(c.path), c.span, c.split) for c in split.all()}
    if then != now:
        raise DataError(f"{catalog.source}: its clips are not those the run in {out} began with (see its split.csv)")


def _accelerator(settings: TrainSettings) -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)  # one process may run several precisions, one by one
    mixed = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[settings.precision]
    try:
        return Accelerator(mixed_precision=mixed, gradient_accumulation_steps=settings.accumulate)
    except ValueError as error:
        raise ConfigError(f"train.precision: {settings.precision} does not work on this machine: {error}") from error


# ---------------------------------------------------------------- during the steps


def _set_lr(optimizer: torch.optim.Optimizer, settings: TrainSettings, step: int, steps: int, warmup: int) -> None:
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * lr_factor(step, steps, warmup)


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
def _interruptible() -> Iterator[_Stop]:
    """Ctrl-C or a scheduler's SIGTERM asks the loop to stop after its step; a second one stops it at once."""
    stop = _Stop()

    def ask(number: int, frame: Any) -> None:
        if stop.is_set:
            raise KeyboardInterrupt
        stop.is_set = True
        print("Stopping after this step …", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
