"""VideoTower: patches and positions in, one embedding a clip out.

CLIP, SigLIP and the Perception Encoder read every frame by itself ("frame-wise") and the frames' embeddings are
averaged. ViCLIP lets all patches of all frames attend to each other ("joint"), with one class token for the clip.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.backbone.architecture import Architecture
from msta.backbone.blocks import Tower
from msta.backbone.layout import VideoLayout
from msta.backbone.pooling import AttentionPooling
from msta.backbone.rotary import Rotary
from msta.notices import notice


class VideoTower(Tower):
    """ViT over frames, built as ``architecture`` says. ``image_size`` there is the side, in pixels, that the stored
    positions stand for; for other sizes they are interpolated.
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
        """Refuse what is no video.

        Raises:
            TypeError: no tensor of floats.
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
            TypeError, ValueError: see :meth:`check`; or H, W are no multiples of the patch size.
        """
        self.check(video)
        b, t, _, height, width = video.shape
        if height % self.patch_size or width % self.patch_size or not (height and width):
            raise ValueError(
                f"frames of {height} x {width} pixels do not divide into patches of {self.patch_size} pixels"
            )
        x = self.patch_embedding(video.flatten(0, 1)).flatten(2).transpose(1, 2)  # [b*t, n, d]
        positions = self._spatial_positions(height // self.patch_size, width // self.patch_size).to(x.dtype)
        n = x.shape[1]
        x = x + positions[-n:]
        if self.attention == "joint":
            x = x.unflatten(0, (b, t)) + at_frames(self.temporal_positional_embedding, t).to(x.dtype)[:, None]
            x = x.transpose(1, 2).flatten(1, 2)  # patch-major
            layout = VideoLayout(t, n, "shared")
        else:
            layout = VideoLayout(t, n, "none" if self.class_embedding is None else "per_frame")
        if self.class_embedding is not None:
            class_token = self.class_embedding.to(x.dtype) + positions[0]
            x = torch.cat((class_token.expand(x.shape[0], 1, -1), x), dim=1)
        return x if self.ln_pre is None else self.ln_pre(x), layout

    def query_index(self, x: Tensor) -> Tensor | None:
        """The positions [b] of the only tokens of x [b, s, d] that :meth:`pool` reads; None if it reads them all."""
        return torch.zeros(x.shape[0], dtype=torch.int64, device=x.device) if self.pooling == "class" else None

    def pool(self, x: Tensor, layout: VideoLayout) -> Tensor:
        """Tokens after the last block [b, s, d] (or those at :meth:`query_index`) -> [clips, embed_dim], the mean over
        frames if each is a sequence of its own.
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
        """[1 + rows*columns, d], without a class token [rows*columns, d]; bicubic if the grid is not the stored one."""
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
