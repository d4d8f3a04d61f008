"""Timelines: equal to each window on its own, each frame once, segments without gaps, memory that does not grow."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
import subprocess
import sys
import weakref
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KINDS, stir, tiny
from hypothesis import given
from hypothesis import strategies as st
from launch import run_msta
from video_files import cut as cut_file
from video_files import frame_number, numbered_frames, write_video

import msta
from msta.data.clips import ONE_VIEW, cut_views
from msta.data.decode import Shown, play, probe, read_frames
from msta.errors import ConfigError, MSTAError
from msta.inference import Predictor, Smoothing, Windows, read_timelines
from msta.inference import output as texts
from msta.inference import windows as data_windows
from msta.inference.predict import Request, predict
from msta.inference.segments import Scored, Segmenter

METHODS = [
    msta.MSTAConfig(dim=8), msta.MSTAConfig(dim=8, temporal_kernel=0), "zero-shot", "full", "lora", "adaptformer", "aim",
    "st-adapter", "prompts",
]  # fmt: skip


@pytest.fixture
def clip(tmp_path) -> Path:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (53, 5, 5, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    return write_video(tmp_path / "long.mp4", frames, fps=10, gop=7, b_frames=2)


def predictor(backbone, method="zero-shot", classes=("push", "hug", "sit"), **settings) -> Predictor:
    if method == "lora":
        pytest.importorskip("peft")
    return Predictor(stir(msta.attach(backbone, method), 0.05), classes, **settings)


def brute_force(p: Predictor, path: Path, windows: Windows, count: int) -> np.ndarray:
    """Each window cut out of the file and predicted by itself, frames at the same times."""
    rows, windows = [], windows.fitted(probe(path).duration)
    for i in range(count):
        times = data_windows.window_at(i, windows, p.format.frames).times
        frames = read_frames(path, times, p.format.size, squash=p.format.fit == "squash")
        with torch.inference_mode():
            embeddings = p.model.encode_video(cut_views(frames, p.format, ONE_VIEW))
        rows.append(p.probabilities(embeddings[:, None])[0])
    return np.stack(rows)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_equal_to_each_window_on_its_own(backbone, method, clip):
    try:
        p = predictor(backbone, method)
    except ConfigError:
        assert method in ("prompts", "aim")
        assert backbone.architecture.rotary or not backbone.text.causal
        return
    for windows in (Windows(1.0, 0.25, batch=3), Windows(1.3, 0.37), Windows(0.9, 0.9), Windows(20, 5)):
        (line,) = read_timelines(p, clip, windows)
        expected = brute_force(p, clip, windows, len(line.probabilities))
        np.testing.assert_allclose(line.probabilities, expected, atol=1e-5)
        assert line.duration == pytest.approx(5.3)
        last = (len(expected) - 1) * windows.stride
        assert last - windows.stride + windows.length < 5.3 - 1e-6 or last == 0  # none too many …
        assert last + windows.length >= 5.3 - 1e-6  # … and the end is shown


def test_variable_frame_rates_and_arrays(backbone, tmp_path):
    pts = [0, 40, 400, 410, 1000, 1010, 1020, 1500, 2600, 2640, 3000]
    rng = np.random.default_rng(1)
    frames = rng.integers(0, 256, (len(pts), 4, 4, 3), np.uint8).repeat(8, 1).repeat(8, 2)
    clip = write_video(tmp_path / "v.mkv", frames, pts=pts)
    p, windows = predictor(backbone), Windows(1.0, 0.3)
    (line,) = read_timelines(p, clip, windows)
    np.testing.assert_allclose(line.probabilities, brute_force(p, clip, windows, len(line.probabilities)), atol=1e-5)

    array = np.stack([frame.picture() for frame in play(write_video(tmp_path / "c.mp4", frames, fps=5))])
    (from_file,), (from_array,) = (
        read_timelines(p, tmp_path / "c.mp4", windows),
        read_timelines(p, array, windows, fps=5),
    )
    assert from_array.probabilities.shape == from_file.probabilities.shape
    assert np.abs(from_array.probabilities - from_file.probabilities).max() < 0.02  # colours rounded once more
    with pytest.raises(ConfigError, match="give fps"):
        read_timelines(p, array)


@given(
    ends=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=30),
    length=st.floats(0.05, 4.0), share=st.floats(0.1, 1.0), frames=st.integers(1, 5),
)  # fmt: skip
def test_windows_show_the_frames_on_display_and_make_each_once(ends, length, share, frames):
    edges = np.concatenate([[0], np.cumsum(ends)])
    made = []

    def make(picture):
        made.append(picture)
        return int(picture)

    shown = [Shown(a, b, lambda i=i: i) for i, (a, b) in enumerate(itertools.pairwise(edges))]
    found = list(data_windows.sliding_windows(iter(shown), Windows(length, length * share), frames, make))
    assert len(made) == len(set(made))
    for number, window in enumerate(found):
        assert window.start == pytest.approx(number * length * share)
        for time, frame in zip(window.times, window.frames, strict=True):
            at = np.searchsorted(edges, time + 1e-6, side="right") - 1
            assert frame == min(at, len(shown) - 1)
    assert found[-1].end == pytest.approx(edges[-1], abs=1e-5)
    assert all(w.end <= edges[-1] + 1e-5 for w in found)


@pytest.mark.parametrize("attention", KINDS)
def test_each_frame_is_decoded_once_and_read_once_where_frames_do_not_mix(attention, clip, monkeypatch):
    p = predictor(msta.random_backbone(tiny(attention)))
    seen, pictures = [], []
    embed = type(p.model.backbone.video).embed

    def counted(tower, video):
        seen.append(video.shape[0] * video.shape[1])
        return embed(tower, video)

    monkeypatch.setattr(type(p.model.backbone.video), "embed", counted)
    monkeypatch.setattr("msta.inference.windows.play", lambda *a, **k: (pictures.append(s) or s for s in play(*a, **k)))
    (line,) = read_timelines(p, clip, Windows(1.0, 0.25))
    assert len(pictures) == 53
    if attention == "joint":
        assert sum(seen) == 4 * len(line.probabilities)
    else:
        assert sum(seen) <= 53 < 4 * len(line.probabilities)


def test_several_adapters_in_one_pass_are_what_each_is_alone(backbone, clip, monkeypatch):
    several = [predictor(backbone, m, c) for m, c in zip(METHODS[:4], ("ab", "cde", "fg", "hij"), strict=True)]
    alone = [read_timelines(p, clip, Windows(1.0, 0.5))[0] for p in several]
    opened = []
    monkeypatch.setattr("msta.inference.windows.play", lambda *a, **k: opened.append(a) or play(*a, **k))
    together = read_timelines(several, clip, Windows(1.0, 0.5))
    assert len(opened) == 1
    for a, b in zip(alone, together, strict=True):
        assert a.classes == b.classes
        np.testing.assert_allclose(a.probabilities, b.probabilities, atol=1e-6)
    other = predictor(msta.random_backbone(tiny(frames=5)))
    with pytest.raises(ConfigError, match="4 of 32 px .* and another 5 of 32 px"):
        read_timelines([several[0], other], clip)


def test_a_recording_that_breaks_off_has_a_timeline_up_to_there(backbone, tmp_path, caplog):
    whole = write_video(tmp_path / "whole.mp4", 60, fps=10, gop=5, container_options={"movflags": "faststart"})
    p = predictor(backbone)
    (expected,) = read_timelines(p, whole, Windows(1.0, 0.5))
    (line,) = read_timelines(p, cut_file(whole, tmp_path / "cut.mp4", 40), Windows(1.0, 0.5))
    assert "truncated" in caplog.text
    assert 3.5 < line.duration < 4.2
    np.testing.assert_allclose(line.probabilities[:6], expected.probabilities[:6], atol=1e-6)


def test_a_part_that_is_shorter_than_a_window_is_one_window_of_its_length(backbone, clip, monkeypatch):
    times, window_at = [], data_windows.window_at
    monkeypatch.setattr(data_windows, "window_at", lambda *a: (times.append((w := window_at(*a)).times), w)[1])
    line = read_timelines(predictor(backbone), clip, Windows(4.0, 1.0), seconds=1.0)[0]
    assert line.duration == line.segments[-1].end == 1.0
    assert max(times[0]) < 1.0


# ---------------------------------------------------------------- segments


def segment(rows, stride=1.0, length=1.0, **smoothing):
    segmenter = Segmenter("abc", stride, Smoothing(**smoothing))
    found = []
    for i, row in enumerate(rows):
        found += segmenter.add(Scored(i * stride, i * stride + length, np.array(row, float)))
    return found + list(segmenter.finish())


A, B, C = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]


def test_segments_by_hand():
    def short(found):
        return [(s.label, s.start, s.end) for s in found]

    assert short(segment([A, A, B, C, C])) == [("a", 0, 2), ("b", 2, 3), ("c", 3, 5)]
    assert short(segment([A, A, B, C, C], min_duration=2)) == [("a", 0, 3), ("c", 3, 5)]
    assert short(segment([B, A, A], min_duration=2)) == [("a", 0, 3)]
    near = [0.44, 0.46, 0.1]
    assert short(segment([A, near, A])) == [("a", 0, 3)]  # it does not lead by the margin
    assert short(segment([A, near, A], margin=0)) == [("a", 0, 1), ("b", 1, 2), ("a", 2, 3)]
    assert short(segment([A, near, A], unknown_below=0.5)) == [("a", 0, 1), (None, 1, 2), ("a", 2, 3)]
    assert segment([A, B], min_duration=5)[0].probability == pytest.approx(0.45)  # of a, over both
    # a step is the mean of the windows that show all of it
    assert short(segment([A, A, B, B], stride=1, length=2)) == [("a", 0, 3), ("b", 3, 5)]


rows = st.lists(st.lists(st.floats(0.01, 1), min_size=3, max_size=3), min_size=1, max_size=40)


@given(rows, st.integers(1, 4), st.floats(0, 3), st.floats(0, 0.5), st.none() | st.floats(0, 1))
def test_segments_follow_each_other_and_none_is_too_short(rows, overlap, min_duration, margin, unknown_below):
    rows = [np.array(r) / sum(r) for r in rows]
    found = segment(rows, 0.5, 0.5 * overlap, min_duration=min_duration, margin=margin, unknown_below=unknown_below)
    assert found[0].start == 0
    assert found[-1].end == pytest.approx(0.5 * (len(rows) - 1 + overlap))
    for a, b in itertools.pairwise(found):
        assert a.end == pytest.approx(b.start)
        assert a.label != b.label
    if len(found) > 1:
        assert all(s.end - s.start >= min_duration - 1e-6 for s in found)
    assert all(0 < s.probability <= 1 for s in found)
    if overlap == 1 and not margin and not min_duration and unknown_below is None:
        for row, i in zip(rows, range(len(rows)), strict=True):
            at = next(s for s in found if s.start <= 0.5 * i + 0.25 < s.end)
            assert row["abc".index(at.label)] == row.max()


# ---------------------------------------------------------------- what comes out


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("timeline")
    backbone = msta.random_backbone(tiny("frame-wise"))
    backbone.save(root / "backbone")
    for name in ("one", "two"):
        model = stir(msta.attach(msta.load_backbone(root / "backbone"), msta.MSTAConfig(dim=8)), 0.3)
        model.task = msta.adapters.task.Task((f"{name} push", f"{name} <hug> & kiss"))
        model.save(root / name / "adapter")
    write_video(root / "long.mp4", 60, fps=10)
    return root


def test_the_command_from_a_long_video_to_every_format(world):
    adapters = ["--adapter", "one/adapter", "--adapter", "two/adapter"]
    done = run_msta(
        "predict",
        "long.mp4",
        *adapters,
        "--window",
        "1s",
        "--stride",
        "500ms",
        "--json",
        "--overlay",
        "seen.mp4",
        cwd=world,
    )
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout)
    assert (one["adapter"], two["adapter"], one["duration"]) == ("one", "two", 6.0)
    assert np.array(one["windows"]).shape == (11, 2)
    assert one["segments"][0]["start"] == 0
    assert one["segments"][-1]["end"] == 6
    assert {s["label"] for s in one["segments"]} <= set(one["classes"])
    before, after = (read_frames(world / name, [0.55, 5.95]) for name in ("long.mp4", "seen.mp4"))
    assert before.shape == after.shape
    differ = np.abs(before.astype(int) - after).mean(axis=(0, 2, 3))
    assert differ[-10:].mean() > 10 * differ[:20].mean()  # labels at the foot, the same frames above


def request(world, *videos, **settings) -> Request:
    return Request([str(world / video) for video in videos], Windows(2.0, 1.0), **settings)


def test_documents_are_about_a_video_once_and_say_what_could_not_be_read(world, backbone, tmp_path, caplog):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    videos = ("long.mp4", tmp_path / "bad.mp4", "long.mp4")
    assert not predict({"": predictor(backbone)}, request(world, *videos, format="srt", out=tmp_path / "srt"), print)
    assert sorted(p.name for p in (tmp_path / "srt").iterdir()) == ["bad.srt", "long.srt"]
    known = read_timelines(predictor(backbone), world / "long.mp4", Windows(2.0, 1.0))[0].segments
    assert (tmp_path / "srt" / "long.srt").read_text().count("-->") == len(known)
    assert "bad.mp4: not a video file" in caplog.text


def test_the_video_with_labels_ends_where_a_recording_breaks_off(backbone, tmp_path):
    whole = write_video(tmp_path / "whole.mp4", 60, fps=10, gop=5, container_options={"movflags": "faststart"})
    cut_file(whole, tmp_path / "cut.mp4", 40)
    out, overlay = tmp_path / "new" / "answer.txt", tmp_path / "seen.mp4"
    assert predict({"": predictor(backbone)}, request(tmp_path, "cut.mp4", out=out, overlay=overlay), print)
    assert out.read_text()
    assert 3.5 < probe(overlay).duration < 4.2


def test_a_file_that_cannot_be_written_is_told_before_the_work(world, backbone, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(data_windows, "probe", lambda path: pytest.fail("the video was opened"))
    for option in ("out", "overlay"):
        with pytest.raises(MSTAError, match=f"o.mp4: cannot be written .* give another --{option}"):
            predict(
                {"": predictor(backbone)}, request(world, "long.mp4", **{option: tmp_path / "file" / "o.mp4"}), print
            )


def test_documents_can_be_read_by_others(tmp_path, backbone, clip):
    classes = ("push", "<hug> & kiss")
    lines = read_timelines(
        [predictor(backbone, "full", classes), predictor(backbone, classes=("sit",))], clip, Windows(1, 0.5)
    )
    results = [texts.Result(str(clip), name, timeline=line) for name, line in zip("xy", lines, strict=True)]
    root = ET.fromstring(texts.as_elan(results))
    slots = {s.get("TIME_SLOT_ID"): int(s.get("TIME_VALUE")) for s in root.iter("TIME_SLOT")}
    assert list(slots.values()) == sorted(slots.values())
    assert [t.get("TIER_ID") for t in root.iter("TIER")] == ["x", "y"]
    types = {t.get("LINGUISTIC_TYPE_ID") for t in root.iter("LINGUISTIC_TYPE")}
    assert {t.get("LINGUISTIC_TYPE_REF") for t in root.iter("TIER")} <= types
    told = [
        (slots[a.get("TIME_SLOT_REF1")], slots[a.get("TIME_SLOT_REF2")], a.findtext("ANNOTATION_VALUE"))
        for a in root.iter("ALIGNABLE_ANNOTATION")
    ]
    known = [(round(1000 * s.start), round(1000 * s.end), s.label) for line in lines for s in line.segments]
    assert told == known

    srt = texts.as_srt(results)
    times = re.findall(r"^(\d\d:\d\d:\d\d,\d{3}) --> (\d\d:\d\d:\d\d,\d{3})$", srt, re.M)
    assert len(times) == len(known)
    assert "00:00:05,300" in {end for _, end in times}
    rows = list(csv.DictReader(io.StringIO(texts.as_csv(results))))
    assert [(r["adapter"], r["label"]) for r in rows] == [
        (n, s.label) for n, line in zip("xy", lines, strict=True) for s in line.segments
    ]
    assert texts.clock(3599.999) == "1:00:00.00"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--stride 1s", "--stride: goes with --window"),
        ("--min-duration 1s", "--min-duration: goes with --window"),
        ("--window 0s", "0 < stride <= window"),
        ("--json --format csv", "--format: --json is given too"),
        ("--window 1s --stride 2s", "0 < stride <= window"),
        ("--window soon", "--window: expected a time such as 2s"),
        ("--format srt", "--format srt needs a timeline; add --window 2s"),
        ("--format pdf", "--format: 'pdf' is none of table"),
        ("--overlay o.mp4", "--overlay needs a timeline"),
        ("http://127.0.0.1:9/a.mp4", "a stream needs a timeline"),
        ("long.mp4 --window 1s --format elan", "for several give a folder, --out"),
        ("--window 1s --clips 2", "one view of a window"),
        ("--window 1s --overlay o.avi", "--overlay: the name o.avi must end in .mp4"),
        ("--base clip.pt", "--base: completes a file that --backbone names"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(world, arguments, words, capsys, monkeypatch):
    from msta import cli

    monkeypatch.chdir(world)
    monkeypatch.setattr(sys, "argv", ["msta", "predict", "long.mp4", "--adapter", "one/adapter", *arguments.split()])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


# ---------------------------------------------------------------- long


def test_what_is_read_of_a_video_does_not_pile_up(backbone):
    """Alive at once: the frames of a window and a batch, however long the video."""
    from msta.inference import timeline as module

    p = predictor(backbone)
    frames = numbered_frames(1, 32, 32)

    def endless(count):
        for i in range(count):
            yield Shown(i / 10, (i + 1) / 10, lambda: frames[0])

    def prepared(picture):
        frame = data_windows.PreparedFrame(picture, p.format)
        made.append(weakref.ref(frame))
        return frame

    for count in (300, 1200):
        made, alive = [], []
        shown = data_windows.sliding_windows(endless(count), Windows(1.0, 0.5), 4, prepared)
        for group in data_windows.batched(shown, 4):
            module.WindowEncoder([p.model])(group)
            alive.append(sum(frame() is not None for frame in made))
        assert len(made) > count // 3
        assert max(alive) <= 4 * 3 + 4


@pytest.mark.slow
def test_memory_is_flat_from_a_minute_to_three_hours(tmp_path, backbone):
    """In processes of their own, so that the peak is this video's."""
    backbone.save(tmp_path / "backbone")
    peaks = []
    for minutes in (1, 180):
        video = write_long(tmp_path / f"{minutes}.mp4", minutes)
        code = (
            "import sys, psutil, msta; from msta.inference import *;"
            "p = Predictor(msta.attach(msta.load_backbone(sys.argv[1]), 'zero-shot'), list('abcdefgh'));"
            "read_timelines(p, sys.argv[3]);"  # the allocator's own first growth
            "peak = []; line = read_timelines(p, sys.argv[2], tell=lambda *a: None)[0];"
            "print(psutil.Process().memory_info().rss, len(line.probabilities))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "backbone"), str(video), str(tmp_path / "1.mp4")],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        peaks.append([int(n) for n in done.stdout.split()])
    (small, few), (large, many) = peaks
    assert many > 150 * few
    assert large - small < 24e6 + 8 * 4 * many


def write_long(path: Path, minutes: float, fps: int = 4) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options={"preset": "ultrafast", "g": "40"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(int(60 * minutes * fps)):
            picture = av.VideoFrame.from_ndarray(numbered_frames(1, 48, 64, i % 4096)[0], format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert frame_number(read_frames(path, [10.0])[0]) == 10 * fps
    return path
