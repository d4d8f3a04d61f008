"""Recordings whose times start again, leap or come out of order; a size that changes in the middle."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from msta.data.decode import all_frames, decode_all, play, probe, read_frames

pytestmark = pytest.mark.usefixtures("every_notice")

FPS = 10


def grey(number: int) -> int:
    return 8 + 4 * number


def part(path, numbers, *, b_frames=2, size=(64, 48), offset=0.0, form="mpegts"):
    """A stream whose frame of number k is of the grey of k -> its bytes."""
    with av.open(str(path), "w", format=form, options={"output_ts_offset": str(offset)} if offset else {}) as container:
        stream = container.add_stream("libx264", rate=FPS, options={"g": "10", "bf": str(b_frames), "crf": "1"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for k in numbers:
            picture = np.full((size[1], size[0], 3), grey(k), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    return path.read_bytes()


def numbers(frames) -> list[int]:
    return [round((int(frame.mean()) - 8) / 4) for frame in frames]


PARTS = [((30, 20), (0, 0)), ((12, 25, 9), (5, 0, 0)), ((15, 15), (0, 7200)), ((9, 30), (50000, 3))]


@pytest.mark.parametrize(
    ("form", "b_frames", "lengths", "offsets"),
    [("mpegts", b_frames, *parts) for b_frames in (0, 2) for parts in PARTS] + [("mpeg", 0, *PARTS[0])],
)
def test_all_of_a_joined_recording_counts(tmp_path, b_frames, lengths, offsets, form, caplog):
    first = np.cumsum((0, *lengths))
    path = tmp_path / f"joined.{'ts' if form == 'mpegts' else 'mpg'}"
    pieces = [
        part(tmp_path / f"{i}.ts", range(first[i], first[i + 1]), b_frames=b_frames, offset=offset, form=form)
        for i, offset in enumerate(offsets)
    ]
    path.write_bytes(b"".join(pieces))
    count = sum(lengths)
    assert probe(path).duration == pytest.approx(count / FPS, abs=0.11)
    assert decode_all(path).duration == pytest.approx(count / FPS, abs=0.11)
    shown = list(play(path))
    assert numbers(s.picture() for s in shown) == list(range(count))
    assert [s.start for s in shown] == pytest.approx(np.arange(count) / FPS, abs=0.06)
    times = (np.arange(count) + 0.5) / FPS
    assert numbers(read_frames(path, times)) == pytest.approx(list(range(count)), abs=1)
    assert numbers(read_frames(path, lambda seconds: [seconds * 0.98]))[0] >= count - 2
    assert sum(end - start for start, end, _ in all_frames(path)) == pytest.approx(count / FPS, abs=0.11)
    assert "its times start again in the middle" in caplog.text


@pytest.mark.parametrize("form", ["mpegts", "mp4", "matroska", "avi", "flv"])
@pytest.mark.parametrize("b_frames", [0, 2])
def test_nothing_is_said_of_a_recording_in_one_part(tmp_path, form, b_frames, caplog):
    part(tmp_path / "one", range(40), form=form, b_frames=b_frames)
    assert probe(tmp_path / "one").duration == pytest.approx(4.0, abs=0.11)
    assert numbers(read_frames(tmp_path / "one", [0.05, 3.95, 1.25])) == [0, 39, 12]
    assert not caplog.records


def test_a_size_that_changes_in_the_middle_is_said(tmp_path, caplog):
    path = tmp_path / "sizes.ts"
    path.write_bytes(part(tmp_path / "a", range(10)) + part(tmp_path / "b", range(10, 20), size=(96, 80)))
    frames = read_frames(path, np.arange(20) / FPS)
    assert frames.shape == (20, 48, 64, 3)
    assert (
        "the size of its frames changes from 64 x 48 to 96 x 80; all are shown in the size of the first" in caplog.text
    )


@pytest.mark.parametrize("late", [{5: 9}, {3: 7, 12: 16, 20: 23}, {k: k + 3 for k in range(2, 30, 6)}])
def test_times_out_of_order_do_not_add_up(tmp_path, late):
    """Frame k is shown at the time of late[k]; the frames after it must not be later for that."""
    path = tmp_path / "late.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=FPS, options={"bf": "0", "qscale": "1"})
        stream.width, stream.height = 64, 48
        stream.pix_fmt = "yuv420p"
        for k in range(40):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), grey(k), np.uint8), "rgb24")
            for packet in stream.encode(frame):
                packet.time_base, packet.dts, packet.pts = Fraction(1, FPS), k - 10, late.get(k, k)
                container.mux(packet)
    starts = [shown.start for shown in play(path)]
    last = max(late.values()) + 1
    assert starts[last:] == pytest.approx(np.arange(last, 40) / FPS, abs=0.01)
    assert starts == sorted(starts)
