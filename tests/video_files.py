"""Real video files for tests: frames that carry their own number in a way lossy compression cannot erase.

write_video(tmp_path / "clip.mp4", 50, gop=10, b_frames=2)
frame_number(read_frames(tmp_path / "clip.mp4", [1.0])[0])  # 25, exactly
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from msta.data import video_file

ROWS, COLUMNS = 4, 4
MARKER = (1, 1, 0, 1)  # the top row: not its own mirror image, so that a flipped or turned frame does not read
DARK, LIGHT = 40, 215

DEFAULT_CODEC = {".mp4": "libx264", ".mov": "libx264", ".mkv": "libx264", ".webm": "libvpx", ".avi": "mpeg4"}
DEFAULT_CODEC |= {".gif": "gif", ".flv": "flv", ".wmv": "wmv2", ".ts": "libx264", ".h264": "libx264"}
DEFAULT_OPTIONS = {
    "libx264": {"preset": "ultrafast", "crf": "20", "sc_threshold": "0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8", "crf": "10", "b": "2M"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0"},
    "mpeg4": {"q": "3", "qmin": "2", "sc_threshold": "1000000000"},  # key frames where the GOP says, nowhere else
}


def numbered_frames(n: int, height: int = 48, width: int = 64, start: int = 0) -> np.ndarray:
    """uint8 [n, height, width, 3]: frame i shows the number start + i (< 4096) as a 4 x 4 grid of grey blocks.

    The top row of blocks is a marker, the other twelve are the number's bits.
    """
    numbers = np.arange(start, start + n)
    bits = (numbers[:, None] >> np.arange(11, -1, -1)) & 1
    grid = np.concatenate([np.tile(MARKER, (n, 1)), bits], axis=1).reshape(n, ROWS, COLUMNS)
    rows, columns = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    grey = np.where(grid[:, rows][:, :, columns], LIGHT, DARK).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=3)


def frame_number(rgb: np.ndarray) -> int:
    """The number in a frame [H, W, 3] of :func:`numbered_frames`, of any size; AssertionError if there is none."""
    grey = rgb.astype(np.float64).mean(axis=2)
    cells = [np.array_split(row, COLUMNS, axis=1) for row in np.array_split(grey, ROWS, axis=0)]
    middle = (DARK + LIGHT) / 2
    levels = np.array([[_centre(cell).mean() - middle for cell in row] for row in cells])
    assert (np.abs(levels) > 30).all(), f"no number to be read in these blocks:\n{levels.round()}"
    bits = (levels > 0).astype(int)
    assert tuple(bits[0]) == MARKER, f"turned, flipped, or not a numbered frame: the top row is {bits[0]}"
    return int("".join(map(str, bits[1:].ravel())), 2)


def _centre(cell: np.ndarray) -> np.ndarray:
    height, width = cell.shape
    return cell[height // 4 : height - height // 4, width // 4 : width - width // 4]


def write_video(
    path: Path,
    frames: np.ndarray | int = 20,
    *,
    fps: float = 25,
    codec: str | None = None,
    pix_fmt: str = "yuv420p",
    gop: int = 12,
    b_frames: int = 0,
    pts: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    format: str | None = None,
    container_options: dict[str, str] | None = None,
    sample_aspect_ratio: Fraction | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    audio_seconds: float = 0.0,
) -> Path:
    """Write frames to a video file, and return its path.

    Args:
        path: the suffix decides the format, and the codec unless given.
        frames: uint8 [n, H, W, 3] RGB, or n for ``numbered_frames(n)``.
        fps: frames a second, when ``pts`` is not given.
        codec: FFmpeg's name of an encoder; see DEFAULT_CODEC.
        pix_fmt: the stored pixel format.
        gop: frames from one key frame to the next.
        b_frames: B-frames between two others, for the encoders that have them.
        pts: presentation times in milliseconds, increasing: a variable frame rate.
        options: the encoder's, over DEFAULT_OPTIONS.
        format: FFmpeg's name of the container, if not by the suffix.
        container_options: the muxer's, such as {"movflags": "faststart"}.
        sample_aspect_ratio: width : height of a stored pixel.
        rotation: (degrees counter-clockwise, flip horizontally, flip vertically) a player shall apply (MP4).
        audio_seconds: of silence beside the video.
    """
    if isinstance(frames, int):
        frames = numbered_frames(frames)
    codec = codec or DEFAULT_CODEC[path.suffix]
    pix_fmt = "rgb8" if codec == "gif" else pix_fmt
    tick = Fraction(1, 1000) if pts is not None else 1 / Fraction(fps).limit_denominator(1001)
    times = range(len(frames)) if pts is None else pts
    with av.open(str(path), "w", format=format, container_options=container_options or {}) as container:
        video: Any = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001))
        video.height, video.width = frames.shape[1:3]
        video.pix_fmt = pix_fmt
        video.codec_context.time_base = tick
        video.codec_context.gop_size = gop
        video.codec_context.thread_count = 1
        if codec in ("libx264", "mpeg4", "mpeg2video", "mpeg1video"):
            video.codec_context.max_b_frames = b_frames
        video.options = DEFAULT_OPTIONS.get(codec, {}) | (options or {})
        if sample_aspect_ratio is not None:
            video.codec_context.sample_aspect_ratio = sample_aspect_ratio
        if rotation is not None:
            video.set_display_rotation(*rotation)
        audio = _add_audio(container, path) if audio_seconds else None
        for time, rgb in zip(times, frames, strict=True):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = int(time), tick
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if audio is not None:
            _write_silence(container, audio, audio_seconds)
    return path


def moving_squares(root: Path, classes: dict[str, int], clips: int) -> Path:
    """For each class, named, clips of a square that moves so many steps a frame, before patches that tell them apart."""
    random = np.random.default_rng(0)
    for name, sign in classes.items():
        for i in range(clips):
            frames = random.integers(0, 150, (1, 5, 5, 3), np.uint8).repeat(8, 1).repeat(8, 2).repeat(12, 0)
            for t in range(12):
                x = 16 + sign * 2 * (t - 6) + random.integers(-1, 2)
                frames[t, 14:26, max(0, x) : x + 10] = 220
            (root / name).mkdir(exist_ok=True)
            write_video(root / name / f"{i}.mp4", frames)
    return root


def _add_audio(container: Any, path: Path) -> Any:
    codec = {".mp4": "aac", ".webm": "libopus", ".flv": "aac", ".wmv": "libmp3lame"}.get(path.suffix, "pcm_s16le")
    return container.add_stream(codec, rate=48000, layout="stereo")


def _write_silence(container: Any, audio: Any, seconds: float) -> None:
    samples = 960
    for start in range(0, int(seconds * 48000), samples):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * samples), np.int16), format="s16", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(audio.encode(frame))
    container.mux(audio.encode())


def write_audio(path: Path, seconds: float = 1.0) -> Path:
    """Write a file that holds nothing but silence."""
    with av.open(str(path), "w") as container:
        _write_silence(container, _add_audio(container, path), seconds)
    return path


def write_covered(path: Path, n: int | None, said: bool = True) -> Path:
    """Write an MP4 with a picture as its first video stream and n numbered frames beside it, or none.

    ``said``: the file says that the picture is a cover; otherwise FFmpeg takes it for the video.
    """
    with av.open(str(path), "w") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.height, cover.width, cover.pix_fmt = 96, 96, "yuvj420p"
        if said:
            cover.disposition = av.stream.Disposition.attached_pic
        video: Any = container.add_stream("libx264", rate=25) if n else None
        if n:
            video.height, video.width, video.pix_fmt = 48, 64, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((96, 96, 3), 128, np.uint8), format="rgb24")
        container.mux(cover.encode(grey.reformat(format="yuvj420p")))
        container.mux(cover.encode())
        for rgb in numbered_frames(n or 0):
            container.mux(video.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        if n:
            container.mux(video.encode())
    return path


def write_packed_avi(path: Path, n: int) -> Path:
    """Write an AVI as DivX 5 and XviD do: each B-frame in one packet with the frame it follows, then an empty one.

    FFmpeg writes no such files, so its packets are repacked: I, P B, P B, ... -> I, PB, empty, PB, empty, ...
    """
    encoder: Any = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height, encoder.pix_fmt = 64, 48, "yuv420p"
    encoder.time_base, encoder.framerate = Fraction(1, 25), Fraction(25)
    encoder.gop_size, encoder.max_b_frames = 1000, 1
    encoder.options = DEFAULT_OPTIONS["mpeg4"] | {"b_strategy": "0"}
    coded: list[bytes] = []
    for i, rgb in enumerate(numbered_frames(n)):
        picture = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format="yuv420p")
        picture.pts = i
        coded += [bytes(packet) for packet in encoder.encode(picture)]
    coded += [bytes(packet) for packet in encoder.encode()]
    vop = b"\x00\x00\x01\xb6"
    types = [data[data.index(vop) + 4] >> 6 for data in coded]  # 0: I, 1: P, 2: B
    head, picture_data = coded[0].split(vop, 1)
    head = head.split(b"\x00\x00\x01\xb2")[0] + b"\x00\x00\x01\xb2DivX503b1393p"  # "p": packed
    packed, i = [head + vop + picture_data], 1
    empty = vop + b"\x51\x00"  # a P-frame with nothing coded
    while i < len(coded):
        if i + 1 < len(coded) and types[i + 1] == 2:
            packed += [coded[i] + coded[i + 1], empty]
            i += 2
        else:
            packed += [coded[i]]
            i += 1
    assert 2 in types
    assert len(packed) == n
    with av.open(str(path), "w") as container:
        video: Any = container.add_stream("mpeg4", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for i, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = video, i, i, Fraction(1, 25)
            packet.is_keyframe = i == 0
            container.mux(packet)
    return path


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(position, size) in bytes of each video packet, in the file's order."""
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def cut(path: Path, to: Path, packets: int) -> Path:
    """Copy a file up to the middle of a video packet, that of this number: a download that broke off there."""
    position, size = packet_places(path)[packets]
    to.write_bytes(path.read_bytes()[: position + size // 2])
    return to


def draw(root: Path, classes: str, clips: int, seed: int) -> Path:
    """Class folders of small clips of noise, no two alike."""
    random = np.random.default_rng(seed)
    for name in classes.split():
        (root / name).mkdir(parents=True)
        for i in range(clips):
            frames = random.integers(0, 256, (6, 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
            write_video(root / name / f"{i}.mp4", frames)
    return root


class Traffic:
    """Counts the packets read from files and the times reading was begun anew somewhere (1: no seek)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.packets = self.starts = 0
        packets = video_file.Video.packets

        def counted(video: video_file.Video) -> object:
            self.starts += 1
            for packet in packets(video):
                self.packets += 1
                yield packet

        monkeypatch.setattr(video_file.Video, "packets", counted)
