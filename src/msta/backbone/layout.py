"""VideoLayout: the order of a clip's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class VideoLayout:
    """The order of a clip's tokens. No other code knows it.

    With a ``shared`` class token (joint attention) tokens are [b, 1 + n*t, d]: the class token, then patch 0 of all
    frames, patch 1 of all frames, … With a class token ``per_frame`` they are [b*t, 1 + n, d], one sequence per frame;
    with ``none`` (SigLIP) they are [b*t, n, d].
    """

    frames: int
    patches: int
    class_token: Literal["shared", "per_frame", "none"]

    def over_time(self, x: Tensor) -> Tensor:
        """The tokens that every frame has, as [b, t, m, d]: m = n patches, or class token and n patches."""
        if self.class_token == "shared":
            return x[:, 1:].unflatten(1, (self.patches, self.frames)).transpose(1, 2)
        return x.unflatten(0, (-1, self.frames))

    def keep(self, x: Tensor, patches: Tensor) -> tuple[Tensor, VideoLayout]:
        """Only some patches, in all frames of a clip (tubes), and the class tokens. ``patches`` is int64 [clips, n]."""
        smaller = VideoLayout(self.frames, patches.shape[1], self.class_token)
        over_time = self.over_time(x)  # [b, t, m, d]
        if self.class_token == "per_frame":
            patches = torch.cat((torch.zeros_like(patches[:, :1]), patches + 1), dim=1)
        index = patches[:, None, :, None].expand(-1, over_time.shape[1], -1, over_time.shape[-1])
        return smaller.put_back(x, over_time.gather(2, index)), smaller

    def put_back(self, x: Tensor, over_time: Tensor) -> Tensor:
        """``x`` with the tokens of ``over_time(x)`` replaced. A shared class token stays as it is in ``x``."""
        if self.class_token == "shared":
            return torch.cat((x[:, :1], over_time.transpose(1, 2).flatten(1, 2)), dim=1)
        return over_time.flatten(0, 1)
