"""Block and Tower: a pre-LN transformer that can stop at a block and go on from it.

Shapes: b sequences, s tokens, d width, h heads. What the tokens mean is the towers' business (video.py, text.py).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.backbone.layout import VideoLayout

if TYPE_CHECKING:
    from typing_extensions import Self

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class TowerShape:
    """The numbers that define one tower.

    ``layer_norm_eps`` and ``activation`` are 1e-5 and QuickGELU in every CLIP by OpenAI and in ViCLIP.
    """

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: Activation = "quick_gelu"
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads, self.mlp_width) < 1 or self.width % self.heads:
            raise ValueError(f"a tower needs positive sizes and a width divisible by its heads, got {self}")
        if self.activation not in ("quick_gelu", "gelu"):
            raise ValueError(f"activation {self.activation!r} is neither quick_gelu nor gelu")


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation OpenAI trained CLIP with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    """Multi-head self-attention; ``causal`` lets a token see itself and those before it."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, s, d] -> [b, s, d]."""
        b, s, d = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, s, d))


class MLP(nn.Module):
    """Two linear layers with the tower's activation between them."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = QuickGELU() if activation == "quick_gelu" else nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] -> [..., d]."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-LN residual block. Adaptation methods wrap it and keep its interface: ``block(x, layout)``.

    Example:
        >>> Block(TowerShape(width=64, layers=1, heads=1, mlp_width=256))(torch.zeros(2, 5, 64)).shape
        torch.Size([2, 5, 64])
    """

    def __init__(self, shape: TowerShape, causal: bool = False) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.attn = Attention(shape.width, shape.heads, causal)
        self.ln_2 = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation)

    def forward(self, x: Tensor, layout: VideoLayout | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d]. A plain block ignores ``layout``; wrappers that mix frames read it."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """A stack of blocks. ``embed`` and ``read``, before and after them, belong to the video and text towers."""

    def __init__(self, shape: TowerShape, causal: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(shape, causal) for _ in range(shape.layers))

    def run(self, x: Tensor, start: int = 0, stop: int | None = None, *, layout: VideoLayout | None = None) -> Tensor:
        """Apply blocks ``start`` (inclusive, from 0) to ``stop`` (exclusive; None: to the end).

        ``run(run(x, 0, i), i)`` equals ``run(x)``: the blocks below the first trainable one are the prefix, whose
        output can be computed without autograd and kept.

        Args:
            x: tokens [b, s, d].
            start: first block.
            stop: the block to stop before.
            layout: how the tokens of a video are ordered; None for text.
        """
        stop = len(self.blocks) if stop is None else stop
        if not 0 <= start <= stop <= len(self.blocks):
            raise ValueError(f"blocks {start}..{stop} of a tower of {len(self.blocks)}")
        for block in self.blocks[start:stop]:
            x = block(x, layout)
        return x

    def view(self) -> Self:
        """A tower with the same weights and a block list of its own: wrapping its blocks leaves this one as it is."""
        twin = copy.copy(self)
        twin._modules = dict(self._modules)
        twin.blocks = nn.ModuleList(self.blocks)
        return twin
