"""Predictor: arrays, batches, streams, folders and patterns, calibrated probabilities."""

from __future__ import annotations

import http.server
import json
import threading
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from conftest import stir, tiny
from video_files import numbered_frames, write_video

import msta
from msta.adapters.task import Task
from msta.data.catalog import Clip
from msta.data.clips import Views
from msta.data.decode import play, read_frames
from msta.data.video_file import DecodeError
from msta.errors import CheckpointError, DataError, MSTAError
from msta.evaluation.calibration import calibrated
from msta.evaluation.metrics import scaled
from msta.evaluation.predictions import Recorder
from msta.inference import Windows, read_timelines
from msta.inference.arguments import adapter_names, find_videos, parse_seconds
from msta.inference.live import is_live, play_live
from msta.inference.predictor import predict_each

CLASSES = ("push", "hug", "sit")


@pytest.fixture
def clip(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (20, 4, 6, 1), np.uint8).repeat(16, 1).repeat(16, 2)
    return write_video(tmp_path / "clip.mp4", grey.repeat(3, 3), fps=10)


def predictor(backbone, classes=CLASSES, **settings):
    return msta.Predictor(stir(msta.attach(backbone, msta.MSTAConfig(dim=8)), 0.2), classes, **settings)


def values(ranked):
    return {p.label: p.probability for p in ranked}


@pytest.mark.parametrize("views", [Views(), Views(2, 3)], ids=str)
def test_frames_in_an_array_are_predicted_like_the_file_they_are_of(backbone, clip, views):
    p = predictor(backbone, views=views)
    frames = np.stack([shown.picture() for shown in play(clip)])
    for given in (frames, torch.from_numpy(frames)):
        assert (p.read(given) - p.read(clip)).abs().mean() < 0.05  # its colours are rounded once more
        assert values(p(given)) == pytest.approx(values(p(clip)), abs=0.05)
    for wrong in (frames[0], frames.astype(np.float32), frames[..., :2], frames[:0]):
        with pytest.raises(ValueError, match=r"uint8 \[T, H, W, 3\]"):
            p(wrong)


def test_batches_are_what_each_file_is_alone_and_errors_stay_in_their_place(backbone, clip, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"nothing")
    others = [write_video(tmp_path / f"{i}.mp4", numbered_frames(8, start=40 * i)) for i in range(5)]
    files = [clip, tmp_path / "bad.mp4", *others, clip, tmp_path / "gone.mp4"]
    p = predictor(backbone, views=Views(2))
    for batch, workers in ((3, 2), (8, 1)):
        found = list(p.each(files, batch=batch, workers=workers))
        assert [path for path, _ in found] == files
        for path, answer in found:
            if path.name in ("bad.mp4", "gone.mp4"):
                assert isinstance(answer, DecodeError)
            else:
                assert values(answer) == pytest.approx(values(p(path)), abs=1e-6)


def test_several_adapters_of_one_backbone_are_asked_together(backbone, clip):
    several = [predictor(backbone), predictor(backbone, ("a", "b"))]
    ((_, answers),) = predict_each(several, [clip])
    assert [values(a) for a in answers] == [pytest.approx(values(p(clip)), abs=1e-6) for p in several]


# ---------------------------------------------------------------- calibration


def test_the_temperature_of_the_validation_clips_is_kept_and_applied_to_the_adapters_own_classes(tmp_path, clip):
    backbone = msta.random_backbone(tiny())
    model = stir(msta.attach(backbone, msta.MSTAConfig(dim=8)), 0.2)
    model.task = Task(CLASSES)
    model.save(tmp_path / "plain", {"top1": 50.0, "temperature": None})
    model.save(tmp_path / "fitted", {"top1": 50.0, "temperature": 3.0})
    plain, fitted = (msta.Predictor(msta.load_adapter(tmp_path / name, backbone)) for name in ("plain", "fitted"))
    raw = np.array([values(plain(clip))[c] for c in CLASSES])
    expected = scaled(raw[None], 3.0)[0]
    assert [values(fitted(clip))[c] for c in CLASSES] == pytest.approx(expected.tolist(), abs=1e-6)
    others = msta.Predictor(fitted.model, ("run", "push"))
    assert others.temperature == 1.0  # it was fitted on other classes
    assert msta.Predictor(fitted.model, CLASSES[::-1]).temperature == 3.0
    (line,) = read_timelines(fitted, clip, Windows(9, 9))
    assert line.probabilities[0].tolist() == pytest.approx(expected.tolist(), abs=1e-5)
    metrics = tmp_path / "fitted" / "metrics.json"
    metrics.write_text(json.dumps({"temperature": -1}))
    with pytest.raises(CheckpointError, match=r"metrics\.json: temperature: expected a positive number"):
        msta.load_adapter(tmp_path / "fitted", backbone)


def write_validation(path, probabilities, labels):
    clips = [Clip(f"{i}.mp4", int(label)) for i, label in enumerate(labels)]
    recorder = Recorder(clips, [str(k) for k in range(probabilities.shape[1])])
    ones = torch.ones(1, len(labels), 1)
    recorder.add(torch.arange(len(labels)), torch.from_numpy(labels), torch.from_numpy(probabilities)[None], ones)
    recorder.write(path)
    return path


