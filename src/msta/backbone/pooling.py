"""AttentionPooling: one learned query reads all tokens (Lee et al. 2019, "set transformer"; SigLIP, PE)."""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.backbone.blocks import MLP, Attention, TowerShape, in_exact_reference_mode


class AttentionPooling(nn.Module):
    """y = attention(query, x, x); y + MLP(LayerNorm(y)). ``heads`` 0: as many as the tower's blocks have."""

    def __init__(self, shape: TowerShape, heads: int = 0) -> None:
        super().__init__()
        shape = replace(shape, heads=heads or shape.heads)
        self.query = nn.Parameter(torch.zeros(shape.width))
        self.attn = Attention(shape.width, shape.heads)
        self.ln = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.mlp = MLP(shape.width, shape.mlp_width, shape.activation)

    def forward(self, x: Tensor) -> Tensor:
        """x [b, s, d] -> [b, d]."""
        query = self.query.to(x.dtype).expand(x.shape[0], -1)
        y = self._plain(query, x) if in_exact_reference_mode() else self.attn.attend_by_one_query(query, x)
        y = self.attn.proj(y)
        return y + self.mlp(self.ln(y))

    def _plain(self, query: Tensor, x: Tensor) -> Tensor:
        b, _, d = x.shape
        q = F.linear(query, self.attn.qkv.weight[:d], self.attn.qkv.bias[:d]).view(b, 1, self.attn.heads, -1)
        k, v = (
            F.linear(x, self.attn.qkv.weight[d:], self.attn.qkv.bias[d:])
            .unflatten(2, (2, self.attn.heads, -1))
            .permute(2, 0, 3, 1, 4)
        )
        return F.scaled_dot_product_attention(q.transpose(1, 2), k, v).transpose(1, 2).reshape(b, d)
