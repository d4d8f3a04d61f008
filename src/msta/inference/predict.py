"""``msta predict``: videos -> text, and optionally the video with its labels drawn in."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from msta.data.video_file import DecodeError
from msta.errors import ConfigError, one_line
from msta.files import check_writable, write_bytes
from msta.inference.live import is_live
from msta.inference.output import Result, as_csv, as_data, as_elan, as_srt, segment_line, table
from msta.inference.overlay import write_overlay
from msta.inference.predictor import AnyPredictor, predict_each
from msta.inference.segments import Segment, Smoothing
from msta.inference.timeline import read_timelines
from msta.inference.windows import Windows
from msta.notices import notice

FORMATS = {"table": ".txt", "json": ".json", "csv": ".csv", "srt": ".srt", "elan": ".eaf"}
_ONE_VIDEO = ("srt", "elan")  # formats with one document per video


@dataclass(frozen=True)
class Request:
    """What to predict, and how to print or write it."""

    videos: Sequence[str]  # files, URLs of streams, ``webcam:0``
    windows: Windows | None = None  # make timelines; None: one answer per video, which must be a file
    smoothing: Smoothing = field(default_factory=Smoothing)  # of timelines
    format: str = "table"  # one of FORMATS
    out: Path | None = None  # a file for the text, or a folder for SRT or ELAN of several videos; None: print it
    overlay: Path | None = None  # an MP4 to write, of the video with its labels drawn in
    unknown_below: Sequence[float | None] = (None,)  # for each predictor the probability below which a video is unknown
    top: int = 3  # classes to print per video
    batch: int = 8  # videos or windows to encode together
    workers: int = 2  # threads that read videos in advance
    seconds: float | None = None  # where a timeline stops; None: at the end of the video

    def check(self) -> None:
        """Raise ConfigError, with one line that names the option, if options contradict each other."""
        if self.format not in FORMATS:
            raise ConfigError(f"--format: {self.format!r} is none of {', '.join(FORMATS)}")
        live = [video for video in self.videos if is_live(video)]
        timed = [f"{video}: a stream" for video in live]
        timed += [f"--format {self.format}"] if self.format in _ONE_VIDEO else []
        timed += ["--overlay"] if self.overlay is not None else []
        if self.windows is None and timed:
            raise ConfigError(f"{timed[0]} needs a timeline; add --window 2s")
        if self.overlay is not None and (len(self.videos) != 1 or live):
            raise ConfigError("--overlay: takes one video file")
        if self.overlay is not None and self.overlay.suffix.lower() != ".mp4":
            raise ConfigError(f"--overlay: the name {self.overlay} must end in .mp4")
        if self.format in _ONE_VIDEO and len(self.videos) > 1 and self.out is None:
            raise ConfigError(
                f"--format {self.format}: a document is about one video; for several give a folder, --out"
            )


def predict(predictors: Mapping[str, AnyPredictor], request: Request, tell: Callable[[str], None]) -> bool:
    """Predict, and print or write the answers.

    Args:
        predictors: by name; names are printed if there are several. An exported model stands alone.
        request: what to predict.
        tell: called with text for standard output.

    Returns:
        Whether every video could be read.

    Raises:
        ConfigError: see :meth:`Request.check`; or the predictors expect different frames.
    """
    request.check()
    several = request.format in _ONE_VIDEO and len(request.videos) > 1  # --out is a folder
    for option, file in (("--out", None if several else request.out), ("--overlay", request.overlay)):
        if file is not None:
            check_writable(file, f"give another {option}")
    names = list(predictors) if len(predictors) > 1 else [None]
    at_once = request.format == "table" and request.out is None
    results = []
    found = _clips if request.windows is None else _timelines
    for result in found(names, list(predictors.values()), request, tell if at_once else None):
        if at_once and (result.timeline is None or result.error):
            tell(table(result, request.top))
        if result.error and request.format not in ("table", "json"):  # which have a place for it
            notice(one_line(f"{result.path}: {result.error}"))
        results.append(result)
    if not at_once:
        _write(results, request, tell)
    if request.overlay is not None and results[0].timeline:
        lines = [(r.adapter, r.timeline.segments) for r in results if r.timeline]
        write_overlay(request.videos[0], request.overlay, lines)
    return not any(result.error for result in results)


def _clips(
    names: Sequence[str | None], predictors: Sequence[AnyPredictor], request: Request, tell: object
) -> Iterator[Result]:
    for video, answer in predict_each(predictors, request.videos, batch=request.batch, workers=request.workers):
        if isinstance(answer, DecodeError):
            yield Result(str(video), error=answer.reason)
            continue
        for name, ranked, below in zip(names, answer, request.unknown_below, strict=True):
            unknown = None if below is None else ranked[0].probability < below
            yield Result(str(video), name, ranked, unknown)


def _timelines(
    names: Sequence[str | None],
    predictors: Sequence[AnyPredictor],
    request: Request,
    tell: Callable[[str], None] | None,
) -> Iterator[Result]:
    smoothings = [replace(request.smoothing, unknown_below=below) for below in request.unknown_below]

    def tell_segment(number: int, segment: Segment) -> None:
        if tell is not None:
            name = names[number]
            tell(segment_line(segment) + ("" if name is None else f"  [{name}]"))

    assert request.windows is not None
    for video in request.videos:
        # A stream is answered window by window: it does not wait for a batch.
        windows = replace(request.windows, batch=1) if is_live(video) else request.windows
        if tell is not None and len(request.videos) > 1:
            tell(one_line(video))
        try:
            lines = read_timelines(predictors, video, windows, smoothings, seconds=request.seconds, tell=tell_segment)
        except DecodeError as error:
            yield Result(video, error=error.reason)
            continue
        for name, line in zip(names, lines, strict=True):
            yield Result(video, name, timeline=line)


def _write(results: Sequence[Result], request: Request, tell: Callable[[str], None]) -> None:
    if request.format in _ONE_VIDEO and len(request.videos) > 1:
        assert request.out is not None
        request.out.mkdir(parents=True, exist_ok=True)
        videos = list(dict.fromkeys(request.videos))  # one may be named twice
        for video, name in zip(videos, _file_names(videos), strict=True):
            own = list({r.adapter: r for r in results if r.path == video}.values())
            _write_text(request.out / f"{name}{FORMATS[request.format]}", _text(own, request))
    elif request.out is not None:
        _write_text(request.out, _text(results, request))
    else:
        tell(_text(results, request).removesuffix("\n"))


def _write_text(file: Path, text: str) -> None:
    write_bytes(file, text.encode(errors="backslashreplace"))  # names may be no text


def _file_names(videos: Sequence[str]) -> list[str]:
    """The names of the videos, with the names of their folders if two are the same, and a number if they still are.

    On some systems names that differ in case alone are the same.
    """
    stems = Counter(Path(video).stem.casefold() for video in videos)
    names: dict[str, str] = {}
    for video in videos:
        parts = Path(video).with_suffix("").parts
        name = parts[-1] if stems[parts[-1].casefold()] == 1 else "_".join(parts[-2:])
        tries = (name, *(f"{name}_{i}" for i in range(2, len(videos) + 2)))
        name = next(one for one in tries if one.casefold() not in names)
        names[name.casefold()] = name
    return list(names.values())


def _text(results: Sequence[Result], request: Request) -> str:
    if request.format == "json":
        return json.dumps([as_data(result) for result in results], indent=None if request.windows else 2) + "\n"
    if request.format == "table":
        return "\n".join(table(result, request.top) for result in results) + "\n"
    if request.format == "csv":
        return as_csv(results, request.top)
    return as_srt(results) if request.format == "srt" else as_elan(results)
