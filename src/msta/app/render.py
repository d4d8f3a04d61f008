"""Results -> HTML. Templates escape everything that comes from outside."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from msta.app.predicting import Answer, in_words
from msta.app.searching import SearchResult
from msta.app.training import Progress
from msta.data.decode import read_frames
from msta.data.times import segment_times
from msta.data.video_file import DecodeError
from msta.errors import MSTAError, one_line
from msta.evaluation.figures import COLOURS, film_strip
from msta.evaluation.report import embedded, templates
from msta.inference.explain import Explanation
from msta.inference.output import clock
from msta.inference.overlay import overlay_heatmap, patch_heatmaps, resize_heatmap
from msta.inference.predictor import Prediction

T = TypeVar("T")
_log = logging.getLogger("msta.app")
_TOP = 5
_UNKNOWN = "#c3cad3"


def _fill(template: str, **content: Any) -> str:
    return templates("app").get_template(f"{template}.html").render(clock=_short_clock, percent=_percent, **content)


def read(name: str) -> str:
    """A file in templates/: a template, the style sheet or the script."""
    return (resources.files("msta.app") / "templates" / name).read_text(encoding="utf-8")


def attempt(work: Callable[[], T], hidden: str = "") -> tuple[T | None, str]:
    """The result of ``work`` and "", or None and a sentence in HTML. It never raises.

    ``hidden`` is a folder of the app, which is removed from the sentence because users do not know it.
    """
    try:
        return work(), ""
    except MSTAError as error:
        text = str(error)
    except OSError as error:
        text = f"{error.filename or 'error'}: {error.strerror or error}"
    except Exception as error:
        _log.exception("unexpected error in the app")
        text = f"Something unexpected went wrong ({type(error).__name__}); see the terminal of msta app."
    if hidden:
        text = re.sub(rf"{re.escape(hidden)}/(uploads/[0-9a-f]+/|clips/\d+/)?", "", text)
    return None, problem(text)


def problem(text: str) -> str:
    """A sentence about what went wrong."""
    return _fill("problem", text=one_line(text))


def ranking(answer: Answer) -> str:
    """Bars for the most likely classes, and whether the video is unknown."""
    return _fill("ranking", answer=answer, top=answer.ranked[:_TOP], name=Path(answer.video).name)


def bars(ranked: Sequence[Prediction]) -> str:
    """Bars for the most likely classes alone."""
    return f'<div class="msta-bars" role="list">{_fill("bars", top=ranked[:_TOP])}</div>'


def timeline(answer: Answer) -> str:
    """A strip with one colour per class, its legend, and a table. Empty without a timeline."""
    line = answer.timeline
    if line is None:
        return ""
    seconds: dict[str | None, float] = {}
    for segment in line.segments:
        seconds[segment.label] = seconds.get(segment.label, 0.0) + segment.end - segment.start
    known = [label for label in line.classes if label in seconds]
    colours: dict[str | None, str] = dict(zip(known, _distinct(len(known)), strict=True)) | {None: _UNKNOWN}
    legend = [(label, colours[label], seconds[label]) for label in sorted(seconds, key=lambda one: -seconds[one])]
    return _fill("timeline", line=line, colours=colours, legend=legend)


def explanation(explanation: Explanation) -> str:
    """The film strip, how much each frame and word counts, and a sentence."""
    adds = explanation.by_frame
    strongest = float(np.abs(adds).max()) or 1.0
    heatmaps = patch_heatmaps(explanation)
    frames = [
        {
            "time": explanation.times[i],
            "adds": float(adds[i]),
            "share": abs(float(adds[i])) / strongest,
            "seen": _picture(frame),
            "heatmap": _picture(overlay_heatmap(frame, resize_heatmap(heatmaps[i], *frame.shape[:2]))),
        }
        for i, frame in enumerate(explanation.frames)
    ]
    most = max((abs(loss) for _, loss in explanation.words), default=0.0) or 1.0
    words = [(word, loss, abs(loss) / most) for word, loss in explanation.words]
    return _fill("explanation", explanation=explanation, frames=frames, words=words, said=in_words(explanation))


@lru_cache(maxsize=1000)
def thumbnail(video: str) -> NDArray[np.uint8]:
    """The middle frame of a video, uint8 [H, W, 3]; grey if it cannot be read."""
    try:
        return read_frames(video, lambda duration: segment_times(duration, 1), 120)[0]
    except DecodeError:
        return np.full((120, 160, 3), 128, np.uint8)


def frames(video: str, count: int = 8) -> str:
    """Frames of a video side by side, for browsers that cannot play it. Raises DecodeError if it cannot be read."""
    seen = read_frames(video, lambda duration: segment_times(duration, count), 90)
    return f'<img alt="{count} frames of the video" src="{embedded(film_strip(np.stack(list(seen))))}">'


def classes(uploaded: dict[str, list[str]], warnings: Sequence[str] = ()) -> str:
    """The classes that were added so far, and what will make a bad classifier."""
    return _fill("classes", uploaded=uploaded, warnings=warnings)


def run(progress: Progress) -> str:
    """The state of a training."""
    return _fill("run", run=progress, curve=embedded(progress.curve) if progress.curve else None)


def moments(found: SearchResult) -> str:
    """A grid of the moments that were found."""
    each = [(moment, embedded(strip)) for moment, strip in zip(found.moments, found.strips, strict=True)]
    return _fill("moments", found=found, each=each)


def _distinct(count: int) -> Sequence[str]:
    """Different colours, none of them grey. If they are many, their hues are golden angles apart."""
    few = COLOURS[1:]
    return few[:count] if count <= len(few) else [f"hsl({i * 137.508 % 360:.1f} 55% 45%)" for i in range(count)]


def _picture(frame: NDArray[np.uint8]) -> str:
    return embedded(film_strip(frame[None]))


def _percent(p: float) -> str:
    """0.5 -> "50 %"; a digit more where that would be 0 or 100."""
    return f"{100 * p:.{0 if 0.005 <= p < 0.9995 else 1}f}\N{NO-BREAK SPACE}%"


def _short_clock(seconds: float) -> str:
    """65.5 -> "1:05.5"."""
    return re.sub(r"^0:0?(?=\d+:)", "", clock(seconds, digits=1))