def test_calibration_mends_over_confidence_and_few_right_clips_prove_little(tmp_path):
    rng = np.random.default_rng(0)
    honest = rng.dirichlet(np.ones(4), 3000)
    labels = np.array([rng.choice(4, p=p) for p in honest])
    sure = scaled(honest, 0.25)
    found = calibrated(write_validation(tmp_path / "many.parquet", sure, labels))
    assert found["temperature"] == pytest.approx(4, rel=0.1)
    kept = scaled(sure, found["temperature"]).max(1) >= found["unknown_below"]
    assert 0.94 < kept.mean() < 0.97
    right = np.full((8, 4), 0.05) + 0.8 * np.eye(4)[np.arange(8) % 4]
    few = calibrated(write_validation(tmp_path / "few.parquet", right, np.arange(8) % 4))
    assert scaled(right, few["temperature"]).max() == pytest.approx(1 - 0.1 * 3 / 4, abs=1e-3)  # one in ten by chance
    assert calibrated(tmp_path / "none.parquet") == {"temperature": None, "unknown_below": None}


# ---------------------------------------------------------------- where videos come from


@pytest.fixture
def server(tmp_path):
    """The folder over HTTP, on the loopback."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.func.log_message = lambda *a: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_stream_by_url_is_the_file_it_streams(backbone, tmp_path, server):
    write_video(tmp_path / "clip.ts", 30, fps=10)
    p = predictor(backbone)
    (streamed,), (read,) = (read_timelines(p, v, Windows(1, 0.5)) for v in (f"{server}/clip.ts", tmp_path / "clip.ts"))
    np.testing.assert_allclose(streamed.probabilities, read.probabilities, atol=1e-6)
    assert list(play_live(f"{server}/clip.ts", seconds=1.0))[-1].end == pytest.approx(1.0)
    with pytest.raises(DecodeError, match=r"gone\.ts: FFmpeg"):
        list(play_live(f"{server}/gone.ts"))
    with pytest.raises(DecodeError, match="webcam:front: expected a number"):
        list(play_live("webcam:front"))
    with pytest.raises(DecodeError, match="webcam:77: FFmpeg: No such file"):
        list(play_live("webcam:77"))


def test_a_playlist_does_not_open_files(tmp_path, server):
    secret = write_video(tmp_path / "secret.ts", 10)
    (tmp_path / "list.m3u8").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n"
    )
    with pytest.raises(DecodeError):
        list(play_live(f"{server}/list.m3u8"))


def test_folders_patterns_and_names_that_look_like_either(tmp_path):
    (tmp_path / "in" / ".hidden").mkdir(parents=True)
    for name in ("b.mp4", "a.MKV", "notes.txt", ".c.mp4", ".hidden/d.mp4", "[x].mp4"):
        (tmp_path / "in" / name).write_bytes(b"x")
    inside = str(tmp_path / "in")
    assert find_videos([inside]) == [f"{inside}/[x].mp4", f"{inside}/a.MKV", f"{inside}/b.mp4"]
    assert find_videos([f"{inside}/*.mp4", f"{inside}/[x].mp4"]) == [
        f"{inside}/[x].mp4",
        f"{inside}/b.mp4",
        f"{inside}/[x].mp4",
    ]
    assert find_videos(["gone.mp4", "rtsp://cam/1", "webcam:0"]) == ["gone.mp4", "rtsp://cam/1", "webcam:0"]
    assert not any(map(is_live, ("a:b.mp4", "srt", "http", "udp/a.mp4")))
    with pytest.raises(DataError, match=r"\*\.avi: no file matches"):
        find_videos([f"{inside}/*.avi"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no video files in this folder"):
        find_videos([str(tmp_path / "empty")])


def test_times_and_names_as_they_are_typed(tmp_path):
    assert [parse_seconds(t, "--window") for t in ("2s", "500ms", ".5", "1.5 min")] == [2, 0.5, 0.5, 90]
    for wrong in ("", "2h", "-1s", "s", "nan"):
        with pytest.raises(MSTAError, match="--window: expected a time such as 2s"):
            parse_seconds(wrong, "--window")
    a, b = tmp_path / "one" / "adapter", tmp_path / "two" / "adapter"
    assert adapter_names([a, b]) == ["one", "two"]
    assert adapter_names([a, tmp_path / "x" / "one"]) == [str(a), str(tmp_path / "x" / "one")]
    with pytest.raises(MSTAError, match="given twice"):
        adapter_names([a, a])


def test_a_frame_of_a_pass_is_the_frame_on_display(tmp_path):
    for name, settings in {"a.mp4": {"b_frames": 2, "gop": 5}, "b.mkv": {"pts": [0, 7, 90, 400, 1000]}}.items():
        video = write_video(tmp_path / name, 5 if "pts" in settings else 30, **settings)
        shown = list(play(video))
        assert shown[0].start == 0
        assert all(a.end == b.start for a, b in pairwise(shown))
        middles = [(s.start + s.end) / 2 for s in shown]
        np.testing.assert_array_equal(np.stack([s.picture() for s in shown]), read_frames(video, middles))
