"""Videos that are not files: streams, webcams and arrays, played as :func:`msta.data.decode.play` plays a file.

FFmpeg reads the streams (RTSP, RTMP, HTTP, UDP, SRT …). A webcam is ``webcam:0``, by its number; it works on Linux only
(Video4Linux).
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
from msta.data.decode import Shown, play_video
from msta.data.renderer import Renderer
from msta.data.times import view_times
from msta.data.video_file import METADATA, DecodeError, Video, video_stream

WEBCAM = "webcam:"
PROTOCOLS = ("rtsp", "rtsps", "rtmp", "http", "https", "udp", "tcp", "rtp", "srt")
_WHITELIST = ",".join((*PROTOCOLS, "tls", "crypto"))  # a playlist must not open files
_PATIENCE = 10.0  # seconds to wait until a stream opens, and then until more of it arrives


def is_live(name: str) -> bool:
    """Whether ``name`` is a stream or a webcam."""
    protocol, separator, _ = name.partition("://")
    return name.startswith(WEBCAM) or (bool(separator) and protocol.lower() in PROTOCOLS)


def play_live(
    name: str, short_side: int | None = None, *, squash: bool = False, seconds: float | None = None
) -> Iterator[Shown]:
    """The frames of a stream or webcam as they arrive, for ``seconds`` or until it ends.

    Raises DecodeError if it cannot be opened, has no video, or sends nothing for ten seconds.
    """
    with _opened(name) as video:
        for shown in play_video(video, short_side, squash):
            yield shown
            if seconds is not None and shown.end >= seconds:
                return


def play_array(
    frames: NDArray[np.uint8], fps: float, short_side: int | None = None, *, squash: bool = False
) -> Iterator[Shown]:
    """The frames of an array, uint8 [T, H, W, 3], RGB, at ``fps`` frames per second."""
    renderer: Renderer | None = None
    for i, frame in enumerate(frames):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        renderer = renderer or Renderer(picture, 1.0, short_side, squash)
        yield Shown(i / fps, (i + 1) / fps, partial(renderer.render, picture))


def as_frames(video: Any) -> NDArray[np.uint8]:
    """An array or tensor as frames. Raises ValueError if it is not uint8 [T, H, W, 3] with T, H, W at least 1."""
    frames = np.asarray(video)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(f"expected frames, uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    return frames


def array_views(frames: NDArray[np.uint8], form: ClipFormat, views: Views) -> Tensor:
    """Frames [T, H, W, 3] at a constant rate -> test views, as :func:`msta.data.clips.read_views` cuts them."""
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
