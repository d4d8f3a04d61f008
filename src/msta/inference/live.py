"""Videos that are no files: streams by URL, webcams, arrays. What they give is what :func:`msta.data.decode.play` does.

A stream is read as FFmpeg reads it (RTSP, RTMP, HTTP, UDP, SRT …). A webcam is ``webcam:0``, by its number, through
Video4Linux; other systems' cameras are not read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from msta.data.clips import ClipFormat, Views, cut_views
from msta.data.decode import METADATA, DecodeError, Renderer, Shown, Video, play_video, video_stream
from msta.data.times import view_times

WEBCAM = "webcam:"
PROTOCOLS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
_WHITELIST = ",".join((*PROTOCOLS, "tls", "crypto"))  # a playlist must not open files
_PATIENCE = 10.0
"""Seconds to wait for a stream to open, and then for more of it."""


def is_live(name: str) -> bool:
    """Whether ``name`` stands for a stream or a webcam."""
    return name.startswith(WEBCAM) or name.partition("://")[0].lower() in PROTOCOLS


def play_live(
    name: str, short_side: int | None = None, *, squash: bool = False, seconds: float | None = None
) -> Iterator[Shown]:
    """The frames of a stream or webcam as they come, for ``seconds`` or until it ends.

    Raises:
        DecodeError: it cannot be opened, has no video, or says nothing for ten seconds.
    """
    with _opened(name) as video:
        for shown in play_video(video, short_side, squash):
            yield shown
            if seconds is not None and shown.end >= seconds:
                return


def play_array(
    frames: NDArray[np.uint8], fps: float, short_side: int | None = None, *, squash: bool = False
) -> Iterator[Shown]:
    """uint8 [T, H, W, 3], RGB, at ``fps`` frames a second."""
    renderer: Renderer | None = None
    for i, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        renderer = renderer or Renderer(picture, 1.0, short_side, squash)
        yield Shown(i / fps, (i + 1) / fps, partial(renderer.render, picture))


def as_frames(video: Any) -> NDArray[np.uint8]:
    """An array or tensor as frames.

    Raises:
        ValueError: not uint8 [T, H, W, 3] with T, H, W at least 1.
    """
    frames = np.asarray(video)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"expected frames, uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    return frames


def array_views(frames: NDArray[np.uint8], form: ClipFormat, views: Views) -> Tensor:
    """What :func:`msta.data.clips.read_views` gives of a file, of frames [T, H, W, 3] at a constant rate."""
    chosen = view_times(len(frames), form.frames, views.clips).ravel().astype(int)
    squash = form.fit == "squash" and views.crops == 1
    pictures = [shown.picture() for shown in play_array(frames[chosen], 1.0, form.size, squash=squash)]
    return cut_views(np.stack(pictures), form, views)


@contextmanager
def _opened(name: str) -> Iterator[Video]:
    arguments: dict[str, Any] = {"container_options": {"protocol_whitelist": _WHITELIST}}
    address = name
    if name.startswith(WEBCAM):
        number = name.removeprefix(WEBCAM)
        if not number.isdigit():
            raise DecodeError(name, "expected a number, as in webcam:0")
        address, arguments = f"/dev/video{number}", {"format": "v4l2"}
    try:
        with av.open(address, timeout=_PATIENCE, **METADATA, **arguments) as container:
            yield Video(name, container, video_stream(name, container))
    except av.FFmpegError as error:
        raise DecodeError(name, f"FFmpeg: {error.strerror}") from None
