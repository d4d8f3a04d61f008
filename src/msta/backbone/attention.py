"""softmax(q k' / sqrt(e)) v on a CPU. Shapes: b sequences, h heads, s tokens, e channels.

torch's own kernel for CPUs is made for fp32. In bf16 separate products are 1.2 times (a ViCLIP clip of 1,569 tokens,
forward and backward) to 7 times as fast (400 texts of 13 tokens): ``benchmarks/attention.py``.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

SHORT = 256
"""Sequences with at most so many tokens keep their scores for the backward pass."""
_QUERIES = 256
"""Queries at a time in longer sequences, so that their scores stay in the CPU's caches."""


def attend(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False) -> Tensor:
    """``F.scaled_dot_product_attention`` of q, k, v [b, h, s, e] -> [b, h, s, e]. is_causal: no token looks ahead."""
    if q.device.type == "cpu" and q.dtype is torch.bfloat16:
        if q.shape[2] <= SHORT or is_causal:
            return _written_out(q, k, v, is_causal)
        return _InParts.apply(q, k, v)  # type: ignore[no-any-return]
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal)


def _written_out(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    scores = _scaled(q) @ k.transpose(-1, -2)
    if causal:
        s = q.shape[2]
        scores = scores.masked_fill(torch.ones(s, s, dtype=torch.bool, device=q.device).triu(1), -torch.inf)
    return scores.softmax(-1) @ v


def _scaled(q: Tensor) -> Tensor:
    return q * q.shape[-1] ** -0.5


class _InParts(torch.autograd.Function):
    """Some queries at a time, in both directions, so that no s x s matrix is in memory as a whole."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = _scaled(q).contiguous(), k.contiguous(), v.contiguous()
        ctx.save_for_backward(q, k, v)
        return torch.cat([(part @ k.mT).softmax(-1) @ v for part in q.split(_QUERIES, dim=2)], dim=2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = ctx.saved_tensors
        grad_q, grad_k, grad_v = [], torch.zeros_like(k, dtype=torch.float32), torch.zeros_like(v, dtype=torch.float32)
        for part, out in zip(q.split(_QUERIES, dim=2), grad.split(_QUERIES, dim=2), strict=True):
            weights = (part @ k.mT).softmax(-1)
            grad_v += weights.mT @ out
            grad_scores = torch._softmax_backward_data(out @ v.mT, weights, -1, weights.dtype)
            grad_q.append(_scaled(grad_scores @ k))
            grad_k += grad_scores.mT @ part
        return torch.cat(grad_q, dim=2), grad_k.to(k.dtype), grad_v.to(v.dtype)
