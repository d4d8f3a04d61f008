"""ST-Adapter (Pan et al., NeurIPS 2022): a bottleneck with a depthwise 3-D convolution before a block's MLP.

With x the patch tokens of a clip, laid out as [T, H, W, d],

    x <- x + Up( DWConv3D( Down(x) ) )

without a nonlinearity, before the attention, before the MLP, or before both. Class tokens are not changed. The
convolution starts at zero, so the adapted model starts as the frozen one. With r the bottleneck's width and k the taps,
an adapter in a tower of width d trains 2 d r + r + d + r k + r parameters: 592,512 on ViT-B/16 with r = 384 and k = 3 x
1 x 1, the authors' code (adapter12x384), which makes 7,110,144 in twelve blocks; 7,220,736 with k = 3 x 3 x 3.

As in the authors' code, an adapter before the MLP of the last block has no effect, because only class tokens are read
after it. The count includes it. The authors' class head is not included: scores come from the frozen text tower.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, field_validator
from torch import Tensor, nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.blocks import Block, pick
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.methods.wrapping import chosen_blocks, span


class STAdapterConfig(MethodConfig):
    """Where the adapters sit and how large they are. Video tower only.

    Args:
        dim: width of the bottleneck.
        kernel: taps along frames, rows and columns, odd.
        before: "mlp" (the authors' Kinetics model), "attention" or "both" (their SSv2 model, 24 adapters).
        first_block: first adapted block, from 1. Those below it are a frozen prefix.
    """

    name: ClassVar[str] = "st-adapter"
    paper_overrides: ClassVar[dict[str, float]] = {
        "train.lr": 7.5e-4,
        "train.epochs": 12,
        "train.warmup_epochs": 2,
        "train.weight_decay": 1e-2,
    }
    dim: int = Field(384, ge=1)
    kernel: tuple[int, int, int] = (3, 1, 1)
    before: Literal["attention", "mlp", "both"] = "mlp"
    first_block: int = Field(1, ge=1)

    @field_validator("kernel")
    @classmethod
    def _odd(cls, kernel: tuple[int, int, int]) -> tuple[int, int, int]:
        if any(taps < 1 or taps % 2 == 0 for taps in kernel):
            raise ValueError("must be three odd numbers, so that each has a centre")
        return kernel

    @property
    def needs_grid(self) -> bool:
        """True if the kernel has taps along rows or columns."""
        return self.kernel[1:] != (1, 1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Wrap the chosen blocks of the video tower.

        Raises:
            ConfigError: ``first_block`` beyond the towers.
        """
        view, adapter = backbone.view(), nn.ModuleDict()
        blocks = chosen_blocks(backbone, "video", self.first_block)
        places = ("attention", "mlp") if self.before == "both" else (self.before,)
        for index in blocks["video"]:
            made = nn.ModuleDict({p: STAdapter(view.video.shape.width, self.dim, self.kernel) for p in places})
            view.video.blocks[index] = STAdapterBlock(view.video.blocks[index], made)  # type: ignore[arg-type]
            adapter[str(index + 1)] = made
        where = " and ".join(places)
        trains = f"spatio-temporal adapters of width {self.dim} before {where} in {span(blocks)}"
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains)


class STAdapter(nn.Module):
    """Down, depthwise convolution over frames, rows and columns, Up; added to the patch tokens."""

    def __init__(self, width: int, dim: int, kernel: tuple[int, int, int]) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        t, h, w = kernel
        self.conv = nn.Conv3d(dim, dim, kernel, padding=(t // 2, h // 2, w // 2), groups=dim)
        for zero in (self.conv.weight, self.conv.bias, self.down.bias, self.up.bias):
            assert zero is not None
            nn.init.zeros_(zero)

    def forward(self, x: Tensor, layout: VideoLayout) -> Tensor:
        """x [b, s, d] -> [b, s, d].

        Raises:
            ValueError: the kernel has taps along rows or columns, and the patches do not form a square.
        """
        tokens = layout.over_time(x)  # [b, t, m, d]
        alone = tokens.shape[2] - layout.patches  # class tokens that exist once per frame: 0 or 1
        moved = tokens[:, :, alone:] + self.up(self._convolve(self.down(tokens[:, :, alone:])))
        return layout.put_back(x, torch.cat((tokens[:, :, :alone], moved), dim=2))

    def _convolve(self, z: Tensor) -> Tensor:
        """z [b, t, n, r] -> the same shape. Over frames alone, in one dimension: torch's 3-D kernel is slow."""
        (b, t, n, r), conv = z.shape, self.conv
        if conv.kernel_size[1:] == (1, 1):
            each = z.permute(0, 2, 3, 1).flatten(0, 1)  # [b n, r, t]
            y = F.conv1d(each, conv.weight.flatten(2), conv.bias, padding=conv.kernel_size[0] // 2, groups=r)
            return y.view(b, n, r, t).permute(0, 3, 1, 2)
        side = math.isqrt(n)
        if side * side != n:
            raise ValueError(f"st-adapter: a kernel with rows and columns needs square frames, got {n} patches")
        return conv(z.unflatten(2, (side, side)).permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1).flatten(2, 3)


class STAdapterBlock(nn.Module):
    """A block with adapters before its attention, its MLP or both. It has a block's interface."""

    def __init__(self, block: Block, adapters: nn.ModuleDict) -> None:
        super().__init__()
        self.block, self.adapters = block, adapters

    def forward(self, x: Tensor, layout: VideoLayout, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d], or with positions ``query_index`` [b] the class tokens alone: [b, 1, d]."""
        block = self.block
        if "attention" in self.adapters:
            x = self.adapters["attention"](x, layout)
        if "mlp" not in self.adapters:
            return block(x, layout, query_index)
        y = block.attn(block.ln_1(x), query_index)
        if query_index is None:
            x = self.adapters["mlp"](x + y, layout)
        else:  # no patch is read: its gradient is zero, not none
            x = pick(x, query_index) + y + 0 * sum(p.sum() for p in self.adapters["mlp"].parameters())
        return x + block.mlp(block.ln_2(x))
