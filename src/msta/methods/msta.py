"""MSTA, the Multi-modal Spatio-Temporal Adapter (CVPR 2025, arXiv 2411.11223).

In the upper blocks of both towers, with x a block's input and LN1 the block's own first layer norm:

    y   = Up_m( ReLU( Shared( ReLU( Down_m( LN1(x) ) ) ) ) )        m in {text, video}
    out = block(x) + scale * TemporalConv(y)                        the convolution in the video tower only

Down_m and Up_m belong to one tower, Shared to both: a gradient of either modality reaches it. Without the temporal
convolution this is MMA (CVPR 2024), which the authors extended. On ViT-B/16 it trains 1,744,000 parameters, the figure
in the authors' logs; that the convolution is depthwise, of kernel 3 and with a bias, is inferred from that figure.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from msta.backbone.blocks import Block, may_rearrange, pick
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.errors import ConfigError
from msta.methods.base import AdaptedModel, MethodConfig
from msta.methods.wrapping import Towers


class MSTAConfig(MethodConfig):
    """Where the adapters sit and how large they are.

    Args:
        first_block: first adapted block, from 1, inclusive. Unset: the upper five twelfths of each tower by its own
            depth (8..12 of 12, 15..24 of 24, 4..6 of 6).
        last_block: last adapted block, inclusive. Unset: the last.
        dim: r, the width of the bottleneck.
        scale: factor on the adapter's output.
        temporal_kernel: taps of the temporal convolution, odd. 0, 1 or None: no convolution, which is MMA.
        shared: one projection for both towers. False: one each.
        towers: which are adapted: "video", "text" or "both", the paper's.

    Towers of unequal depth (ViCLIP-L/14: video 24, text 12) share from the top: the last text block with the last
    video block, the one below with the one below. Block numbers, here and in saved files, then count in the deeper
    tower: ``first_block=20`` adapts video blocks 20..24 and text blocks 8..12. A block without a partner in the other
    tower has its projection to itself.

    Example:
        >>> import msta
        >>> msta.attach(msta.random_backbone("viclip-b16"), MSTAConfig()).num_trainable()
        1744000
    """

    name: ClassVar[str] = "msta"
    usual: ClassVar[dict[str, float]] = {}
    recipe: ClassVar[dict[str, float]] = {
        "train.lr": 1e-3,
        "train.epochs": 50,
        "train.warmup_epochs": 5,
        "train.weight_decay": 1e-3,
    }
    search: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-4, 1e-2), "method.scale": (0.005, 0.5)}
    twelfths_below: ClassVar[int] = 7
    """Of a tower's blocks, those that stay as they are if no first block is set."""
    first_block: int | None = Field(None, ge=1)
    last_block: int | None = Field(None, ge=1)
    dim: int = Field(128, ge=1)
    scale: float = 0.005
    temporal_kernel: int | None = Field(3, ge=0)
    shared: bool = True
    towers: Towers = "both"

    @field_validator("temporal_kernel")
    @classmethod
    def _odd(cls, kernel: int | None) -> int | None:
        if kernel and kernel % 2 == 0:
            raise ValueError("must be odd, so that it has a centre, or 0 for none")
        return kernel

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Wrap the chosen blocks of both towers.

        Raises:
            ConfigError: block numbers outside the towers.
        """
        view = backbone.view()
        adapter = nn.ModuleDict()
        pairs = self.block_pairs(len(view.video.blocks), len(view.text.blocks))
        for number, video_block, text_block in pairs:
            pair = nn.ModuleDict()
            if self.shared:
                pair["shared"] = _projection(self.dim, self.dim)
            for name, tower, index in (("text", view.text, text_block), ("video", view.video, video_block)):
                if index is None:
                    continue
                kernel = self.temporal_kernel if name == "video" else None
                bottleneck = pair[name] = Bottleneck(tower.shape.width, self.dim, kernel)
                if not self.shared:
                    pair[f"{name}_projection"] = _projection(self.dim, self.dim)
                projection = pair["shared" if self.shared else f"{name}_projection"]
                block = cast(Block, tower.blocks[index])
                tower.blocks[index] = MSTABlock(block, bottleneck, projection, self.scale)
            adapter[str(number)] = pair
        trains = (
            f"adapters of width {self.dim} in {_span([v for _, v, _ in pairs])} of the video tower and "
            f"{_span([t for _, _, t in pairs])} of the text tower"
        )
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains)

    def block_pairs(self, video_depth: int, text_depth: int) -> list[tuple[int, int | None, int | None]]:
        """(number in the deeper tower from 1, video block from 0, text block from 0) of every adapted pair; None for
        a block that a tower has not, or that is not adapted.
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


