"""MSTA, the Multi-modal Spatio-Temporal Adapter (CVPR 2025, arXiv 2411.11223).

In the adapted blocks of both towers, with x a block's input and LN1 the block's own first layer norm:

    h   = ReLU( Shared( ReLU( Down_m( LN1(x) ) ) ) )                m in {text, video}
    out = block(x) + scale * Up(h)                                  text
    out = block(x) + scale * ( SpatialUp(h) + TemporalUp(h) )       video

Down_m belongs to one tower. Shared belongs to both, so gradients of both modalities reach it. SpatialUp is a linear
layer from the bottleneck of width r back to the tower's width d. TemporalUp stands beside it and is a 3-D convolution,
r to d, that mixes neighbouring frames and nothing else. Without TemporalUp this is MMA (CVPR 2024), which the authors
extended.

The formulas, the initialisation and scale = 0.005 are the paper's. That TemporalUp has a kernel of 3 frames and one
group per hidden channel is inferred from the published parameter counts: 1,744,000 (r 128, blocks 8..12 of ViT-B/16)
and 8.7 M (r 256, all blocks). The paper does not say, and we infer, that LN1 comes before Down (as in MMA's
code), and that ViCLIP's class token, which belongs to no frame, takes SpatialUp alone. The authors' code would decide
all three.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.blocks import Block, in_exact_reference_mode, pick
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.errors import CheckpointError, ConfigError
from msta.methods.wrapping import Towers

Init = Literal["zero", "kaiming"]


class MSTAConfig(MethodConfig):
    """Where the adapters sit and how large they are.

    Args:
        first_block: first adapted block, from 1, inclusive. Unset: the upper five twelfths of each tower, counted in
            its own depth (8..12 of 12, 15..24 of 24, 4..6 of 6).
        last_block: last adapted block, inclusive. Unset: the last.
        dim: r, the width of the bottleneck. For the temporal up-projection it must divide the video tower's width.
        scale: factor on the adapter's output, the paper's lambda.
        temporal_kernel: frames that the temporal up-projection sees, odd. 0, 1 or None: there is no temporal
            up-projection, which is MMA.
        shared: one projection for both towers. False: one each.
        towers: which are adapted: "video", "text" or "both", the paper's.
        init: "kaiming", the paper's: all weights normal with He's variance (fan-out, as in MMA's code), biases 0; or
            "zero": the same, but the up-projections start at zero, and so the adapted model starts as the frozen one,
            to the last bit.

    Towers of unequal depth (ViCLIP-L/14: video 24, text 12) share from the top: the last text block shares with the
    last video block, the block below with the block below, and so on. Block numbers, here and in saved files, then
    count in the deeper
    tower: ``first_block=20`` adapts video blocks 20..24 and text blocks 8..12. A block without a partner in the other
    tower has its own projection.

    Example:
        >>> import msta
        >>> msta.attach(msta.random_backbone("viclip-b16"), MSTAConfig()).num_trainable()
        1744000
    """

    name: ClassVar[str] = "msta"
    default_overrides: ClassVar[dict[str, float]] = {}
    paper_overrides: ClassVar[dict[str, float]] = {
        "train.lr": 1e-3,
        "train.epochs": 50,
        "train.warmup_epochs": 5,
        "train.weight_decay": 1e-3,
    }
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-4, 1e-1), "method.scale": (1e-3, 0.5)}
    twelfths_below: ClassVar[int] = 7
    """Of a tower's blocks, those that stay as they are if no first block is set."""
    first_block: int | None = Field(None, ge=1)
    last_block: int | None = Field(None, ge=1)
    dim: int = Field(128, ge=1)
    scale: float = 0.005
    temporal_kernel: int | None = Field(3, ge=0)
    shared: bool = True
    towers: Towers = "both"
    init: Init = "zero"

    @field_validator("temporal_kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel and kernel % 2 == 0:
            raise ValueError("must be odd, so that it has a centre, or 0 for none")
        return kernel

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Wrap the chosen blocks of both towers.

        Raises:
            ConfigError: block numbers outside the towers, or a ``dim`` that does not divide the video tower's width.
        """
        view = backbone.view()
        pairs = self.block_pairs(len(view.video.blocks), len(view.text.blocks))
        if self._temporal and any(video_block is not None for _, video_block, _ in pairs):
            self._check_dim(view.video.shape.width)
        adapter = nn.ModuleDict()
        for number, video_block, text_block in pairs:
            pair = nn.ModuleDict()
            if self.shared:
                pair["shared"] = nn.Linear(self.dim, self.dim)
            for name, tower, index in (("text", view.text, text_block), ("video", view.video, video_block)):
                if index is None:
                    continue
                width = tower.shape.width
                bottleneck: Bottleneck | SpatioTemporalBottleneck
                if name == "video" and self._temporal:
                    bottleneck = SpatioTemporalBottleneck(width, self.dim, self._temporal)
                else:
                    bottleneck = Bottleneck(width, self.dim)
                pair[name] = bottleneck
                if not self.shared:
                    pair[f"{name}_projection"] = nn.Linear(self.dim, self.dim)
                projection = pair["shared" if self.shared else f"{name}_projection"]
                block = cast(Block, tower.blocks[index])
                tower.blocks[index] = MSTABlock(block, bottleneck, projection, self.scale)
            adapter[str(number)] = pair
        initialise(adapter, self.init)
        trains = (
            f"adapters of width {self.dim} in {_span([v for _, v, _ in pairs])} of the video tower and "
            f"{_span([t for _, _, t in pairs])} of the text tower"
        )
        label = f"{self.name} (blocks {pairs[0][0]}..{pairs[-1][0]}, r {self.dim}, scale {self.scale:g})"
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains, label=label)

    @property
    def _temporal(self) -> int:
        """The temporal up-projection's kernel; 0: there is none."""
        return self.temporal_kernel if self.temporal_kernel and self.temporal_kernel > 1 else 0

    def _check_dim(self, width: int) -> None:
        if width % self.dim:
            divisors = [r for r in range(1, width + 1) if width % r == 0]
            nearest = min(divisors, key=lambda r: abs(r - self.dim))
            raise ConfigError(
                f"method.dim: {self.dim} does not divide the video tower's width of {width}, which the temporal "
                f"up-projection needs; the nearest that does is {nearest}"
            )

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse the weights of our first reconstruction, which convolved the output of its only up-projection.

        Raises:
            CheckpointError: they are such weights.
        """
        if any(".video.temporal." in name for name in state):
            raise CheckpointError(
                "was trained with the former adapter (one up-projection, its output convolved over time), which is not "
                "the paper's and computes something else; train it again"
            )

    def block_pairs(self, video_depth: int, text_depth: int) -> list[tuple[int, int | None, int | None]]:
        """(number in the deeper tower from 1, video block from 0, text block from 0) of every adapted pair; None if
        the tower has no such block, or the block is not adapted.
        """
        depth = max(video_depth, text_depth)
        first = self.first_block or self.twelfths_below * depth // 12 + 1
        last = self.last_block or depth
        if not first <= last <= depth:
            raise ConfigError(f"cannot adapt blocks {first}..{last}: the towers have blocks 1..{depth}")

        def index(number: int, tower: str, tower_depth: int) -> int | None:
            block = number - 1 - (depth - tower_depth)
            lowest = 0 if self.first_block else self.twelfths_below * tower_depth // 12
            return block if block >= lowest and self.towers in (tower, "both") else None

        pairs = [(n, index(n, "video", video_depth), index(n, "text", text_depth)) for n in range(first, last + 1)]
        if not (pairs := [pair for pair in pairs if pair[1:] != (None, None)]):
            raise ConfigError(f"method.towers: blocks {first}..{last} lie above or below the {self.towers} tower's")
        return pairs


def _span(blocks: list[int | None]) -> str:
    numbers = [block + 1 for block in blocks if block is not None]
    return f"blocks {numbers[0]}..{numbers[-1]}" if numbers else "no block"


def initialise(adapter: nn.Module, init: Init) -> None:
    """He's initialisation (Kaiming, normal) with fan-out for ReLU, biases 0; with "zero" the up-projections are 0."""
    for name, layer in adapter.named_modules():
        if isinstance(layer, (nn.Linear, nn.Conv3d)):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if init == "zero" and name.endswith("up"):
                nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


class Bottleneck(nn.Module):
    """The part of an adapter that belongs to the text tower, or to a video tower without temporal up-projection."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, dim)
        self.up = nn.Linear(dim, width)

    def forward(self, x: Tensor, projection: nn.Module, layout: VideoLayout | None) -> Tensor:
        """x [b, s, d], layer-normed -> y [b, s, d]."""
        return self.up(F.relu(projection(F.relu(self.down(x)))))


class SpatioTemporalBottleneck(nn.Module):
    """The part of an adapter that belongs to the video tower: Down, and SpatialUp and TemporalUp side by side."""

    def __init__(self, width: int, dim: int, kernel: int) -> None:
        super().__init__()
        self.down = nn.Linear(width, dim)
        self.spatial_up = nn.Linear(dim, width)
        self.temporal_up = nn.Conv3d(dim, width, (kernel, 1, 1), padding=(kernel // 2, 0, 0), groups=dim)

    def forward(self, x: Tensor, projection: nn.Module, layout: VideoLayout) -> Tensor:
        """x [b, s, d], layer-normed -> y [b, s, d].

        A class token per frame is treated like a patch. A class token that all frames share takes SpatialUp alone.
        """
        h = F.relu(projection(F.relu(self.down(x))))
        if layout.patches == 0 and layout.class_token == "shared":  # no frame to mix: the gradient is zero, not none
            unread = sum(p.sum() for p in self.temporal_up.parameters())
            return self.spatial_up(h) + 0 * unread
        if not in_exact_reference_mode():
            return layout.put_back(self.spatial_up(h[:, :1]), self.both_up(layout.over_time(h)))
        y = self.spatial_up(h)
        grid = layout.over_time(h).permute(0, 3, 1, 2)[..., None]  # [b, r, t, m, 1]
        temporal = self.temporal_up(grid)[..., 0].permute(0, 2, 3, 1)  # [b, t, m, d]
        return layout.put_back(y, layout.over_time(y) + temporal)

    def both_up(self, h: Tensor) -> Tensor:
        """SpatialUp(h) + TemporalUp(h) in one product: h [b, t, m, r] -> [b, t, m, d].

        The shifted copies of h, one per tap, are concatenated. The matrix has a tap's weights at the places where an
        output belongs to a hidden channel, and zeros elsewhere. SpatialUp is added to the columns of the centre tap,
        which does not shift.
        """
        (d, r), kernel = self.spatial_up.weight.shape, self.temporal_up.weight.shape[2]
        padded = F.pad(h, (0, 0, 0, 0, kernel // 2, kernel // 2))
        copies = torch.cat([padded[:, i : i + h.shape[1]] for i in range(kernel)], dim=-1)  # [b, t, m, k * r]
        belongs = torch.eye(r, dtype=h.dtype, device=h.device).repeat_interleave(d // r, dim=0)  # [d, r]
        taps = self.temporal_up.weight.view(d, kernel, 1) * belongs[:, None]  # [d, k, r]
        centre = F.pad(self.spatial_up.weight[:, None], (0, 0, kernel // 2, kernel // 2))
        bias = self.spatial_up.bias + cast(Tensor, self.temporal_up.bias)
        return F.linear(copies, (taps + centre).flatten(1), bias)


class MSTABlock(nn.Module):
    """A block with an adapter beside it, with a block's interface; a :class:`~msta.backbone.blocks.ParallelAdapter`."""

    def __init__(
        self, block: Block, bottleneck: Bottleneck | SpatioTemporalBottleneck, projection: nn.Module, scale: float
    ) -> None:
        super().__init__()
        self.block = block
        self.bottleneck = bottleneck
        self.projection = projection
        self.scale = scale

    @property
    def mixes_frames(self) -> bool:
        """Whether the adapter makes a frame's tokens depend on other frames, if the block attends within each frame."""
        return isinstance(self.bottleneck, SpatioTemporalBottleneck)

    def frozen_part(self, x: Tensor, layout: VideoLayout | None) -> Tensor:
        """The block itself. :meth:`forward` takes it as ``frozen_output``."""
        return self.block(x, layout)

    def forward(
        self,
        x: Tensor,
        layout: VideoLayout | None = None,
        query_index: Tensor | None = None,
        frozen_output: Tensor | None = None,
    ) -> Tensor:
        """x [b, s, d] -> [b, s, d], or [b, 1, d] at positions ``query_index`` [b]: of a video, its class tokens."""
        if query_index is None:
            y = self.bottleneck(self.block.ln_1(x), self.projection, layout)
        else:
            alone = layout and replace(layout, patches=0)
            y = self.bottleneck(self.block.ln_1(pick(x, query_index)), self.projection, alone)
        if frozen_output is None:
            frozen_output = self.block(x, layout, query_index)
        return torch.add(frozen_output, y, alpha=self.scale)
