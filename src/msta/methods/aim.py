"""AIM (Yang et al., ICLR 2023): an image model learns time by using its attention a second time, along the frames.

In every block, with MSA the block's own attention and A_T, A_S, A_J bottlenecks (Down, GELU, Up),

    x <- x + A_T( MSA_time( LN1(x) ) )             temporal: the tokens of one place attend to each other over time
    x <- x + y + A_S(y),  y = MSA( LN1(x) )        spatial
    x <- x + MLP( LN2(x) ) + scale * A_J( LN2(x) ) joint

Every Up starts at zero: the adapted model starts as the frozen one. A bottleneck a quarter as wide as the tower has
295,872 parameters on ViT-B/16; three of them in twelve blocks have 10,651,392. The layer norm after the blocks trains
too (1,536), and the frames' positions, which CLIP lacks (8 x 768): 10,659,072. The paper says 11 M. Its class head is
not part of it, nor its stochastic depth.

There are two differences. The frames' positions, zero at the start, are added before the first adapted block, which is
after the first layer norm and not before it; so the blocks below stay a frozen prefix. And a ViCLIP's joint attention
already covers time. There, patches attend along the frames once more, the class token that all frames share does not,
and the positions are those of the backbone.
"""

from __future__ import annotations

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
from msta.backbone.video import at_frames
from msta.errors import ConfigError
from msta.methods.wrapping import chosen_blocks, own, span, twin


class AIMConfig(MethodConfig):
    """Where the adapters sit and how large they are. Video tower only.

    Args:
        ratio: the bottleneck's width over the tower's.
        scale: factor on the joint adapter's output.
        frames: learned positions in time, for CLIP; other numbers of frames interpolate them. Unset: as many frames as
            are sampled by default.
        first_block: first adapted block, from 1. Those below it are a frozen prefix.
    """

    name: ClassVar[str] = "aim"
    paper_overrides: ClassVar[dict[str, float]] = {
        "train.lr": 3e-4,
        "train.epochs": 50,
        "train.warmup_epochs": 2.5,
        "train.weight_decay": 5e-2,
    }
    ratio: float = Field(0.25, gt=0)
    scale: float = 0.5
    frames: int | None = Field(None, ge=1)
    first_block: int = Field(1, ge=1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Wrap the chosen blocks of the video tower.

        Raises:
            ConfigError: ``first_block`` beyond the towers, or rotary positions, which attention along time would turn.
        """
        if backbone.architecture.rotary:
            raise ConfigError("aim: its attention along time does not fit rotary positions, which this backbone has")
        view, adapter = backbone.view(), nn.ModuleDict()
        tower, width = view.video, view.video.shape.width
        blocks = chosen_blocks(backbone, "video", self.first_block)
        dim = max(1, int(self.ratio * width))
        positions: nn.Parameter | None = None
        if tower.attention == "frame-wise":
            positions = nn.Parameter(torch.zeros(self.frames or backbone.architecture.frames, width))
            adapter["time"] = nn.ParameterDict({"positions": positions})
        for index in blocks["video"]:
            made = nn.ModuleDict({name: Adapter(width, dim) for name in ("temporal", "spatial", "joint")})
            tower.blocks[index] = AIMBlock(tower.blocks[index], made, self.scale, positions)  # type: ignore[arg-type]
            adapter[str(index + 1)] = made
            positions = None  # the first one adds them
        tower.ln_post = twin(tower.ln_post)
        adapter["ln_post"] = nn.ParameterDict({name: own(tower.ln_post, name) for name in ("weight", "bias")})
        trains = f"temporal, spatial and joint adapters of width {dim} in {span(blocks)}, and its last layer norm"
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains)


class Adapter(nn.Module):
    """Down, GELU, Up; Up starts at zero."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, dim), nn.Linear(dim, width)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] -> [..., d]."""
        return self.up(F.gelu(self.down(x)))


class AIMBlock(nn.Module):
    """A block that first attends along the frames and then as before. It has a block's interface."""

    def __init__(self, block: Block, adapters: nn.ModuleDict, scale: float, positions: nn.Parameter | None) -> None:
        super().__init__()
        self.block, self.adapters, self.scale, self.positions = block, adapters, scale, positions

    def forward(self, x: Tensor, layout: VideoLayout, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d], or with positions ``query_index`` [b] the class tokens alone: [b, 1, d]."""
        block = self.block
        tokens = layout.over_time(x)  # [b, t, m, d]
        if self.positions is not None:
            tokens = tokens + at_frames(self.positions, layout.frames)[:, None]
            x = layout.put_back(x, tokens)
        tubes = block.ln_1(tokens).transpose(1, 2)  # [b, m, t, d]
        y = block.attn(tubes.flatten(0, 1)).view(tubes.shape).transpose(1, 2)
        x = layout.put_back(x, tokens + self.adapters["temporal"](y))
        y = block.attn(block.ln_1(x), query_index)
        x = (x if query_index is None else pick(x, query_index)) + (y + self.adapters["spatial"](y))
        z = block.ln_2(x)
        return torch.add(x + block.mlp(z), self.adapters["joint"](z), alpha=self.scale)
