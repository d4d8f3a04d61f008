"""What a run will take, before it starts: ``msta info --plan``."""

from __future__ import annotations

import os
import time
from typing import Any

import torch

from msta.adapters.inputs import clip_format
from msta.config import RunConfig
from msta.data.clips import ClipDataset
from msta.memory import keep_freed_memory
from msta.training.cost import count_step, time_forward, time_step
from msta.training.prefix_cache import PrefixCache
from msta.training.setup import set_up

_SAMPLE = 8
"""Clips that are decoded to see how long it takes."""


def plan(config: RunConfig) -> dict[str, Any]:
    """Count a step's arithmetic and memory, measure a step and the decoding, multiply.

    Two steps on noise and a few clips are all that is computed. Figures are for this machine and one process, in fp32.

    Raises:
        MSTAError: as the run itself would.
    """
    keep_freed_memory()
    made = set_up(config, config.train.step_clips(1))
    model, split, settings = made.model, made.split, config.train
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    device = model.backbone.logit_scale.device
    form = clip_format(model)
    assert model.task is not None
    prompts = model.prepare_prompts(model.tokenize(model.task.prompts()).to(device))
    shape = {"batch": settings.batch_size, "frames": form.frames, "size": form.size}
    cost = count_step(model, prompts, **shape)
    step = time_step(model, prompts, **shape)
    augmentation = config.data.augmentation(made.catalog.classes)
    forward = time_forward(model, frames=form.frames, size=form.size)
    decoding = _seconds_a_clip(ClipDataset(split.train, form, augmentation=augmentation, seed=settings.seed))

    views = min(config.cache.views, made.epochs)
    decoded = len(split.train) * (views or made.epochs)
    steps = made.epochs * made.steps_per_epoch
    share = cost.prefix_flops / max(1, cost.flops)
    step_seconds = steps * settings.step_clips(1) / settings.batch_size * step
    if views:
        step_seconds *= 1 - share * (1 - views / made.epochs)
    measured = config.eval.views()
    validations = len(range(settings.eval_every, made.epochs + 1, settings.eval_every)) if split.val else 0
    test_views = (len(split.val) * (1 if views else validations) + len(split.test)) * measured.clips * measured.crops
    processors = os.cpu_count() or 1
    decode_seconds = decoded * decoding / (processors if config.data.workers else 1)
    test_seconds = test_views * (forward + decoding / processors)
    facts: dict[str, Any] = {
        "trainable parameters": model.num_trainable(),
        "TFLOP a step": round(cost.flops / 1e12, 3),
        "of which the frozen prefix": f"{100 * share:.0f} %",
        "memory": f"{cost.memory / 1e9:.2f} GB, Python and its libraries aside",
        "seconds a step": round(step, 3),
        "seconds to decode a clip": round(decoding, 4),
        "steps": steps,
        "seconds": round(step_seconds + decode_seconds + test_seconds),
    }
    if settings.keep_tokens < 1:
        facts["not counted"] = "train.keep_tokens: arithmetic, memory and time are those of all patches"
    if views:
        cache = PrefixCache(config.cache.folder(), model, max_gb=config.cache.max_gb, dtype=config.cache.dtype)
        dataset = ClipDataset(split.train, form, augmentation=augmentation)
        facts["cache"] = (
            f"{len(split.train) * views * cache.bytes_per_view(dataset) / 1e9:.2f} GB for the training clips"
        )
    return facts


def _seconds_a_clip(dataset: ClipDataset) -> float:
    count = min(_SAMPLE, len(dataset))
    dataset[0, 0]  # imports, caches
    start = time.perf_counter()
    for i in range(count):
        dataset[0, i * len(dataset) // count]
    return (time.perf_counter() - start) / count
