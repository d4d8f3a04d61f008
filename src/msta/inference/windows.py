"""Sliding windows over one pass through a video: each frame is decoded and made once, whatever looks at it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from msta.data.decode import Shown
from msta.data.times import segment_times

Frame = TypeVar("Frame")
_SAME_TIME = 1e-6  # seconds


@dataclass
class Window(Generic[Frame]):
    """The frames on display at ``times``, seconds from the video's first frame, which lie from ``start`` to ``end``."""

    start: float
    end: float
    times: list[float]
    frames: list[Frame] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether it has all of its frames."""
        return len(self.frames) == len(self.times)


def window_at(number: int, length: float, stride: float, frames: int) -> Window[Frame]:
    """The window of this number, from 0, without its frames: they are to come from the middles of equal parts."""
    start = number * stride
    return Window(start, start + length, (segment_times(length, frames) + start).tolist())


def cut(
    shown: Iterable[Shown],
    length: float,
    stride: float,
    frames: int,
    make: Callable[[NDArray[np.uint8]], Frame],
) -> Iterator[Window[Frame]]:
    """Windows of ``length`` seconds, one every ``stride`` seconds, until one reaches the video's end.

    The last one may hang over, by less than a stride: past the end, the last frame stays on display, as in
    :func:`msta.data.decode.read_frames`, and its ``end`` is the video's. A video shorter than a window is one window.

    Args:
        shown: frames in order.
        length: seconds.
        stride: seconds, at most ``length``.
        frames: T, of a window.
        make: what is kept of a frame [H, W, 3]; called once for each that any window wants.
    """
    waiting: deque[Window[Frame]] = deque()
    following: Window[Frame] = window_at(0, length, stride, frames)
    number = 0
    made: Frame | None = None
    end = 0.0
    for frame in shown:
        made, end = None, frame.end
        while frame.outlasts(following.times[0]):
            waiting.append(following)
            number += 1
            following = window_at(number, length, stride, frames)
        for window in waiting:
            while not window.complete and frame.outlasts(window.times[len(window.frames)]):
                made = make(frame.picture()) if made is None else made
                window.frames.append(made)
        while waiting and waiting[0].complete and waiting[0].end <= end + _SAME_TIME:
            yield waiting.popleft()
    while end and _wanted(following, stride, end):
        waiting.append(following)
        number += 1
        following = window_at(number, length, stride, frames)
    for window in waiting:
        if _wanted(window, stride, end):
            if not window.complete:
                made = make(frame.picture()) if made is None else made
                window.frames.extend([made] * (len(window.times) - len(window.frames)))
            window.end = min(window.end, end)
            yield window


def _wanted(window: Window[Frame], stride: float, end: float) -> bool:
    """Whether the windows before it leave something for it to show, of a video that lasts at least until ``end``."""
    return window.start < _SAME_TIME or window.end - stride + _SAME_TIME < end
