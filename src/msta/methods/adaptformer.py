"""AdaptFormer (Chen et al., NeurIPS 2022): a bottleneck beside the MLP of every block.

With x the tokens after the attention,

    out = x + MLP( LN2(x) ) + scale * Up( ReLU( Down(x) ) )

where the adapter reads x as it is, without a layer norm. In a block of width d it trains 2 d r + r + d parameters:
99,136 on ViT-B/16 with r = 64, 1,189,632 in its twelve blocks. The authors' class head is not part of it, nor is
their dropout of 0.1 in the bottleneck: our training steps use no random numbers.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.blocks import Block, pick
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.methods.wrapping import Towers, chosen_blocks, span


class AdaptFormerConfig(MethodConfig):
    """Where the adapters sit and how large they are.

    Args:
        dim: width of the bottleneck.
        scale: factor on the adapter's output.
        towers: "video", as in the paper, "text" or "both".
        first_block: first adapted block, from 1. Those below it are a frozen prefix.
    """

    name: ClassVar[str] = "adaptformer"
    dim: int = Field(64, ge=1)
    scale: float = 0.1
    towers: Towers = "video"
    first_block: int = Field(1, ge=1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Wrap the chosen blocks.

        Raises:
            ConfigError: ``first_block`` beyond the towers.
        """
        view, adapter = backbone.view(), nn.ModuleDict()
        blocks = chosen_blocks(backbone, self.towers, self.first_block)
        for name, chosen in blocks.items():
            tower, adapters = getattr(view, name), nn.ModuleDict()
            for index in chosen:
                made = adapters[str(index + 1)] = ParallelAdapter(tower.shape.width, self.dim)
                tower.blocks[index] = AdaptFormerBlock(tower.blocks[index], made, self.scale)
            adapter[name] = adapters
        return AdaptedModel(
            self, adapter, view, origin=backbone, trains=f"adapters of width {self.dim} in {span(blocks)}"
        )


class ParallelAdapter(nn.Module):
    """Down, ReLU, Up; Up starts at zero."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        nn.init.kaiming_uniform_(self.down.weight, a=math.sqrt(5))
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, s, d] -> [b, s, d]."""
        return self.up(F.relu(self.down(x)))


class AdaptFormerBlock(nn.Module):
    """A block with an adapter beside its MLP. It has a block's interface."""

    mixes_frames = False

    def __init__(self, block: Block, adapter: ParallelAdapter, scale: float) -> None:
        super().__init__()
        self.block, self.adapter, self.scale = block, adapter, scale

    def forward(self, x: Tensor, layout: VideoLayout | None = None, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d], or [b, 1, d] at positions ``query_index`` [b]."""
        block = self.block
        y = block.attn(block.ln_1(x), query_index)
        x = (x if query_index is None else pick(x, query_index)) + y
        return torch.add(x + block.mlp(block.ln_2(x)), self.adapter(x), alpha=self.scale)
