"""The cost of a training step, counted and measured: ``msta bench``, and the costs in a comparison.

Counting runs the actual step on tensors without data (torch's FakeTensorMode). So no formula can disagree with the
code, and every method is covered.
"""

from __future__ import annotations

import copy
import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_backward_flop_count, sdpa_flop_count

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.backbone.device import best_device, precision_on
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.prefix import Tokens, at_once, prefix_length, tensors_per_sequence
from msta.config import RunConfig
from msta.data.processes import check_main_guard
from msta.evaluation.evaluate import class_embeddings
from msta.methods import attach
from msta.training.losses import objective
from msta.training.setup import set_up

_ROUNDS = 3
"""Rounds of a comparison's costs; the median counts."""

_CPU_ATTENTION: dict[Any, Any] = {  # which torch's counter leaves out
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, out_shape=None, **options: (
        sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *rest, out_shape=None, **options: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


_WITHOUT_WORK = (torch.ops.aten._unsafe_view, torch.ops.aten.empty, torch.ops.aten.empty_strided)


def flop_counter() -> FlopCounterMode:
    """A counter of the multiplications and additions in matrix products, convolutions and attention, on a CPU too."""
    return FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)


class MovedBytes(TorchDispatchMode):
    """Counts the bytes that operators other than products read and write. Views move nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One operator."""
        made = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        free = function.is_view or function.namespace == "prim" or packet in _WITHOUT_WORK
        if not (free or packet in flop_registry or packet in _CPU_ATTENTION):
            tensors = [each for each in tree_leaves((args, kwargs, made)) if isinstance(each, Tensor)]
            self.total += sum(each.numel() * each.element_size() for each in tensors)
        return made


@dataclass(frozen=True)
class StepCost:
    """The cost of one step.

    Attributes:
        prefix_flops: of the frozen part of the video tower, which a prefix cache saves.
        suffix_flops: of everything else: adapted blocks of both towers and the backward pass.
        weights: bytes of all parameters.
        training: bytes of gradients and of the two means of AdamW.
        kept: bytes of activations that are kept for the backward pass.
        working: bytes of the clips and of a block's widest activations, an estimate of temporary memory.
        moved: bytes that operators other than products read and write.
        prefix_bytes: bytes of the prefix's output, in fp16, for one clip: one view in the cache.
    """

    prefix_flops: int
    suffix_flops: int
    weights: int
    training: int
    kept: int
    working: int
    moved: int
    prefix_bytes: int

    @property
    def flops(self) -> int:
        """The arithmetic of a step without a cache."""
        return self.prefix_flops + self.suffix_flops

    @property
    def memory(self) -> int:
        """Bytes at the peak, without the interpreter and its libraries."""
        return self.weights + self.training + self.kept + self.working


def count_step(model: AdaptedModel, prompts: Tensor | Tokens, *, batch: int, frames: int, size: int) -> StepCost:
    """The cost of one step of ``model`` on ``batch`` clips of ``frames`` frames of ``size`` pixels.

    Args:
        model: as it will train.
        prompts: of the classes, from ``model.prepare_prompts``.
        batch: clips per step.
        frames: frames per clip.
        size: height and width.
    """
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        fake = copy.deepcopy(model)
    towers = fake.backbone.video, fake.backbone.text
    if not isinstance(prompts, Tokens):
        end = model.backbone.text.end_of_text(prompts)
        if towers[1].causal and not model.exact_reference:
            prompts = prompts[:, : int(end.max()) + 1]
    with mode:
        device = fake.backbone.logit_scale.device
        video = torch.empty(batch, frames, 3, size, size, device=device)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
        own = {p.untyped_storage()._cdata for p in fake.parameters()}
        kept: dict[int, tuple[int, torch.UntypedStorage]] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage._cdata not in own:
                kept[storage._cdata] = (storage.nbytes(), storage)  # held, so that no other takes its number
            return tensor

        moved = MovedBytes()
        with moved, flop_counter() as before:
            whole = fake.exact_reference or prefix_length(towers[0]) is None
            clips: Tensor | Tokens = video if whole else fake.video_prefix(video)
        with moved, flop_counter() as after, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            if isinstance(prompts, Tokens):
                text: Tensor | Tokens = replace(
                    prompts,
                    x=mode.from_tensor(prompts.x),
                    query_index=None if prompts.query_index is None else mode.from_tensor(prompts.query_index),
                    frozen_output=None if prompts.frozen_output is None else mode.from_tensor(prompts.frozen_output),
                )
            elif fake.exact_reference:
                text = mode.from_tensor(prompts)
            else:  # what text_prefix does, where it cannot look at the ids
                text = Tokens(towers[1].embed(mode.from_tensor(prompts)), 0, mode.from_tensor(end))
            seen, said = fake(clips, text)
            loss, _ = objective(seen, said, labels, fake.logits, [], 0.0)
            if loss.requires_grad:
                loss.backward()
        trained = sum(p.numel() * p.element_size() for p in fake.trainable_parameters())
        shape = towers[0].shape
        x, layout = towers[0].embed(video)
        together = x if fake.exact_reference else x.split(at_once(x, layout))[0]
        return StepCost(
            prefix_flops=before.get_total_flops(),
            suffix_flops=after.get_total_flops(),
            weights=sum(p.numel() * p.element_size() for p in fake.parameters()),
            training=3 * trained,
            kept=sum(nbytes for nbytes, _ in kept.values()),
            working=4 * video.numel() + 2 * 4 * together.numel() * shape.mlp_width // shape.width,
            moved=moved.total,
            prefix_bytes=2 * x.numel() * tensors_per_sequence(towers[0]) // batch,
        )


@torch.no_grad()
def count_forward(model: AdaptedModel, *, frames: int, size: int) -> tuple[int, int]:
    """The arithmetic of encoding one clip, and the bytes that operators other than products move."""
    mode = FakeTensorMode()
    with FakeCopyMode(mode):
        fake = copy.deepcopy(model)
    moved = MovedBytes()
    with mode, moved, flop_counter() as counter:
        fake.encode_video(torch.empty(1, frames, 3, size, size, device=fake.backbone.logit_scale.device))
    return counter.get_total_flops(), moved.total


def step(model: AdaptedModel, video: Tensor | Tokens, prompts: Tensor | Tokens, labels: Tensor) -> None:
    """Forward, loss and backward; the gradients are discarded. It costs what a step costs, and changes nothing."""
    seen, said = model(video, prompts)
    loss, _ = objective(seen, said, labels, model.logits, [], 0.0)
    if loss.requires_grad:
        loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


# ---------------------------------------------------------------- time


def alternate(ways: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each way. The ways are measured in turn, after a warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            if torch.accelerator.is_available():
                torch.accelerator.synchronize()
            if round_:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def time_step(
    model: AdaptedModel, prompts: Tensor | Tokens, *, batch: int, frames: int, size: int, rounds: int = 1
) -> float:
    """Seconds of a step on noise, the median of ``rounds``. No weight changes."""
    device = model.backbone.logit_scale.device
    video = torch.randn(batch, frames, 3, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    return _median(partial(step, model, video, prompts, labels), rounds)


@torch.no_grad()
def time_forward(model: AdaptedModel, *, frames: int, size: int) -> float:
    """Seconds to encode one clip of noise."""
    video = torch.randn(1, frames, 3, size, size, device=model.backbone.logit_scale.device)
    return _median(lambda: model.encode_video(video).cpu(), 1)


def _median(work: Callable[[], object], rounds: int) -> float:
    return statistics.median(alternate({"": work}, rounds)[""])


# ---------------------------------------------------------------- a backbone, a method


def bench(
    backbone: DualEncoder, method: str = "msta", *, classes: int = 51, batch: int = 4, rounds: int = 3
) -> dict[str, Any]:
    """Time forward and backward passes of a step on noise: without shortcuts, with them, and with the prefix kept.

    The three are measured in turn, after a warm-up round, in the backbone's precision and without decoding. No weight
    changes.

    Args:
        backbone: on the device to measure.
        method: a name in :data:`msta.methods.METHODS`, with its defaults.
        classes: class names per step.
        batch: clips per step.
        rounds: how many; medians are returned.

    Returns:
        Name in words -> figure: seconds, the ratio to the plain step, arithmetic, memory.

    Raises:
        ConfigError: there is no such method, or it does not fit the backbone.
    """
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
        "on": f"{device.type}, {backbone.precision}, {torch.get_num_threads()} threads",
        "TFLOP per step": round(cost.flops / 1e12, 3),
        "TFLOP of it in the frozen prefix": round(cost.prefix_flops / 1e12, 3),
        "GB of memory": round(cost.memory / 1e9, 2),
        "seconds per step, plain": round(seconds["plain"], 4),
        "seconds per step": round(seconds["fast"], 4),
        "times faster": round(seconds["plain"] / seconds["fast"], 2),
    }
    if "kept" in seconds:
        facts["seconds per step, prefix kept"] = round(seconds["kept"], 4)
        facts["times faster, prefix kept"] = round(seconds["plain"] / seconds["kept"], 2)
    return facts


def measure_costs(config: RunConfig) -> dict[str, float]:
    """Measure the costs of the config's method with the classes of its data set.

    Returns:
        "trainable": parameters, and "share", in percent of the backbone's. "step": seconds of a training step of
        ``train.batch_size`` clips. "clips": clips that are encoded and scored per second in a test, ``eval.batch_size``
        at a time. Both are without decoding. "memory": the most bytes of a graphics card; on other devices, of the
        process, without those that Python and its libraries hold before a backbone is loaded. A method that trains
        nothing has 0 seconds and the memory of testing.
    """
    check_main_guard("spawn")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_measure, config).result()


def _measure(config: RunConfig) -> dict[str, float]:
    device = best_device()
    before = 0 if device.type == "cuda" else psutil.Process().memory_info().rss
    made = set_up(config, config.train.step_clips(1))
    model = made.model.to(device)
    assert model.task is not None
    form = clip_format(model)
    model.backbone.precision = precision_on(device, config.train.precision)
    prompts = model.prepare_prompts(model.tokenize(model.task.prompts()).to(device))
    shape = {"batch": config.train.batch_size, "frames": form.frames, "size": form.size}
    step_seconds = time_step(model, prompts, **shape, rounds=_ROUNDS) if model.num_trainable() else 0.0
    model.eval()
    clips = torch.randn(config.eval.batch_size, form.frames, 3, form.size, form.size, device=device)
    with torch.inference_mode():
        text = class_embeddings(model, made.catalog.classes, model.task.template)
        seconds = _median(lambda: model.logits(model.encode_video(clips), text).cpu(), _ROUNDS)
    trainable, total = model.num_trainable(), sum(p.numel() for p in made.backbone.parameters())
    counts = {"trainable": trainable, "share": 100 * trainable / total}
    return {**counts, "step": step_seconds, "clips": len(clips) / seconds, "memory": float(_peak(device) - before)}


def _peak(device: torch.device) -> int:
    """The most bytes that a graphics card held for this process at once, or on another device the process itself."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    status = Path("/proc/self/status")
    if status.exists():  # getrusage's figure would include what the parent held
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return 1024 * int(lines["VmHWM"].split()[0])
    return int(psutil.Process().memory_info().rss)
