"""Decoding, on real files whose frames carry their own numbers: which frame is returned is checked exactly."""

from __future__ import annotations

import base64
import errno
import gc
import os
import pickle
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import OUTSIDE, needs
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from video_files import (
    Traffic,
    cut,
    frame_number,
    numbered_frames,
    packet_places,
    write_audio,
    write_covered,
    write_packed_avi,
    write_video,
)

from msta.data import video_file
from msta.data.decode import play, probe, read_frames
from msta.data.video_file import VIDEO_EXTENSIONS, DecodeError

WRITES_ROTATION = pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV before 18 can read a rotation, not write one"
)


def numbers(path: Path | str, times: object, **kwargs: int) -> list[int]:
    return [frame_number(frame) for frame in read_frames(path, times, **kwargs)]


def refusal(path: Path | str, times: object = (0.0,)) -> str:
    """The reason read_frames gives for refusing a file; the message must be one line that names the file."""
    with pytest.raises(DecodeError) as caught:
        read_frames(path, times)
    assert caught.value.path == str(path)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    assert len(str(caught.value).splitlines()) == 1
    return caught.value.reason


def shown_at(starts: np.ndarray, times: object) -> list[int]:
    """Numbers of the frames on display, from the definition: the last that starts at or before each time."""
    return [max([i for i, start in enumerate(starts) if start <= time + 1e-6], default=0) for time in times]


# -- which frame ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "b_frames"),
    [(s, 0) for s in (".mp4", ".avi", ".mkv", ".webm", ".gif", ".flv", ".wmv", ".ts", ".h264")]
    + [(s, 2) for s in (".mp4", ".avi", ".mkv", ".ts", ".h264")],
)
def test_every_frame_of_a_constant_rate_is_found_by_its_time(tmp_path: Path, suffix: str, b_frames: int) -> None:
    path = write_video(tmp_path / f"clip{suffix}", 40, gop=12, b_frames=b_frames)
    assert probe(path).duration == pytest.approx(1.6, abs=0.001)
    within = (np.arange(40) + 0.5) / 25
    starts = np.arange(40) / 25
    assert numbers(path, within) == list(range(40))
    assert numbers(path, starts) == list(range(40))
    assert numbers(path, within[::-1]) == list(range(40))[::-1]
    assert numbers(path, [-3.0, 0.0, 1.59, 1.6, 99.0, 1e30]) == [0, 0, 39, 39, 39, 39]


def test_avi_with_packed_b_frames(tmp_path: Path) -> None:
    path = write_packed_avi(tmp_path / "xvid.avi", 41)
    assert numbers(path, (np.arange(41) + 0.5) / 25) == list(range(41))


def test_avi_with_h264_and_b_frames_has_no_presentation_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 40, codec="libx264", b_frames=2)
    assert numbers(path, (np.arange(40) + 0.5) / 25) == list(range(40))


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".webm", ".gif"])
def test_variable_frame_rate(tmp_path: Path, suffix: str) -> None:
    pts = np.cumsum([0, *[20, 200, 40, 310, 100, 20, 20, 900, 50, 120] * 3])
    path = write_video(tmp_path / f"vfr{suffix}", len(pts), pts=pts.tolist(), gop=7, b_frames=2)
    starts = pts / 1000
    times = np.random.default_rng(0).uniform(0, starts[-1] + 0.01, 60)
    times = times[np.abs(times[:, None] - starts).min(axis=1) > 0.005]  # clear of rounding: a GIF counts in 1/100 s
    assert numbers(path, times) == shown_at(starts, times)
    assert probe(path).duration == pytest.approx(starts[-1], abs=0.25)


def test_time_is_counted_from_the_first_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "late.mkv", 30, pts=[5000 + 40 * i for i in range(30)], gop=10)
    assert probe(path).duration == pytest.approx(1.2, abs=0.001)
    assert numbers(path, [0, 0.5, 1.0]) == [0, 12, 25]


