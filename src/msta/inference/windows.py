"""Sliding windows in one pass through a video: each frame is decoded and prepared once, for all windows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from msta.data.decode import Shown
from msta.data.times import segment_times

Frame = TypeVar("Frame")
_SAME_TIME = 1e-6  # seconds


@dataclass
class Window(Generic[Frame]):
    """The frames shown at ``times``, between ``start`` and ``end``, all in seconds from the video's first frame."""

    start: float
    end: float
    times: list[float]
    frames: list[Frame] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether it has all its frames."""
        return len(self.frames) == len(self.times)


def window_at(number: int, length: float, stride: float, frames: int) -> Window[Frame]:
    """The window with this number, from 0, still without frames. Its times are the middles of equal parts."""
    start = number * stride
    return Window(start, start + length, (segment_times(length, frames) + start).tolist())


def sliding_windows(
    shown: Iterable[Shown], length: float, stride: float, frames: int, prepare: Callable[[NDArray[np.uint8]], Frame]
) -> Iterator[Window[Frame]]:
    """Windows of ``length`` seconds, one every ``stride`` seconds, until one reaches the video's end.

    The last window may reach past the end of the video by less than a stride. It then repeats the last frame, as
    :func:`msta.data.decode.read_frames` does, and its ``end`` is that of the video. A video shorter than a window gives
    one window.

    Args:
        shown: the frames of the video, in order.
        length: in seconds.
        stride: in seconds, at most ``length``.
        frames: frames per window, T.
        prepare: called once for each frame [H, W, 3] that a window needs; windows hold its result.
    """
    coming: Iterator[Window[Frame]] = (window_at(number, length, stride, frames) for number in count())
    waiting: deque[Window[Frame]] = deque()
    following = next(coming)
    prepared: Frame | None = None
    end = 0.0
    for frame in shown:
        prepared, end = None, frame.end
        while frame.outlasts(following.times[0]):
            waiting.append(following)
            following = next(coming)
        for window in waiting:
            while not window.complete and frame.outlasts(window.times[len(window.frames)]):
                prepared = prepare(frame.picture()) if prepared is None else prepared
                window.frames.append(prepared)
        while waiting and waiting[0].complete and waiting[0].end <= end + _SAME_TIME:
            yield waiting.popleft()
    while end and _needed(following, stride, end):
        waiting.append(following)
        following = next(coming)
    for window in waiting:
        if _needed(window, stride, end):
            if not window.complete:
                prepared = prepare(frame.picture()) if prepared is None else prepared
                window.frames.extend([prepared] * (len(window.times) - len(window.frames)))
            window.end = min(window.end, end)
            yield window


def _needed(window: Window[Frame], stride: float, end: float) -> bool:
    """Whether the windows before it leave some of the video uncovered, which lasts at least until ``end``."""
    return window.start < _SAME_TIME or window.end - stride + _SAME_TIME < end
