"""Pretraining: what it masks, what it contrasts, and that it goes on where it stopped."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file

import msta
from msta.backbone.layout import VideoLayout
from msta.errors import ConfigError
from msta.motionworld import MEANING, pretrain
from msta.motionworld.pretrain import PretrainConfig, contrast, start_positions, trim

QUIET = Console(quiet=True)
SMALL = PretrainConfig(
    clips=24, steps=4, easy_steps=1, whole_steps=2, batch=6, captions=2, vocab_size=300, size=32, patch=8, frames=4, width=64,
    save_every=2, measured=40,
)  # fmt: skip


@given(b=st.integers(1, 3), t=st.integers(1, 4), n=st.integers(2, 6), data=st.data())
def test_masking_keeps_whole_tubes_and_the_class_token(b, t, n, data):
    count = data.draw(st.integers(1, n))
    kept = torch.stack([torch.randperm(n)[:count].sort().values for _ in range(b)])
    x = torch.randn(b, 1 + n * t, 3)
    layout = VideoLayout(t, n, "shared")
    smaller, its_layout = layout.keep(x, kept)
    assert its_layout == VideoLayout(t, count, "shared")
    assert torch.equal(smaller[:, 0], x[:, 0])
    tubes = layout.over_time(x)
    for i in range(b):
        assert torch.equal(its_layout.over_time(smaller)[i], tubes[i][:, kept[i]])


def test_captions_of_one_meaning_are_no_negatives():
    video, text = torch.randn(4, 8), torch.randn(4, 8)
    scale = torch.tensor(1.0)
    left, circle, clockwise = MEANING["swipe left"], MEANING["circle"], MEANING["circle clockwise"]
    before = contrast(video, text, scale, torch.tensor([left, left, circle, clockwise]))
    moved = text.clone()
    moved[1] = 5 * torch.randn(8)
    logits = scale.exp() * torch.cosine_similarity(video[:, None], text[None], dim=-1)
    negatives = torch.tensor([[0, 2, 3], [1, 2, 3], [2, 0, 1], [3, 0, 1]])  # the positive first
    rows = -logits.gather(1, negatives).log_softmax(1)[:, 0].mean()
    columns = -logits.T.gather(1, negatives).log_softmax(1)[:, 0].mean()
    assert before.item() == pytest.approx(((rows + columns) / 2).item(), rel=1e-5)
    assert contrast(video, moved, scale, torch.tensor([left, left, circle, clockwise])) != before


def test_positions_start_as_distinct_waves():
    backbone = msta.random_backbone(SMALL.architecture())
    start_positions(backbone)
    spatial = backbone.video.positional_embedding[1:]
    distance = torch.cdist(spatial, spatial) + 9 * torch.eye(len(spatial))
    assert distance.min() > 0.1
    assert distance[0, 1] < distance[0, 3]  # a neighbour is nearer than the end of the row


def test_trimming_leaves_what_is_read():
    ids = torch.tensor([[0, 5, 1, 0, 0, 0], [0, 5, 6, 7, 1, 0]])
    assert trim(ids).tolist() == [[0, 5, 1, 0, 0], [0, 5, 6, 7, 1]]


def test_it_goes_on_where_it_was_killed_and_ends_alike(tmp_path, monkeypatch):
    whole = pretrain.pretrain(SMALL, tmp_path / "whole", QUIET, workers=0)
    assert set(whole) == {"twenty", "all", "shifted", "reversed", "shuffled", "text_to_video", "video_to_text"}
    real = pretrain.measure
    monkeypatch.setattr(pretrain, "measure", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pretrain.pretrain(SMALL, tmp_path / "parts", QUIET, workers=0)
    monkeypatch.setattr(pretrain, "measure", real)
    assert pretrain.pretrain(SMALL, tmp_path / "parts", QUIET, workers=0) == whole
    one, other = (load_file(tmp_path / name / "backbone" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert all(tensor.dtype == torch.float16 for tensor in one.values())
    backbone = msta.load_backbone(tmp_path / "whole" / "backbone")
    ids = backbone.tokenize(["Ünïcode 日本 words nobody saw"])
    assert int((ids == 1).sum()) == 1  # bytes, so nothing is unknown
    assert math.isfinite(backbone.encode_text(ids).sum())
    log = (tmp_path / "parts" / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == [4]  # the first measurement was cut short
    with pytest.raises(ConfigError, match="other settings"):
        pretrain.pretrain(PretrainConfig(clips=25), tmp_path / "whole", QUIET, workers=0)


def test_frame_wise_attention_goes_on_from_joint_and_knows_no_order(tmp_path):
    pretrain.pretrain(SMALL, tmp_path / "joint", QUIET, workers=0)
    start = str(tmp_path / "joint" / "backbone")
    frames = replace(SMALL, start=start, attention="frame-wise")
    pretrain.pretrain(frames, tmp_path / "frames", QUIET, workers=0)
    backbone = msta.load_backbone(tmp_path / "frames" / "backbone")
    assert backbone.architecture.attention == "frame-wise"
    assert torch.equal(backbone.tokenize(["a star"]), msta.load_backbone(start).tokenize(["a star"]))
    video = torch.rand(2, 4, 3, 32, 32)
    torch.testing.assert_close(backbone.encode_video(video), backbone.encode_video(video.flip(1)))
    with pytest.raises(ConfigError, match="places in time"):
        pretrain._other_attention(backbone, SMALL)
    with pytest.raises(ConfigError, match="another architecture"):
        pretrain._other_attention(backbone, replace(SMALL, width=128))


def test_the_last_steps_begin_anew_and_fall_to_zero():
    config = PretrainConfig(steps=30, whole_steps=10, warmup=5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])

    def rate(step):
        pretrain._set_lr(optimizer, config, step)
        return optimizer.param_groups[0]["lr"]

    assert rate(4) == config.lr
    assert rate(19) == pytest.approx(0.01 * config.lr, rel=0.2)
    assert rate(20) == config.whole_lr
    assert rate(29) == pytest.approx(config.whole_lr / 10)


def test_lines_beyond_the_saved_step_are_forgotten(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text('{"step": 20}\n{"step": 40}\n')
    pretrain._forget_after(log, 20)
    assert log.read_text() == '{"step": 20}\n'


@pytest.mark.parametrize("bad", [dict(clips=0), dict(steps=-1), dict(size=0), dict(steps=10, whole_steps=10)])
def test_sizes_that_make_no_sense(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        PretrainConfig(**bad)
