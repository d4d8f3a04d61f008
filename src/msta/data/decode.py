"""A video file -> uint8 frames at chosen times. PyAV only: its wheels carry FFmpeg, there is nothing to install.

Frames are chosen by time, never by number, so that constant and variable frame rates are one case: the frame on
display at time t is the last one whose presentation time, counted from the first frame's, is <= t. The wanted times
are served in increasing order by one pass through the file, which seeks only when a key frame lies between what has
been read and the next wanted time. (Eight frames of a 720p file with long groups of pictures: 0.5 s in one pass,
1.7 s with a seek for each.)
"""

from __future__ import annotations

import io
import math
import os
import stat
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, BinaryIO

import av
import numpy as np
from av.container import InputContainer
from av.container.core import Flags as ContainerFlags
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream
from numpy.typing import NDArray

from msta.data.slices import Unreachable
from msta.data.storage import member_of, read_member, shown
from msta.errors import MSTAError, one_line

VIDEO_EXTENSIONS = frozenset(
    ".3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogm .ogv "  # noqa: SIM905
    ".rm .rmvb .ts .vob .webm .wmv .y4m".split()
)

_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # FFmpeg's names of these formats
_GEN_PTS: Any = ContainerFlags.gen_pts.value
_NO_TIMESTAMPS: Any = FormatFlags.no_timestamps.value
_SAME_TIME = 1e-6  # seconds: k / fps in floating point must still find frame k
_ODDEST = 32  # times a side may be as long as the other
_LATEST = 2**60  # ticks: later than any frame, and well within FFmpeg's int64
# PyAV before 19 fails on a title that is not UTF-8, as old AVI files have, unless told not to.
METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class DecodeError(MSTAError):
    """A file that cannot be read as a video: its ``path`` and the ``reason``. As a string, one line."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be pickled out of a data loader's worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return one_line(f"{shown(self.path)}: {self.reason}")


class OutOfReach(DecodeError):
    """A video whose server does not answer: nothing is known against the video."""


class _BadIndex(Exception):
    """A seek did not lead where the file's index said: this file must be read from its beginning."""


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """What a video file says of itself.

    ``duration`` is in seconds, from the first frame's appearance to the end of the last: sound does not count.
    ``frames`` is the number of frames the header states (unchecked), None where it states none; ``fps`` the average,
    None if unknown. ``width`` and ``height`` are pixels as displayed, after sample aspect ratio and rotation;
    ``rotation`` is 0, 90, 180 or 270 degrees counter-clockwise, from the stored picture to the displayed one.
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
    """Open a video, decode its first frame, and say what it is.

    Raises:
        DecodeError: the file cannot be read, has no video stream, or not one frame of it can be decoded.
    """
    with _opened(os.fsdecode(path)) as video:
        duration = video.stated_seconds() or _measured_seconds(video.path)
        renderer = video.renderer(_Pass(video, seeking=False).first, short_side=None)
        height, width, _ = renderer.shape
        rate = video.stream.average_rate or video.stream.guessed_rate
        frames, fps, turn = (
            video.stream.frames or None,
            float(rate) if rate else None,
            90 * renderer.quarter_turns,
        )
        return VideoInfo(video.path, duration, frames, fps, width, height, turn, video.stream.codec_context.name)


def read_frames(
    path: str | os.PathLike[str],
    choose: Sequence[float] | NDArray[Any] | Callable[[float], Sequence[float] | NDArray[Any]],
    short_side: int | None = None,
    *,
    squash: bool = False,
    within: tuple[float | None, float | None] = (None, None),
    threads: int = 1,
) -> NDArray[np.uint8]:
    """The frames of a video that are on display at chosen times.

    Args:
        path: any name the system allows: it is never taken for a URL or a pattern.
        choose: T times in seconds after the first frame, in any order, or a function from the video's duration in
            seconds to such times. Earlier times give the first frame, times past the end the last.
        short_side: the shorter displayed side in pixels; the aspect ratio is kept. None: the size as displayed.
        squash: make both sides ``short_side`` long instead.
        within: (start, end) in seconds, the part of the video to take for all of it: times count from its start, and
            ``choose`` is called with its length, at most up to the video's end. None: the beginning, the end.
        threads: the decoder's. One suits data-loader workers, which fill the cores already, and small pictures: with
            two cores free, a second thread takes a third off 720p, nothing off 320x240.

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
    with _opened(path, threads) as video:
        start = 0.0
        if callable(choose) or within != (None, None):
            start, length = part_of(path, video.stated_seconds() or _measured_seconds(path), within)
            choose = choose(length) if callable(choose) else choose
        times = np.asarray(choose, dtype=np.float64) + start
        if times.ndim != 1 or not times.size or not np.isfinite(times).all():
            raise ValueError(f"times: expected one or more finite seconds, in one dimension, got {times}")
        try:
            return _read(_Pass(video, seeking=True), times, short_side, squash)
        except _BadIndex:
            pass
    with _opened(path, threads) as video:
        return _read(_Pass(video, seeking=False), times, short_side, squash)


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
        with _opened(path) as video:
            start, length = part_of(path, video.stated_seconds() or _measured_seconds(path), within)
            frames = _Pass(video, seeking=seeking)
            begin = frames.origin + math.floor((start + _SAME_TIME) / video.tick)
            end = frames.origin + math.ceil((start + length - _SAME_TIME) / video.tick)
            shown = frames.first
            try:
                frames.jump(begin)
                following = frames.next()
            except _BadIndex:
                continue
            yield from _displayed(frames, shown, following, begin, end, short_side)
            return


