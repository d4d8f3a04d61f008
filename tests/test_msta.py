"""The method: parity with MMA, the published parameter count, and what is mixed with what."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from conftest import DATA, KINDS, relative, stir, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import msta
from msta.backbone.blocks import exact_reference_mode
from msta.backbone.layout import VideoLayout
from msta.errors import CheckpointError, ConfigError
from msta.methods.msta import SpatioTemporalBottleneck
from msta.training.losses import objective


@pytest.mark.parametrize("kernel", [0, 1, None])
def test_without_the_temporal_up_projection_it_is_mma(kernel):
    io = load_file(DATA / "openai_clip_tiny_io.safetensors")
    config = msta.MSTAConfig(first_block=3, last_block=4, dim=16, scale=0.05, temporal_kernel=kernel)
    model = msta.attach(msta.load_backbone(DATA / "openai_clip_tiny.pt"), config)
    model.load_adapter_state({name: t for name, t in io.items() if name.startswith("adapter.")})
    assert relative(model.encode_video(io["video"]), io["adapted_frame_embedding"].mean(1)) < 1e-5
    assert relative(model.encode_text(io["token_ids"]), io["adapted_text_embedding"]) < 1e-5
    assert relative(io["adapted_text_embedding"], io["text_embedding"]) > 1e-3  # the adapter matters


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize(("name", "suffix"), [("viclip_tiny", "pth"), ("openai_clip_tiny", "pt")])
def test_parity_with_an_independent_plain_implementation(name, suffix, exact, tmp_path):
    with safe_open(DATA / f"{name}_msta_io.safetensors", "pt") as file:
        about, io = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    whole_numbers = {key: int(about[key]) for key in ("first_block", "dim", "temporal_kernel")}
    config = msta.MSTAConfig(**whole_numbers, scale=float(about["scale"]))
    model = msta.attach(msta.load_backbone(DATA / f"{name}.{suffix}"), config)
    model.load_adapter_state({key: t for key, t in io.items() if key.startswith("adapter.")})
    model.save(tmp_path / "adapter")
    for each in (model, msta.load_adapter(tmp_path / "adapter")):
        each.exact_reference = exact
        expected = io["adapted_frame_embedding"].mean(1) if name.startswith("openai") else io["adapted_video_embedding"]
        assert relative(each.encode_video(io["video"]), expected) < 1e-5
        assert relative(each.encode_text(io["token_ids"]), io["adapted_text_embedding"]) < 1e-5


@pytest.mark.parametrize("name", ["viclip-b16", "clip-b32"])
def test_the_published_counts(name):
    backbone = msta.random_backbone(name)
    assert msta.attach(backbone, msta.MSTAConfig()).num_trainable() == 1_744_000
    assert msta.attach(backbone, msta.MSTAConfig(first_block=1, dim=256)).num_trainable() == 8_712_192


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("blocks", [dict(), dict(first_block=1)])
def test_the_papers_initialisation_at_the_papers_scale_starts_near_the_frozen_model(exact, blocks):
    backbone = msta.load_backbone("toy")  # a trained one: the residual stream of random weights is far smaller
    model = msta.attach(backbone, msta.MSTAConfig(dim=64, init="kaiming", **blocks), exact_reference=exact)
    video, ids = torch.randn(2, 8, 3, 64, 64), backbone.tokenize(["push", "a hug"])
    for ours, theirs in (
        (model.encode_video(video), backbone.encode_video(video)),
        (model.encode_text(ids), backbone.encode_text(ids)),
    ):
        assert 0 < (ours - theirs).norm() / theirs.norm() < 0.01
    biases = [p for name, p in model.adapter.named_parameters() if name.endswith("bias")]
    assert not any(bias.any() for bias in biases)


def test_he_normal_with_fan_out_also_of_the_up_projections():
    model = msta.attach(msta.random_backbone("viclip-b16"), msta.MSTAConfig(first_block=12, init="kaiming"))
    fan_out = {"down": 128, "shared": 128, "up": None, "spatial_up": 768, "temporal_up": 3 * 768}
    for name, p in model.adapter.named_parameters():
        *_, layer, kind = name.split(".")
        if kind == "weight":
            outputs = fan_out[layer] or 512
            assert p.std().item() == pytest.approx((2 / outputs) ** 0.5, rel=0.05), name


@pytest.mark.parametrize("init", ["kaiming", "zero"])
def test_the_loss_of_a_few_clips_falls_to_near_zero(backbone, init):
    torch.manual_seed(0)
    model = msta.attach(backbone, msta.MSTAConfig(dim=16, init=init, first_block=1))
    video, ids = torch.randn(8, 4, 3, 32, 32), model.tokenize([f"class {name}" for name in "abcdefgh"])
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-2)
    for _ in range(150):
        loss, _ = objective(*model(video, ids), torch.arange(8), model.logits, [], 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05


def test_the_former_adapter_is_refused_in_one_line_that_says_what_to_do(backbone, tmp_path):
    model = msta.attach(backbone, msta.MSTAConfig(dim=8))
    model.save(tmp_path / "adapter")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    former = {}
    for name, tensor in load_file(file).items():
        name = name.replace("spatial_up", "up")
        if "temporal_up" in name:
            name, tensor = name.replace("temporal_up", "temporal"), tensor if tensor.ndim == 1 else tensor.flatten(1)
        former[name] = tensor.contiguous()
    save_file(former, file)
    with pytest.raises(
        CheckpointError, match=r"adapter: was trained with the former adapter .*; train it again"
    ) as found:
        msta.load_adapter(tmp_path / "adapter", backbone)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(("dim", "nearest"), [(20, 16), (5, 4), (13, 12), (100, 48)])
def test_a_width_that_the_bottleneck_does_not_divide_names_both_and_the_nearest(backbone, dim, nearest):
    with pytest.raises(
        ConfigError, match=rf"method.dim: {dim} does not divide .* width of 48, .*nearest .* is {nearest}$"
    ):
        msta.attach(backbone, msta.MSTAConfig(dim=dim))
    for fits in (dict(temporal_kernel=0), dict(towers="text")):  # nothing needs it there
        msta.attach(backbone, msta.MSTAConfig(dim=dim, **fits))


def test_every_setting_is_effective(backbone):
    def count(**settings) -> int:
        return msta.attach(backbone, msta.MSTAConfig(**{"dim": 8} | settings)).num_trainable()

    # one block of the tiny towers: video width 48, text width 32
    per_tower = {w: w * 8 + 8 + 8 * w + w for w in (48, 32)}
    block = sum(per_tower.values()) + (8 * 8 + 8) + 48 * (3 + 1)
    assert count() == 2 * block  # blocks 2..3 of 3
    assert count(first_block=1) == 3 * block
    assert count(last_block=2) == block
    assert count(first_block=3, temporal_kernel=5) == block + 2 * 48
    assert count(first_block=3, temporal_kernel=0) == block - 48 * 4
    assert count(first_block=3, shared=False) == block + (8 * 8 + 8)
    assert count(first_block=3, dim=16) > block
    assert count(first_block=3, towers="video") == per_tower[48] + (8 * 8 + 8) + 48 * (3 + 1)
    assert count(first_block=3, towers="text") == per_tower[32] + (8 * 8 + 8)
    video = torch.randn(1, 4, 3, 32, 32)
    outputs = [stir(msta.attach(backbone, msta.MSTAConfig(dim=8, scale=s))).encode_video(video) for s in (0, 0.1, 1)]
    assert torch.equal(outputs[0], backbone.encode_video(video))
    assert relative(outputs[1], outputs[0]) > 1e-5
    assert relative(outputs[2], outputs[1]) > 1e-5


@settings(deadline=None, max_examples=20)
@given(
    attention=st.sampled_from(KINDS),
    layers=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    kernel=st.sampled_from([0, 3, 5]),
    shared=st.booleans(),
    frames=st.integers(1, 5),
)
def test_it_starts_as_the_frozen_model_to_the_last_bit(attention, layers, kernel, shared, frames):
    backbone = msta.random_backbone(tiny(attention, video_layers=layers[0], text_layers=layers[1]))
    model = msta.attach(backbone, msta.MSTAConfig(dim=4, temporal_kernel=kernel, shared=shared))
    video, ids = torch.randn(2, frames, 3, 32, 32), backbone.tokenize(["push", "a hug"])
    assert torch.equal(model.encode_video(video), backbone.encode_video(video))
    assert torch.equal(model.encode_text(ids), backbone.encode_text(ids))


def test_one_step_changes_the_adapter_and_nothing_else(backbone):
    model = stir(msta.attach(backbone, msta.MSTAConfig(dim=8)))
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.1, weight_decay=0)
    ids, video = model.tokenize(["push", "hug"]), torch.randn(4, 4, 3, 32, 32)
    for _ in range(2):  # Down and Shared move once the up-projections have left zero
        loss, _ = objective(*model(video, ids), torch.tensor([0, 1, 0, 1]), model.logits, [], 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    unread = {f"adapter.3.video.temporal_up.{n}" for n in ("weight", "bias")}  # ViCLIP's last block: class token only
    assert changed == trainable - (unread if model.backbone.architecture.attention == "joint" else set())
    assert all(name.startswith("adapter.") for name in trainable)


@pytest.mark.parametrize("modality", ["video", "text"])
@pytest.mark.parametrize("shared", [True, False])
def test_either_modality_reaches_the_shared_projection(backbone, modality, shared):
    model = stir(msta.attach(backbone, msta.MSTAConfig(dim=8, shared=shared)))
    if modality == "video":
        output = model.encode_video(torch.randn(2, 4, 3, 32, 32))
    else:
        output = model.encode_text(model.tokenize(["push", "hug"]))
    output.square().sum().backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    if shared:
        assert {f"adapter.{b}.shared.weight" for b in (2, 3)} <= reached
    else:
        other = {"video": "text", "text": "video"}[modality]
        assert f"adapter.3.{modality}_projection.weight" in reached
        assert f"adapter.3.{other}_projection.weight" not in reached


@settings(deadline=None, max_examples=30)
@given(
    frames=st.integers(2, 7),
    patches=st.integers(1, 4),
    kernel=st.sampled_from([3, 5]),
    shared=st.booleans(),
    data=st.data(),
)
def test_the_temporal_up_projection_mixes_neighbouring_frames_and_nothing_else(frames, patches, kernel, shared, data):
    layout = VideoLayout(frames, patches, "shared" if shared else "per_frame")
    bottleneck = SpatioTemporalBottleneck(6, 3, kernel)
    torch.nn.init.uniform_(bottleneck.temporal_up.weight, 0.5, 1.5)
    torch.nn.init.uniform_(bottleneck.down.weight, 0.5, 1.5)
    projection = torch.nn.Linear(3, 3)
    torch.nn.init.eye_(projection.weight)
    for layer in (bottleneck.down, projection):
        torch.nn.init.constant_(layer.bias, 99.0)  # past the ReLUs, so that no change is cut off
    x = torch.randn(2, 1 + patches * frames, 6) if shared else torch.randn(2 * frames, 1 + patches, 6)
    frame, token = data.draw(st.integers(0, frames - 1)), data.draw(st.integers(0, patches - 1 if shared else patches))
    over_time = layout.over_time(x).clone()
    over_time[0, frame, token] += 1
    changed = layout.put_back(x, over_time)

    def reached() -> torch.Tensor:
        moved = bottleneck(changed, projection, layout) - bottleneck(x, projection, layout)
        if shared:
            assert not moved[:, 0].any()
        return layout.over_time(moved).abs().amax(-1) > 1e-3

    for plain in (nullcontext, exact_reference_mode):
        with plain():
            expected = torch.zeros(2, frames, patches + (not shared), dtype=torch.bool)
            expected[0, max(0, frame - kernel // 2) : frame + kernel // 2 + 1, token] = True
            assert torch.equal(reached(), expected)
            with weights_of(bottleneck.temporal_up, 0.0):  # what is left is the spatial one, which mixes nothing
                expected = torch.zeros_like(expected)
                expected[0, frame, token] = True
                assert torch.equal(reached(), expected)


@contextmanager
def weights_of(layer: torch.nn.Module, value: float) -> Iterator[None]:
    before = layer.weight.detach().clone()
    torch.nn.init.constant_(layer.weight, value)
    yield
    with torch.no_grad():
        layer.weight.copy_(before)


@given(b=st.integers(1, 2), t=st.integers(1, 6), m=st.integers(1, 4), kernel=st.sampled_from([3, 5, 7]))
def test_both_up_projections_in_one_product_equal_torchs_convolution_and_linear_layer(b, t, m, kernel):
    bottleneck = SpatioTemporalBottleneck(12, 4, kernel)
    h = torch.randn(b, t, m, 4)
    convolved = bottleneck.temporal_up(h.permute(0, 3, 1, 2)[..., None])[..., 0].permute(0, 2, 3, 1)
    assert torch.allclose(bottleneck.both_up(h), bottleneck.spatial_up(h) + convolved, atol=1e-5)


def test_a_shared_class_token_takes_the_spatial_one_alone_and_others_take_both():
    for attention, expect_equal in (("joint", True), ("frame-wise", False)):
        layout = VideoLayout(4, 4, "shared" if attention == "joint" else "per_frame")
        x = torch.randn(1, 17, 6) if attention == "joint" else torch.randn(4, 5, 6)
        bottleneck, projection = SpatioTemporalBottleneck(6, 3, 3), torch.nn.Linear(3, 3)
        torch.nn.init.constant_(projection.bias, 5.0)
        before = bottleneck(x, projection, layout)
        torch.nn.init.normal_(bottleneck.temporal_up.weight)
        assert torch.equal(bottleneck(x, projection, layout)[:, 0], before[:, 0]) == expect_equal


def test_unequal_towers_share_from_the_top():
    assert msta.MSTAConfig().block_pairs(12, 12) == [(n, n - 1, n - 1) for n in range(8, 13)]
    assert msta.MSTAConfig().block_pairs(6, 6) == [(n, n - 1, n - 1) for n in range(4, 7)]
    viclip_l = msta.MSTAConfig().block_pairs(24, 12)
    assert viclip_l == [(n, n - 1, n - 13 if n >= 20 else None) for n in range(15, 25)]
    assert msta.MSTAConfig(first_block=11).block_pairs(24, 12)[:3] == [(11, 10, None), (12, 11, None), (13, 12, 0)]
    model = msta.attach(msta.random_backbone(tiny(video_layers=4, text_layers=2)), msta.MSTAConfig(dim=4))
    video, text = model.backbone.video.blocks, model.backbone.text.blocks
    assert video[3].projection is text[1].projection
    assert video[2].projection is not video[3].projection
    assert not hasattr(text[0], "projection")


@pytest.mark.parametrize("blocks", [dict(first_block=4), dict(last_block=9), dict(first_block=3, last_block=2)])
def test_blocks_the_towers_do_not_have(backbone, blocks):
    with pytest.raises(ConfigError, match=r"blocks \d\.\.\d: the towers have blocks 1\.\.3"):
        msta.attach(backbone, msta.MSTAConfig(**blocks))


@pytest.mark.parametrize(
    "bad",
    [
        dict(dim=0),
        dict(temporal_kernel=2),
        dict(temporal_kernel=-1),
        dict(init="xavier"),
        dict(rank=4),
        dict(first_block=0),
    ],
)
def test_impossible_settings_are_refused(bad):
    with pytest.raises(ValidationError):
        msta.MSTAConfig(**bad)


def test_the_backbone_stays_as_it_was(backbone):
    before, video = backbone.fingerprint(), torch.randn(1, 4, 3, 32, 32)
    expected = backbone.encode_video(video)
    for method in (msta.MSTAConfig(dim=8), "full"):
        stir(msta.attach(backbone, method))
        assert torch.equal(backbone.encode_video(video), expected)
    assert backbone.fingerprint() == before
    assert not any(p.requires_grad for p in backbone.parameters())


def test_zero_shot_and_full_are_the_two_ends(backbone):
    zero, full = msta.attach(backbone, "zero-shot"), msta.attach(backbone, "full")
    assert zero.num_trainable() == 0
    assert full.num_trainable() == sum(p.numel() for p in backbone.parameters())
    video = torch.randn(1, 4, 3, 32, 32)
    for model in (zero, full):
        assert torch.equal(model.encode_video(video), backbone.encode_video(video))
    loss, _ = objective(*full(video, full.tokenize(["push", "hug"])), torch.tensor([1]), full.logits, [], 0)
    loss.backward()
    untouched = [name for name, p in full.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert untouched == []


def test_an_unknown_method_is_named(backbone):
    with pytest.raises(ConfigError, match="no method 'prompt'; there are msta, zero-shot, .*full, full-video"):
        msta.attach(backbone, "prompt")


def test_gradients_reach_adapters_through_the_frozen_blocks_above(backbone):
    model = stir(msta.attach(backbone, msta.MSTAConfig(first_block=1, last_block=1, dim=8)))
    model.encode_video(torch.randn(1, 4, 3, 32, 32)).sum().backward()
    gradient = dict(model.named_parameters())["adapter.1.video.down.weight"].grad
    assert gradient is not None
    assert math.isfinite(gradient.sum())
    assert gradient.abs().sum() > 0
