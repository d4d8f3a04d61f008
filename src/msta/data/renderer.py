"""Turn decoded frames into pictures: resized, upright, RGB."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray


class Renderer:
    """Decoded frames -> uint8 [H, W, 3] as displayed. All get the size and orientation of the first frame.

    ``aspect`` is the width of a stored pixel over its height. ``even`` makes both sides even, and never longer than
    they are stored.
    """

    def __init__(
        self, first: VideoFrame, aspect: float, short_side: int | None, squash: bool = False, even: bool = False
    ) -> None:
        width, height = first.width * aspect, float(first.height)
        scale = short_side / min(width, height) if short_side else 1.0
        if even:
            scale = min(1.0, scale)
        self.size = max(1, round(width * scale)), max(1, round(height * scale))  # (W, H) before turning
        if squash and short_side:
            self.size = short_side, short_side
        if even:
            self.size = self.size[0] + self.size[0] % 2, self.size[1] + self.size[1] % 2
        self.quarter_turns, self.mirrored = _orientation(first)
        self.shape = (*(self.size if self.quarter_turns % 2 else self.size[::-1]), 3)
        self.reformatter = VideoReformatter()  # one for all: its tables are costly

    def render(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Resize and convert in one step, then rotate."""
        rgb = self.reformatter.reformat(frame, *self.size, "rgb24", interpolation="BICUBIC", threads=1)
        turned: NDArray[np.uint8] = np.rot90(rgb.to_ndarray(), self.quarter_turns)
        return np.ascontiguousarray(turned[:, ::-1] if self.mirrored else turned)  # torch takes no negative strides


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """The quarter turns counter-clockwise, and whether a flip of left and right follows, that make a frame upright."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV before 19 stumbles over side data of kinds it does not know
        return round(frame.rotation / 90) % 4, False
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y; y points down
    mirrored = a * d < b * c
    return round(-math.degrees(math.atan2(b, -a if mirrored else a)) / 90) % 4, mirrored
