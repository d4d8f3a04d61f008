"""An open video file: its stream and clock, its frames in display order, and how they are rendered."""

from __future__ import annotations

import io
import math
import os
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.container.core import Flags as ContainerFlags
from av.format import Flags as FormatFlags
from av.packet import Packet
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from msta.data.http import Unreachable
from msta.data.renderer import Renderer
from msta.data.storage import member_of, read_member, shown
from msta.errors import MSTAError, one_line
from msta.notices import notice

VIDEO_EXTENSIONS = frozenset(
    ".3g2 .3gp .asf .avi .divx .f4v .flv .gif .m2ts .m2v .m4v .mkv .mov .mp4 .mpe .mpeg .mpg .mts .mxf .ogm .ogv "  # noqa: SIM905
    ".rm .rmvb .ts .vob .webm .wmv .y4m".split()
)

_MP4, _MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # FFmpeg's names of these formats
_GEN_PTS: Any = ContainerFlags.gen_pts.value
_NO_TIMESTAMPS: Any = FormatFlags.no_timestamps.value
_MAY_LEAP: Any = FormatFlags.ts_discont.value
SAME_TIME = 1e-6  # seconds: k / fps in floating point must still find frame k
_LEAP = 10  # seconds between two frames that are no pause any more, as FFmpeg's programs have it
_ODDEST = 32  # times a side may be as long as the other
LATEST = 2**60  # ticks: later than any frame, and well within FFmpeg's int64
# PyAV before 19 fails on a title that is not UTF-8, as old AVI files have, unless told not to.
METADATA: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}


class DecodeError(MSTAError):
    """A file cannot be read as a video: its ``path`` and the ``reason``. As a string it is one line."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)  # both, so that it can be pickled out of a data loader's worker
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return one_line(f"{shown(self.path)}: {self.reason}")


class OutOfReach(DecodeError):
    """The server of a video does not answer. The video itself may be fine."""


class BadIndex(Exception):
    """A seek did not lead to where the index of the file says, so the file must be read from its beginning."""


class Video:
    """The video stream of an open file, and its clock."""

    def __init__(self, path: str, container: InputContainer, stream: VideoStream) -> None:
        self.path, self.container, self.stream = path, container, stream
        self.format = container.format.name
        # A bare stream of pictures without times (.m2v, .h264): a frame's number is its time.
        self.raw = bool(container.format.flags & _NO_TIMESTAMPS)
        self.may_leap = bool(container.format.flags & _MAY_LEAP)  # as recordings of broadcasts do
        self.tick = float(stream.time_base or 1)  # seconds
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        self.frame_ticks = max(1, round(1 / (rate * self.tick)))  # on average
        self.aspect = float(stream.sample_aspect_ratio or 1)

    def renderer(self, first: VideoFrame, short_side: int | None, squash: bool = False, even: bool = False) -> Renderer:
        """A renderer for the frames of this video, whose shape is that of the first one.

        Raises:
            DecodeError: the shape is so odd that frames of a small file would fill the memory.
        """
        width, height = first.width * self.aspect, float(first.height)
        if max(width, height) > _ODDEST * min(width, height):
            reason = f"its frames are {width:.0f} x {height:.0f} as displayed: damaged, or more than {_ODDEST} : 1"
            raise DecodeError(self.path, reason)
        return Renderer(first, self.aspect, short_side, squash, even)

    def packets(self) -> Iterator[Packet[VideoStream]]:
        """The packets of the stream from here on, in the order of the file. Damage to the container ends them."""
        while True:
            try:
                yield from (packet for packet in self.container.demux(self.stream) if packet.size)
                return
            except av.FFmpegError:
                return
            except IndexError:
                pass  # PyAV stumbles over a packet of a stream that was not there at the beginning; after it, go on

    def stated_seconds(self) -> float | None:
        """The duration that the header states; None if FFmpeg would only guess it, for instance from the bit rate."""
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


def measured_seconds(path: str) -> float:
    """The duration of a video stream according to the times in all its packets; nothing is decoded."""
    with opened(path) as video:
        count, before, start, end, time, leaps = 0, 0.0, math.inf, -math.inf, -math.inf, Leaps(video)
        for packet in video.packets():
            count += 1
            stamp = packet.pts if packet.pts is not None else packet.dts
            time = time + video.frame_ticks if stamp is None else stamp  # some formats state some times only
            if leaps.at(packet) and end > start:
                before, start, end = before + end - start, math.inf, -math.inf
            if math.isfinite(time):
                start, end = min(start, time), max(end, time + (packet.duration or video.frame_ticks))
    if not count:
        raise DecodeError(path, "no frame of it can be decoded")
    known = before + (end - start if end > start else 0)
    return (count * video.frame_ticks if video.raw or not known else known) * video.tick


class Leaps:
    """The places where the times of a stream start again, as in recordings that were joined."""

    def __init__(self, video: Video) -> None:
        self.video = video
        self.latest: int | None = None
        self.back, self.ahead = 8 * video.frame_ticks, round(_LEAP / video.tick)

    def at(self, packet: Packet[VideoStream]) -> bool:
        """Whether the times start again at this packet. Call it for each packet, in the order of the file.

        Presentation times may be out of order, decoding times are not.
        """
        time, latest = packet.dts, self.latest
        if time is None or self.video.raw:
            self.latest = None if latest is None else latest + self.video.frame_ticks
            return False
        self.latest = time
        leaps = latest is not None and (
            time < latest - self.back or (self.video.may_leap and time > latest + self.ahead)
        )
        if leaps:
            notice(f"{shown(self.video.path)}: its times start again in the middle; its parts are read in a row.")
        return leaps


class FramePass:
    """The frames of a newly opened video, in display order, each with its time in ticks.

    A jump may only save work and must not change the result. So it is made only while every frame has had its own
    presentation time. (In AVI with B-frames and in raw streams time is a count, which a jump would lose.) It must land
    on the key frame that the index says, else BadIndex is raised.
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
        self.read_to = -LATEST  # the latest key frame read or tried, by the index's clock
        self.lead = 0  # ticks a key frame is displayed after it is decoded: an MP4's index holds decoding times
        self.landing: int | None = None  # time of the key frame just jumped to
        self.now = -LATEST  # time of the frame given out last
        self.leaps, self.pending, self.shift = Leaps(video), 0, 0  # ticks to add to times that have started again
        self.size: tuple[int, int] | None = None  # of the frame given out last
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
            if packet and self.leaps.at(packet):
                self.pending, self.can_jump = self.pending + 1, False
            try:
                self.decoded.extend(self.video.stream.decode(packet))  # None empties the decoder
            except av.FFmpegError:
                self.damaged += 1  # the frame before it stays on display

    def jump(self, target: int) -> None:
        """Continue from the last key frame at or before ``target`` [ticks], unless that was read already."""
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
                self.packets, self.landing, self.leaps.latest = chain([packet], packets), packet.pts, None
                return
            self._learn_lead(packet)
            entry = index.search_timestamp(key - 1)
        raise BadIndex

    def _learn_lead(self, key: Packet[VideoStream]) -> None:
        if key.pts is not None and key.dts is not None:
            self.lead = max(self.lead, key.pts - key.dts)

    def _tell_time(self, frame: VideoFrame) -> bool:
        """Set ``now`` to the time of the frame. Returns False for a frame that is left out."""
        time = None if self.video.raw or frame.pts is None else frame.pts + self.shift
        if self.size not in (None, (frame.width, frame.height)):
            was, now = (f"{width} x {height}" for width, height in (self.size, (frame.width, frame.height)))
            notice(
                f"{shown(self.video.path)}: the size of its frames changes from {was} to {now}; all are shown in the "
                "size of the first."
            )
        self.size = frame.width, frame.height
        if self.pending and time is not None and not self.now <= time < self.now + self.leaps.ahead:
            self.pending -= 1
            self.shift += self.now + self.video.frame_ticks - time
            time = self.now + self.video.frame_ticks
        if self.landing is not None:
            if time is not None and time < self.landing:
                return False  # displayed before the key frame: not wanted, and perhaps predicted from what was skipped
            if time != self.landing or not frame.key_frame:
                raise BadIndex
            self.landing = None
        elif time is None or time < self.now:
            self.can_jump = False
            late = time is not None  # but out of order: counting on would add up
            time = None if self.video.raw or frame.dts is None else frame.dts + self.shift
            if time is None or time < self.now:
                time = self.now if late else max(0, self.now + self.video.frame_ticks)
        self.now = time
        return True


