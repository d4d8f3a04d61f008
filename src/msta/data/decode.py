"""A video file -> uint8 frames at chosen times. Only PyAV is used; its wheels contain FFmpeg.

Frames are chosen by time, never by number, so that constant and variable frame rates are one case: the frame on
display at time t is the last one whose presentation time, counted from the first frame's, is <= t. The wanted times
are served in increasing order by one pass through the file, which seeks only when a key frame lies between what has
been read and the next wanted time. (Eight frames of a 720p file with long groups of pictures: 0.5 s in one pass,
1.7 s with a seek for each.)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from msta.data.video_file import LATEST, SAME_TIME, BadIndex, DecodeError, FramePass, Video, measured_seconds, opened


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What the header of a video file states.

    ``duration`` is in seconds, from the start of the first frame to the end of the last; sound does not count.
    ``frames`` is the number of frames that the header states (unchecked), or None; ``fps`` is the average, or None.
    ``width`` and ``height`` are in pixels as displayed, after sample aspect ratio and rotation; ``rotation`` is 0, 90,
    180 or 270 degrees counter-clockwise, from the stored picture to the displayed one.
    """

    path: str
    duration: float
    frames: int | None
    fps: float | None
    width: int
    height: int
    rotation: int
    codec: str


def probe(path: str | os.PathLike[str]) -> VideoInfo:
    """Open a video, decode its first frame, and return what is known about the video.

    Raises:
        DecodeError: the file cannot be read, has no video stream, or not one frame of it can be decoded.
    """
    with opened(os.fsdecode(path)) as video:
        duration = video.stated_seconds() or measured_seconds(video.path)
        renderer = video.renderer(FramePass(video, seeking=False).first, short_side=None)
        height, width, _ = renderer.shape
        rate = video.stream.average_rate or video.stream.guessed_rate
        fps, codec = float(rate) if rate else None, video.stream.codec_context.name
        turned = 90 * renderer.quarter_turns
        return VideoInfo(video.path, duration, video.stream.frames or None, fps, width, height, turned, codec)


def read_frames(
    path: str | os.PathLike[str],
    choose: Sequence[float] | NDArray[Any] | Callable[[float], Sequence[float] | NDArray[Any]],
    short_side: int | None = None,
    *,
    squash: bool = False,
    within: tuple[float | None, float | None] = (None, None),
) -> NDArray[np.uint8]:
    """The frames of a video that are on display at chosen times.

    Args:
        path: any name that the system allows. It is never read as a URL or a pattern.
        choose: T times in seconds after the first frame, in any order, or a function from the video's duration in
            seconds to such times. Earlier times give the first frame, times past the end the last.
        short_side: the shorter displayed side in pixels; the aspect ratio is kept. None: the size as displayed.
        squash: make both sides ``short_side`` long instead.
        within: (start, end) in seconds: treat this part of the video as the whole. Times count from its start, and
            ``choose`` is called with its length, up to the video's end at most. None: the beginning, the end.

    Returns:
        uint8 [T, H, W, 3], RGB, contiguous; rotation and sample aspect ratio are applied.

    Raises:
        DecodeError: the file cannot be read, it ends before the wanted part begins, or it ends long before its stated
            duration and a wanted time lies there.
        ValueError: ``choose`` or ``short_side`` makes no sense.

    Example:
        >>> frames = read_frames("clip.mp4", lambda seconds: np.linspace(0, seconds, 8), short_side=224)
    """
    path = os.fsdecode(path)
    if short_side is not None and short_side < 1:
        raise ValueError(f"short_side: expected at least 1 pixel, got {short_side}")
    with opened(path) as video:
        start = 0.0
        if callable(choose) or within != (None, None):
            start, length = part_of(path, video.stated_seconds() or measured_seconds(path), within)
            choose = choose(length) if callable(choose) else choose
        times = np.asarray(choose, dtype=np.float64) + start
        if times.ndim != 1 or not times.size or not np.isfinite(times).all():
            raise ValueError(f"times: expected one or more finite seconds, in one dimension, got {times}")
        try:
            return _read(FramePass(video, seeking=True), times, short_side, squash)
        except BadIndex:
            pass
    with opened(path) as video:
        return _read(FramePass(video, seeking=False), times, short_side, squash)


def all_frames(
    path: str | os.PathLike[str],
    short_side: int | None = None,
    within: tuple[float | None, float | None] = (None, None),
) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """Every frame of a video, or of a part of it, as displayed: (from, to) in seconds after the part's start, picture.

    Args:
        path: as for :func:`read_frames`.
        short_side: the shorter side is made this long if it is longer. Both sides are made even, as encoders want them.
        within: as for :func:`read_frames`.

    Yields:
        uint8 [H, W, 3], RGB, each on display from ``from`` to ``to``.

    Raises:
        DecodeError: the file cannot be read, or it ends long before its stated duration or the part's end.
    """
    path = os.fsdecode(path)
    for seeking in (True, False):
        with opened(path) as video:
            start, length = part_of(path, video.stated_seconds() or measured_seconds(path), within)
            frames = FramePass(video, seeking=seeking)
            begin = frames.origin + math.floor((start + SAME_TIME) / video.tick)
            end = frames.origin + math.ceil((start + length - SAME_TIME) / video.tick)
            shown = frames.first
            try:
                frames.jump(begin)
                following = frames.next()
            except BadIndex:
                continue
            yield from _displayed(frames, shown, following, begin, end, short_side)
            return


