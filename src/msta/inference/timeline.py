"""A long video -> a timeline: sliding windows in one pass through the video, and the segments that they give.

Each frame is decoded once. If the backbone attends to each frame separately (CLIP), the blocks before frames mix also
run once per frame, however many windows contain it. With joint attention (ViCLIP, toy) each window is encoded as a
whole. Memory does not grow with the video, except for the probabilities: 4 bytes per window and class.
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

from msta.adapters.model import AdaptedModel
from msta.backbone.prefix import Tokens, begin_alone, go_on_alone, per_frame_blocks, read_together
from msta.backbone.video import VideoTower
from msta.data.clips import ONE_VIEW, ClipFormat, cut_views
from msta.data.decode import Shown, play, probe
from msta.data.video_file import DecodeError
from msta.errors import ConfigError
from msta.inference.exported import ExportedPredictor
from msta.inference.live import as_frames, is_live, play_array, play_live
from msta.inference.predictor import Predictor, batched, common_format
from msta.inference.segments import Scored, Segment, Segmenter, Smoothing
from msta.inference.shared_backbone import SharedBackbone, shared_blocks
from msta.inference.windows import Window, sliding_windows
from msta.notices import notice

AnyPredictor = Predictor | ExportedPredictor
Video = str | os.PathLike[str] | NDArray[np.uint8] | Tensor


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


@dataclass(frozen=True)
class Timeline:
    """Which classes a video shows when, according to one predictor."""

    classes: tuple[str, ...]
    windows: Windows
    duration: float  # in seconds
    probabilities: NDArray[np.float32] = field(repr=False)  # [windows, classes]; window i begins after i strides
    segments: tuple[Segment, ...]  # without gaps, from 0 to ``duration``


def read_timelines(
    predictors: AnyPredictor | Sequence[AnyPredictor],
    video: Video,
    windows: Windows | None = None,
    smoothing: Smoothing | Sequence[Smoothing] | None = None,
    *,
    fps: float | None = None,
    seconds: float | None = None,
    tell: Callable[[int, Segment], None] = lambda number, segment: None,
) -> list[Timeline]:
    """Read a video once, and give the timeline of each predictor.

    Args:
        predictors: one, or several of one backbone, which share the decoding and their common blocks; or an exported
            model alone.
        video: a file, the URL of a stream, ``webcam:0``, or frames, uint8 [T, H, W, 3].
        windows: default 2 s every 0.5 s.
        smoothing: how windows become segments; a list holds one for each predictor.
        fps: frames per second, needed for an array of frames.
        seconds: stop there.
        tell: called with the number of a predictor and each of its segments, as soon as the segment is over.

    Raises:
        DecodeError: the video cannot be read.
        ConfigError: the predictors expect different frames or several views, or the stride is longer than the window.

    Example:
        >>> read_timelines(Predictor(model), "long.mp4")[0].segments[0]  # doctest: +SKIP
        Segment(start=0.0, end=3.5, label='swipe left', probability=0.81)
    """
    predictors = list(predictors) if isinstance(predictors, Sequence) else [predictors]
    windows = windows or Windows()
    if smoothing is None or isinstance(smoothing, Smoothing):
        smoothing = [smoothing or Smoothing()] * len(predictors)
    segmenters = [Segmenter(p.classes, windows.stride, s) for p, s in zip(predictors, smoothing, strict=True)]
    rows: list[list[NDArray[np.float32]]] = [[] for _ in predictors]
    segments: list[list[Segment]] = [[] for _ in predictors]
    end = 0.0

    def keep(number: int, finished: Iterable[Segment]) -> None:
        for segment in finished:
            segments[number].append(segment)
            tell(number, segment)

    for scored in score_windows(predictors, video, windows, fps=fps, seconds=seconds):
        for number, one in enumerate(scored):
            rows[number].append(one.probabilities.astype(np.float32))
            keep(number, segmenters[number].add(one))
        end = scored[0].end
    for number, segmenter in enumerate(segmenters):
        keep(number, segmenter.finish())
    return [
        Timeline(p.classes, windows, end, np.stack(own_rows), tuple(own_segments))
        for p, own_rows, own_segments in zip(predictors, rows, segments, strict=True)
    ]


def score_windows(
    predictors: Sequence[AnyPredictor], video: Video, windows: Windows, *, fps: float | None, seconds: float | None
) -> Iterator[list[Scored]]:
    """For each window, as it is read, the probabilities by each predictor. See :func:`read_timelines`."""
    if any(predictor.views != ONE_VIEW for predictor in predictors):
        raise ConfigError("--clips, --crops: a timeline has one view of a window; leave them out")
    if isinstance(exported := predictors[0], ExportedPredictor):
        shown, duration = _open(video, exported.format, fps, seconds)
        for group in _cut_windows(shown, exported.format, windows.fitted(duration)):
            rows = exported.probabilities(_stacked(group))
            for window, row in zip(group, rows, strict=True):
                yield [Scored(window.start, window.end, row)]
        return
    loaded = [predictor for predictor in predictors if isinstance(predictor, Predictor)]
    form = common_format(loaded)
    shown, duration = _open(video, form, fps, seconds)
    for group, embeddings in encode_windows([p.model for p in loaded], shown, form, windows.fitted(duration)):
        probabilities = [p.probabilities(e[None]) for p, e in zip(loaded, embeddings, strict=True)]
        for i, window in enumerate(group):
            yield [Scored(window.start, window.end, p[i]) for p in probabilities]


def _open(video: Video, form: ClipFormat, fps: float | None, seconds: float | None) -> tuple[Iterator[Shown], float]:
    """The frames of a video and its duration, which is infinite for a stream."""
    squash = form.fit == "squash"
    if not isinstance(video, str | os.PathLike):
        if not fps:
            raise ConfigError("an array of frames does not tell its frame rate: give fps")
        shown, duration = play_array(as_frames(video), fps, form.size, squash=squash), len(video) / fps
    elif is_live(name := os.fsdecode(video)):
        return play_live(name, form.size, squash=squash, seconds=seconds), math.inf
    else:
        shown, duration = play(name, form.size, squash=squash), probe(name).duration
    return (shown if seconds is None else takewhile(lambda frame: frame.start < seconds, shown)), duration


# ---------------------------------------------------------------- encoding windows


class PreparedFrame:
    """A frame as the models expect it, [3, size, size], and the tokens of each tower that runs per frame."""

    def __init__(self, picture: NDArray[np.uint8], form: ClipFormat) -> None:
        self.pixels = cut_views(picture[None], replace(form, frames=1), ONE_VIEW)[0, 0]
        self.tokens: dict[VideoTower, Tokens] = {}


def encode_windows(
    models: Sequence[AdaptedModel], shown: Iterator[Shown], form: ClipFormat, windows: Windows
) -> Iterator[tuple[list[Window[PreparedFrame]], list[Tensor]]]:
    """Cut a video into windows. Yield them in batches, each with its embeddings [B, D] by each model."""
    encode = WindowEncoder(models)
    for group in _cut_windows(shown, form, windows):
        with torch.inference_mode():
            embeddings = encode(group)
        yield group, embeddings


def _cut_windows(shown: Iterator[Shown], form: ClipFormat, windows: Windows) -> Iterator[list[Window[PreparedFrame]]]:
    cut = sliding_windows(
        _until_broken(shown), windows.length, windows.stride, form.frames, lambda picture: PreparedFrame(picture, form)
    )
    return batched(cut, windows.batch)


def _stacked(group: Sequence[Window[PreparedFrame]]) -> Tensor:
    """The clips [B, T, 3, size, size] of B windows."""
    return torch.stack([torch.stack([frame.pixels for frame in window.frames]) for window in group])


def _until_broken(shown: Iterator[Shown]) -> Iterator[Shown]:
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


class WindowEncoder:
    """Encodes windows as each model's ``encode_video`` would, in the cheapest way.

    Models that attend to frames separately run once per frame, and together as far as they share blocks. The others
    run once per window, together as far as :class:`SharedBackbone` can.
    """

    def __init__(self, models: Sequence[AdaptedModel]) -> None:
        self.models = models
        self.shared = SharedBackbone(models[0].backbone)
        self.device = models[0].backbone.logit_scale.device
        self.per_frame: dict[VideoTower, int] = {}  # how many blocks of a tower run once per frame
        for model in models:
            if not model.exact_reference and (blocks := per_frame_blocks(model.backbone.video)):
                self.per_frame[model.backbone.video] = blocks

    def __call__(self, group: Sequence[Window[PreparedFrame]]) -> list[Tensor]:
        """The embeddings [B, D] of B windows by each model."""
        with self.models[0].backbone.computing():
            return self._encode(group)

    def _encode(self, group: Sequence[Window[PreparedFrame]]) -> list[Tensor]:
        by_window = [model for model in self.models if model.backbone.video not in self.per_frame]
        embeddings = iter(self._encode_windows(group, by_window) if by_window else ())
        if self.per_frame:
            self._encode_frames(list(dict.fromkeys(f for window in group for f in window.frames if not f.tokens)))
        return [
            read_together(tower, [[frame.tokens[tower] for frame in window.frames] for window in group])
            if (tower := model.backbone.video) in self.per_frame
            else next(embeddings)
            for model in self.models
        ]

    def _encode_windows(self, group: Sequence[Window[PreparedFrame]], models: Sequence[AdaptedModel]) -> list[Tensor]:
        return self.shared.encode_each(_stacked(group).to(self.device), models)

    def _encode_frames(self, new: Sequence[PreparedFrame]) -> None:
        if not new:
            return
        pixels = torch.stack([frame.pixels for frame in new]).to(self.device)
        first = next(iter(self.per_frame))
        shared = {tower: shared_blocks(first, tower) for tower in self.per_frame}
        common = min(min(self.per_frame[tower], blocks) for tower, blocks in shared.items() if blocks is not None)
        begun = begin_alone(first, pixels, common)
        for tower, blocks in self.per_frame.items():
            start = begin_alone(tower, pixels) if shared[tower] is None else begun
            for frame, tokens in zip(new, go_on_alone(tower, start, blocks), strict=True):
                frame.tokens[tower] = tokens
