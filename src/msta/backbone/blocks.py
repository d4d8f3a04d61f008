"""Block and Tower: a pre-LN transformer that can stop at a block and go on from it.

Shapes: b sequences, s tokens, d width, h heads. What the tokens mean is the towers' business (video.py, text.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.backbone.attention import attend
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


_QUICK = 1.702
_plainly = ContextVar("plainly", default=False)


@contextmanager
def plainly() -> Iterator[None]:
    """Within it, blocks and adapters compute what the papers write, step by step: the reference for their shortcuts."""
    before = _plainly.set(True)
    try:
        yield
    finally:
        _plainly.reset(before)


def may_rearrange() -> bool:
    """Whether a product may take a factor or a sum along, for the same result in fewer passes over memory."""
    return not _plainly.get()


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation OpenAI trained CLIP with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return x * torch.sigmoid(_QUICK * x)


class Attention(nn.Module):
    """Multi-head self-attention; ``causal`` lets a token see itself and those before it."""

    def __init__(self, width: int, heads: int, causal: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, read: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d]; with positions ``read`` [b], one query a sequence: [b, 1, d]."""
        if read is not None:
            return self._read(x, read)
        b, s, d = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if may_rearrange():
            y = attend(q, k, v, self.causal)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, s, d))

    def _read(self, x: Tensor, read: Tensor) -> Tensor:
        b, s, d = x.shape
        mask = torch.arange(s, device=x.device) <= read[:, None] if self.causal else None  # [b, s]
        if _untouched(self.qkv):
            y = self._read_by_one_query(x, read, mask)
        else:
            whole = self.qkv(x)
            q = pick(whole[..., :d], read).view(b, 1, self.heads, -1).transpose(1, 2)
            k, v = whole[..., d:].unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
            y = y.transpose(1, 2).reshape(b, d)
        return self.proj(y)[:, None]

    def _read_by_one_query(self, x: Tensor, read: Tensor, mask: Tensor | None) -> Tensor:
        """Attention of one token to all [b, d], without making their keys and values.

        q . (Wk x + bk) = (q Wk) . x + a number that is the same for every token and leaves a softmax as it is; and
        sum_j p_j (Wv x_j + bv) = Wv (sum_j p_j x_j) + bv. Two products with d x d weights a token become two in all.
        """
        b, _, d = x.shape
        _, to_k, to_v = self.qkv.weight.unflatten(0, (3, self.heads, -1))  # each [h, e, d]
        q = F.linear(pick(x, read)[:, 0], self.qkv.weight[:d], self.qkv.bias[:d])
        q = q.view(b, self.heads, -1).transpose(0, 1) * (d // self.heads) ** -0.5  # [h, b, e]
        scores = (q @ to_k).transpose(0, 1) @ x.mT  # [b, h, s]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        seen = (scores.softmax(-1) @ x).transpose(0, 1)  # [h, b, d]
        return (seen @ to_v.mT).transpose(0, 1).flatten(1) + self.qkv.bias[2 * d :]


def pick(x: Tensor, read: Tensor) -> Tensor:
    """The token at position read[i] of each sequence: x [b, s, d], read int64 [b] -> [b, 1, d]."""
    return x.gather(1, read[:, None, None].expand(-1, 1, x.shape[-1]))


def _untouched(*layers: nn.Module) -> bool:
    """Whether nobody has put something else in their place, as LoRA does."""
    return all(type(layer) is nn.Linear for layer in layers)


class MLP(nn.Module):
    """Two linear layers with the tower's activation between them."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = QuickGELU() if activation == "quick_gelu" else nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] -> [..., d]."""
        exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)
        if exact and may_rearrange() and isinstance(self.act, QuickGELU) and _untouched(self.fc1, self.fc2):
            return self._quick(x)
        return self.fc2(self.act(self.fc1(x)))

    def _quick(self, x: Tensor) -> Tensor:
        """QuickGELU, its factors taken along by the matrix products: u = 1.702 (W1 x + b1), W2 silu(u) / 1.702 + b2.

        Three passes over the widest activations become one, and one tensor is kept for the backward pass.
        """
        u = torch.addmm(self.fc1.bias, x.flatten(0, -2), self.fc1.weight.T, beta=_QUICK, alpha=_QUICK)
        y = F.silu(u, inplace=not u.requires_grad)
        return torch.addmm(self.fc2.bias, y, self.fc2.weight.T, alpha=1 / _QUICK).view(x.shape)


class Block(nn.Module):
    """Pre-LN residual block. Adaptation methods wrap it and keep its interface: ``block(x, layout, read)``.

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

    def forward(self, x: Tensor, layout: VideoLayout | None = None, read: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d], or with positions ``read`` [b] their tokens alone: [b, 1, d].

        A plain block ignores ``layout``; wrappers that mix frames need it. ``read`` is for the last block: what
        nobody looks at is not computed, but for keys and values, which the token that is read attends to.
        """
        y = self.attn(self.ln_1(x), read)
        x = (x if read is None else pick(x, read)) + y
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """A stack of blocks. ``embed`` and ``read``, before and after them, belong to the video and text towers."""

    def __init__(self, shape: TowerShape, causal: bool = False) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(shape, causal) for _ in range(shape.layers))

    def run(
        self,
        x: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        layout: VideoLayout | None = None,
        read: Tensor | None = None,
    ) -> Tensor:
        """Apply blocks ``start`` (inclusive, from 0) to ``stop`` (exclusive; None: to the end).

        ``run(run(x, 0, i), i)`` equals ``run(x)``: the blocks below the first trainable one are the prefix, whose
        output can be computed without autograd and kept.

        Args:
            x: tokens [b, s, d].
            start: first block.
            stop: the block to stop before.
            layout: how the tokens of a video are ordered; None for text.
            read: positions [b] of the only tokens wanted after the last block; the result is then [b, 1, d].
        """
        stop = len(self.blocks) if stop is None else stop
        if not 0 <= start <= stop <= len(self.blocks):
            raise ValueError(f"blocks {start}..{stop} of a tower of {len(self.blocks)}")
        if read is not None and not start < stop == len(self.blocks):
            raise ValueError(f"tokens are read after the last block, not after blocks {start}..{stop}")
        for block in self.blocks[start : stop if read is None else stop - 1]:
            x = block(x, layout)
        return x if read is None else self.blocks[-1](x, layout, read)

    def view(self) -> Self:
        """A tower with the same weights and a block list of its own: wrapping its blocks leaves this one as it is."""
        twin = copy.copy(self)
        twin._modules = dict(self._modules)
        twin.blocks = nn.ModuleList(self.blocks)
        return twin
