"""One frozen backbone with many adapters: what the adapters have in common is computed once.

Up to the first block that an adapter has changed, all adapters of a backbone compute the same tokens. So a batch of
clips, each for its own adapter, goes through the frozen blocks together and splits where the adapters begin. A clip
for several adapters is decoded once and goes through the frozen blocks once.

    clips ── embed ── frozen blocks ──┬── blocks of adapter a ── its classes
                                      └── blocks of adapter b ── its classes

Two towers share a block if it is the very same object in both. An adapter that shares no block, such as full
fine-tuning, runs alone, with the same result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.backbone.blocks import ParallelAdapter
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.backbone.prefix import Tokens, at_once, suffix
from msta.backbone.video import VideoTower
from msta.evaluation.metrics import Array

if TYPE_CHECKING:
    from msta.inference.predictor import Predictor

_BEFORE_THE_BLOCKS = (
    "patch_embedding", "class_embedding", "positional_embedding", "temporal_positional_embedding", "ln_pre",
)  # fmt: skip


class SharedBackbone:
    """A frozen backbone (on any device) that runs several adapters together.

    Example:
        >>> shared = SharedBackbone(msta.load_backbone("toy"))  # doctest: +SKIP
        >>> adapters = [msta.load_adapter(run, shared.backbone) for run in ("runs/a", "runs/b")]  # doctest: +SKIP
        >>> a, b = map(Predictor, adapters)  # doctest: +SKIP
        >>> shared.answer([(clip, a), (clip, b), (another, a)])  # doctest: +SKIP
    """

    def __init__(self, backbone: DualEncoder) -> None:
        self.backbone = backbone.eval()

    @torch.no_grad()
    def encode(self, video: Tensor, adapters: Sequence[Predictor]) -> Tensor:
        """Encode each clip with its own adapter: [B, T, 3, H, W], normalised, and B adapters -> [B, D]."""
        clips: dict[Predictor, list[int]] = {}
        for i, adapter in enumerate(adapters):
            clips.setdefault(adapter, []).append(i)
        groups = [_Group(adapter.model, rows) for adapter, rows in clips.items()]
        with self.backbone.computing():
            embeddings = _encode(self.backbone.video, video, groups)
        order = torch.tensor([row for group in groups for row in group.clips]).argsort()
        return torch.cat(embeddings)[order.to(video.device)]

    @torch.no_grad()
    def encode_each(self, video: Tensor, models: Sequence[AdaptedModel]) -> list[Tensor]:
        """Encode each clip with every model: [B, T, 3, H, W], normalised -> [B, D] for each model."""
        every = list(range(len(video)))
        with self.backbone.computing():
            return _encode(self.backbone.video, video, [_Group(model, every) for model in models])

    def answer(self, requests: Sequence[tuple[Tensor, Predictor]]) -> list[tuple[Array, Tensor]]:
        """Answer requests whose clips may differ in shape.

        Args:
            requests: each the views of a video [V, T, 3, H, W] and an adapter.

        Returns:
            For each request its probabilities [K], the mean over the views, and the embeddings of its views [V, D].
        """
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, (views, _) in enumerate(requests):
            by_shape.setdefault(tuple(views.shape[1:]), []).append(i)
        answers: dict[int, tuple[Array, Tensor]] = {}
        for same_shape in by_shape.values():
            video = torch.cat([requests[i][0] for i in same_shape]).to(self.backbone.logit_scale.device)
            adapters = [requests[i][1] for i in same_shape for _ in requests[i][0]]
            embeddings = self.encode(video, adapters).split([len(requests[i][0]) for i in same_shape])
            for i, own in zip(same_shape, embeddings, strict=True):
                answers[i] = requests[i][1].probabilities(own[:, None])[0], own
        return [answers[i] for i in range(len(requests))]


# ---------------------------------------------------------------- where adapters begin


def shared_blocks(frozen: VideoTower, adapted: VideoTower) -> int | None:
    """How many blocks, from the first on, both towers share. None if they differ before the first block.

    The last block never counts, because only the tokens that are used are computed there.
    """
    if any(getattr(frozen, name, None) is not getattr(adapted, name, None) for name in _BEFORE_THE_BLOCKS):
        return None
    if len(frozen.blocks) != len(adapted.blocks):
        return None
    different = (i for i, (a, b) in enumerate(zip(frozen.blocks, adapted.blocks, strict=True)) if a is not b)
    return min(next(different, len(frozen.blocks)), len(frozen.blocks) - 1)


@dataclass(frozen=True)
class _Group:
    """A model and the clips, by their index in the batch, that it is to encode."""

    model: AdaptedModel
    clips: list[int]


def _encode(frozen: VideoTower, video: Tensor, groups: Sequence[_Group]) -> list[Tensor]:
    """[B, T, 3, H, W] -> for each group [its clips, D].

    The frozen blocks run on the clips that still need them, up to where the next groups' own blocks begin.
    """
    embeddings: dict[int, Tensor] = {}
    leaving: dict[int, list[int]] = {}  # number of shared blocks -> the groups that share so many
    for i, group in enumerate(groups):
        shared = None if group.model.exact_reference else shared_blocks(frozen, group.model.backbone.video)
        if shared is None:
            embeddings[i] = group.model.encode_video(video[group.clips])
        else:
            leaving.setdefault(shared, []).append(i)

    def needed_from(block: int) -> list[int]:
        return sorted({clip for at in leaving if at >= block for i in leaving[at] for clip in groups[i].clips})

    depth, clips = 0, needed_from(0)
    if clips:
        x, layout = frozen.embed(video[clips])
    for stop, numbers in sorted(leaving.items()):
        x, clips = _rows(x, clips, needed_from(stop)), needed_from(stop)
        x, depth = _run(frozen, x, depth, stop, layout), stop
        parallel = [i for i in numbers if _takes_frozen_output(frozen, groups[i].model.backbone.video, stop)]
        frozen_output = _run(frozen, x, stop, stop + 1, layout) if parallel else None
        for i in numbers:
            tokens, own = _rows(x, clips, groups[i].clips), None
            if frozen_output is not None and i in parallel:
                own = _rows(frozen_output, clips, groups[i].clips)
            own_blocks = Tokens(tokens, stop, frozen.query_index(tokens), layout, own)
            embeddings[i] = suffix(groups[i].model.backbone.video, own_blocks)
        if frozen_output is not None:
            x, depth = frozen_output, stop + 1
    return [embeddings[i] for i in range(len(groups))]


def _takes_frozen_output(frozen: VideoTower, adapted: VideoTower, at: int) -> bool:
    """Whether the adapted block is the frozen one with an adapter in parallel, and is not the last block."""
    block = adapted.blocks[at]
    return at + 1 < len(frozen.blocks) and isinstance(block, ParallelAdapter) and block.block is frozen.blocks[at]


def _run(tower: VideoTower, x: Tensor, start: int, stop: int, layout: VideoLayout) -> Tensor:
    return torch.cat([tower.run(part, start, stop, layout=layout) for part in x.split(at_once(x, layout))])


def _rows(x: Tensor, clips: list[int], wanted: list[int]) -> Tensor:
    """The sequences of the wanted clips, from ``x``, which holds those of ``clips``."""
    if clips == wanted:
        return x
    place = {clip: i for i, clip in enumerate(clips)}
    index = torch.tensor([place[clip] for clip in wanted], device=x.device)
    return x.unflatten(0, (len(clips), -1))[index].flatten(0, 1)
