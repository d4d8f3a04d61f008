"""How fast this machine takes a training step, measured side by side: ``msta bench``."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch

from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.prefix import prefix_length
from msta.memory import keep_freed_memory
from msta.methods import attach
from msta.training.cost import count_step, step


def bench(
    backbone: DualEncoder, method: str = "msta", *, classes: int = 51, batch: int = 4, rounds: int = 3
) -> dict[str, Any]:
    """Forward and backward passes of a step on noise: the plain way, the fast path, and with the prefix kept.

    They are taken in turn, round after round, after one that warms up; no weight changes. In fp32, without decoding.

    Args:
        backbone: on the device to measure.
        method: its defaults, a name of :data:`msta.methods.METHODS`.
        classes: class names in a step.
        batch: clips in a step.
        rounds: of which the medians are given.

    Returns:
        What was measured, under names that are words: seconds, the ratio to the plain step, arithmetic, memory.

    Raises:
        ConfigError: no such method, or one that does not fit the backbone.
    """
    keep_freed_memory()
    architecture, device = backbone.architecture, backbone.logit_scale.device
    shape = {"batch": batch, "frames": architecture.frames, "size": architecture.image_size}
    video = torch.randn(batch, architecture.frames, 3, *[architecture.image_size] * 2, device=device)
    labels = torch.arange(batch, device=device) % classes
    ids = backbone.tokenize([f"a video of action number {i}." for i in range(classes)]).to(device)
    ways: dict[str, Callable[[], object]] = {}
    for name in ("plain", "fast"):
        model = attach(backbone, method, exact_reference=name == "plain").to(device)
        model.prepare(classes, batch)
        prompts = model.prepare_prompts(ids)
        ways[name] = partial(step, model, video, prompts, labels)
    cost = count_step(model, prompts, **shape)
    if prefix_length(model.backbone.video) is not None:
        ways["kept"] = partial(step, model, model.video_prefix(video), prompts, labels)
    seconds = {name: statistics.median(each) for name, each in alternate(ways, rounds).items()}
    facts: dict[str, Any] = {
        "backbone": backbone.source,
        "method": method,
        "a step": f"{batch} clips of {architecture.frames} frames of {architecture.image_size} px, {classes} classes",
        "trainable parameters": model.num_trainable(),
        "threads": torch.get_num_threads(),
        "TFLOP a step": round(cost.flops / 1e12, 3),
        "TFLOP of it in the frozen prefix": round(cost.prefix_flops / 1e12, 3),
        "GB of memory": round(cost.memory / 1e9, 2),
        "seconds a step, plain": round(seconds["plain"], 4),
        "seconds a step": round(seconds["fast"], 4),
        "times faster": round(seconds["plain"] / seconds["fast"], 2),
    }
    if "kept" in seconds:
        facts["seconds a step, prefix kept"] = round(seconds["kept"], 4)
        facts["times faster, prefix kept"] = round(seconds["plain"] / seconds["kept"], 2)
    return facts


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, taken in turn, after one round that warms up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds
