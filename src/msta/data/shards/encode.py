"""A clip -> the bytes of its member: a copy of the file, or a smaller one that is encoded again."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import av

from msta.data.catalog import Span
from msta.data.decode import all_frames, probe
from msta.data.storage import shown
from msta.data.video_file import VIDEO_EXTENSIONS, DecodeError, member_bytes

Mode = Literal["copy", "reencode"]

TICK = Fraction(1, 90_000)
# A key frame every 16th: eight frames spread over a clip are then reached by few that nobody wants. One thread: the
# bytes of x264 depend on their number. No B-frames: with them an MP4's stated duration is not that of its last frame.
_X264 = {"crf": "21", "preset": "medium", "g": "16", "bf": "0", "threads": "1"}


@dataclass(frozen=True)
class Encoded:
    """The content of a member, its file extension, and the part of it that is the clip."""

    content: bytes
    extension: str
    span: Span


def encode(path: str, span: Span, mode: Mode, short_side: int | None) -> Encoded:
    """Make the member of a clip.

    Args:
        path: of the video.
        span: the part of it that is the clip. "copy" takes the whole file and keeps the span.
        mode: "copy" takes the bytes after the first frame was decoded; "reencode" writes an MP4 of H.264 with the
            clip's frames at their own times, without sound.
        short_side: of re-encoded frames, at most.

    Raises:
        DecodeError: the file cannot be read.
    """
    if mode == "reencode":
        return Encoded(h264(path, span, short_side), "mp4", (None, None))
    probe(path)
    extension = os.path.splitext(shown(path))[1].lower()
    try:
        content = member_bytes(path) or Path(path).read_bytes()
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None
    return Encoded(content, extension[1:] if extension in VIDEO_EXTENSIONS else "video", span)


def h264(path: str, span: Span, short_side: int | None) -> bytes:
    """An MP4 of the clip's frames, each as long as it was on display. The bytes are the same every time."""
    file = io.BytesIO()
    durations: dict[int, int] = {}
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream("libx264", options=_X264)
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", TICK
        stream.codec_context.flags |= av.codec.context.Flags.bitexact.value
        for since, until, picture in all_frames(path, short_side, span):
            if not durations:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = round(since / TICK), TICK
            durations[frame.pts] = max(1, round(until / TICK) - frame.pts)
            _mux(container, stream.encode(frame), durations)
        _mux(container, stream.encode(), durations)
    return file.getvalue()


def _mux(container: Any, packets: Any, durations: dict[int, int]) -> None:
    for packet in packets:
        packet.duration = durations[packet.pts]  # the last frame's makes the file as long as the clip was
        container.mux(packet)