@contextmanager
def opened(path: str) -> Iterator[Video]:
    """Open the video in a file. Any error of FFmpeg or the system in the block becomes a DecodeError."""
    try:
        with _open_file(path) as file, _open_container(path, file) as container:
            container.flags &= ~_GEN_PTS  # a time FFmpeg makes up is worse than none
            stream = video_stream(path, container)
            stream.codec_context.thread_count = 1  # decoding processes fill the cores already
            yield Video(path, container, stream)
    except av.FFmpegError as error:
        raise DecodeError(path, f"FFmpeg: {error.strerror}") from None
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None


def _open_file(path: str) -> BinaryIO:
    """Open a regular file that is not empty; or a member of a shard, whose bytes are read and compared first."""
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
        os.scandir(path).close()  # which tells a folder that may not be read
        raise DecodeError(path, "a folder, not a file")
    if not stat.S_ISREG(status.st_mode):
        raise DecodeError(path, "not a regular file")  # a pipe could make us wait for ever
    if not status.st_size:
        raise DecodeError(path, "an empty file")
    # FFmpeg takes "a:b.mp4" for a protocol, "%03d.gif" for a pattern, and no name that is not UTF-8. A file opened by
    # its descriptor has no name to misread, and costs nothing measurable: 16.8 ms per clip either way.
    return open(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)), "rb", buffering=0)


def member_bytes(path: str) -> bytes | None:
    """The bytes of the member that a path names, compared with its digest; None for other paths.

    Raises:
        DecodeError: the member cannot be read, or is damaged; OutOfReach if the server is the reason.
    """
    member = member_of(path)
    try:
        return read_member(member) if member else None
    except Unreachable as error:
        raise OutOfReach(path, str(error)) from None
    except OSError as error:
        raise DecodeError(path, error.strerror or str(error)) from None


def _open_container(path: str, file: BinaryIO) -> InputContainer:
    """Open a file in the format that FFmpeg detects."""
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
    """FFmpeg's choice among the video streams. Cover pictures, and previews of one picture, do not count."""
    stills = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails
    videos = [s for s in container.streams.video if not s.disposition & stills]
    videos = [s for s in videos if s.frames != 1] or videos  # 0: the header does not say
    chosen = container.streams.best("video") if len(videos) > 1 else None
    videos.sort(key=lambda s: chosen is None or s.index != chosen.index)
    if not videos:
        kinds = sorted({"cover picture" if s.type == "video" else s.type for s in container.streams})
        if kinds == ["subtitle"]:  # which is also what FFmpeg takes one file of noise in 200 for
            raise DecodeError(path, "not a video file: FFmpeg reads subtitles in it, and nothing else")
        raise DecodeError(path, f"no video stream ({' and '.join(kinds) or 'nothing'} only)")
    if videos[0].codec_context is None:
        raise DecodeError(path, "its video codec is one FFmpeg cannot decode")
    return videos[0]
