"""What a method costs on this machine: a step, a clip at test, memory. Each in a process of its own, on noise."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import torch

from msta.adapters.inputs import clip_format
from msta.config import RunConfig
from msta.data.processes import check_main_guard
from msta.evaluation.evaluate import class_embeddings
from msta.memory import keep_freed_memory
from msta.training.cost import time_step
from msta.training.setup import set_up

ROUNDS = 3
"""Of which the median counts."""


def measure_costs(config: RunConfig) -> dict[str, float]:
    """Of the method of ``config`` on its data set's classes.

    Returns:
        "trainable": parameters, and "share", in percent of the backbone's. "step": seconds of a training step of
        ``train.batch_size`` clips. "clips": encoded and scored a second at test, ``eval.batch_size`` at a time; both
        without decoding. "memory": the most bytes the process held meanwhile, without what Python and its libraries
        hold before a backbone is loaded. A method that trains nothing has no step: 0 seconds, the memory of testing.
    """
    check_main_guard("spawn")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure, config).result()


def _measure(config: RunConfig) -> dict[str, float]:
    before = psutil.Process().memory_info().rss
    keep_freed_memory(config.train.exact_reference is False)
    made = set_up(config, config.train.step_clips(1))
    model = made.model.to("cuda" if torch.cuda.is_available() else "cpu")
    assert model.task is not None
    form, device = clip_format(model), model.backbone.logit_scale.device
    prompts = model.prepare_prompts(model.tokenize(model.task.prompts()).to(device))
    shape = {"batch": config.train.batch_size, "frames": form.frames, "size": form.size}
    step = 0.0
    if model.num_trainable():
        step = statistics.median(time_step(model, prompts, **shape) for _ in range(ROUNDS))
    model.eval()
    clips = torch.randn(config.eval.batch_size, form.frames, 3, form.size, form.size, device=device)
    with torch.inference_mode():
        text = class_embeddings(model, made.catalog.classes, model.task.template)
        seconds = [_timed(lambda: model.logits(model.encode_video(clips), text).cpu()) for _ in range(1 + ROUNDS)]
    trainable, total = model.num_trainable(), sum(p.numel() for p in made.backbone.parameters())
    counts = {"trainable": trainable, "share": 100 * trainable / total}
    rate = len(clips) / statistics.median(seconds[1:])
    return {**counts, "step": step, "clips": rate, "memory": float(_peak() - before)}


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _peak() -> int:
    """The most bytes this process, or the graphics card for it, held at once."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure would include what the parent held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    return int(psutil.Process().memory_info().rss)
