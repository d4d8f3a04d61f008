"""Rotary: positions that turn queries and keys (Su et al. 2021, RoFormer), in two dimensions, as in PE-Core."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Rotary(nn.Module):
    """Pairs of channels are turned by angles that grow with the patch's column (first half) and row (second half).

    Columns and rows count from 1 and, on a grid of another side than the one trained with, are scaled to that. The
    class token, first in each sequence, is not turned. Source: ``RotaryEmbeddingCat`` of timm with the arguments of
    ``vit_pe_core_base_patch16_224``.
    """

    def __init__(self, head_width: int, grid: int) -> None:
        super().__init__()
        if head_width % 4:
            raise ValueError(f"rotary positions need heads whose width is a multiple of 4, got {head_width}")
        self.head_width, self.grid = head_width, grid

    def forward(self, x: Tensor) -> Tensor:
        """Queries or keys [b, h, 1 + n, e] -> the same, turned.

        Raises:
            ValueError: the n patches make no square.
        """
        side = math.isqrt(x.shape[2] - 1)
        if side * side != x.shape[2] - 1:
            raise ValueError(f"rotary positions need square frames with all their patches, got {x.shape[2] - 1}")
        first, patches = x[:, :, :1], x[:, :, 1:]
        angle = self._angles(side, x.device)
        sin, cos = angle.sin().to(x.dtype), angle.cos().to(x.dtype)
        across = torch.stack((-patches[..., 1::2], patches[..., ::2]), dim=-1).flatten(-2)
        return torch.cat((first, patches * cos + across * sin), dim=2)

    def _angles(self, side: int, device: torch.device) -> Tensor:
        """[side * side, e], in float32."""
        bands = self.head_width // 4
        rates = 10000.0 ** -(torch.arange(bands, dtype=torch.float32, device=device) / bands)
        place = torch.arange(side, dtype=torch.float32, device=device) / side * self.grid + 1
        rows, columns = torch.meshgrid(place, place, indexing="ij")
        angles = torch.stack((columns, rows), dim=-1)[..., None] * rates  # [side, side, 2, bands]
        return angles.flatten(0, 1).flatten(1).repeat_interleave(2, dim=1)
