"""A video -> classes, a timeline, an explanation."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msta.app.models import Models
from msta.data.catalog import WHOLE, Span
from msta.data.decode import DecodeError, VideoInfo, probe
from msta.errors import MSTAError
from msta.inference.explain import Explanation
from msta.inference.explain import explain as explain_class
from msta.inference.guards import too_much
from msta.inference.predictor import Prediction, Predictor
from msta.inference.segments import Segment, Smoothing
from msta.inference.timeline import Timeline, Windows, read_timelines

LONG = 10.0
"""Seconds from which on a video has a timeline, unless told otherwise."""
LIMITS: dict[str, float] = {"seconds": 3600, "pixels": 4096 * 2304, "frames": 3600 * 60}
"""What a video may have."""


@dataclass(frozen=True)
class Wanted:
    """How to look at a video.

    Attributes:
        timeline: make one; None: of a long video.
        window: of it, in seconds, one every quarter of it.
        shortest: segment, in seconds.
        unknown: leave out what is under the adapter's threshold, which was chosen for whole clips: windows, which
            cut actions in two, are less sure.
    """

    timeline: bool | None = None
    window: float = 2.0
    shortest: float = 1.0
    unknown: bool = False


@dataclass(frozen=True)
class Answer:
    """What a video shows.

    Attributes:
        video: the file.
        info: what it says of itself.
        predictor: that was asked.
        ranked: all classes, the likeliest first.
        unknown_below: the probability below which it is of none of them; None if the adapter has none.
        calibrated: whether the probabilities are fitted on validation clips.
        timeline: of a long video.
    """

    video: str
    info: VideoInfo
    predictor: Predictor
    ranked: list[Prediction]
    unknown_below: float | None
    calibrated: bool
    timeline: Timeline | None

    @property
    def unknown(self) -> bool:
        """Whether no class is likely enough."""
        return self.unknown_below is not None and self.ranked[0].probability < self.unknown_below

    @property
    def parts(self) -> dict[str, tuple[Span, str]]:
        """What can be explained: the whole video, and the segments of its timeline.

        What each is called -> its span, and the class it is of, if it is of one, else the likeliest of the video.
        """
        likeliest = self.ranked[0].label
        found: dict[str, tuple[Span, str]] = {"the whole video": (WHOLE, likeliest)}
        for s in self.timeline.segments if self.timeline else ():
            found[f"{s.start:.1f} s to {s.end:.1f} s: {s.label or 'unknown'}"] = (s.start, s.end), s.label or likeliest
        return found


def typed_classes(text: str | None) -> list[str]:
    """Class names as somebody types them: separated by commas, semicolons or lines."""
    return [name.strip() for name in re.split(r"[,;\n]", text or "") if name.strip()]


def answer(
    models: Models,
    video: str | None,
    adapter: str | None,
    typed: str | None,
    wanted: Wanted = Wanted(),
    *,
    limits: dict[str, float] = LIMITS,
    tell: Callable[[float], None] = lambda share: None,
) -> Answer:
    """Predict.

    Args:
        models: to choose from.
        video: an uploaded file.
        adapter: its name; None: the backbone as it is.
        typed: class names; none: the adapter's.
        wanted: how to look at it.
        limits: see :data:`LIMITS`.
        tell: called with the share of the timeline that is done.

    Raises:
        MSTAError: one sentence about what is missing or wrong.
    """
    if not video:
        raise MSTAError("Give a video first.")
    classes = typed_classes(typed)
    if not classes and adapter is None:
        raise MSTAError("Type the names of two classes or more, separated by commas, or pick an adapter.")
    if len(classes) == 1:
        raise MSTAError(f"One class is no choice: every video would be {classes[0]!r}. Type another beside it.")
    try:
        info = probe(video)
        if reason := too_much(info, limits):
            raise DecodeError(video, reason)
        predictor = models.predictor(adapter, classes or None)
        return Answer(
            video, info, predictor, predictor(video), None if classes else models.unknown_below(adapter),
            predictor.temperature != 1, _timeline(models, predictor, info, None if classes else adapter, wanted, tell),
        )  # fmt: skip
    except DecodeError as error:
        raise MSTAError(f"{Path(video).name}: {error.reason}") from error


def _timeline(
    models: Models,
    predictor: Predictor,
    info: VideoInfo,
    adapter: str | None,
    wanted: Wanted,
    tell: Callable[[float], None],
) -> Timeline | None:
    if not (info.duration >= LONG if wanted.timeline is None else wanted.timeline):
        return None
    below = models.unknown_below(adapter) if wanted.unknown else None
    smoothing = Smoothing(wanted.shortest, unknown_below=below)
    windows = Windows(wanted.window, wanted.window / 4)

    def told(number: int, segment: Segment) -> None:
        tell(min(1.0, segment.end / info.duration))

    return read_timelines(predictor, info.path, windows, smoothing, tell=told)[0]


def why(found: Answer, label: str | None = None, part: str | None = None, steps: int = 16) -> Explanation:
    """Explain a class of a video, or of a part of it.

    Args:
        found: of :func:`answer`.
        label: the class; None: the part's.
        part: of :attr:`Answer.parts`; None: all of it.
        steps: see :func:`msta.inference.explain.explain`.
    """
    span, own = found.parts[part] if part else (WHOLE, None)
    return explain_class(found.predictor, found.video, label or own, span=span, steps=steps)


def in_words(explanation: Explanation) -> str:
    """What mattered most, in a sentence or two."""
    by_frame: Sequence[float] = explanation.by_frame.tolist()
    best = max(range(len(by_frame)), key=lambda i: by_frame[i])
    label = explanation.label
    if by_frame[best] > 0:
        said = f"The frame at {explanation.times[best]:.1f} s speaks most for “{label}”"
    else:
        said = f"No frame speaks for “{label}” more than the clip's mean colour would"
    if explanation.words:
        word, loss = max(explanation.words, key=lambda one: one[1])
        if loss > 0:
            return f"{said}; of its words it is “{word}” that counts most."
    return f"{said}."
