"""Block and Tower: a pre-LN transformer that can stop at a block and continue from it.

Shapes: b sequences, s tokens, d width, h heads. The towers (video.py, text.py) decide what the tokens mean.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, get_args, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from msta.backbone.attention import attend
from msta.backbone.layout import VideoLayout

if TYPE_CHECKING:
    from typing_extensions import Self

Activation = Literal["quick_gelu", "gelu", "gelu_tanh"]
ACTIVATIONS: tuple[str, ...] = get_args(Activation)


@dataclass(frozen=True)
class TowerShape:
    """The numbers that define one tower.

    ``layer_norm_eps`` and ``activation`` are 1e-5 and QuickGELU in every CLIP by OpenAI and in ViCLIP. "gelu" is exact,
    "gelu_tanh" its approximation by a tanh (SigLIP).
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
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"activation {self.activation!r} is none of {', '.join(ACTIVATIONS)}")


_QUICK = 1.702
_exact_reference = False


@contextmanager
def exact_reference_mode() -> Iterator[None]:
    """Within it, blocks and adapters compute step by step what the papers write: the reference for their shortcuts.

    It holds for all threads. Both ways give the same up to rounding, and torch.compile can follow a plain variable.
    """
    global _exact_reference
    before, _exact_reference = _exact_reference, True
    try:
        yield
    finally:
        _exact_reference = before


def in_exact_reference_mode() -> bool:
    """Whether a matrix product may not absorb a factor or a sum, which gives the same in fewer passes over memory."""
    return _exact_reference


@runtime_checkable
class ParallelAdapter(Protocol):
    """A block with an adapter beside it. The part before the adapter's output is added can be computed apart, and kept.

    ``block(x, layout, frozen_output=block.frozen_part(x, layout))`` equals ``block(x, layout)``.
    """

    def frozen_part(self, x: Tensor, layout: VideoLayout | None) -> Tensor:
        """Tokens [b, s, d] -> [b, s, d]. The result is the same in every step if nothing below trains."""
        ...


@runtime_checkable
class FrameMixing(Protocol):
    """A wrapped block that says whether a frame's tokens depend on other frames."""

    mixes_frames: bool


def mixes_frames(block: nn.Module) -> bool:
    """Whether a block mixes frames, in a tower that attends within each. Wrapped blocks that do not say so may."""
    return block.mixes_frames if isinstance(block, FrameMixing) else type(block) is not Block


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation OpenAI trained CLIP with."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape in, the same shape out."""
        return x * torch.sigmoid(_QUICK * x)


