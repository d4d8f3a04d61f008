"""All eight orientations of a phone's video, through the ways that a frame can take."""

from __future__ import annotations

import av
import numpy as np
import pytest
import torch
from conftest import tiny
from video_files import numbered_frames, write_video

import msta
from msta.data.clips import ONE_VIEW, ClipFormat, read_views
from msta.data.decode import all_frames, play, read_frames
from msta.inference import Predictor
from msta.inference.timeline import Windows, read_timelines

pytestmark = pytest.mark.skipif(
    not hasattr(av.VideoStream, "set_display_rotation"), reason="PyAV before 18 can read a rotation, not write one"
)
FORM = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3)


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
