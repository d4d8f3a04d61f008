"""A long video -> a timeline: sliding windows over one pass through it, and the segments they make.

Each frame is decoded once. Where the backbone reads each frame by itself (CLIP), what it computes of a frame before
frames mix is computed once, too, however many windows show it; under joint attention (ViCLIP, toy) each window is read
as a whole. Memory does not grow with the video, but for a window's probabilities: 4 bytes a class.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.backbone.per_frame import begin_alone, go_on_alone, per_frame_blocks, read_together
from msta.backbone.prefix import Tokens
from msta.backbone.video import VideoTower
from msta.data.clips import ONE_VIEW, ClipFormat, cut_views
from msta.data.decode import DecodeError, Shown, play, probe
from msta.errors import ConfigError
from msta.inference.live import as_frames, is_live, play_array, play_live
from msta.inference.predictor import Predictor, batched, common_format
from msta.inference.segments import Scored, Segment, Segmenter, Smoothing
from msta.inference.shared import SharedBackbone, fork
from msta.inference.windows import Window, cut
from msta.notices import notice

Video = str | os.PathLike[str] | NDArray[np.uint8] | Tensor


@dataclass(frozen=True)
class Windows:
    """How a video is cut: windows of ``length`` seconds, one every ``stride`` seconds; ``batch`` are read together."""

    length: float = 2.0
    stride: float = 0.5
    batch: int = 8

    def __post_init__(self) -> None:
        if not 0 < self.stride <= self.length < float("inf"):
            raise ConfigError(
                f"--window, --stride: expected 0 < stride <= window, got {self.stride:g} s and {self.length:g} s"
            )

    def fitted(self, duration: float) -> Windows:
        """For a video of so many seconds: one that is shorter than a window is a window of its own length."""
        return self if duration >= self.length or duration <= 0 else replace(self, length=duration, stride=duration)


@dataclass(frozen=True)
class Timeline:
    """What a video shows when, by one predictor.

    Attributes:
        classes: K names.
        windows: how it was cut.
        duration: seconds.
        probabilities: float32 [W, K], of the windows; window i begins at i strides.
        segments: one after the other, from 0 to ``duration``.
    """

    classes: tuple[str, ...]
    windows: Windows
    duration: float
    probabilities: NDArray[np.float32] = field(repr=False)
    segments: tuple[Segment, ...]


def read_timelines(
    predictors: Predictor | Sequence[Predictor],
    video: Video,
    windows: Windows | None = None,
    smoothing: Smoothing | Sequence[Smoothing] | None = None,
    *,
    fps: float | None = None,
    seconds: float | None = None,
    tell: Callable[[int, Segment], None] = lambda number, segment: None,
) -> list[Timeline]:
    """Read a video once, and give each predictor's timeline.

    Args:
        predictors: one, or several of one backbone, which share the decoding and what else they have in common.
        video: a file, a stream's URL, ``webcam:0``, or frames, uint8 [T, H, W, 3].
        windows: default 2 s every 0.5 s.
        smoothing: of windows to segments; a list has one for each predictor.
        fps: of frames.
        seconds: stop there.
        tell: called with a predictor's number and each segment as soon as it is over.

    Raises:
        DecodeError: the video cannot be read.
        ConfigError: predictors that do not see the same frames, several views, or a stride longer than the window.

    Example:
        >>> read_timelines(Predictor(model), "long.mp4")[0].segments[0]  # doctest: +SKIP
        Segment(start=0.0, end=3.5, label='swipe left', probability=0.81)
    """
    predictors = [predictors] if isinstance(predictors, Predictor) else list(predictors)
    windows = windows or Windows()
    if smoothing is None or isinstance(smoothing, Smoothing):
        smoothing = [smoothing or Smoothing()] * len(predictors)
    segmenters = [Segmenter(p.classes, windows.stride, s) for p, s in zip(predictors, smoothing, strict=True)]
    rows: list[list[NDArray[np.float32]]] = [[] for _ in predictors]
    found: list[list[Segment]] = [[] for _ in predictors]
    end = 0.0

    def keep(number: int, over: Iterable[Segment]) -> None:
        for segment in over:
            found[number].append(segment)
            tell(number, segment)

    for scored in scores(predictors, video, windows, fps=fps, seconds=seconds):
        for number, one in enumerate(scored):
            rows[number].append(one.probabilities.astype(np.float32))
            keep(number, segmenters[number].add(one))
        end = scored[0].end
    for number, segmenter in enumerate(segmenters):
        keep(number, segmenter.finish())
    return [
        Timeline(p.classes, windows, end, np.stack(rows[number]), tuple(found[number]))
        for number, p in enumerate(predictors)
    ]


def scores(
    predictors: Sequence[Predictor],
    video: Video,
    windows: Windows,
    *,
    fps: float | None = None,
    seconds: float | None = None,
) -> Iterator[list[Scored]]:
    """Window by window, as they are read: each predictor's probabilities. See :func:`read_timelines`."""
    if any(predictor.views != ONE_VIEW for predictor in predictors):
        raise ConfigError("--clips, --crops: a timeline has one view of a window; leave them out")
    form = common_format(predictors)
    shown = as_far_as_it_goes(_shown(video, form, fps, seconds))
    windows = windows.fitted(_seconds(video, fps))
    cut_windows = cut(shown, windows.length, windows.stride, form.frames, lambda picture: SeenFrame(picture, form))
    read = Reader(predictors)
    for group in batched(cut_windows, windows.batch):
        with torch.inference_mode():
            embeddings = read(group)
        probabilities = [p.probabilities(e[None]) for p, e in zip(predictors, embeddings, strict=True)]
        for i, window in enumerate(group):
            yield [Scored(window.start, window.end, p[i]) for p in probabilities]


