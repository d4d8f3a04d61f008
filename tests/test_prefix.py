"""The shortcuts against the plain computation: outputs, loss and every gradient."""

from __future__ import annotations

import pytest
import torch
from conftest import KINDS, refused, relative, small, stir, tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import msta
from msta.methods import METHODS
from msta.training.losses import objective


def gradients(model, video, ids) -> dict[str, torch.Tensor | None]:
    """Of a random sum over both outputs: a loss of few classes says little, one of a single class nothing."""
    model.zero_grad()
    outputs = model(video, ids)
    torch.manual_seed(0)
    spoken = sum((torch.randn_like(output) * output).sum() for output in outputs)
    if spoken.requires_grad:
        spoken.backward()
    return {n: p.grad for n, p in model.named_parameters() if p.requires_grad}


def whole(gradient: dict[str, torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([torch.zeros(1), *(g.flatten() for g in gradient.values() if g is not None)])


@settings(deadline=None, max_examples=80)
@given(
    attention=st.sampled_from(KINDS),
    method=st.sampled_from(sorted(METHODS)),
    layers=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    span=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    choice=st.integers(0, 5),
    frames=st.integers(1, 16),
    clips=st.integers(1, 3),
    classes=st.sampled_from([1, 2, 7, 150]),
    eos=st.sampled_from([None, 49407]),
    words=st.integers(1, 9),
)
def test_the_shortcuts_change_nothing(attention, method, layers, span, choice, frames, clips, classes, eos, words):
    assume(not refused(method, attention))
    video_layers, text_layers = layers
    backbone = msta.random_backbone(
        tiny(attention, video_layers=video_layers, text_layers=text_layers, eos_token_id=eos)
    )
    model = msta.attach(backbone, small(method, layers, span, choice))
    model.prepare(classes, clips)
    if model.support_views:
        model.add_support(torch.randn(clips, backbone.architecture.embed_dim), torch.arange(clips) % classes)
    if not method.startswith("full"):
        stir(model)
    video = torch.randn(clips, frames, 3, 32, 32)
    ids = backbone.tokenize([" ".join(["a"] * (1 + i % words)) for i in range(classes)])
    labels = torch.arange(clips) % classes

    def computed(exactly: bool, dtype: torch.dtype):
        model.to(dtype).exact_reference = exactly
        outputs = model.encode_video(video.to(dtype)), model.encode_text(ids)
        loss, _ = objective(*outputs, labels, model.logits, [], 0.0)
        return *outputs, loss.detach(), gradients(model, video.to(dtype), ids)

    for found, expected in zip(computed(False, torch.float32), computed(True, torch.float32), strict=True):
        if isinstance(expected, dict):
            found, expected = whole(found), whole(expected)
        near = 1e-6 if expected.ndim else 5e-5  # the loss is of cosines times 100, and may be small
        assert relative(found, expected) < 1e-5 or (found - expected).abs().max() < near
    *_, found = computed(False, torch.float64)  # without round-off, every gradient by itself
    *_, expected = computed(True, torch.float64)
    for name, gradient in expected.items():
        assert (gradient is None) == (found[name] is None), name
        if gradient is not None:
            torch.testing.assert_close(found[name], gradient, rtol=1e-9, atol=1e-9 * whole(expected).abs().max().item())


@pytest.mark.parametrize("method", ["msta", "lora", "adaptformer", "aim", "full"])
@pytest.mark.parametrize("attention", KINDS)
def test_checkpointing_changes_no_gradient(attention, method):
    if refused(method, attention):
        pytest.skip("does not fit")
    model = msta.attach(msta.random_backbone(tiny(attention)), small(method, (3, 3), (1, 3), 2))
    stir(model, 0.01)
    video, ids = torch.randn(2, 4, 3, 32, 32), model.tokenize(["a", "a b c"])
    found, calls = [], []
    model.backbone.video.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    for checkpointing in (False, True):
        for tower in (model.backbone.video, model.backbone.text):
            tower.checkpointing = checkpointing
        found.append(whole(gradients(model, video, ids)))
    assert len(calls) == 3  # forward, forward, and once more for the backward pass
    assert torch.equal(found[1], found[0])


@pytest.mark.parametrize("attention", KINDS)
def test_a_gradient_that_the_caller_wants_of_the_clip_is_there(attention):
    backbone = msta.random_backbone(tiny(attention))
    found = []
    for exact in (True, False):
        model = msta.attach(backbone, msta.MSTAConfig(first_block=3, dim=4), exact_reference=exact)
        video = torch.randn(1, 3, 3, 32, 32, generator=torch.Generator().manual_seed(0), requires_grad=True)
        model.encode_video(video).square().sum().backward()
        found.append(video.grad)
    torch.testing.assert_close(found[1], found[0], rtol=1e-3, atol=1e-4 * found[0].abs().max().item())


@pytest.mark.parametrize("method", ["zero-shot", "msta", "lora", "adaptformer"])
@pytest.mark.parametrize("attention", KINDS)
def test_torch_compile_follows_blocks_and_videos_whole(attention, method):
    backbone = msta.random_backbone(tiny(attention))
    model = stir(msta.attach(backbone, msta.MSTAConfig(dim=8) if method == "msta" else method))
    video = torch.randn(2, 4, 3, 32, 32)
    x, layout = model.backbone.video.embed(video)
    torch._dynamo.reset()
    for block in model.backbone.video.blocks:
        compiled = torch.compile(block, backend="eager", fullgraph=True)
        assert torch.equal(compiled(x, layout), block(x, layout))
    encode = torch.compile(model.encode_video, backend="eager", fullgraph=True)
    assert torch.equal(encode(video), model.encode_video(video))
