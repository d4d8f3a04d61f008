"""A long video -> a timeline: sliding windows in one pass through the video, and the segments that they give.

Each frame is decoded once. If the backbone attends to each frame separately (CLIP), the blocks before frames mix also
run once per frame, however many windows contain it. With joint attention (ViCLIP, toy) each window is encoded as a
whole. Memory does not grow with the video, except for the probabilities: 4 bytes per window and class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.backbone.prefix import begin_alone, go_on_alone, per_frame_blocks, read_together
from msta.backbone.video import VideoTower
from msta.data.clips import ONE_VIEW
from msta.errors import ConfigError
from msta.evaluation.metrics import Array
from msta.inference.predictor import AnyPredictor, ExportedPredictor, Predictor, common_format
from msta.inference.segments import Scored, Segment, Segmenter, Smoothing
from msta.inference.shared_backbone import SharedBackbone, shared_blocks
from msta.inference.windows import PreparedFrame, Video, Window, Windows, cut_windows, stacked


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
    score = _scorer(predictors)
    for group in cut_windows(video, common_format(predictors), windows, fps=fps, seconds=seconds):
        probabilities = score(group)
        for i, window in enumerate(group):
            yield [Scored(window.start, window.end, p[i]) for p in probabilities]


def _scorer(predictors: Sequence[AnyPredictor]) -> Callable[[Sequence[Window]], list[Array]]:
    """A function of B windows -> probabilities [B, K] by each predictor. An exported model stands alone."""
    if isinstance(exported := predictors[0], ExportedPredictor):
        return lambda group: [exported.probabilities(stacked(group))]
    loaded = [predictor for predictor in predictors if isinstance(predictor, Predictor)]
    encode = WindowEncoder([predictor.model for predictor in loaded])
    return lambda group: [p.probabilities(e[None]) for p, e in zip(loaded, encode(group), strict=True)]


# ---------------------------------------------------------------- encoding windows


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

    @torch.inference_mode()
    def __call__(self, group: Sequence[Window]) -> list[Tensor]:
        """The embeddings [B, D] of B windows by each model."""
        by_window = [model for model in self.models if model.backbone.video not in self.per_frame]
        with self.models[0].backbone.computing():
            whole = iter(self.shared.encode_each(stacked(group).to(self.device), by_window) if by_window else ())
            if self.per_frame:
                self._encode_frames(list(dict.fromkeys(f for window in group for f in window.frames if not f.tokens)))
            return [
                read_together(tower, [[frame.tokens[tower] for frame in window.frames] for window in group])
                if (tower := model.backbone.video) in self.per_frame
                else next(whole)
                for model in self.models
            ]

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
