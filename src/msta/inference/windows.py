"""A video -> sliding windows, in one pass: each frame is decoded and prepared once, for all windows."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.backbone.prefix import Tokens
from msta.backbone.video import VideoTower
from msta.data.clips import ONE_VIEW, ClipFormat, cut_views
from msta.data.decode import Shown, play, probe
from msta.data.times import segment_times
from msta.data.video_file import DecodeError
from msta.errors import ConfigError
from msta.inference.live import as_frames, is_live, play_array, play_live
from msta.inference.predictor import batched
from msta.notices import notice

Video = str | os.PathLike[str] | NDArray[np.uint8] | Tensor
_SAME_TIME = 1e-6  # seconds


@dataclass(frozen=True)
class Windows:
    """Windows of ``length`` seconds, one every ``stride`` seconds; ``batch`` of them are encoded together."""

    length: float = 2.0
    stride: float = 0.5
    batch: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.length < float("inf"):
            raise ConfigError(
                f"--window, --stride: expected 0 < stride <= window, got {self.stride:g} s and {self.length:g} s"
            )

    def fitted(self, duration: float) -> Windows:
        """For a video of ``duration`` seconds: a video shorter than a window is one window of its own length."""
        return self if duration >= self.length or duration <= 0 else replace(self, length=duration, stride=duration)


class PreparedFrame:
    """A frame as the models expect it, [3, size, size], and the tokens of each tower that runs per frame."""

    def __init__(self, picture: NDArray[np.uint8], form: ClipFormat) -> None:
        self.pixels = cut_views(picture[None], replace(form, frames=1), ONE_VIEW)[0, 0]
        self.tokens: dict[VideoTower, Tokens] = {}


@dataclass
class Window:
    """The frames shown at ``times``, between ``start`` and ``end``, all in seconds from the video's first frame."""

    start: float
    end: float
    times: list[float]
    frames: list[PreparedFrame] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether it has all its frames."""
        return len(self.frames) == len(self.times)


def window_at(number: int, windows: Windows, frames: int) -> Window:
    """The window with this number, from 0, still without frames. Its times are the middles of equal parts."""
    start = number * windows.stride
    return Window(start, start + windows.length, (segment_times(windows.length, frames) + start).tolist())


def sliding_windows(
    shown: Iterable[Shown], windows: Windows, frames: int, prepare: Callable[[NDArray[np.uint8]], PreparedFrame]
) -> Iterator[Window]:
    """The windows of a video, until one reaches its end.

    The last window may reach past the end of the video by less than a stride. It then repeats the last frame, as
    :func:`msta.data.decode.read_frames` does, and its ``end`` is that of the video. A video shorter than a window gives
    one window.

    Args:
        shown: the frames of the video, in order.
        windows: their length and stride.
        frames: frames per window, T.
        prepare: called once for each frame [H, W, 3] that a window needs; windows hold its result.
    """
    coming: Iterator[Window] = (window_at(number, windows, frames) for number in count())
    waiting: deque[Window] = deque()
    following = next(coming)
    prepared: PreparedFrame | None = None
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
    while end and _needed(following, windows.stride, end):
        waiting.append(following)
        following = next(coming)
    for window in waiting:
        if _needed(window, windows.stride, end):
            if not window.complete:
                prepared = prepare(frame.picture()) if prepared is None else prepared
                window.frames.extend([prepared] * (len(window.times) - len(window.frames)))
            window.end = min(window.end, end)
            yield window


def _needed(window: Window, stride: float, end: float) -> bool:
    """Whether the windows before it leave some of the video uncovered, which lasts at least until ``end``."""
    return window.start < _SAME_TIME or window.end - stride + _SAME_TIME < end


def cut_windows(
    video: Video, form: ClipFormat, windows: Windows, *, fps: float | None = None, seconds: float | None = None
) -> Iterator[list[Window]]:
    """The windows of a video in batches. Arguments and errors: see :func:`read_timelines`."""
    shown, duration = _open(video, form, fps, seconds)
    prepare = partial(PreparedFrame, form=form)
    return batched(sliding_windows(until_broken(shown), windows.fitted(duration), form.frames, prepare), windows.batch)


def _open(video: Video, form: ClipFormat, fps: float | None, seconds: float | None) -> tuple[Iterator[Shown], float]:
    """The frames of a video, up to ``seconds``, and their duration, which is infinite for a stream."""
    squash = form.fit == "squash"
    if not isinstance(video, str | os.PathLike):
        if not fps:
            raise ConfigError("an array of frames does not tell its frame rate: give fps")
        shown, duration = play_array(as_frames(video), fps, form.size, squash=squash), len(video) / fps
    elif is_live(name := os.fsdecode(video)):
        return play_live(name, form.size, squash=squash, seconds=seconds), math.inf
    else:
        shown, duration = play(name, form.size, squash=squash), probe(name).duration
    if seconds is None:
        return shown, duration
    return takewhile(lambda frame: frame.start < seconds, shown), min(duration, seconds)


def stacked(group: Sequence[Window]) -> Tensor:
    """The clips [B, T, 3, size, size] of B windows."""
    return torch.stack([torch.stack([frame.pixels for frame in window.frames]) for window in group])


def until_broken(shown: Iterator[Shown]) -> Iterator[Shown]:
    """The frames up to where a recording or a stream breaks off. That is an error only before the first frame."""
    begun = False
    try:
        for frame in shown:
            begun = True
            yield frame
    except DecodeError as error:
        if not begun:
            raise
        notice(f"{error}; the timeline ends there")
