"""The towers: invariances any correct implementation has. Parity with other implementations is in test_checkpoints."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from conftest import relative, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import msta
from msta.backbone.architecture import ARCHITECTURES, Architecture
from msta.backbone.layout import VideoLayout
from msta.backbone.video import at_frames
from msta.notices import notice


@settings(deadline=None, max_examples=15)
@given(
    attention=st.sampled_from(["joint", "frame-wise"]),
    cut=st.integers(0, 3),
    frames=st.integers(1, 6),
    batch=st.integers(1, 3),
)
def test_a_tower_can_stop_at_any_block_and_go_on(attention, cut, frames, batch):
    tower = msta.random_backbone(tiny(attention)).video
    x, layout = tower.embed(torch.randn(batch, frames, 3, 32, 32))
    whole = tower.run(x, layout=layout)
    assert torch.equal(tower.run(tower.run(x, 0, cut, layout=layout), cut, layout=layout), whole)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 4)])
def test_blocks_outside_the_tower_are_refused(joint_backbone, start, stop):
    with pytest.raises(ValueError, match="blocks"):
        joint_backbone.video.run(torch.zeros(1, 5, 48), start, stop)


def test_padding_and_batch_do_not_change_a_text(backbone):
    ids = backbone.tokenize(["push", "two people shake hands", "hug"])
    together = backbone.encode_text(ids)
    for row, expected in zip(ids, together, strict=True):
        length = int((row > 0).sum()) if backbone.text.causal else len(row)
        assert relative(backbone.encode_text(row[None, :length]), expected[None]) < 1e-5


def test_text_sees_only_what_came_before(joint_backbone):
    ids = joint_backbone.tokenize(["a man kicks a ball"])
    x = joint_backbone.text.run(joint_backbone.text.embed(ids))
    changed = ids.clone()
    changed[0, 3] = 7
    moved = (joint_backbone.text.run(joint_backbone.text.embed(changed)) - x).abs().amax(-1)[0]
    assert (moved[:3] == 0).all()
    assert (moved[3:] > 0).all()


@pytest.mark.parametrize("frames", [1, 2, 4, 7])
@pytest.mark.parametrize("size", [(16, 16), (32, 32), (48, 32)])
def test_any_number_of_frames_and_any_multiple_of_the_patch(backbone, frames, size):
    video = torch.randn(2, frames, 3, *size)
    if backbone.architecture.rotary and size[0] != size[1]:
        with pytest.raises(ValueError, match="square"):
            backbone.encode_video(video)
    else:
        assert backbone.encode_video(video).shape == (2, backbone.architecture.embed_dim)


@pytest.mark.parametrize(
    "shape", [(2, 4, 3, 30, 32), (2, 3, 32, 32), (2, 4, 1, 32, 32), (1, 0, 3, 32, 32), (1, 1, 3, 0, 16)]
)
def test_a_wrong_shape_is_named(backbone, shape):
    with pytest.raises(ValueError, match="frames"):
        backbone.encode_video(torch.zeros(shape))


def test_frames_change_places_only_under_joint_attention():
    video = torch.randn(1, 4, 3, 32, 32)
    framewise, joint = (msta.random_backbone(tiny(a)) for a in ("frame-wise", "joint"))
    assert relative(framewise.encode_video(video.flip(1)), framewise.encode_video(video)) < 1e-5
    assert relative(joint.encode_video(video.flip(1)), joint.encode_video(video)) > 1e-3


def test_interpolated_temporal_positions_are_said_and_right(joint_backbone, caplog):
    notice.cache_clear()
    stored = joint_backbone.video.temporal_positional_embedding
    with caplog.at_level(logging.WARNING, "msta"):
        eight = at_frames(stored, 8)
    assert "4 temporal positions" in caplog.text
    assert torch.allclose(
        eight[1:-1:2] * 0.75 + eight[2::2] * 0.25, stored[:-1] * 0.625 + stored[1:] * 0.375, atol=1e-6
    )
    assert torch.equal(at_frames(stored, 1), stored.mean(0, keepdim=True))
    assert at_frames(stored, 4) is stored


@given(b=st.integers(1, 3), t=st.integers(1, 5), n=st.integers(1, 6), shared=st.booleans())
def test_layout_round_trip_and_order(b, t, n, shared):
    layout = VideoLayout(t, n, "shared" if shared else "per_frame")
    x = torch.randn(b, 1 + n * t, 2) if shared else torch.randn(b * t, 1 + n, 2)
    over_time = layout.over_time(x)
    assert over_time.shape == (b, t, n if shared else n + 1, 2)
    assert torch.equal(layout.put_back(x, over_time), x)
    if shared:  # patch-major: patch p of frame f is token 1 + p * t + f
        assert torch.equal(over_time[0, t - 1, n - 1], x[0, 1 + (n - 1) * t + t - 1])
        assert torch.equal(over_time[0, 0, n - 1], x[0, 1 + (n - 1) * t])
    else:
        assert torch.equal(over_time[0, t - 1], x[t - 1])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architectures_survive_json_and_have_clips_proportions(name):
    a = ARCHITECTURES[name]
    assert Architecture.from_dict(a.to_dict()) == a
    assert a.video.heads * 64 == a.video.width
    assert a.context_length == {"viclip": 32, "clip": 77, "siglip": 64, "pe": 32}[name.split("-")[0]]


def test_random_backbones_repeat_and_leave_the_random_state_alone():
    torch.manual_seed(1)
    expected = torch.rand(1)
    torch.manual_seed(1)
    one, same, other = (msta.random_backbone(tiny(), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert not any(p.requires_grad for p in one.parameters())


@pytest.mark.parametrize("change", [{"activation": "gelu"}, {"heads": 1}, {"layer_norm_eps": 1e-6}])
def test_the_same_weights_that_compute_something_else_have_another_fingerprint(change):
    backbone = msta.random_backbone(tiny())
    other = msta.random_backbone(replace(tiny(), video=replace(tiny().video, **change)))
    other.load_state_dict(backbone.state_dict())
    assert other.fingerprint() != backbone.fingerprint()


def test_an_unknown_architecture_is_named():
    with pytest.raises(msta.errors.CheckpointError, match="viclip-b17.*viclip-b16"):
        msta.random_backbone("viclip-b17")


def test_tokens_are_clips(joint_backbone):
    # ids published with OpenAI's tokenizer for "a diagram" and "a dog": 320 is "a", 22697 "diagram", 1929 "dog"
    ids = joint_backbone.tokenize(["a diagram", "A  Dog"])
    assert ids.dtype == torch.int64
    assert ids[0, :4].tolist() == [49406, 320, 22697, 49407]
    assert ids[1, :4].tolist() == [49406, 320, 1929, 49407]
    assert not ids[:, 4:].any()


def test_a_long_text_is_cut_and_keeps_its_end(joint_backbone, caplog):
    notice.cache_clear()
    with caplog.at_level(logging.WARNING, "msta"):
        ids = joint_backbone.tokenize(["word " * 40])
    assert ids.shape == (1, 16)
    assert ids[0, -1] == 49407
    assert "longer than the backbone's 16 tokens" in caplog.text


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.encode_text("push"), "encode_text: expected token ids.*got a str"),
        (lambda b: b.encode_text(["push"]), "encode_text: expected token ids.*got a list"),
        (lambda b: b.encode_text(torch.zeros(1, 4)), "encode_text: .*float32 numbers"),
        (lambda b: b.encode_video(torch.zeros(1, 4, 3, 32, 32, dtype=torch.uint8)), "encode_video: .*uint8 numbers"),
        (lambda b: b.encode_video("clip.mp4"), "encode_video: .*got a str"),
        (lambda b: msta.attach("toy", "msta"), "attach: backbone: .*load_backbone.*'toy'"),
        (lambda b: msta.attach(b, 3), "attach: method: .*got 3"),
    ],
)
def test_arguments_of_another_kind_are_named(backbone, call, message):
    with pytest.raises(TypeError, match=message):
        call(backbone)


def test_one_string_is_no_list_of_texts(joint_backbone):
    with pytest.raises(TypeError, match="list"):
        joint_backbone.tokenize("push")
