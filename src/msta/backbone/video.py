"""VideoTower: patches and positions -> one embedding per clip.

CLIP, SigLIP and the Perception Encoder encode every frame by itself ("frame-wise"), and the embeddings of the frames
are averaged. In ViCLIP all patches of all frames attend to each other ("joint"), with one class token per clip.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.backbone.architecture import Architecture
from msta.backbone.blocks import MLP, Attention, Tower, TowerShape, in_exact_reference_mode
from msta.backbone.layout import VideoLayout
from msta.notices import notice


class VideoTower(Tower):
    """ViT over frames, built as ``architecture`` says.

    The stored positions are for frames of ``image_size`` pixels; for other sizes they are interpolated.
    """

    def __init__(self, architecture: Architecture) -> None:
        a, shape = architecture, architecture.video
        grid = a.image_size // a.patch_size
        super().__init__(shape, rotary=Rotary(shape.width // shape.heads, grid) if a.rotary else None)
        self.patch_size = a.patch_size
        self.grid = grid
        self.attention = a.attention
        self.pooling = a.pooling
        self.patch_embedding = nn.Conv2d(3, shape.width, a.patch_size, stride=a.patch_size, bias=a.patch_bias)
        self.class_embedding = nn.Parameter(torch.zeros(shape.width)) if a.class_token else None
        self.positional_embedding = nn.Parameter(torch.zeros(a.class_token + self.grid**2, shape.width))
        if a.attention == "joint":
            self.temporal_positional_embedding = nn.Parameter(torch.zeros(a.frames, shape.width))
        self.ln_pre = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps) if a.ln_pre else None
        self.ln_post = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.attention_pooling = AttentionPooling(shape, a.pool_heads) if a.pooling == "attention" else None
        self.proj = None if a.video_projection == "none" else nn.Parameter(torch.zeros(shape.width, a.embed_dim))
        self.proj_bias = nn.Parameter(torch.zeros(a.embed_dim)) if a.video_projection == "linear" else None

    def forward(self, video: Tensor) -> Tensor:
        """video [b, t, 3, H, W], normalised pixels -> embeddings [b, embed_dim], not L2-normalised."""
        x, layout = self.embed(video)
        return self.pool(self.run(x, layout=layout), layout)

    @staticmethod
    def check(video: Tensor) -> None:
        """Refuse input that is not video.

        Raises:
            TypeError: not a tensor of floats.
            ValueError: not [b, t, 3, H, W], or no frames.
        """
        if not isinstance(video, Tensor) or not video.is_floating_point():
            got = f"{video.dtype} numbers" if isinstance(video, Tensor) else f"a {type(video).__name__}"
            raise TypeError(
                "encode_video: expected a float tensor [batch, frames, 3, height, width], normalised as "
                f"(pixels / 255 - pixel_mean) / pixel_std, got {got}"
            )
        if video.ndim != 5 or video.shape[2] != 3 or video.shape[1] < 1:
            raise ValueError(f"expected a video [batch, frames, 3, height, width], got {list(video.shape)}")

    def embed(self, video: Tensor) -> tuple[Tensor, VideoLayout]:
        """Tokens before the first block, and their layout.

        Raises:
            TypeError, ValueError: see :meth:`check`; or H or W is not a multiple of the patch size.
        """
        self.check(video)
        b, t, _, height, width = video.shape
        if height % self.patch_size or width % self.patch_size or not (height and width):
            raise ValueError(
                f"frames of {height} x {width} pixels do not divide into patches of {self.patch_size} pixels"
            )
        x = self.patch_embedding(video.flatten(0, 1)).flatten(2).transpose(1, 2)  # [b*t, n, d]
        positions = self._spatial_positions(height // self.patch_size, width // self.patch_size).to(x.dtype)
        x = x + positions[-x.shape[1] :]
        if self.attention == "joint":
            x = x.unflatten(0, (b, t)) + at_frames(self.temporal_positional_embedding, t).to(x.dtype)[:, None]
            x = x.transpose(1, 2).flatten(1, 2)  # patch-major
        if self.class_embedding is not None:
            class_token = self.class_embedding.to(x.dtype) + positions[0]
            x = torch.cat((class_token.expand(x.shape[0], 1, -1), x), dim=1)
        return x if self.ln_pre is None else self.ln_pre(x), self.layout(t, x.shape[1])

    def layout(self, frames: int, tokens: int) -> VideoLayout:
        """The layout of sequences of so many tokens, for clips of so many frames."""
        if self.attention == "joint":
            return VideoLayout(frames, (tokens - 1) // frames, "shared")
        if self.class_embedding is None:
            return VideoLayout(frames, tokens, "none")
        return VideoLayout(frames, tokens - 1, "per_frame")

    def query_index(self, x: Tensor) -> Tensor | None:
        """The positions [b] of the only tokens of x [b, s, d] that :meth:`pool` uses; None if it uses them all."""
        return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device) if self.pooling == "class" else None

    def pool(self, x: Tensor, layout: VideoLayout) -> Tensor:
        """Tokens after the last block [b, s, d] (or those at :meth:`query_index`) -> [clips, embed_dim].

        If each frame is its own sequence, this is the mean over frames.
        """
        if self.pooling == "class":
            y = self.ln_post(x[:, 0])
        elif self.attention_pooling is not None:
            y = self.attention_pooling(self.ln_post(x))
        else:
            y = self.ln_post(x[:, -layout.patches :].mean(1))
        if self.proj is not None:
            y = y @ self.proj
        if self.proj_bias is not None:
            y = y + self.proj_bias
        return y if layout.class_token == "shared" else y.unflatten(0, (-1, layout.frames)).mean(1)

    def _spatial_positions(self, rows: int, columns: int) -> Tensor:
        """[1 + rows*columns, d], or [rows*columns, d] without a class token; bicubic if the stored grid is another."""
        stored = self.positional_embedding
        if (rows, columns) == (self.grid, self.grid):
            return stored
        first, patches = stored[: -(self.grid**2)], stored[-(self.grid**2) :]
        grid = patches.T.reshape(1, -1, self.grid, self.grid)
        grid = F.interpolate(grid.float(), size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat((first, grid[0].flatten(1).T.to(stored.dtype)))


def at_frames(stored: Tensor, frames: int) -> Tensor:
    """Temporal positions [n, d] -> [frames, d]. One frame: the mean, as in ViCLIP's code; other counts: linear."""
    if frames == len(stored):
        return stored
    notice(f"There are {len(stored)} temporal positions; they are interpolated to {frames} frames.")
    if frames == 1:
        return stored.mean(0, keepdim=True)
    line = F.interpolate(stored.T[None].float(), size=frames, mode="linear", align_corners=False)
    return line[0].T.to(stored.dtype)


class AttentionPooling(nn.Module):
    """One learned query attends to all tokens (Lee et al. 2019, "set transformer"; SigLIP, PE).

    y = attention(query, x, x); y + MLP(LayerNorm(y)). ``heads`` 0: as many as the blocks of the tower have.
    """

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


class Rotary(nn.Module):
    """Positions that rotate queries and keys (Su et al. 2021, RoFormer), in two dimensions, as in PE-Core.

    Pairs of channels are rotated by angles that grow with the patch's column (first half) and row (second half).
    Columns and rows count from 1. On a grid of another size than in pretraining, they are scaled to that size. The
    class token, first in each sequence, is not rotated. Source: ``RotaryEmbeddingCat`` of timm with the arguments of
    ``vit_pe_core_base_patch16_224``.
    """

    def __init__(self, head_width: int, grid: int) -> None:
        super().__init__()
        if head_width % 4:
            raise ValueError(f"rotary positions need heads whose width is a multiple of 4, got {head_width}")
        self.head_width, self.grid = head_width, grid

    def forward(self, x: Tensor) -> Tensor:
        """Queries or keys [b, h, 1 + n, e] -> the same, rotated.

        Raises:
            ValueError: the n patches do not form a square.
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
