"""Write a video with its labels drawn into the frames."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from msta.data.decode import play, probe
from msta.errors import MSTAError
from msta.evaluation.fonts import font_files, font_runs, own_font
from msta.files import replacing
from msta.inference.output import UNKNOWN
from msta.inference.segments import Segment

_TICK = Fraction(1, 90_000)
_MOST_PIXELS = 1080  # of the short side


def write_overlay(video: str, to: Path, lines: Sequence[tuple[str | None, Sequence[Segment]]]) -> None:
    """Write an MP4 (H.264) of the video, without sound, with labels at the bottom.

    Args:
        video: a file. It is decoded again, because a timeline sees it only in a small size.
        to: the new file.
        lines: for each line of text a name to put before it, or None, and the segments in order.

    Raises:
        DecodeError: the video cannot be read.
        MSTAError: the name of the new file does not end in .mp4.
    """
    info = probe(video)
    font_files("".join({segment.label or "" for _, own in lines for segment in own}))  # one notice for all of them
    with video_writer(to) as write:
        for frame in play(video, min(_MOST_PIXELS, info.width, info.height)):
            text = [_text(name, segment) for name, own in lines if (segment := _at(own, frame.start))]
            write(draw_text(frame.picture(), text), frame.start)


def _at(segments: Sequence[Segment], time: float) -> Segment | None:
    return next((s for s in segments if s.start <= time < s.end), segments[-1] if segments else None)


def _text(name: str | None, segment: Segment) -> str:
    label = UNKNOWN if segment.label is None else f"{segment.label}  {100 * segment.probability:.0f} %"
    return label if name is None else f"{name}: {label}"


@contextmanager
def video_writer(to: Path) -> Iterator[Callable[[NDArray[np.uint8], float], None]]:
    """Gives a function that writes a frame, uint8 [H, W, 3], at a time in seconds. All frames have one size.

    Raises MSTAError if the name of the file does not end in .mp4.
    """
    if to.suffix.lower() != ".mp4":
        raise MSTAError(f"{to}: the video's name must end in .mp4")
    with replacing(to) as aside, av.open(os.fspath(aside), "w", format="mp4") as container:
        stream: Any = container.add_stream("libx264", rate=30, options={"preset": "veryfast", "crf": "21"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", _TICK
        latest = -1

        def write(frame: NDArray[np.uint8], seconds: float) -> None:
            nonlocal latest
            height, width = (side // 2 * 2 for side in frame.shape[:2])  # H.264 stores colours at half the size
            if latest < 0:
                stream.height, stream.width = height, width
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            latest = max(latest + 1, round(seconds / _TICK))
            picture.pts, picture.time_base = latest, _TICK
            container.mux(stream.encode(picture))

        yield write
        if latest >= 0:
            container.mux(stream.encode())


def draw_text(frame: NDArray[np.uint8], lines: Sequence[str]) -> NDArray[np.uint8]:
    """Draw lines of text on a dark band at the bottom of a frame [H, W, 3]."""
    from PIL import Image, ImageDraw  # comes with matplotlib

    if not lines:
        return frame
    height, width = frame.shape[:2]
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture, "RGBA")
    size = max(10, min(height // 16, 40))
    line = size + size // 2
    top = height - line * len(lines)
    draw.rectangle((0, top, width, height), fill=(0, 0, 0, 170))
    ascent, _ = _font(own_font(), size).getmetrics()
    for i, text in enumerate(lines):
        left, baseline = float(size // 2), top + i * line + size // 8 + ascent
        for file, piece in font_runs(text):
            font = _font(file, size)
            draw.text((left, baseline), piece, font=font, fill=(255, 255, 255), anchor="ls")
            left += font.getlength(piece)
    return np.asarray(picture)


@lru_cache(maxsize=32)
def _font(file: str, pixels: int) -> Any:
    from PIL import ImageFont

    return ImageFont.truetype(file, pixels)
