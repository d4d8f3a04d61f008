"""What a training step costs, before it is taken: arithmetic and memory are counted, time is measured.

Counting runs the very step on tensors without numbers (torch's FakeTensorMode): no formula of ours can disagree with
the code, and every method is covered.
"""

from __future__ import annotations

import copy
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from msta.adapters.model import AdaptedModel
from msta.backbone.prefix import Tokens, at_once, prefix_length, tensors_per_sequence
from msta.training.losses import objective

_CPU_ATTENTION: dict[Any, Any] = {  # which torch's counter leaves out
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *rest, out_shape=None, **options: (
        sdpa_flop_count(q, k, v)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, q, k, v, *rest, out_shape=None, **options: sdpa_backward_flop_count(gradient, q, k, v)
    ),
}


def flop_counter() -> FlopCounterMode:
    """Counts multiplications and additions of matrix products, convolutions and attention, on a CPU too."""
    return FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)


@dataclass(frozen=True)
class StepCost:
    """What one step takes.

    Attributes:
        prefix_flops: of the frozen part of the video tower, which a prefix cache saves.
        suffix_flops: of everything else: adapted blocks of both towers and the backward pass.
        weights: bytes of all parameters.
        training: bytes of gradients and AdamW's two means.
        kept: bytes of activations that wait for the backward pass.
        working: bytes of the clips and of the widest activations of a block, a guess at what comes and goes.
        prefix_bytes: bytes of the prefix's output, in fp16, for one clip: one view in the cache.
    """

    prefix_flops: int
    suffix_flops: int
    weights: int
    training: int
    kept: int
    working: int
    prefix_bytes: int

    @property
    def flops(self) -> int:
        """Of a step without a cache."""
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
        batch: clips.
        frames: of each.
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

        with flop_counter() as before:
            whole = fake.exact_reference or prefix_length(towers[0]) is None
            clips: Tensor | Tokens = video if whole else fake.video_prefix(video)
        with flop_counter() as after, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
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
            prefix_bytes=2 * x.numel() * tensors_per_sequence(towers[0]) // batch,
        )


def step(model: AdaptedModel, video: Tensor | Tokens, prompts: Tensor | Tokens, labels: Tensor) -> None:
    """Forward, loss and backward, and the gradients forgotten: what a step costs, without its effect."""
    seen, said = model(video, prompts)
    loss, _ = objective(seen, said, labels, model.logits, [], 0.0)
    if loss.requires_grad:
        loss.backward()
    for parameter in model.parameters():
        parameter.grad = None


def time_step(model: AdaptedModel, prompts: Tensor | Tokens, *, batch: int, frames: int, size: int) -> float:
    """Seconds of a step on noise, the second of two: the first one warms up. No weight changes."""
    device = model.backbone.logit_scale.device
    video = torch.randn(batch, frames, 3, size, size, device=device)
    labels = torch.zeros(batch, dtype=torch.int64, device=device)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        step(model, video, prompts, labels)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - start
    return seconds


@torch.no_grad()
def time_forward(model: AdaptedModel, *, frames: int, size: int) -> float:
    """Seconds to encode one clip of noise, the second of two."""
    video = torch.randn(1, frames, 3, size, size, device=model.backbone.logit_scale.device)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        model.encode_video(video).cpu()
        seconds = time.perf_counter() - start
    return seconds