def _displayed(
    frames: _Pass, shown: VideoFrame, following: VideoFrame | None, begin: int, end: int, short_side: int | None
) -> Iterator[tuple[float, float, NDArray[np.uint8]]]:
    """From ``begin`` to ``end`` [ticks]: ``shown`` is on display until ``following``, which ``frames`` gave last."""
    tick, since = frames.video.tick, begin
    renderer = frames.video.renderer(shown, short_side, even=True)
    while since < end:
        if following is None:
            _check_complete(frames, shown, (end - frames.origin) * tick - _SAME_TIME)
        until = end if following is None else min(end, frames.now)
        if until > since:
            yield (since - begin) * tick, (until - begin) * tick, renderer.render(shown)
            since = until
        if following is None:
            return
        shown, following = following, frames.next()


@dataclass(frozen=True)
class Shown:
    """A frame while it is on display: from ``start`` to ``end``, in seconds after the first frame's appearance.

    ``picture`` makes uint8 [H, W, 3], RGB, upright, of the size that was asked for, as :func:`read_frames` does.
    """

    start: float
    end: float
    picture: Callable[[], NDArray[np.uint8]]

    def outlasts(self, time: float) -> bool:
        """Whether it is still on display at ``time`` [s], or that has passed before it appeared."""
        return time + _SAME_TIME < self.end


def play(
    path: str | os.PathLike[str], short_side: int | None = None, *, squash: bool = False, threads: int = 1
) -> Iterator[Shown]:
    """All frames of a file, in order, in one pass that holds two of them. Arguments: see :func:`read_frames`.

    Raises:
        DecodeError: the file cannot be read; at its end, if it ends long before its header says.
    """
    with _opened(os.fsdecode(path), threads) as video:
        yield from play_video(video, short_side, squash)


def play_video(video: Video, short_side: int | None, squash: bool) -> Iterator[Shown]:
    """The same of a file or stream that is open already."""
    frames = _Pass(video, seeking=False)
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
    """What a whole file gave: frames, the seconds they last, and how many packets or frames of it are damaged."""

    frames: int
    duration: float
    damaged: int


def decode_all(path: str | os.PathLike[str]) -> Decoded:
    """Decode a video from its first frame to its last.

    Raises:
        DecodeError: the file cannot be read, not one frame can be decoded, or its frames end before its header says.
    """
    with _opened(os.fsdecode(path)) as video:
        frames = _Pass(video, seeking=False)
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
    if start >= end > 0:
        raise DecodeError(path, f"its clip would begin at {start:g} s, but the video ends at {duration:.2f} s")
    return start, end - start