def test_the_function_is_given_the_duration_and_called_once(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", 50)
    seen = []
    frames = read_frames(path, lambda seconds: seen.append(seconds) or np.linspace(0, seconds, 5))
    assert seen == [pytest.approx(2.0)]
    assert [frame_number(f) for f in frames] == [0, 12, 25, 37, 49]


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm", ".gif"])
@pytest.mark.parametrize("length", [1, 3])
def test_a_clip_shorter_than_the_sample_repeats_frames(tmp_path: Path, suffix: str, length: int) -> None:
    path = write_video(tmp_path / f"short{suffix}", length)
    assert probe(path).duration == pytest.approx(length / 25, abs=0.001)
    got = [frame_number(f) for f in read_frames(path, lambda seconds: (np.arange(8) + 0.5) / 8 * seconds)]
    assert got == ((2 * np.arange(8) + 1) * length // 16).tolist()


@pytest.mark.parametrize("times", [[], [[0.0, 1.0]], [0.0, float("nan")], 0.5, lambda seconds: []])
def test_times_that_make_no_sense_are_refused(tmp_path: Path, times: object) -> None:
    path = write_video(tmp_path / "clip.mp4", 3)
    with pytest.raises(ValueError, match="times: expected"):
        read_frames(path, times)


# -- seeking ----------------------------------------------------------------------------------------------------------

# Two frames before each key frame in display order, after it in decoding order, and decodable without what came before.
RADL = "log-level=none:keyint=15:min-keyint=15:scenecut=0:bframes=3:open-gop=0:radl=2"
SEEKABLE = {
    "short_gop.mp4": {"gop": 10},
    "b_frames.mp4": {"gop": 10, "b_frames": 2},
    "open_gop.mp4": {"gop": 12, "b_frames": 3, "options": {"x264-params": "open-gop=1:keyint=12:bframes=3"}},
    "long_gop.mp4": {"gop": 250, "b_frames": 2},
    "intra.mp4": {"gop": 1},
    "fragments.mp4": {"gop": 10, "b_frames": 2, "container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mp4": {"gop": 15, "codec": "libx265", "options": {"x265-params": "log-level=none:keyint=15:open-gop=1"}},
    "leading.mp4": {"codec": "libx265", "options": {"preset": "medium", "x265-params": RADL}},
    "b_frames.mkv": {"gop": 10, "b_frames": 2},
    "vp8.webm": {"gop": 10},
    "vp9.webm": {"gop": 10, "codec": "libvpx-vp9"},
    "no_b_frames.avi": {"gop": 10},
    "b_frames.avi": {"gop": 10, "b_frames": 2},
    "mpeg4_b_frames.mp4": {"gop": 10, "b_frames": 2, "codec": "mpeg4"},
}
LENGTH = 120


@pytest.fixture(scope="module")
def seekable(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """Each file with all its pictures, as PyAV alone decodes them from the beginning."""
    folder = tmp_path_factory.mktemp("seekable")
    files = {}
    for name, how in SEEKABLE.items():
        path = write_video(folder / name, LENGTH, **how)
        with av.open(str(path)) as container:
            pictures = [
                frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
                for frame in container.decode(video=0)
            ]
        files[name] = path, np.stack(pictures)
    return files


@pytest.mark.parametrize("name", SEEKABLE)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.lists(st.integers(0, LENGTH - 1), min_size=1, max_size=6), in_order=st.booleans())
def test_frames_after_a_seek_are_those_of_sequential_decoding(
    seekable: dict[str, tuple[Path, np.ndarray]], name: str, wanted: list[int], in_order: bool
) -> None:
    path, pictures = seekable[name]
    wanted = sorted(wanted) if in_order else wanted
    frames = read_frames(path, [(i + 0.5) / 25 for i in wanted])
    assert [frame_number(f) for f in frames] == wanted
    np.testing.assert_array_equal(frames, pictures[wanted])


@pytest.mark.parametrize("name", ["short_gop.mp4", "b_frames.mp4", "b_frames.mkv", "vp8.webm", "no_b_frames.avi"])
def test_a_far_target_is_reached_by_seeking(
    seekable: dict[str, tuple[Path, np.ndarray]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(monkeypatch)
    assert numbers(seekable[name][0], [115.5 / 25]) == [115]
    assert traffic.starts == 2
    assert traffic.packets <= 5 + 10 + 5  # the first frame, the target's group, the decoder's delay


def test_frames_that_lead_a_key_frame_do_not_make_a_seek_fail(
    seekable: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(monkeypatch)
    assert numbers(seekable["leading.mp4"][0], [80.5 / 25]) == [80]
    assert traffic.starts == 2


@pytest.mark.parametrize("name", ["long_gop.mp4", "short_gop.mp4", "b_frames.mkv"])
def test_no_seek_within_the_group_being_read(
    seekable: dict[str, tuple[Path, np.ndarray]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(monkeypatch)
    wanted = [2, 4, 5, 8] if name != "long_gop.mp4" else [2, 40, 100]
    assert numbers(seekable[name][0], [(i + 0.5) / 25 for i in wanted]) == wanted
    assert traffic.starts == 1
    assert traffic.packets <= wanted[-1] + 6


def test_no_seek_where_time_is_a_count(
    seekable: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(monkeypatch)
    assert numbers(seekable["b_frames.avi"][0], [115.5 / 25]) == [115]
    assert traffic.starts == 1


@pytest.mark.parametrize("name", ["hevc.mp4", "open_gop.mp4", "leading.mp4", "intra.mp4"])
def test_the_whole_file_is_read_at_most_once(
    seekable: dict[str, tuple[Path, np.ndarray]], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(monkeypatch)
    wanted = [5, 35, 65, 118]
    assert numbers(seekable[name][0], [(i + 0.5) / 25 for i in wanted]) == wanted
    assert traffic.packets <= LENGTH + 2 * 6


def test_an_index_that_calls_every_frame_a_key_frame_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 60, gop=30)
    data = bytearray(path.read_bytes())
    index = data.rindex(b"idx1") + 8
    for entry in range(index, len(data), 16):
        data[entry + 4] |= 0x10  # AVIIF_KEYFRAME
    path.write_bytes(data)
    wanted = [3, 20, 44, 59]
    assert numbers(path, [(i + 0.5) / 25 for i in wanted]) == wanted


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_an_mp4_without_a_list_of_key_frames(tmp_path: Path, codec: str) -> None:
    path = write_video(tmp_path / "clip.mp4", 60, codec=codec, gop=30)  # by the standard, all are key frames then
    path.write_bytes(path.read_bytes().replace(b"stss", b"free"))
    wanted = [3, 20, 44, 59]
    assert numbers(path, [(i + 0.5) / 25 for i in wanted]) == wanted


def test_an_edit_list_that_trims_the_beginning(tmp_path: Path) -> None:
    path = write_video(tmp_path / "trimmed.mp4", 100, gop=12, b_frames=2)
    data = path.read_bytes()
    at = data.index(b"elst")
    start = int.from_bytes(data[at + 16 : at + 20], "big") + 30 * 512  # media time of frame 30, at 12800 ticks/s
    edit = (2000).to_bytes(4, "big") + start.to_bytes(4, "big")  # 2000 ms from there
    path.write_bytes(data[: at + 12] + edit + data[at + 20 :])
    assert probe(path).duration == pytest.approx(2.0)
    assert numbers(path, [0.02, 0.5, 1.5, 1.98]) == [30, 42, 67, 79]


# -- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".mkv", ".webm", ".flv", ".wmv"])
def test_longer_sound_neither_counts_nor_looks_like_truncation(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"sound{suffix}", 50, audio_seconds=6)
    assert probe(path).duration == pytest.approx(2.0, abs=0.05)
    got = numbers(path, lambda seconds: np.linspace(0.02, seconds - 0.02, 9))
    assert got[0] == 0
    assert got[-1] in (48, 49)
    assert numbers(path, [5.0]) == [49]


def test_a_stated_duration_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sound.mp4", "sound.mkv", "sound.webm", "sound.avi"):
        path = write_video(tmp_path / name, 50, audio_seconds=6)
        traffic = Traffic(monkeypatch)
        probe(path)
        assert traffic.packets < 10, name


def test_matroska_without_any_stated_duration_is_measured(tmp_path: Path) -> None:
    live = write_video(tmp_path / "live.webm", 50, container_options={"live": "1"})
    assert probe(live).duration == pytest.approx(2.0, abs=0.001)
    untagged = write_video(tmp_path / "untagged.mkv", 50, b_frames=2, audio_seconds=6)
    untagged.write_bytes(untagged.read_bytes().replace(b"DURATION", b"NOTATION"))
    assert probe(untagged).duration == pytest.approx(2.0, abs=0.05)
    for path in (live, untagged):
        assert numbers(path, lambda seconds: [0.02, seconds - 0.02]) == [0, 49]


@pytest.mark.parametrize(
    ("name", "format", "codec"), [("a.m1v", "mpeg1video", "mpeg1video"), ("a.h264", "h264", "libx264")]
)
def test_a_bare_stream_whose_duration_ffmpeg_guesses_is_counted(
    tmp_path: Path, name: str, format: str, codec: str
) -> None:
    path = write_video(tmp_path / name, 40, codec=codec, format=format, b_frames=2)
    assert probe(path).duration == pytest.approx(1.6)
    assert numbers(path, (np.arange(40) + 0.5) / 25) == list(range(40))


def test_what_probe_says(tmp_path: Path) -> None:
    info = probe(write_video(tmp_path / "clip.mp4", 45, fps=30))
    assert (info.path, info.frames, info.fps, info.codec) == (str(tmp_path / "clip.mp4"), 45, 30.0, "h264")
    assert (info.width, info.height, info.rotation, info.duration) == (64, 48, 0, pytest.approx(1.5))
    assert probe(write_video(tmp_path / "clip.mkv", 10)).frames is None


# -- pictures ---------------------------------------------------------------------------------------------------------


@WRITES_ROTATION
@pytest.mark.parametrize("flips", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotation_and_mirroring_are_applied(tmp_path: Path, degrees: int, flips: tuple[bool, bool]) -> None:
    upright = numbered_frames(5, 64, 96)
    upright[:, :10, :10] = (255, 0, 0)
    stored = upright[:, :: -1 if flips[1] else 1, :: -1 if flips[0] else 1]  # undo the flips, then the turn
    stored = np.rot90(stored, -degrees // 90, axes=(1, 2))
    path = write_video(tmp_path / "turned.mp4", stored, pix_fmt="yuv444p", rotation=(degrees, *flips))
    frames = read_frames(path, [0.0, 0.1])
    assert frames.flags.c_contiguous
    assert frames.shape == (2, 64, 96, 3)
    np.testing.assert_allclose(frames, upright[[0, 2]].astype(float), atol=60)
    assert np.abs(frames - upright[[0, 2]].astype(float)).mean() < 5
    info = probe(path)
    assert (info.width, info.height) == (96, 64)
    if flips == (False, False):
        assert info.rotation == degrees


@pytest.mark.parametrize(
    ("suffix", "codec", "pix_fmt"),
    [
        (".mkv", "ffv1", "gray"),
        (".mkv", "ffv1", "yuv420p10le"),
        (".mp4", "libx265", "yuv420p10le"),
        (".webm", "libvpx-vp9", "yuva420p"),
        (".mkv", "ffv1", "bgra"),
        (".mov", "qtrle", "argb"),
        (".avi", "mjpeg", "yuvj420p"),
        (".gif", "gif", "rgb8"),
    ],
)
def test_grey_deep_transparent_and_palette_pictures(tmp_path: Path, suffix: str, codec: str, pix_fmt: str) -> None:
    path = write_video(tmp_path / f"clip{suffix}", 12, codec=codec, pix_fmt=pix_fmt)
    frames = read_frames(path, [0.02, 0.42])
    assert [frame_number(f) for f in frames] == [0, 10]
    assert np.abs(frames[1] - numbered_frames(12)[10].astype(float)).mean() < 20


@pytest.mark.parametrize("suffix", [".mp4", ".avi", ".webm", ".gif"])
def test_colours_come_in_the_order_rgb_and_the_full_range(tmp_path: Path, suffix: str) -> None:
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255), (0, 0, 0)], np.uint8)
    pictures = np.broadcast_to(colours[:, None, None], (5, 48, 64, 3))
    frames = read_frames(write_video(tmp_path / f"colours{suffix}", pictures), (np.arange(5) + 0.5) / 25)
    np.testing.assert_allclose(frames.mean(axis=(1, 2)), colours.astype(float), atol=8)


@pytest.mark.parametrize(
    ("aspect", "short_side", "expected"),
    [
        (None, None, (48, 64)),
        (None, 24, (24, 32)),
        (None, 96, (96, 128)),
        (None, 33, (33, 44)),
        (Fraction(2, 1), None, (48, 128)),
        (Fraction(2, 1), 24, (24, 64)),
        (Fraction(1, 2), None, (48, 32)),
        (Fraction(1, 2), 64, (96, 64)),
        (Fraction(3, 4), 20, (20, 20)),
    ],
)
def test_size_follows_aspect_ratio_and_short_side(
    tmp_path: Path, aspect: Fraction | None, short_side: int | None, expected: tuple[int, int]
) -> None:
    path = write_video(tmp_path / "clip.mp4", 10, sample_aspect_ratio=aspect)
    frames = read_frames(path, [0.0, 0.3], short_side)
    assert frames.shape == (2, *expected, 3)
    assert frames.dtype == np.uint8
    assert [frame_number(f) for f in frames] == [0, 7]
    if short_side is None:
        assert (probe(path).height, probe(path).width) == expected


LATE_STREAM = (
    "eNpz8wljZGRgYOAEYgYhBoYdDBDAxMCVn+ebWpLokliSyAEU4GDgSCktSizJzM9jsL+3I/B1q9wOBtbyzJSSDAaHAKgutozUzPSMEgYHDwYY"
    "YE/NS2Zg4C3LTEnNTwGaBTQiFS7JwJlWlFifesGmxG/+2jlRz6eBpHjAapPz//9PzkxhcEA2KD8ltYiJgdcnsSzNzEjPEIgMjBg40jJzUosz"
    "q1IZHCZJwMwF4sNAYi6UD/RZC4OChKDx5El/+FhcmNkW8GgymLxZf+CBC0RSQEFCBCTJwypgkNdwqIXZ7wsS++v//3PmTH+QoNHYXMImoiBV"
    "vhyJvf7/z5mSkpL1/5+rq/6Q4FJIuMvYysE29yUS+/X/f2lubm7x/z8bAcH//zMnTpw4/f+fMz09Pfv/P0tJSUn9/9/9QYJ5YzMPm+gDqYJ0"
    "JHbOnPkQC/4DwYkTp/8AvbMb6DV1BgbuCY9uf6uZu65FQkHCdP+PjD887A4GiQyH9jb7cSCxOSdP/v8PqMsIqIuPgeEDKECUgH6WUZAwt//O"
    "oHuAGyggCZTkYQAA252nbg=="
)
"""An FLV, zlib and base64: damaged so that a packet of a second stream comes after all that FFmpeg looks at first."""


def test_a_stream_that_begins_late(tmp_path: Path) -> None:
    path = tmp_path / "clip.flv"
    path.write_bytes(zlib.decompress(base64.b64decode(LATE_STREAM)))
    with pytest.raises(DecodeError, match="no frame of it"):
        read_frames(path, [0.0])


def test_a_shape_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", numbered_frames(3, 16, 160), sample_aspect_ratio=Fraction(4, 1))
    for read in (lambda: read_frames(path, [0.0], 224), lambda: probe(path), lambda: next(play(path, 224))):
        with pytest.raises(DecodeError, match="640 x 16 as displayed"):
            read()


@WRITES_ROTATION
def test_short_side_of_a_turned_picture(tmp_path: Path) -> None:
    stored = np.rot90(numbered_frames(3, 96, 64), 1, axes=(1, 2))
    path = write_video(tmp_path / "phone.mp4", stored, rotation=(-90, False, False))
    assert read_frames(path, [0.0], 32).shape == (1, 48, 32, 3)
    assert numbers(path, [0.05], short_side=32) == [1]


def test_side_data_that_pyav_does_not_know(tmp_path: Path) -> None:
    """Photographs' EXIF data in the frames of an MJPEG file, which PyAV 18 cannot list, turns them all the same."""
    path = write_video(
        tmp_path / "plain.avi", np.rot90(numbered_frames(5), 1, axes=(1, 2)), codec="mjpeg", pix_fmt="yuvj420p"
    )
    exif = b"Exif\0\0" + b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)  # orientation 6
    segment = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
    with av.open(str(path)) as plain, av.open(str(tmp_path / "exif.avi"), "w") as turned:
        stream = turned.add_stream("mjpeg", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 48, "yuvj420p"
        for packet in plain.demux(video=0):
            if packet.size:
                image = bytes(packet)
                copy = av.Packet(image[:2] + segment + image[2:])
                copy.stream, copy.pts, copy.dts, copy.time_base = stream, packet.pts, packet.dts, packet.time_base
                turned.mux(copy)
    assert numbers(tmp_path / "exif.avi", [0.1]) == [2]
    assert probe(tmp_path / "exif.avi").rotation == 270


def test_short_side_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="short_side: expected at least 1 pixel, got 0"):
        read_frames(tmp_path / "clip.mp4", [0.0], 0)


# -- damage -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.avi", "a.mkv", "a.webm", "a.flv", "faststart.mp4"])
def test_a_video_that_was_cut_off(tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name == "faststart.mp4" else None
    whole = write_video(tmp_path / name, 100, container_options=options, b_frames=2)
    path = cut(whole, tmp_path / f"cut_{name}", 50)
    reason = refusal(path, lambda seconds: np.linspace(0, seconds, 8))
    assert reason.startswith("truncated: its header states 4.00 s of video, its frames end at ")
    assert float(reason.split()[-2]) == pytest.approx(2.0, abs=0.1)
    assert numbers(path, [0.1, 0.5, 1.5]) == [2, 12, 37]  # what is there can be read
    assert numbers(path, [float(reason.split()[-2]) - 0.01])[0] in range(48, 52)  # to its last frame


@pytest.mark.parametrize("name", ["a.avi", "a.mkv"])
def test_a_little_missing_is_no_truncation(tmp_path: Path, name: str) -> None:
    whole = write_video(tmp_path / name, 100)
    assert numbers(cut(whole, tmp_path / f"b_{name}", 92), [3.98])[0] in (90, 91)
    assert refusal(cut(whole, tmp_path / f"c_{name}", 80), [3.98]).startswith("truncated")


def test_an_mp4_without_its_index(tmp_path: Path) -> None:
    path = cut(write_video(tmp_path / "a.mp4", 50), tmp_path / "cut.mp4", 25)
    assert refusal(path) == "truncated or damaged: an MP4 without a readable index (moov)"
    with pytest.raises(DecodeError, match="truncated or damaged"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".avi"])
def test_corrupt_packets_in_the_middle_are_skipped(tmp_path: Path, suffix: str) -> None:
    path = write_video(tmp_path / f"a{suffix}", 100, gop=20)
    data = bytearray(path.read_bytes())
    for position, size in packet_places(path)[40:46]:  # the third group's key frame and five more
        assert size > 9
        position += 0 if suffix == ".mp4" else 8  # leave the container's own bytes alone
        data[position : position + size - 8] = bytes(size - 8)
    path.write_bytes(data)
    wanted = [10, 39, 45, 61, 85, 99]
    frames = read_frames(path, [(i + 0.5) / 25 for i in wanted])
    sound = [0, 1, 3, 4, 5]
    assert [frame_number(frames[i]) for i in sound] == [wanted[i] for i in sound]


def test_a_file_whose_frames_are_all_lost(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 10)
    data = path.read_bytes()
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    path.write_bytes(data[:start] + bytes(end - start) + data[end:])
    assert refusal(path) == "no frame of it can be decoded"


# -- no video ---------------------------------------------------------------------------------------------------------


def test_a_file_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    assert refusal(path) == "no frame of it can be decoded"
    assert refusal(path, lambda seconds: [seconds]) == "no frame of it can be decoded"
    with pytest.raises(DecodeError, match="no frame of it can be decoded"):
        probe(path)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_sound_alone(tmp_path: Path, suffix: str) -> None:
    assert refusal(write_audio(tmp_path / f"sound{suffix}")) == "no video stream (audio only)"


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    assert numbers(write_covered(tmp_path / "covered.mp4", 10), [0.3]) == [7]
    assert numbers(write_covered(tmp_path / "preview.mp4", 10, said=False), [0.3]) == [7]
    assert refusal(write_covered(tmp_path / "cover.mp4", None)) == "no video stream (cover picture only)"


@pytest.mark.parametrize("name", ["clip.mp4", "clip.txt", "clip.gif", "clip.avi"])
def test_text_in_a_video_s_clothes(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("This is no video.\n" * 200)
    assert refusal(tmp_path / name) == "not a video file FFmpeg can read"


def test_a_playlist_cannot_open_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "secret.mp4", 5)
    monkeypatch.chdir(tmp_path)
    Path("list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    assert refusal("list.mp4") == "not a video file FFmpeg can read"


def test_what_is_no_file(tmp_path: Path) -> None:
    assert refusal(tmp_path / "nowhere.mp4") == "no such file"
    assert refusal(tmp_path) == "a folder, not a file"
    (tmp_path / "empty.mp4").touch()
    assert refusal(tmp_path / "empty.mp4") == "an empty file"
    assert refusal(tmp_path / "empty.mp4" / "clip.mp4") == "Not a directory"
    assert refusal("null\0character.mp4") == "embedded null byte"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs links and pipes")
def test_links_and_pipes(tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(tmp_path / "gone\n.mp4")
    assert refusal(tmp_path / "link.mp4") == f"a dangling link, to {tmp_path}/gone\n.mp4"
    (tmp_path / "good.mp4").symlink_to(write_video(tmp_path / "clip.mp4", 3))
    assert numbers(tmp_path / "good.mp4", [0.0]) == [0]
    os.mkfifo(tmp_path / "pipe.mp4")
    assert refusal(tmp_path / "pipe.mp4") == "not a regular file"


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", 3)

    def refuse(*args: object) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(video_file.os, "open", refuse)
    assert refusal(path) == "Permission denied"


def test_a_disk_that_fails_while_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", 3)

    class Failing:
        def __enter__(self) -> Failing:
            return self

        def __exit__(self, *args: object) -> None: ...

        def seek(self, *args: int) -> int:
            return 0

        tell = seek

        def read(self, size: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(video_file, "_open_file", lambda path: Failing())
    assert refusal(path) == "Input/output error"


# -- names and resources ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "a:b.mp4",
        "http:x.mp4",
        "%03d.mp4",
        "%03d.gif",
        "what?*{.gif",
        "with space.mp4",
        'it\'s "quoted".mp4',
        "new\nline.mp4",
        "-i.mp4",
        "Ünïcode 動画 🎬.mp4",
        os.fsdecode(b"not utf-8 \xff\xfe.mp4"),
        "no extension",
    ],
)
def test_any_file_name_works(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    content = write_video(tmp_path / ("source.gif" if name.endswith("gif") else "source.mp4"), 6)
    try:
        (tmp_path / name).write_bytes(content.read_bytes())
    except (OSError, ValueError):
        pytest.skip("this file system does not take such a name")
    monkeypatch.chdir(tmp_path)
    for path in (name, tmp_path / name):
        assert numbers(path, [0.1, 0.2]) == [2, 5]
    assert probe(name).path == name
    (tmp_path / name).write_bytes(b"not a video" * 50)
    assert refusal(name) == "not a video file FFmpeg can read"


def test_the_error_is_one_line_and_survives_pickling() -> None:
    error = DecodeError("a\nb\udcff é.mp4", "no such file")
    assert str(error) == "a\\nb\\udcff é.mp4: no such file"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.path, again.reason) == (DecodeError, error.path, error.reason)


def test_extensions() -> None:
    assert all(e.startswith(".") and e == e.lower() for e in VIDEO_EXTENSIONS)
    assert {".mp4", ".avi", ".webm", ".mkv", ".gif", ".mov", ".m4v", ".mpg", ".wmv", ".3gp"} <= VIDEO_EXTENSIONS


def test_a_title_that_is_not_utf_8(tmp_path: Path) -> None:
    path = write_video(tmp_path / "old.avi", 10)
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1  # the name of the program that wrote it
    path.write_bytes(data.replace(b"Lavf", b"\xe9t\xe9 "))
    assert numbers(path, [0.3]) == [7]


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc")
def test_files_are_closed(tmp_path: Path) -> None:
    good = write_video(tmp_path / "good.mkv", 40, gop=10, container_options={"live": "1"})
    broken = cut(write_video(tmp_path / "a.mp4", 10), tmp_path / "cut.mp4", 5)
    short = cut(write_video(tmp_path / "a.avi", 60), tmp_path / "cut.avi", 30)
    sound = write_audio(tmp_path / "sound.mp4")
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for _ in range(10):
            read_frames(good, lambda seconds: [seconds, 0.0])
            for path in (broken, short, sound, tmp_path / "none.mp4"):
                refusal(path, [9.0])
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


def test_nothing_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = write_video(tmp_path / "a.avi", 60)
    capfd.readouterr()
    refusal(cut(whole, tmp_path / "cut.avi", 30), [2.0])
    assert capfd.readouterr() == ("", "")


# The process's peak. (getrusage's would be inherited from the process that starts this one: pytest.)
MEASURE = r"""
import re, sys
import numpy as np
from msta.data.decode import read_frames
for path in sys.argv[1:]:
    read_frames(path, lambda seconds: np.linspace(0, seconds, 8), 64)
    print(re.search(r"VmHWM:\s+(\d+)", open("/proc/self/status").read())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_length_of_the_video(tmp_path: Path) -> None:
    paths = []
    for n in (30, 300):
        frames = np.broadcast_to(numbered_frames(1, 240, 320), (n, 240, 320, 3))
        paths.append(write_video(tmp_path / f"{n}.mp4", frames, gop=1000))
    command = [sys.executable, "-c", MEASURE, *map(str, [paths[0], *paths])]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    _, short, long = map(int, done.stdout.split())
    assert long - short < 8_000  # 270 more frames are 31,000 kB decoded, 62,000 as RGB


# -- real clips -------------------------------------------------------------------------------------------------------


@needs("clips")
def test_every_shared_clip_can_be_read() -> None:
    paths = sorted(p for p in (OUTSIDE / "clips").rglob("*") if p.suffix in VIDEO_EXTENSIONS)
    assert paths
    for path in paths:
        info = probe(path)
        assert 0.1 < info.duration < 600, path
        frames = read_frames(path, lambda seconds: (np.arange(8) + 0.5) / 8 * seconds, 64)
        assert frames.shape[0] == 8, path
        assert min(frames.shape[1:3]) == 64, path
        assert frames.std() > 5, path  # a picture, not a flat field
        assert (frames[0] != frames[-1]).any(), path  # and it moves