class Attention(nn.Module):
    """Multi-head self-attention.

    With ``causal`` a token attends to itself and those before it. ``rotary`` rotates queries and keys [b, h, s, e].
    """

    def __init__(self, width: int, heads: int, causal: bool = False, rotary: nn.Module | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.causal = causal
        self.rotary = rotary
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d]; with positions ``query_index`` [b], one query per sequence: [b, 1, d]."""
        if query_index is not None:
            return self._attend_from(x, query_index)
        b, s, d = x.shape
        q, k, v = self.qkv(x).view(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        if not in_exact_reference_mode():
            y = attend(q, k, v, self.causal)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.proj(y.transpose(1, 2).reshape(b, s, d))

    def _attend_from(self, x: Tensor, query_index: Tensor) -> Tensor:
        b, s, d = x.shape
        mask = torch.arange(s, device=x.device) <= query_index[:, None] if self.causal else None  # [b, s]
        if _untouched(self.qkv):
            y = self.attend_by_one_query(pick(x, query_index)[:, 0], x, mask)
        else:
            whole = self.qkv(x)
            q = pick(whole[..., :d], query_index).view(b, 1, self.heads, -1).transpose(1, 2)
            k, v = whole[..., d:].unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(q, k, v, attn_mask=None if mask is None else mask[:, None, None])
            y = y.transpose(1, 2).reshape(b, d)
        return self.proj(y)[:, None]

    def attend_by_one_query(self, token: Tensor, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Attention of one token [b, d] to those of x [b, s, d], without computing their keys and values -> [b, d].

        q . (Wk x + bk) = (q Wk) . x + a number that is the same for every token and so does not change a softmax; and
        sum_j p_j (Wv x_j + bv) = Wv (sum_j p_j x_j) + bv. Two products with d x d weights per token become two in all.
        """
        b, _, d = x.shape
        _, to_k, to_v = self.qkv.weight.unflatten(0, (3, self.heads, -1))  # each [h, e, d]
        q = F.linear(token, self.qkv.weight[:d], self.qkv.bias[:d])
        q = q.view(b, self.heads, -1).transpose(0, 1) * (d // self.heads) ** -0.5  # [h, b, e]
        scores = (q @ to_k).transpose(0, 1) @ x.mT  # [b, h, s]
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        seen = (scores.softmax(-1) @ x).transpose(0, 1)  # [h, b, d]
        return (seen @ to_v.mT).transpose(0, 1).flatten(1) + self.qkv.bias[2 * d :]


def pick(x: Tensor, query_index: Tensor) -> Tensor:
    """The token at position query_index[i] of each sequence: x [b, s, d], query_index int64 [b] -> [b, 1, d]."""
    return x.gather(1, query_index[:, None, None].expand(-1, 1, x.shape[-1]))


def _untouched(*layers: nn.Module) -> bool:
    """Whether the layers are still plain ones: methods like LoRA replace them."""
    return all(type(layer) is nn.Linear for layer in layers)


class MLP(nn.Module):
    """Two linear layers with the activation of the tower between them."""

    def __init__(self, width: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        tanh = "tanh" if activation == "gelu_tanh" else "none"
        self.act = QuickGELU() if activation == "quick_gelu" else nn.GELU(tanh)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., d] -> [..., d]."""
        exact = x.dtype in (torch.float32, torch.float64) and not torch.is_autocast_enabled(x.device.type)
        plain_layers = isinstance(self.act, QuickGELU) and _untouched(self.fc1, self.fc2)
        if exact and plain_layers and not in_exact_reference_mode():
            return self._quick(x)
        return self.fc2(self.act(self.fc1(x)))

    def _quick(self, x: Tensor) -> Tensor:
        """QuickGELU whose factors the matrix products absorb: u = 1.702 (W1 x + b1), W2 silu(u) / 1.702 + b2.

        Three passes over the widest activations become one, and one tensor is kept for the backward pass.
        """
        u = torch.addmm(self.fc1.bias, x.flatten(0, -2), self.fc1.weight.T, beta=_QUICK, alpha=_QUICK)
        y = F.silu(u, inplace=not u.requires_grad)
        return torch.addmm(self.fc2.bias, y, self.fc2.weight.T, alpha=1 / _QUICK).view(x.shape)


class Block(nn.Module):
    """Pre-LN residual block. Adaptation methods wrap it and keep its interface: ``block(x, layout, query_index)``.

    Example:
        >>> Block(TowerShape(width=64, layers=1, heads=1, mlp_width=256))(torch.zeros(2, 5, 64)).shape
        torch.Size([2, 5, 64])
    """

    def __init__(self, shape: TowerShape, causal: bool = False, rotary: nn.Module | None = None) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.attn = Attention(shape.width, shape.heads, causal, rotary)
        self.ln_2 = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation)

    def forward(self, x: Tensor, layout: VideoLayout | None = None, query_index: Tensor | None = None) -> Tensor:
        """x [b, s, d] -> [b, s, d], or with positions ``query_index`` [b] only their tokens: [b, 1, d].

        A plain block ignores ``layout``; wrappers that mix frames need it. ``query_index`` is for the last block, which
        then leaves out tokens that nobody uses, except for their keys and values.
        """
        y = self.attn(self.ln_1(x), query_index)
        x = (x if query_index is None else pick(x, query_index)) + y
        return x + self.mlp(self.ln_2(x))


class Tower(nn.Module):
    """A stack of blocks. The video and text towers add ``embed`` before and ``pool`` after them."""

    def __init__(self, shape: TowerShape, causal: bool = False, rotary: nn.Module | None = None) -> None:
        super().__init__()
        self.shape = shape
        self.blocks = nn.ModuleList(Block(shape, causal, rotary) for _ in range(shape.layers))
        self.checkpointing = False

    def run(
        self,
        x: Tensor,
        start: int = 0,
        stop: int | None = None,
        *,
        layout: VideoLayout | None = None,
        query_index: Tensor | None = None,
    ) -> Tensor:
        """Apply blocks ``start`` (inclusive, from 0) to ``stop`` (exclusive; None: to the end).

        ``run(run(x, 0, i), i)`` equals ``run(x)``: the blocks below the first trainable one are the prefix, whose
        output can be computed without autograd and kept.

        Args:
            x: tokens [b, s, d].
            start: first block.
            stop: the block to stop before.
            layout: how the tokens of a video are ordered; None for text.
            query_index: positions [b] of the only tokens wanted after the last block; the result is then [b, 1, d].
        """
        stop = len(self.blocks) if stop is None else stop
        if not 0 <= start <= stop <= len(self.blocks):
            raise ValueError(f"blocks {start}..{stop} of a tower of {len(self.blocks)}")
        if query_index is not None and not start < stop == len(self.blocks):
            raise ValueError(f"tokens are read after the last block, not after blocks {start}..{stop}")
        for block in self.blocks[start : stop if query_index is None else stop - 1]:
            x = self.through(block, x, layout)
        return x if query_index is None else self.blocks[-1](x, layout, query_index)

    def through(self, block: nn.Module, x: Tensor, layout: VideoLayout | None, **options: Tensor) -> Tensor:
        """Run one block: tokens [b, s, d] -> [b, s, d].

        With ``checkpointing``, only its input is kept for the backward pass, which computes the block again: the same
        gradients with less memory and more time. The exact reference does not do this.
        """
        if self.checkpointing and torch.is_grad_enabled() and not in_exact_reference_mode():
            return checkpoint(block, x, layout, use_reentrant=False, **options)  # type: ignore[no-any-return, arg-type]
        return block(x, layout, **options)  # type: ignore[no-any-return]

    def view(self) -> Self:
        """A tower with the same weights and its own list of blocks: wrapping its blocks does not change this tower."""
        twin = copy.copy(self)
        twin._modules = dict(self._modules)
        twin.blocks = nn.ModuleList(self.blocks)
        return twin