def _displayed(
    frames: FramePass, shown: VideoFrame, following: VideoFrame | None, begin: int, end: int, short_side: int | None
) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """From ``begin`` to ``end`` [ticks]: ``shown`` is on display until ``following``, the last frame of ``frames``."""
    tick, since = frames.video.tick, begin
    renderer = frames.video.renderer(shown, short_side, even=True)
    while since < end:
        if following is None:
            _check_complete(frames, shown, (end - frames.origin) * tick - SAME_TIME)
        until = end if following is None else min(end, frames.now)
        if until > since:
            yield (since - begin) * tick, (until - begin) * tick, renderer.render(shown)
            since = until
        if following is None:
            return
        shown, following = following, frames.next()


@dataclass(frozen=True)
class Shown:
    """A frame while it is on display: from ``start`` to ``end``, in seconds after the start of the first frame.

    ``picture`` makes uint8 [H, W, 3], RGB, upright, of the size that was asked for, as :func:`read_frames` does.
    """

    start: float
    end: float
    picture: Callable[[], NDArray[np.uint8]]

    def outlasts(self, time: float) -> bool:
        """Whether the frame is still on display at ``time`` [s]."""
        return time + SAME_TIME < self.end


def play(path: str | os.PathLike[str], short_side: int | None = None, *, squash: bool = False) -> Iterator[Shown]:
    """All frames of a file, in order, in one pass that holds two of them. Arguments: see :func:`read_frames`.

    Raises:
        DecodeError: the file cannot be read; at its end, if it ends long before its header says.
    """
    with opened(os.fsdecode(path)) as video:
        yield from play_video(video, short_side, squash)


def play_video(video: Video, short_side: int | None, squash: bool) -> Iterator[Shown]:
    """Like :func:`play`, for a file or stream that is already open."""
    frames = FramePass(video, seeking=False)
    shown: VideoFrame | None = frames.first
    renderer = video.renderer(frames.first, short_side, squash)
    while shown is not None:
        start, following = frames.now, frames.next()
        end = frames.now if following else start + (shown.duration or video.frame_ticks)
        start, end = start - frames.origin, end - frames.origin
        yield Shown(start * video.tick, end * video.tick, partial(renderer.render, shown))
        if following is None:
            _check_complete(frames, shown, math.inf)
        shown = following


@dataclass(frozen=True)
class Decoded:
    """The result of decoding a whole file: frames, seconds, and the number of damaged packets or frames."""

    frames: int
    duration: float
    damaged: int


def decode_all(path: str | os.PathLike[str]) -> Decoded:
    """Decode a video from its first frame to its last.

    Raises:
        DecodeError: the file cannot be read, not one frame can be decoded, or its frames end before its header says.
    """
    with opened(os.fsdecode(path)) as video:
        frames = FramePass(video, seeking=False)
        last, count, corrupt = frames.first, 0, 0
        following: VideoFrame | None = last
        while following is not None:
            last, count, corrupt = following, count + 1, corrupt + following.is_corrupt
            following = frames.next()
        _check_complete(frames, last, math.inf)
        end = frames.now - frames.origin + (last.duration or video.frame_ticks)
        return Decoded(count, end * video.tick, frames.damaged + corrupt)


def part_of(path: str, duration: float, within: tuple[float | None, float | None]) -> tuple[float, float]:
    """Start and length, in seconds, of the wanted part of a video.

    Raises:
        DecodeError: the video ends before the part begins.
    """
    start, end = within[0] or 0.0, duration if within[1] is None else min(within[1], duration)
    if within[1] is not None and start >= within[1]:
        raise DecodeError(path, f"a range must begin before it ends, not from {start:g} to {within[1]:g} s")
    if start >= end > 0:
        raise DecodeError(path, f"its clip would begin at {start:g} s, but the video ends at {duration:.2f} s")
    return start, end - start


def _read(frames: FramePass, times: NDArray[np.float64], short_side: int | None, squash: bool) -> NDArray[np.uint8]:
    """Hold each frame while it is on display, and render it if a wanted time comes before the next frame."""
    order = np.argsort(times, kind="stable")
    ticks = np.floor((times[order] + SAME_TIME) / frames.video.tick).clip(0, LATEST)
    wanted = [frames.origin + int(t) for t in ticks]
    shown = frames.first
    renderer = frames.video.renderer(shown, short_side, squash)
    clip = np.empty((len(times), *renderer.shape), dtype=np.uint8)
    served = 0
    while served < len(wanted):
        frames.jump(wanted[served])
        following = frames.next()
        if following is None:
            _check_complete(frames, shown, float(times.max()))
        picture = None
        while served < len(wanted) and (following is None or wanted[served] < frames.now):
            picture = renderer.render(shown) if picture is None else picture
            clip[order[served]] = picture
            served += 1
        shown = following or shown
    return clip


def _check_complete(frames: FramePass, last: VideoFrame, latest: float) -> None:
    """Refuse to repeat the last frame of a video that was cut off in place of the missing ones."""
    video = frames.video
    end = (frames.now - frames.origin + (last.duration or video.frame_ticks)) * video.tick
    stated = video.stated_seconds() or 0.0
    if stated - end > max(0.5, 0.1 * stated) and latest >= end:
        reason = f"truncated: its header states {stated:.2f} s of video, its frames end at {end:.2f} s"
        raise DecodeError(video.path, reason)