def _read(frames: _Pass, times: NDArray[np.float64], short_side: int | None, squash: bool) -> NDArray[np.uint8]:
    """Hold each frame while it is on display; render it if a wanted time falls before the next one's."""
    order = np.argsort(times, kind="stable")
    ticks = np.floor((times[order] + _SAME_TIME) / frames.video.tick).clip(0, _LATEST)
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


def _check_complete(frames: _Pass, last: VideoFrame, latest: float) -> None:
    """Refuse to show the last frame of a video that was cut off in place of those that are missing."""
    video = frames.video
    end = (frames.now - frames.origin + (last.duration or video.frame_ticks)) * video.tick
    stated = video.stated_seconds() or 0.0
    if stated - end > max(0.5, 0.1 * stated) and latest >= end:
        reason = f"truncated: its header states {stated:.2f} s of video, its frames end at {end:.2f} s"
        raise DecodeError(video.path, reason)


class Video:
    """An open file's video stream and its clock."""

    def __init__(self, path: str, container: InputContainer, stream: VideoStream) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.format = container.format.name
        # A bare stream of pictures without times (.m2v, .h264): a frame's number is its time.
        self.raw = bool(container.format.flags & _NO_TIMESTAMPS)
        self.tick = float(stream.time_base or 1)  # seconds
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.frame_ticks = max(1, round(1 / (rate * self.tick)))  # on average
        self.aspect = float(stream.sample_aspect_ratio or 1)

    def renderer(self, first: VideoFrame, short_side: int | None, squash: bool = False, even: bool = False) -> Renderer:
        """Of this video's frames, whose shape is the first one's.

        Raises:
            DecodeError: a shape so odd that a small file would fill the memory with its frames.
        """
        width, height = first.width * self.aspect, float(first.height)
        if max(width, height) > _ODDEST * min(width, height):
            reason = f"its frames are {width:.0f} x {height:.0f} as displayed: damaged, or more than {_ODDEST} : 1"
            raise DecodeError(self.path, reason)
        return Renderer(first, self.aspect, short_side, squash, even)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The stream's packets from here on, in the file's order; damage to the container ends them."""
        while True:
            try:
                yield from (packet for packet in self.container.demux(self.stream) if packet.size)
                return
            except av.FFmpegError:
                return
            except IndexError:
                pass  # PyAV stumbles over a packet of a stream that was not there at the beginning; after it, go on

    def stated_seconds(self) -> float | None:
        """The stream's duration by the file's header; None where FFmpeg would only guess, from the bit rate say."""
        stream, container = self.stream, self.container
        if self.format == "avi":
            return stream.frames * self.tick or None  # stream.duration is a guess if the file is cut
        if self.format in (_MP4, "gif", "ogg"):
            return (stream.duration or 0) * self.tick or None
        if self.format not in (_MATROSKA, "flv", "asf") or not container.duration:
            return None
        end = container.duration / av.time_base  # of the longest stream
        tag = next((text for key, text in stream.metadata.items() if key.startswith("DURATION")), "")
        try:
            hours, minutes, seconds = map(float, tag.split(":"))
            end = min(end, 3600 * hours + 60 * minutes + seconds)
        except ValueError:
            if len(container.streams) > 1:
                return None
        return max(0.0, end - (stream.start_time or 0) * self.tick) or None


def _measured_seconds(path: str) -> float:
    """A video stream's duration by the times in all its packets; nothing is decoded."""
    with _opened(path) as video:
        count, start, end = 0, math.inf, -math.inf
        for packet in video.packets():
            count += 1
            time = packet.pts if packet.pts is not None else packet.dts
            if time is not None:
                start, end = min(start, time), max(end, time + (packet.duration or video.frame_ticks))
    if not count:
        raise DecodeError(path, "no frame of it can be decoded")
    return (count * video.frame_ticks if video.raw or start == math.inf else end - start) * video.tick


