"""All eight orientations of a phone's video, through the ways that a frame can take."""

from __future__ import annotations

import shutil
import sys

import av
import numpy as np
import pytest
import torch
from conftest import tiny
from rich.console import Console
from video_files import numbered_frames, write_video

import msta
from msta.app.models import Models
from msta.app.predicting import Settings, answer, explain_answer
from msta.config import make_config
from msta.data.clips import ONE_VIEW, ClipFormat, read_views
from msta.data.decode import all_frames, play, probe, read_frames
from msta.data.reading import read_catalog
from msta.data.shards.write import write_shards
from msta.data.verify import verify
from msta.inference import Predictor
from msta.inference.explain import explain
from msta.inference.overlay import write_explanation, write_overlay
from msta.inference.search import strips, update_index
from msta.inference.segments import Segment
from msta.inference.timeline import read_timelines
from msta.inference.windows import Windows
from msta.training.loop import train

pytestmark = pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV before 18 can read a rotation, not write one"
)
FORM = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3)


@pytest.fixture
def model():
    return msta.attach(msta.random_backbone(tiny()), "zero-shot").eval()


@pytest.fixture(params=[(d, flip, False) for d in (0, 90, 180, 270) for flip in (False, True)], ids=str)
def turned(request, tmp_path):
    return write_video(tmp_path / "turned.mp4", numbered_frames(20), rotation=request.param)


def test_every_picture_can_become_a_tensor(turned):
    for pictures in (
        read_frames(turned, [0.1, 0.3]),
        np.stack([shown.picture() for shown in play(turned, 32)]),
        np.stack([picture for *_, picture in all_frames(turned, 32)]),
    ):
        assert torch.from_numpy(pictures).shape[0] > 1
    assert read_views(str(turned), FORM, ONE_VIEW).shape[-2:] == (32, 32)


def test_prediction_and_timeline(turned):
    predictor = Predictor(msta.attach(msta.random_backbone(tiny()), "zero-shot"), ("push", "hug"))
    assert sum(answer.probability for answer in predictor(str(turned))) == pytest.approx(1, abs=1e-4)
    (timeline,) = read_timelines(predictor, str(turned), Windows(0.4, 0.2))
    np.testing.assert_allclose(timeline.probabilities.sum(-1), 1, atol=1e-4)
    assert len(timeline.probabilities) > 1


def test_overlay_and_explanation_show_it_upright(turned, model, tmp_path):
    displayed = read_frames(turned, [0.1])[0]
    write_overlay(str(turned), tmp_path / "o.mp4", [(None, [Segment(0.0, 0.8, "push", 0.9)])])
    drawn = read_frames(tmp_path / "o.mp4", [0.1])[0]
    assert drawn.shape == displayed.shape
    top = displayed.shape[0] // 2  # the label is below
    assert np.abs(drawn[:top].astype(int) - displayed[:top]).mean() < 8
    explanation = explain(Predictor(model, ("push", "hug")), str(turned), steps=2)
    write_explanation(explanation, str(turned), tmp_path / "why")
    height, width, _ = read_frames(tmp_path / "why" / "overlay.mp4", [0.1])[0].shape
    assert (width > height) == (displayed.shape[1] > displayed.shape[0])


def test_search_and_the_app_read_it_as_everything_does(turned, model, tmp_path):
    index = update_index(model, tmp_path, tmp_path / "i", Windows(0.4, 0.4))
    assert len(index.paths) == 2
    assert len(list(strips(tmp_path, index.nearest(index.embeddings[0], 2)))) == 2
    models = Models(model.backbone, {}, tmp_path / "runs")
    got = answer(models, str(turned), None, "push, hug", Settings(timeline=True, window=0.4))
    assert got.ranked == Predictor(model, ("push", "hug"))(str(turned))
    assert got.timeline is not None
    assert len(explain_answer(got, steps=2).frames) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="the service's confined decoding is Linux'")
def test_the_service_decodes_what_everything_does(turned):
    from msta.serve.worker import answer as decode

    limits = {"seconds": 10.0, "pixels": 1e6, "frames": 1e4}
    about, content = decode({"path": str(turned), "frames": 4, "size": 32, "squash": True, "limits": limits})
    frames = np.frombuffer(content, np.uint8).reshape(about["shape"])
    assert (frames == read_frames(turned, lambda d: (np.arange(4) + 0.5) * d / 4, 32, squash=True)).all()


def test_shards_verify_and_training_take_it(turned, model, tmp_path):
    for name in ("push/a", "push/b", "push/c", "hug/d", "hug/e", "hug/f"):
        (tmp_path / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(turned, tmp_path / "clips" / f"{name}.mp4")
    catalog = read_catalog(tmp_path / "clips")
    assert verify(catalog, tmp_path / "verified", workers=1)["broken"] == []
    write_shards(catalog, tmp_path / "shards", workers=1)
    member = read_catalog(tmp_path / "shards").clips[0].path
    info = probe(turned)
    assert (probe(member).width > probe(member).height) == (info.width > info.height)
    assert np.abs(read_frames(member, [0.1], 32)[0].astype(int) - read_frames(turned, [0.1], 32)[0]).mean() < 12
    model.backbone.save(tmp_path / "backbone")
    settings = {"data.path": str(tmp_path / "clips"), "backbone": str(tmp_path / "backbone")}
    quick = ["data.workers=0", "data.on_error=fail", "train.epochs=1", "train.batch_size=4", "method.dim=8"]
    train(make_config("small", settings, quick), tmp_path / "run", Console(quiet=True))
    assert (tmp_path / "run" / "adapter").is_dir()