class SeenFrame:
    """A frame as the model wants to see it, [3, size, size], and what was computed of it alone."""

    def __init__(self, picture: NDArray[np.uint8], form: ClipFormat) -> None:
        self.pixels = cut_views(picture[None], replace(form, frames=1), ONE_VIEW)[0, 0]
        self.alone: dict[VideoTower, Tokens] = {}


class Reader:
    """Windows -> what each model's ``encode_video`` gives of them, in the cheapest way.

    Models that read frames by themselves compute a frame's part once, and together as far as their towers are the same;
    the others read window by window, together as far as :class:`SharedBackbone` goes.
    """

    def __init__(self, predictors: Sequence[Predictor]) -> None:
        self.predictors = predictors
        self.device = predictors[0].text.device
        self.shared = SharedBackbone(predictors[0].model.backbone)
        self.alone: dict[VideoTower, int] = {}  # how many blocks read frames by themselves
        for predictor in predictors:
            tower = predictor.model.backbone.video
            if not predictor.model.exact_reference and (blocks := per_frame_blocks(tower)):
                self.alone[tower] = blocks

    def __call__(self, group: Sequence[Window[SeenFrame]]) -> list[Tensor]:
        """Each model's embeddings [B, D]."""
        whole = [p for p in self.predictors if p.model.backbone.video not in self.alone]
        embeddings = iter(self._window_by_window(group, whole) if whole else ())
        self._read_frames(list(dict.fromkeys(f for window in group for f in window.frames if not f.alone)))
        together = []
        for predictor in self.predictors:
            if (tower := predictor.model.backbone.video) in self.alone:
                clips = [[frame.alone[tower] for frame in window.frames] for window in group]
                together.append(read_together(tower, clips))
            else:
                together.append(next(embeddings))
        return together

    def _window_by_window(self, group: Sequence[Window[SeenFrame]], predictors: Sequence[Predictor]) -> list[Tensor]:
        clips = torch.stack([torch.stack([frame.pixels for frame in window.frames]) for window in group])
        return self.shared.encode_each(clips.to(self.device), predictors)

    def _read_frames(self, new: Sequence[SeenFrame]) -> None:
        if not new or not self.alone:
            return
        pixels = torch.stack([frame.pixels for frame in new]).to(self.device)
        first = next(iter(self.alone))
        apart = {tower: fork(first, tower) for tower in self.alone}
        common = min(min(self.alone[tower], at) for tower, at in apart.items() if at is not None)
        begun = begin_alone(first, pixels, common)
        for tower, blocks in self.alone.items():
            start = begin_alone(tower, pixels) if apart[tower] is None else begun
            for frame, own in zip(new, go_on_alone(tower, start, blocks), strict=True):
                frame.alone[tower] = own


def _seconds(video: Video, fps: float | None) -> float:
    """How long it is; of a stream, which may not end, infinity."""
    if not isinstance(video, str | os.PathLike):
        return len(video) / (fps or 1)
    return math.inf if is_live(os.fsdecode(video)) else probe(video).duration


def _shown(video: Video, form: ClipFormat, fps: float | None, seconds: float | None) -> Iterator[Shown]:
    squash = form.fit == "squash"
    if not isinstance(video, str | os.PathLike):
        if not fps:
            raise ConfigError("frames in an array say nothing of time: give fps")
        shown = play_array(as_frames(video), fps, form.size, squash=squash)
    elif is_live(name := os.fsdecode(video)):
        return play_live(name, form.size, squash=squash, seconds=seconds)
    else:
        shown = play(name, form.size, squash=squash)
    return shown if seconds is None else takewhile(lambda frame: frame.start < seconds, shown)


def as_far_as_it_goes(shown: Iterator[Shown]) -> Iterator[Shown]:
    """A recording that was cut off, or a stream that broke off, has a timeline up to there."""
    begun = False
    try:
        for frame in shown:
            begun = True
            yield frame
    except DecodeError as error:
        if not begun:
            raise
        notice(f"{error}; the timeline ends there")