class _Pass:
    """The frames of a video just opened, in display order, each with its time in ticks.

    A jump may change nothing but the work done. So it is only made while every frame has brought its own
    presentation time (in AVI with B-frames and in raw streams time is a count, which a jump would lose), and must
    land on the key frame that the file promised; else _BadIndex is raised.
    """

    def __init__(self, video: Video, seeking: bool) -> None:
        self.video = video
        self.can_jump = seeking and video.format in (_MP4, _MATROSKA, "avi", "flv")
        if self.can_jump and video.format == _MATROSKA:
            # FFmpeg reads this format's index at the first seek.
            video.container.seek(video.stream.start_time or 0, stream=video.stream)
        self.packets: Iterator[Packet[VideoStream]] = video.packets()
        self.decoded: deque[VideoFrame] = deque()  # what one packet gave
        self.ended = False
        self.damaged = 0  # packets that could not be decoded
        self.read_to = -_LATEST  # the latest key frame read or tried, by the index's clock
        self.lead = 0  # ticks a key frame is displayed after it is decoded: an MP4's index holds decoding times
        self.landing: int | None = None  # time of the key frame just jumped to
        self.now = -_LATEST  # time of the frame given out last
        first = self.next()
        if first is None:
            raise DecodeError(video.path, "no frame of it can be decoded")
        self.first, self.origin = first, self.now

    def next(self) -> VideoFrame | None:
        """The next frame, whose time is then ``now``; None at the end."""
        while True:
            while self.decoded:
                frame = self.decoded.popleft()
                if self._tell_time(frame):
                    return frame
            if self.ended:
                return None
            packet = next(self.packets, None)
            self.ended = packet is None
            if packet and packet.is_keyframe:
                self.read_to = max(t for t in (packet.pts, packet.dts, self.read_to) if t is not None)
                self._learn_lead(packet)
            try:
                self.decoded.extend(self.video.stream.decode(packet))  # None empties the decoder
            except av.FFmpegError:
                self.damaged += 1  # the frame before it stays on display

    def jump(self, target: int) -> None:
        """Go on from the last key frame at or before ``target`` [ticks], unless that has been read already."""
        stream, index = self.video.stream, self.video.stream.index_entries
        entry = index.search_timestamp(target - self.lead) if self.can_jump else -1
        # A seek costs as much as some four frames: where every frame is a key frame, reading on is cheaper.
        if entry < 0 or index[entry].timestamp <= max(self.read_to, self.now + 4 * self.video.frame_ticks - self.lead):
            return
        self.read_to = index[entry].timestamp
        while entry >= 0:
            key = index[entry].timestamp
            try:
                self.video.container.seek(key + self.lead, stream=stream)
            except av.FFmpegError:
                break
            packets = self.video.packets()
            packet = next(packets, None)
            if packet is None or packet.pts is None or not packet.is_keyframe:
                break
            if packet.pts <= target:
                self.packets, self.landing = chain([packet], packets), packet.pts
                return
            self._learn_lead(packet)
            entry = index.search_timestamp(key - 1)
        raise _BadIndex

    def _learn_lead(self, key: Packet[VideoStream]) -> None:
        if key.pts is not None and key.dts is not None:
            self.lead = max(self.lead, key.pts - key.dts)

    def _tell_time(self, frame: VideoFrame) -> bool:
        """Set ``now`` to the frame's time; False: a frame to leave out."""
        time = None if self.video.raw else frame.pts
        if self.landing is not None:
            if time is not None and time < self.landing:
                return False  # displayed before the key frame: not wanted, and perhaps predicted from what was skipped
            if time != self.landing or not frame.key_frame:
                raise _BadIndex
            self.landing = None
        elif time is None or time < self.now:
            self.can_jump = False
            time = None if self.video.raw else frame.dts
            if time is None or time < self.now:
                time = max(0, self.now + self.video.frame_ticks)
        self.now = time
        return True