def _projection(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")  # a ReLU follows each
    nn.init.zeros_(linear.bias)
    return linear


class TemporalConv(nn.Module):
    """Depthwise convolution along the frames, zero-padded, starting as the identity.

    Written as a sum of shifted copies: channels stay innermost, nothing is permuted, and the identity is exact.
    :meth:`after` is the same behind a linear layer, for less.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, kernel))
        self.bias = nn.Parameter(torch.zeros(width))
        nn.init.ones_(self.weight[:, kernel // 2])

    def forward(self, x: Tensor) -> Tensor:
        """x [b, t, m, d] -> [b, t, m, d], every token mixed with itself in the neighbouring frames."""
        taps = (copy * self.weight[:, i] for i, copy in enumerate(self._shifted(x)))
        return sum(taps, start=self.bias)

    def after(self, linear: nn.Linear, z: Tensor) -> Tensor:
        """``self(linear(z))`` for a z [b, t, m, r] that is narrow: it is z that is copied, not what is d wide.

        sum_i w_i (U z_i + u), over the taps i, is one product with the shifted copies z_i side by side. Each has a
        column of ones for the bias u, shifted with it, so that it too is zero beyond the first and the last frame.
        """
        ones = z.new_ones(()).expand(*z.shape[:-1], 1)
        copies = torch.cat(self._shifted(torch.cat((z, ones), dim=-1)), dim=-1)
        layer = torch.cat((linear.weight, linear.bias[:, None]), dim=1)
        return F.linear(copies, (self.weight[:, :, None] * layer[:, None]).flatten(1), self.bias)

    def _shifted(self, x: Tensor) -> list[Tensor]:
        frames, kernel = x.shape[1], self.weight.shape[1]
        padded = F.pad(x, (0, 0, 0, 0, kernel // 2, kernel // 2))
        return [padded[:, i : i + frames] for i in range(kernel)]


class Bottleneck(nn.Module):
    """The part of an adapter that belongs to one tower: Down, Up and, for video, the temporal convolution."""

    def __init__(self, width: int, dim: int, kernel: int | None) -> None:
        super().__init__()
        self.down = _projection(width, dim)
        self.up = nn.Linear(dim, width)
        nn.init.zeros_(self.up.weight)  # the adapted model starts as the frozen one, to the last bit
        nn.init.zeros_(self.up.bias)
        self.temporal = TemporalConv(width, kernel) if kernel and kernel > 1 else None

    def forward(self, x: Tensor, projection: nn.Module, layout: VideoLayout | None) -> Tensor:
        """x [b, s, d], layer-normed -> y [b, s, d]."""
        z = F.relu(projection(F.relu(self.down(x))))
        if self.temporal is not None and layout is not None and layout.patches and may_rearrange():
            return layout.put_back(self.up(z[:, :1]), self.temporal.after(self.up, layout.over_time(z)))
        y = self.up(z)
        if self.temporal is None or layout is None:
            return y
        if layout.patches == 0 and layout.class_token == "shared":  # no token to mix: its gradient is zero, not none
            return y + 0 * (self.temporal.weight.sum() + self.temporal.bias.sum())
        return layout.put_back(y, self.temporal(layout.over_time(y)))


class MSTABlock(nn.Module):
    """A block with an adapter beside it; has a block's interface, and a part that no adapter enters, ``frozen``."""

    def __init__(self, block: Block, bottleneck: Bottleneck, projection: nn.Module, scale: float) -> None:
        super().__init__()
        self.block = block
        self.bottleneck = bottleneck
        self.projection = projection
        self.scale = scale

    @property
    def mixes_frames(self) -> bool:
        """Whether a frame's tokens depend on other frames, where the block itself attends within each."""
        return self.bottleneck.temporal is not None

    def frozen(self, x: Tensor, layout: VideoLayout | None) -> Tensor:
        """The block itself: if nothing below trains, the same in every step. :meth:`forward` takes it as ``ahead``."""
        return self.block(x, layout)

    def forward(
        self, x: Tensor, layout: VideoLayout | None = None, read: Tensor | None = None, ahead: Tensor | None = None
    ) -> Tensor:
        """x [b, s, d] -> [b, s, d], or [b, 1, d] at positions ``read`` [b]: of a video, its class tokens."""
        if read is None:
            y = self.bottleneck(self.block.ln_1(x), self.projection, layout)
        else:
            alone = layout and replace(layout, patches=0)
            y = self.bottleneck(self.block.ln_1(pick(x, read)), self.projection, alone)
        return torch.add(self.block(x, layout, read) if ahead is None else ahead, y, alpha=self.scale)
