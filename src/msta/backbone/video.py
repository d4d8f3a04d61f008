"""VideoTower: patches and positions in, one embedding a clip out.

CLIP reads every frame by itself ("frame-wise") and the frames' embeddings are averaged. ViCLIP lets all patches of
all frames attend to each other ("joint"), with one class token for the clip.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.backbone.blocks import Tower, TowerShape
from msta.backbone.layout import VideoLayout
from msta.notices import notice

VideoAttention = Literal["frame-wise", "joint"]


class VideoTower(Tower):
    """ViT over frames.

    Args:
        shape: width, layers, heads …
        embed_dim: size of the embedding shared with text.
        image_size: side, in pixels, that the stored positions stand for; other sizes are interpolated.
        patch_size: side of a patch in pixels.
        frames: number of stored temporal positions; read by joint attention alone.
        attention: "joint" or "frame-wise".
    """

    def __init__(
        self,
        shape: TowerShape,
        embed_dim: int,
        image_size: int,
        patch_size: int,
        frames: int,
        attention: VideoAttention,
    ) -> None:
        super().__init__(shape)
        self.patch_size = patch_size
        self.grid = image_size // patch_size
        self.attention = attention
        self.patch_embedding = nn.Conv2d(3, shape.width, patch_size, stride=patch_size, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(shape.width))
        self.positional_embedding = nn.Parameter(torch.zeros(1 + self.grid**2, shape.width))
        if attention == "joint":
            self.temporal_positional_embedding = nn.Parameter(torch.zeros(frames, shape.width))
        self.ln_pre = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.ln_post = nn.LayerNorm(shape.width, eps=shape.layer_norm_eps)
        self.proj = nn.Parameter(torch.zeros(shape.width, embed_dim))

    def forward(self, video: Tensor) -> Tensor:
        """video [b, t, 3, H, W], normalised pixels -> embeddings [b, embed_dim], not L2-normalised."""
        x, layout = self.embed(video)
        return self.pool(self.run(x, layout=layout), layout)

    def embed(self, video: Tensor) -> tuple[Tensor, VideoLayout]:
        """Tokens before the first block, and their layout.

        Raises:
            ValueError: not [b, t, 3, H, W], no frames, or H, W not multiples of the patch size.
        """
        if video.ndim != 5 or video.shape[2] != 3 or video.shape[1] < 1:
            raise ValueError(f"expected a video [batch, frames, 3, height, width], got {list(video.shape)}")
        b, t, _, height, width = video.shape
        if height % self.patch_size or width % self.patch_size or not (height and width):
            raise ValueError(
                f"frames of {height} x {width} pixels do not divide into patches of {self.patch_size} pixels"
            )
        x = self.patch_embedding(video.flatten(0, 1)).flatten(2).transpose(1, 2)  # [b*t, n, d]
        positions = self._spatial_positions(height // self.patch_size, width // self.patch_size).to(x.dtype)
        class_token = self.class_embedding.to(x.dtype) + positions[0]
        x = x + positions[1:]
        n = x.shape[1]
        if self.attention == "joint":
            x = x.unflatten(0, (b, t)) + at_frames(self.temporal_positional_embedding, t).to(x.dtype)[:, None]
            x = x.transpose(1, 2).flatten(1, 2)  # patch-major
            layout = VideoLayout(t, n, "shared")
        else:
            layout = VideoLayout(t, n, "per_frame")
        x = torch.cat((class_token.expand(x.shape[0], 1, -1), x), dim=1)
        return self.ln_pre(x), layout

    def pool(self, x: Tensor, layout: VideoLayout) -> Tensor:
        """Tokens after the last block (the first is enough) -> [b, embed_dim]: the class token, averaged over frames
        if each has one.
        """
        embedding = self.ln_post(x[:, 0]) @ self.proj
        if layout.class_token == "per_frame":
            embedding = embedding.unflatten(0, (-1, layout.frames)).mean(1)
        return embedding

    def _spatial_positions(self, rows: int, columns: int) -> Tensor:
        """[1 + rows*columns, d]; bicubic where the grid is not the stored one."""
        stored = self.positional_embedding
        if (rows, columns) == (self.grid, self.grid):
            return stored
        grid = stored[1:].T.reshape(1, -1, self.grid, self.grid)
        grid = F.interpolate(grid.float(), size=(rows, columns), mode="bicubic", align_corners=False)
        return torch.cat((stored[:1], grid[0].flatten(1).T.to(stored.dtype)))


def at_frames(stored: Tensor, frames: int) -> Tensor:
    """Temporal positions [n, d] -> [frames, d]. One frame: the mean, as in ViCLIP's code; other counts: linear."""
    if frames == len(stored):
        return stored
    notice(f"There are {len(stored)} temporal positions; they are interpolated to {frames} frames.")
    if frames == 1:
        return stored.mean(0, keepdim=True)
    line = F.interpolate(stored.T[None].float(), size=frames, mode="linear", align_corners=False)
    return line[0].T.to(stored.dtype)