class Renderer:
    """Decoded frames -> uint8 [H, W, 3] as displayed; size and orientation are the first frame's for all.

    ``aspect`` is the width of a stored pixel over its height. ``even`` makes both sides so, and never longer than
    they are stored.
    """

    def __init__(
        self, first: VideoFrame, aspect: float, short_side: int | None, squash: bool = False, even: bool = False
    ) -> None:
        width, height = first.width * aspect, float(first.height)
        scale = short_side / min(width, height) if short_side else 1.0
        if even:
            scale = min(1.0, scale)
        self.size = max(1, round(width * scale)), max(1, round(height * scale))  # (W, H) before turning
        if squash and short_side:
            self.size = short_side, short_side
        if even:
            self.size = self.size[0] + self.size[0] % 2, self.size[1] + self.size[1] % 2
        self.quarter_turns, self.mirrored = _orientation(first)
        self.shape = (*(self.size if self.quarter_turns % 2 else self.size[::-1]), 3)
        self.reformatter = VideoReformatter()  # one for all: its tables are costly

    def render(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """Resize and convert in one step, then turn."""
        rgb = self.reformatter.reformat(frame, *self.size, "rgb24", interpolation="BICUBIC", threads=1)
        turned: NDArray[np.uint8] = np.rot90(rgb.to_ndarray(), self.quarter_turns)
        return turned[:, ::-1] if self.mirrored else turned


def _orientation(frame: VideoFrame) -> tuple[int, bool]:
    """Quarter turns counter-clockwise, and whether to mirror left and right after them, that show a frame upright."""
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV before 19 stumbles over side data of kinds it does not know
        return round(frame.rotation / 90) % 4, False
    if matrix is None:
        return 0, False
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()  # x' = a x + c y, y' = b x + d y; y points down
    mirrored = a * d < b * c
    return round(-math.degrees(math.atan2(b, -a if mirrored else a)) / 90) % 4, mirrored


@contextmanager
def _opened(path: str, threads: int = 1) -> Iterator[Video]:
    """The video in a file. Any error of FFmpeg or the system in the block becomes a DecodeError."""
    try:
        with _open_file(path) as file, _open_container(path, file) as container:
            container.flags &= ~_GEN_PTS  # a time FFmpeg makes up is worse than none
            stream = video_stream(path, container)
            stream.codec_context.thread_count = threads
            stream.codec_context.thread_type = "AUTO"
            yield Video(path, container, stream)
    except av.FFmpegError as error:
        raise DecodeError(path, f"FFmpeg: {error.strerror}") from None
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None


def _open_file(path: str) -> BinaryIO:
    """Open a regular file with something in it; or a shard's member, whose bytes are read and compared first."""
    if (content := member_bytes(path)) is not None:
        return io.BytesIO(content)
    try:
        status = os.stat(path)
    except FileNotFoundError:
        reason = f"a dangling link, to {os.readlink(path)}" if os.path.islink(path) else "no such file"
        raise DecodeError(path, reason) from None
    except ValueError as error:
        raise DecodeError(path, str(error)) from None  # a null character in the name
    if stat.S_ISDIR(status.st_mode):
        raise DecodeError(path, "a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(path, "not a regular file")  # a pipe could make us wait for ever
    if not status.st_size:
        raise DecodeError(path, "an empty file")
    # FFmpeg takes "a:b.mp4" for a protocol, "%03d.gif" for a pattern, and no name that is not UTF-8. A file opened by
    # its descriptor has no name to misread, and costs nothing measurable: 16.8 ms a clip either way.
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb", buffering=0)


def member_bytes(path: str) -> bytes | None:
    """What a path that names a shard's member stands for, compared with its digest; None for other paths.

    Raises:
        DecodeError: it cannot be had, or is damaged; OutOfReach if the server is to blame.
    """
    member = member_of(path)
    try:
        return read_member(member) if member else None
    except Unreachable as error:
        raise OutOfReach(path, str(error)) from None
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None


def _open_container(path: str, file: BinaryIO) -> InputContainer:
    """Let FFmpeg find out what the file is."""
    try:
        # The whitelist keeps a playlist dressed up as a video from opening other files or the network.
        return av.open(file, container_options={"protocol_whitelist": "none"}, **METADATA)
    except av.FFmpegError:
        file.seek(0)
        reason = "not a video file FFmpeg can read"
        if file.read(8)[4:] == b"ftyp":
            reason = "truncated or damaged: an MP4 without a readable index (moov)"
        raise DecodeError(path, reason) from None


def video_stream(path: str, container: InputContainer) -> VideoStream:
    """The first video stream that is no cover picture."""
    videos = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not videos:
        kinds = sorted({"cover picture" if s.type == "video" else s.type for s in container.streams})
        raise DecodeError(path, f"no video stream ({' and '.join(kinds) or 'nothing'} only)")
    if videos[0].codec_context is None:
        raise DecodeError(path, "its video codec is one FFmpeg cannot decode")
    return videos[0]
