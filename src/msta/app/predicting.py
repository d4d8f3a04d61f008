"""A video -> classes, a timeline, an explanation."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from msta.app.models import Models
from msta.data.catalog import WHOLE, Span
from msta.data.decode import VideoInfo, probe
from msta.data.names import read_as_words
from msta.data.video_file import DecodeError
from msta.errors import MSTAError
from msta.inference.explain import Explanation, explain
from msta.inference.output import Result, as_csv, as_srt
from msta.inference.predictor import Prediction, Predictor
from msta.inference.segments import Segment, Smoothing
from msta.inference.serving import FRAME_RATE, exceeded_limit
from msta.inference.timeline import Timeline, read_timelines
from msta.inference.windows import Windows

LONG = 10.0  # seconds. A video of at least this length gets a timeline by default
LIMITS: dict[str, float] = {"seconds": 3600, "pixels": 4096 * 2304, "frames": 3600 * FRAME_RATE}
"""The most that a video may have."""


@dataclass(frozen=True)
class Settings:
    """How to make the timeline of a video.

    ``unknown`` applies the threshold of the adapter to it. That is off by default, because the threshold was chosen
    for whole clips. Windows cut actions in two, so their probabilities are lower.
    """

    timeline: bool | None = None  # whether to make one; None: if the video is long
    window: float = 2.0  # in seconds; one every quarter of it
    shortest: float = 1.0  # segment, in seconds
    unknown: bool = False


@dataclass(frozen=True)
class Answer:
    """What a predictor says about a video."""

    video: str  # the file
    info: VideoInfo
    predictor: Predictor
    ranked: list[Prediction]  # all classes, the most likely first
    unknown_below: float | None  # the probability below which the video is unknown; None: there is no threshold
    timeline: Timeline | None

    @property
    def calibrated(self) -> bool:
        """Whether the probabilities were fitted on validation clips."""
        return self.predictor.temperature != 1

    @property
    def unknown(self) -> bool:
        """Whether no class is likely enough."""
        return self.unknown_below is not None and self.ranked[0].probability < self.unknown_below

    @property
    def parts(self) -> dict[str, tuple[Span, str]]:
        """What can be explained: name -> span and class of the whole video, and of each segment of the timeline.

        The class of an unknown segment is the most likely one of the video.
        """
        likeliest = self.ranked[0].label
        found: dict[str, tuple[Span, str]] = {"the whole video": (WHOLE, likeliest)}
        for s in self.timeline.segments if self.timeline else ():
            found[f"{s.start:.1f} s to {s.end:.1f} s: {s.label or 'unknown'}"] = (s.start, s.end), s.label or likeliest
        return found


def typed_classes(text: str | None) -> list[str]:
    """Class names from a text field, separated by commas, semicolons or line breaks."""
    return [name.strip() for name in re.split(r"[,;\n]", text or "") if name.strip()]


def classes_of(adapter: str | None, typed: str | None) -> list[str] | None:
    """The typed classes, as words; None for those of the adapter. Raises MSTAError if there is no choice to make."""
    classes = list(read_as_words(typed_classes(typed), "The class names"))
    if not classes and adapter is None:
        raise MSTAError("Type the names of two classes or more, separated by commas, or pick an adapter.")
    if len(classes) == 1:
        raise MSTAError(f"One class is no choice: every video would be {classes[0]!r}. Type another class.")
    return classes or None


def answer(
    models: Models,
    video: str | None,
    adapter: str | None,
    typed: str | None,
    settings: Settings = Settings(),
    *,
    limits: dict[str, float] = LIMITS,
    tell: Callable[[float], None] = lambda share: None,
) -> Answer:
    """Predict an uploaded video.

    ``adapter`` is its name, or None for the backbone alone; ``typed`` holds class names, and the adapter's are used if
    it is empty; ``tell`` is called with the share of the timeline that is done. Raises MSTAError, with one sentence, if
    something is missing or wrong.
    """
    if not video:
        raise MSTAError("Give a video first.")
    classes = classes_of(adapter, typed)
    try:
        info = probe(video)
        if reason := exceeded_limit(info, limits):
            raise DecodeError(video, reason)
        predictor = models.predictor(adapter, classes)
        ranked, below = predictor(video), None if classes else models.unknown_below(adapter)
        return Answer(video, info, predictor, ranked, below, _timeline(predictor, info, below, settings, tell))
    except DecodeError as error:
        raise MSTAError(f"{Path(video).name}: {error.reason}") from error


def _timeline(
    predictor: Predictor, info: VideoInfo, below: float | None, settings: Settings, tell: Callable[[float], None]
) -> Timeline | None:
    if not (info.duration >= LONG if settings.timeline is None else settings.timeline):
        return None
    smoothing = Smoothing(settings.shortest, unknown_below=below if settings.unknown else None)
    windows = Windows(settings.window, settings.window / 4)

    def tell_segment(number: int, segment: Segment) -> None:
        tell(min(1.0, segment.end / info.duration))

    return read_timelines(predictor, info.path, windows, smoothing, tell=tell_segment)[0]


def written(answer: Answer, folder: Path) -> tuple[Path, Path | None]:
    """The answer as a CSV and, if it has a timeline, as subtitles: files in a new folder in ``folder``."""
    result = Result(Path(answer.video).name, None, answer.ranked, answer.unknown, answer.timeline)
    folder = Path(tempfile.mkdtemp(dir=folder, prefix="answer-"))
    table, subtitles = (folder / f"{Path(answer.video).stem}{suffix}" for suffix in (".csv", ".srt"))
    table.write_text(as_csv([result]), encoding="utf-8")
    if answer.timeline is not None:
        subtitles.write_text(as_srt([result]), encoding="utf-8")
    return table, None if answer.timeline is None else subtitles


def explain_answer(answer: Answer, label: str | None = None, part: str | None = None, steps: int = 16) -> Explanation:
    """Explain a class of a video, or of one of :attr:`Answer.parts`. By default it is the class of that part.

    ``steps``: see :func:`msta.inference.explain.explain`.
    """
    span, own = answer.parts[part] if part else (WHOLE, None)
    return explain(answer.predictor, answer.video, label or own, span=span, steps=steps)


def in_words(explanation: Explanation) -> str:
    """One sentence about the frame and the word that matter most."""
    by_frame: Sequence[float] = explanation.by_frame.tolist()
    best = max(range(len(by_frame)), key=lambda i: by_frame[i])
    label = explanation.label
    if by_frame[best] > 0:
        text = f"The frame at {explanation.times[best]:.1f} s speaks most for “{label}”"
    else:
        text = f"No frame speaks for “{label}” more than the clip's mean colour would"
    if explanation.words:
        word, loss = max(explanation.words, key=lambda one: one[1])
        if loss > 0:
            return f"{text}; among its words, “{word}” counts most."
    return f"{text}."
