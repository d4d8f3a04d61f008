"""The needs of a run before it starts: ``msta info --plan``."""

from __future__ import annotations

import math
import os
import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from msta.adapters.inputs import clip_format
from msta.backbone.device import DTYPES, best_device
from msta.config import RunConfig
from msta.data.clips import ClipDataset
from msta.training.cards import Card, card_named
from msta.training.cost import StepCost, count_forward, count_step, time_forward, time_step
from msta.training.prefix_cache import PrefixCache
from msta.training.setup import Setup, set_up

_SAMPLE = 8
"""Clips that are decoded to measure how long it takes."""


@dataclass(frozen=True)
class _Times:
    """The cost of a step, and the seconds of a step and of encoding a test clip."""

    cost: StepCost
    step: float
    forward: float


def plan(config: RunConfig, device: str | None = None) -> dict[str, Any]:
    """Count the arithmetic and memory of a step, measure a step and the decoding, and extrapolate to the run.

    Only two steps on noise and the decoding of a few clips are computed. Figures are for this machine and one process,
    in the precision of the run.

    Args:
        config: of the run.
        device: a card such as "cuda:A100", which need not exist here. The time of a step is then a lower bound, counted
            with the card's data sheet; that of decoding is measured here.

    Raises:
        MSTAError: the errors of the run itself; or there is no such card.
    """
    card = card_named(device) if device else None
    here = torch.device("cpu") if card else best_device()
    precision = card.precision(config.train.precision) if card else config.on(here).train.precision
    made = set_up(config, config.train.step_clips(1))
    made.model.to(here)
    times = _times(config, made, precision, card)
    augmentation = config.data.augmentation(made.catalog.classes)
    dataset = ClipDataset(made.split.train, clip_format(made.model), augmentation=augmentation, seed=config.train.seed)
    decoding = _seconds_a_clip(dataset)
    cost, views, measuring = times.cost, min(config.cache.views, made.last_epoch), _measuring(config, made)
    facts: dict[str, Any] = {
        "trainable parameters": made.model.num_trainable(),
        "TFLOP per step": round(cost.flops / 1e12, 3),
        "of which the frozen prefix": f"{100 * cost.prefix_flops / max(1, cost.flops):.0f} %",
        "precision": precision,
        "memory": f"{cost.memory / 1e9:.2f} GB, {'CUDA' if card else 'Python'} and its libraries aside",
        "seconds per step": _rounded(times.step),
        "seconds to decode a clip": _rounded(decoding),
        "steps": round((1 + measuring) * made.last_epoch * made.steps_per_epoch),
        "seconds": round((1 + measuring) * _seconds(config, made, times, decoding)),
    }
    if card:
        facts["seconds per step"] = f"at least {facts['seconds per step']}, by the data sheet of {device}"
        facts["decoding"] = f"{config.train.batch_size * decoding / times.step:.1f} processes like here keep it fed"
        if cost.memory > card.memory * 1e9:
            facts["too large"] = f"{device} has {card.memory:g} GB; lower train.batch_size or set train.checkpointing"
    if config.train.keep_tokens < 1:
        facts["not counted"] = "train.keep_tokens: arithmetic, memory and time are those of all patches"
    if views:
        cache = PrefixCache(config.cache.folder(), made.model, max_gb=config.cache.max_gb, dtype=config.cache.dtype)
        needed = len(dataset) * views * cache.bytes_per_view(dataset)
        facts["cache"] = f"{needed / 1e9:.2f} GB for the training clips"
    return facts


def _times(config: RunConfig, made: Setup, precision: str, card: Card | None) -> _Times:
    """Times that are measured on the model's device, or counted for a card."""
    model, settings, form = made.model, config.train, clip_format(made.model)
    assert model.task is not None
    device, dtype = model.backbone.logit_scale.device, DTYPES[precision]
    mixed = dtype != torch.float32
    if mixed and not settings.exact_reference:
        model.cast_frozen(dtype)
    with torch.autocast(device.type, dtype) if mixed else nullcontext():
        prompts = model.prepare_prompts(model.tokenize(model.task.prompts()).to(device))
        shape = {"batch": settings.batch_size, "frames": form.frames, "size": form.size}
        cost = count_step(model, prompts, **shape)
        if card is None:
            forward = time_forward(model, frames=form.frames, size=form.size)
            return _Times(cost, time_step(model, prompts, **shape), forward)
        forward = card.seconds(*count_forward(model, frames=form.frames, size=form.size), precision, settings.tf32)
    return _Times(cost, card.seconds(cost.flops, cost.moved, precision, settings.tf32), forward)


def _measuring(config: RunConfig, made: Setup) -> float:
    """How many times as long as the training on all clips the runs take that measure, see msta.training.fit."""
    if config.train.folds:
        return config.train.folds - 1.0  # each trains on all clips but those of its fold
    if config.train.refit:
        return len(config.data.split(made.catalog).train) / len(made.catalog.clips)
    return 0.0


def _seconds(config: RunConfig, made: Setup, times: _Times, decoding: float) -> float:
    """Seconds of one run: steps, decoding, validations and the test."""
    settings, split, views = config.train, made.split, min(config.cache.views, made.last_epoch)
    steps = made.last_epoch * made.steps_per_epoch
    seconds = steps * settings.step_clips(1) / settings.batch_size * times.step
    if views:
        seconds *= 1 - times.cost.prefix_flops / max(1, times.cost.flops) * (1 - views / made.last_epoch)
    processors = os.cpu_count() or 1
    decoded = len(split.train) * (views or made.last_epoch)
    seconds += decoded * decoding / (1 if config.data.workers == 0 else processors)
    validations = math.ceil(made.last_epoch / settings.eval_every) if split.val and settings.select == "val" else 0
    tested = config.eval.views()
    test_views = (len(split.val) * (1 if views else validations) + len(split.test)) * tested.clips * tested.crops
    return seconds + test_views * (times.forward + decoding / processors)


def _rounded(seconds: float) -> float:
    """A number rounded to three significant digits."""
    return round(seconds, 2 - math.floor(math.log10(seconds)))


def _seconds_a_clip(dataset: ClipDataset) -> float:
    count = min(_SAMPLE, len(dataset))
    dataset[0, 0]  # imports, caches
    start = time.perf_counter()
    for i in range(count):
        dataset[0, i * len(dataset) // count]
    return (time.perf_counter() - start) / count
