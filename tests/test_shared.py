"""Many adapters on one backbone, asked together: each answer is the one it gives alone."""

from __future__ import annotations

import pytest
import torch
from conftest import KINDS, refused, relative, small, stir, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import msta
from msta.adapters.task import Task
from msta.errors import MSTAError
from msta.inference.predictor import Predictor
from msta.inference.shared_backbone import SharedBackbone, shared_blocks
from msta.methods import METHODS

LAYERS = (4, 3)
BACKBONES = {a: msta.random_backbone(tiny(a, video_layers=4, text_layers=3)) for a in KINDS}


@pytest.fixture(params=sorted(BACKBONES))
def backbone(request) -> msta.DualEncoder:
    """Deeper than the other tests', and shared: no test changes it."""
    return BACKBONES[request.param]


def member(
    backbone: msta.DualEncoder, name: str, first: int = 2, choice: int = 1, classes=("push", "hug")
) -> Predictor:
    model = msta.attach(backbone, small(name, LAYERS, (first, 4), choice))
    model.prepare(len(classes), 3)
    model.add_support(
        torch.randn(3, backbone.architecture.embed_dim, generator=torch.Generator().manual_seed(1)),
        torch.tensor([0, 1, 1]),
    )
    model.task = Task(tuple(classes))
    return Predictor(stir(model))


def video(clips: int, frames: int = 4, size: int = 32) -> torch.Tensor:
    return torch.randn(clips, frames, 3, size, size, generator=torch.Generator().manual_seed(clips))


def alone(member: Predictor, clip: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return member.model.encode_video(clip[None])[0]


@settings(max_examples=40)
@given(
    attention=st.sampled_from(sorted(BACKBONES)),
    kinds=st.lists(
        st.tuples(st.sampled_from(sorted(METHODS)), st.integers(1, 4), st.integers(0, 5)), min_size=1, max_size=4
    ),
    asked=st.lists(st.integers(0, 3), min_size=1, max_size=5),
    frames=st.sampled_from([1, 4, 6]),
)
def test_a_mixed_batch_gives_what_each_gives_alone(attention, kinds, asked, frames):
    shared = SharedBackbone(BACKBONES[attention])
    kinds = [kind for kind in kinds if not refused(kind[0], attention)] or [("msta", 2, 1)]
    members = [member(shared.backbone, *kind) for kind in kinds]
    of_clip = [members[i % len(members)] for i in asked]
    clips = video(len(asked), frames)
    expected = torch.stack([alone(m, clip) for m, clip in zip(of_clip, clips, strict=True)])
    assert relative(shared.encode(clips, of_clip), expected) < 1e-5
    for m, embeddings in zip(members, shared.encode_each(clips, [m.model for m in members]), strict=True):
        assert relative(embeddings, torch.stack([alone(m, clip) for clip in clips])) < 1e-5


def test_frozen_blocks_run_once_for_all_adapters(backbone):
    shared = SharedBackbone(backbone)
    members = [member(backbone, "msta", first=2), member(backbone, "msta", first=3), member(backbone, "zero-shot")]
    seen: list[int] = []
    hooks = [
        block.register_forward_hook(lambda *_, i=i: seen.append(i)) for i, block in enumerate(backbone.video.blocks)
    ]
    shared.encode_each(video(1), [m.model for m in members])
    for hook in hooks:
        hook.remove()
    assert seen.count(0) == 1, "block 1 belongs to all three"
    assert seen.count(1) == 1, "block 2: the frozen part of the first is the others' prefix"


def test_where_adapters_leave_the_frozen_tower(backbone):
    def at(name: str, first: int = 2) -> int | None:
        return shared_blocks(backbone.video, member(backbone, name, first, choice=2).model.backbone.video)

    assert at("zero-shot") == at("linear-probe") == 3, "the last block is never shared whole"
    assert at("msta", 2) == at("st-adapter", 2) == 1
    assert at("full") is None
    assert at("bitfit", 1) == (0 if backbone.video.ln_pre is None else None), "it trains the norm before the blocks"
    other = msta.random_backbone(backbone.architecture, seed=1)
    assert shared_blocks(other.video, backbone.video) is None


def test_probabilities_are_the_mean_over_the_views_at_the_fitted_temperature(backbone):
    m = member(backbone, "msta")
    m.model.temperature = 2.5
    tempered, views = Predictor(m.model), torch.randn(3, backbone.architecture.embed_dim)
    ours = torch.from_numpy(tempered.probabilities(views[:, None])[0])
    logits = m.model.logits(views, m.text)
    assert torch.allclose(ours, (logits.softmax(-1).mean(0).log() / 2.5).softmax(-1).double(), atol=1e-6)
    one = torch.from_numpy(tempered.probabilities(views[None, :1])[0])
    assert torch.allclose(one, (logits[0] / 2.5).softmax(-1).double(), atol=1e-6)
    assert abs(ours.numpy() - m.probabilities(views[:, None])[0]).max() > 1e-3  # 2.5 is not 1
    assert msta.Predictor(m.model).probabilities(views[:, None])[0].tolist() == ours.tolist()


def test_answers_to_requests_of_different_shapes(backbone):
    shared = SharedBackbone(backbone)
    a, b = member(backbone, "msta"), member(backbone, "lora", classes=("walk", "run", "sit"))
    requests = [(video(1), a), (video(2, 6), b), (video(3), b), (video(1, 4, 64), a)]
    for (views, m), (probabilities, embeddings) in zip(requests, shared.answer(requests), strict=True):
        assert embeddings.shape == (len(views), backbone.architecture.embed_dim)
        with torch.no_grad():
            expected = m.probabilities(m.model.encode_video(views)[:, None])[0]
        assert probabilities.shape == (len(m.classes),)
        assert abs(probabilities - expected).max() < 1e-5


def test_memory_of_a_member_is_its_own_alone(backbone):
    a, text = member(backbone, "msta"), 2 * 4 * backbone.architecture.embed_dim
    assert a.own_bytes(backbone) == 4 * a.model.num_trainable() + text
    assert member(backbone, "zero-shot").own_bytes(backbone) == text


def test_a_member_needs_classes(backbone):
    with pytest.raises(MSTAError, match="no classes"):
        Predictor(msta.attach(backbone, "zero-shot"))


def test_members_are_loaded_onto_the_shared_weights(backbone, tmp_path):
    model = msta.attach(backbone, msta.MSTAConfig(dim=8))
    model.task = Task(("push", "hug"))
    model.save(tmp_path / "a")
    loaded = Predictor(msta.load_adapter(tmp_path / "a", backbone))
    assert shared_blocks(backbone.video, loaded.model.backbone.video) is not None
    with pytest.raises(MSTAError, match="other weights"):
        msta.load_adapter(tmp_path / "a", msta.random_backbone(backbone.architecture, seed=1))
