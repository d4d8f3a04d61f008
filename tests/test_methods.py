"""All methods, one by one and together: counts, starts, what moves, what is saved, what does not depend on what."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from conftest import KINDS, SPANNING, refused, relative, small, stir, tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import msta
from msta.adapters.task import Task
from msta.backbone.prefix import prefix_length
from msta.errors import ConfigError
from msta.evaluation.evaluate import class_embeddings, view_probabilities
from msta.methods import METHODS, method_config
from msta.methods.st_adapter import STAdapter
from msta.methods.wrapping import twin
from msta.training.losses import objective

CLASSES = ("push", "a hug", "shake hands")
NOT_FROZEN_AT_FIRST = {"linear-probe", "tip-adapter", "prompts"}
VARIANTS = [
    *((name, choice) for name in sorted(METHODS) for choice in (0, 4)),
    *(("prompts", choice) for choice in (1, 2, 3)),
    *(("lora", 2), ("adaptformer", 2), ("st-adapter", 5)),
]


def made(name: str, attention: str = "joint", choice: int = 0, span=(1, 3), layers=(3, 3)) -> msta.AdaptedModel:
    backbone = msta.random_backbone(tiny(attention, video_layers=layers[0], text_layers=layers[1]))
    model = msta.attach(backbone, small(name, layers, span, choice))
    model.task = Task(CLASSES)
    model.prepare(len(CLASSES), 5)
    if model.support_views:
        seen = torch.randn(5, backbone.architecture.embed_dim, generator=torch.Generator().manual_seed(1))
        model.add_support(seen, torch.tensor([0, 1, 2, 0, 1]))
    return model


def scores(model: msta.AdaptedModel, video: torch.Tensor) -> torch.Tensor:
    return model.logits(model.encode_video(video), model.encode_text(model.tokenize(model.task.prompts())))


# ---------------------------------------------------------------- counts


CODE, DERIVED = "the authors' code", "derived"


@pytest.mark.parametrize(
    ("method", "count", "source"),
    [
        ("msta", 1_744_000, "the authors' logs"),
        ("mma", 674_560, CODE),
        ("zero-shot", 0, DERIVED),
        (dict(name="prompts", kind="maple"), 3_555_072, CODE),  # the paper says 3.55 M
        (dict(name="prompts", kind="ivlp"), 12 * 10 * (768 + 512), CODE),
        (dict(name="prompts", kind="vpt"), 12 * 10 * 768, DERIVED),
        (dict(name="prompts", kind="coop"), 16 * 512, CODE),
        ("adaptformer", 12 * (2 * 768 * 64 + 64 + 768), CODE),
        ("st-adapter", 7_110_144, CODE),
        (dict(name="st-adapter", kernel=(3, 3, 3)), 7_220_736, DERIVED),  # the paper says 7.2 M
        ("aim", 12 * 3 * 295_872 + 2 * 768 + 8 * 768, "a public copy of the authors' code"),  # the paper says 11 M
        ("bitfit", 171_008, DERIVED),
        ("lora", 12 * 4 * 8 * (768 + 512), DERIVED),
        ("linear-probe", 513 * 51, DERIVED),
        (dict(name="tip-adapter", trained=True), 51 * 16 * 512, DERIVED),
        ("tip-adapter", 0, DERIVED),
    ],
    ids=str,
)
def test_parameters_on_vit_b16(clip_b16, method, count, source):
    config = method_config(**method) if isinstance(method, dict) else method_config(method)
    model = msta.attach(clip_b16, config)
    model.prepare(51, 51 * 16)
    assert model.num_trainable() == count


@pytest.fixture(scope="module")
def clip_b16() -> msta.DualEncoder:
    return msta.random_backbone("clip-b16")


def test_parameters_of_whole_towers(clip_b16):
    video, text = (
        sum(p.numel() for p in clip_b16.video.parameters()),
        sum(p.numel() for p in clip_b16.text.parameters()),
    )
    counts = {name: msta.attach(clip_b16, name).num_trainable() for name in ("full", "full-video", "full-text")}
    assert counts["full-video"] == video
    assert counts["full-text"] == text - 49408 * 512  # the token embedding
    assert counts["full"] == video + text + 1


# ---------------------------------------------------------------- every method


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize(("name", "choice"), VARIANTS)
def test_where_it_starts(name, choice, attention):
    if refused(name, attention):
        with pytest.raises(ConfigError, match=name):
            made(name, attention, 2)
        return
    model = made(name, attention, choice)
    backbone = msta.random_backbone(tiny(attention))
    video, ids = torch.randn(2, 4, 3, 32, 32), backbone.tokenize(["push", "a hug"])
    pairs = [
        (model.encode_video(video), backbone.encode_video(video)),
        (model.encode_text(ids), backbone.encode_text(ids)),
    ]
    differences = [relative(ours, frozen) for ours, frozen in pairs]
    if name == "prompts":
        assert max(differences) > 1e-4
    elif name == "lora":  # its layers compute in another order
        assert max(differences) < 1e-5
    else:
        assert all(torch.equal(ours, frozen) for ours, frozen in pairs)
    frozen = msta.attach(backbone, "zero-shot")
    frozen.task = model.task
    assert (relative(scores(model, video), scores(frozen, video)) > 1e-4) == (name in NOT_FROZEN_AT_FIRST)


@pytest.mark.parametrize("name", ["zero-shot", "msta", "linear-probe", "tip-adapter"])
def test_probabilities_are_of_float32_scores_under_any_autocast(name):
    model = stir(made(name))
    views, text = torch.randn(2, 64, 24), torch.randn(3, 24)
    expected = view_probabilities(model, views, text)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(view_probabilities(model, views, text), expected)


@pytest.mark.parametrize("attention", KINDS)
@pytest.mark.parametrize(("name", "choice"), VARIANTS)
def test_only_its_own_parameters_move_and_the_backbone_is_left_alone(name, choice, attention):
    if refused(name, attention):
        return
    backbone = msta.random_backbone(tiny(attention))
    before = {n: t.clone() for n, t in backbone.state_dict().items()}
    model = msta.attach(backbone, small(name, (3, 3), (1, 3), choice))
    model.prepare(3, 4)
    if model.support_views:
        model.add_support(torch.randn(4, backbone.architecture.embed_dim), torch.tensor([0, 1, 2, 0]))
    if not model.num_trainable():
        return
    if not name.startswith("full"):
        stir(model)
    start = {n: p.clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=0.01, weight_decay=0)
    ids, video = model.tokenize(CLASSES), torch.randn(3, 4, 3, 32, 32)
    loss, _ = objective(*model(video, ids), torch.tensor([0, 1, 2]), model.logits, [], 0)
    loss.backward()
    optimizer.step()
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, start[n])}
    assert moved
    assert moved <= {n for n, p in model.named_parameters() if p.requires_grad}
    assert all(n.startswith("adapter.") for n in moved)
    assert all(torch.equal(t, before[n]) for n, t in backbone.state_dict().items())
    assert not any(p.requires_grad for p in backbone.parameters())


@pytest.mark.parametrize(("name", "choice"), VARIANTS)
def test_all_that_trains_is_saved_and_comes_back(tmp_path, name, choice):
    model = made(name, choice=choice)
    if not name.startswith("full"):
        stir(model)
    saved = model.adapter_state()
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert trained <= saved.keys()
    assert sum(saved[n].numel() for n in trained) == model.num_trainable()
    kept = saved.keys() - trained
    assert kept == ({"adapter.keys", "adapter.labels"} - trained if name == "tip-adapter" else set())
    model.save(tmp_path / "adapter")
    again = msta.load_adapter(tmp_path / "adapter", msta.random_backbone(tiny()))
    video = torch.randn(2, 4, 3, 32, 32)
    assert torch.equal(scores(again, video), scores(model, video))
    assert again.num_trainable() == model.num_trainable()
    assert again.config == model.config


def cut(model: msta.AdaptedModel, ids: torch.Tensor) -> int:
    """The tokens that count: padding does not where a text sees only what came before."""
    return int(ids.argmax()) + 1 if model.backbone.text.causal else len(ids)


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(METHODS)),
    attention=st.sampled_from(KINDS),
    choice=st.integers(0, 5),
    span=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    frames=st.integers(1, 6),
)
def test_a_clip_and_a_class_do_not_depend_on_their_company(name, attention, choice, span, frames):
    assume(not refused(name, attention))
    model = made(name, attention, choice, span)
    if not name.startswith("full"):
        stir(model)
    video, ids = torch.randn(3, frames, 3, 32, 32), model.tokenize(CLASSES)
    together, said = model.encode_video(video), model.encode_text(ids)
    assert relative(torch.cat([model.encode_video(v[None]) for v in video]), together) < 1e-5
    assert relative(model.encode_video(video.flip(0)).flip(0), together) < 1e-5
    assert relative(torch.cat([model.encode_text(i[None, : cut(model, i)]) for i in ids]), said) < 1e-5
    whole = model.logits(together, said)
    assert relative(torch.cat([model.logits(v[None], said) for v in together]), whole) < 1e-4


@settings(deadline=None, max_examples=40)
@given(
    name=st.sampled_from(sorted(SPANNING | {"prompts"})),
    choice=st.integers(0, 5),
    first=st.integers(1, 4),
    layers=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_the_prefix_ends_where_the_first_trainable_block_begins(name, choice, first, layers):
    model = made(name, choice=choice, span=(first, first), layers=layers)
    first, deepest = model.config.first_block, max(layers)
    for tower, depth in (("video", layers[0]), ("text", layers[1])):
        trains = any(p.requires_grad for p in getattr(model.backbone, tower).parameters())
        expected = depth - 1
        if trains and name == "bitfit" and first == 1 and tower == "video":
            expected = None  # its first layer norm trains
        elif trains:
            reached = first - 1 - (0 if name == "prompts" else deepest - depth)
            expected = min(depth - 1, max(0, reached))
        assert prefix_length(getattr(model.backbone, tower)) == expected


# ---------------------------------------------------------------- one by one


def test_linear_probe_is_a_linear_classifier_and_learns():
    model = made("linear-probe")
    assert not scores(model, torch.randn(2, 4, 3, 32, 32)).any()
    embeddings = torch.randn(30, 24)
    labels = torch.arange(30) % 3
    optimizer = torch.optim.AdamW(model.trainable_parameters(), lr=1e-2)
    for _ in range(200):
        loss = F.cross_entropy(model.logits(embeddings, torch.randn(3, 24)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert (model.logits(embeddings, torch.randn(3, 24)).argmax(1) == labels).all()  # 30 points in 24 + 1 dimensions


@pytest.mark.parametrize("trained", [True, False])
@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 3.0), (1.5, 0.0), (2.0, 5.5)])
def test_tip_adapter_is_the_formula(trained, alpha, beta):
    model = msta.attach(
        msta.random_backbone(tiny()), method_config("tip-adapter", alpha=alpha, beta=beta, trained=trained)
    )
    model.prepare(3, 7)
    clips, labels = torch.randn(7, 24), torch.tensor([2, 0, 1, 1, 2, 0, 0])
    model.add_support(clips, labels)
    video, text = torch.randn(4, 24), torch.randn(3, 24)
    found = model.logits(video, text)
    for i in range(4):
        for k in range(3):
            near = [
                F.cosine_similarity(video[i], clip, 0) for clip, label in zip(clips, labels, strict=True) if label == k
            ]
            cached = sum((-beta * (1 - n)).exp() for n in near)
            expected = 100 * F.cosine_similarity(video[i], text[k], 0) + alpha * cached
            assert found[i, k].item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-4)
    if alpha == 0:
        assert torch.equal(found, msta.attach(msta.random_backbone(tiny()), "zero-shot").logits(video, text))


@pytest.mark.parametrize("name", ["linear-probe", "tip-adapter"])
def test_methods_without_names_refuse_other_classes(name):
    model = made(name)
    assert class_embeddings(model, CLASSES, "{}").shape == (3, 24)
    for others in (CLASSES[:2], CLASSES[::-1], ("run", "jump", "fall")):
        with pytest.raises(ConfigError, match=f"{name} chooses among the classes it was trained on alone"):
            class_embeddings(model, others, "{}")
    with pytest.raises(ConfigError, match=f"{name} has no "):
        msta.attach(msta.random_backbone(tiny()), name).logits(torch.randn(1, 24), torch.randn(3, 24))


@given(
    attention=st.sampled_from(["joint", "frame-wise"]),
    kernel=st.sampled_from([(1, 1, 1), (3, 1, 1), (5, 1, 1), (3, 3, 3), (1, 3, 5)]),
    frames=st.integers(1, 4),
    side=st.integers(1, 4),
)
@settings(deadline=None, max_examples=40)
def test_st_adapter_mixes_neighbours_in_time_and_space_and_leaves_class_tokens(attention, kernel, frames, side):
    from msta.backbone.layout import VideoLayout

    n = side * side
    layout = VideoLayout(frames, n, "shared" if attention == "joint" else "per_frame")
    x = torch.randn(2, 1 + n * frames, 6) if attention == "joint" else torch.randn(2 * frames, 1 + n, 6)
    adapter = STAdapter(6, 4, kernel)
    assert torch.equal(adapter(x, layout), x)
    torch.nn.init.normal_(adapter.conv.weight)
    torch.nn.init.normal_(adapter.conv.bias)
    out = adapter(x, layout)
    assert torch.equal(out[:, 0], x[:, 0])
    patches = layout.over_time(x)[:, :, -n:]
    expected = torch.zeros_like(patches)
    z = adapter.down(patches).unflatten(2, (side, side))  # [b, t, h, w, r]
    reach = [k // 2 for k in kernel]
    for t in range(frames):
        for p in range(n):
            total = adapter.conv.bias
            for dt in range(-reach[0], reach[0] + 1):
                for dh in range(-reach[1], reach[1] + 1):
                    for dw in range(-reach[2], reach[2] + 1):
                        at = t + dt, p // side + dh, p % side + dw
                        if 0 <= at[0] < frames and 0 <= at[1] < side and 0 <= at[2] < side:
                            tap = adapter.conv.weight[:, 0, dt + reach[0], dh + reach[1], dw + reach[2]]
                            total = total + tap * z[:, at[0], at[1], at[2]]
            expected[:, t, p] = patches[:, t, p] + adapter.up(total)
    assert torch.allclose(layout.over_time(out)[:, :, -n:], expected, atol=1e-5)


def test_st_adapter_with_rows_and_columns_needs_the_whole_grid():
    model = msta.attach(msta.random_backbone(tiny()), method_config("st-adapter", kernel=(3, 3, 3), dim=4))
    with pytest.raises(ConfigError, match=r"train\.keep_tokens: st-adapter needs the grid of patches whole"):
        model.video_prefix(torch.randn(1, 4, 3, 32, 32), torch.tensor([[0, 1, 2, 3]]))
    with pytest.raises(ValueError, match="square frames, got 2 patches"):
        model.encode_video(torch.randn(1, 4, 3, 16, 32))
    along_time = msta.attach(msta.random_backbone(tiny()), method_config("st-adapter", dim=4))
    along_time.encode_video(along_time.video_prefix(torch.randn(1, 4, 3, 32, 32), torch.tensor([[0, 3]])))


def test_aim_tells_the_order_of_frames_by_its_positions_alone():
    """Frame by frame, attention along time is blind to order until the frames' positions have left zero."""
    model = stir(made("aim", "frame-wise", choice=3))
    video = torch.randn(2, 4, 3, 32, 32)
    moved = model.encode_video(video.flip(1))
    assert relative(moved, model.encode_video(video)) > 1e-4
    with torch.no_grad():
        model.adapter["time"]["positions"].zero_()
    assert relative(model.encode_video(video.flip(1)), model.encode_video(video)) < 1e-5
    lone = stir(made("adaptformer", "frame-wise"))
    assert relative(lone.encode_video(video.flip(1)), lone.encode_video(video)) < 1e-5


def test_text_prompts_stand_where_words_would():
    """Prompts that are the embeddings of words make the text with these words."""
    backbone = msta.random_backbone(tiny())
    words = "video about"
    model = msta.attach(backbone, method_config("prompts", kind="coop", tokens=2, words=words))
    ours = model.encode_text(model.tokenize(["push", "a hug"]))
    assert relative(ours, backbone.encode_text(backbone.tokenize([f"{words} push", f"{words} a hug"]))) < 1e-5
    with pytest.raises(ConfigError, match=r"method\.words: 'video about' has fewer than 3 tokens"):
        msta.attach(backbone, method_config("prompts", kind="coop", tokens=3, words=words))


@pytest.mark.parametrize("attention", ["joint", "frame-wise", "siglip"])
def test_video_prompts_are_seen_as_tokens_are(attention):
    """Shallow prompts that equal a patch's token before the first layer norm count like that patch a second time."""
    backbone = msta.random_backbone(tiny(attention, video_layers=1))
    model = msta.attach(backbone, method_config("prompts", kind="vpt", tokens=1))
    tower, video = backbone.video, torch.randn(1, 1, 3, 32, 32)
    raw = twin(tower)
    raw.ln_pre = None
    tokens, layout = raw.embed(video)
    with torch.no_grad():
        model.adapter["video"]["1"].prompt.copy_(tokens[0, 2])
    doubled = torch.cat((tokens, tokens[:, 2:3]), dim=1)
    doubled = doubled if tower.ln_pre is None else tower.ln_pre(doubled)
    expected = tower.pool(tower.run(doubled)[:, : tokens.shape[1]], layout)  # prompts are not read
    assert relative(model.encode_video(video), expected) < 1e-5


def test_maple_makes_the_videos_prompts_of_the_texts():
    model = made("prompts", choice=3, span=(1, 2))
    assert model.config.kind == "maple"
    model.encode_video(torch.randn(1, 4, 3, 32, 32)).square().sum().backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert {"adapter.text.1", "adapter.coupling.1.weight"} <= reached


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("prompts", dict(tokens=14), r"method\.tokens: 14 leave no room in texts of 16 tokens"),
        (
            "prompts",
            dict(tokens=2, depth=4),
            r"method\.depth: prompts in blocks 1\.\.4, but ivlp can prompt blocks 1\.\.3",
        ),
        ("prompts", dict(tokens=2, first_block=4), r"method\.first_block: prompts in blocks 4\.\.4, but ivlp"),
        *(
            (name, dict(first_block=4), r"method\.first_block: 4, but the towers have blocks 1\.\.3")
            for name in sorted(SPANNING)
        ),
        ("mma", dict(first_block=4), r"cannot adapt blocks 4\.\.3"),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused(name, settings, message):
    with pytest.raises(ConfigError, match=message):
        msta.attach(msta.random_backbone(tiny()), method_config(name, **settings))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("st-adapter", dict(kernel=(2, 1, 1))),
        ("st-adapter", dict(before="norm")),
        ("lora", dict(modules=[])),
        ("lora", dict(modules=["q"])),
        ("mma", dict(temporal_kernel=3)),
        ("prompts", dict(kind="cocoop")),
        ("tip-adapter", dict(alpha=-1)),
        ("full-video", dict(dim=1)),
    ],
)
def test_impossible_settings_are_refused(name, settings):
    with pytest.raises(ValidationError):
        method_config(name, **settings)


def test_a_prompt_too_long_for_the_context_is_named():
    model = made("prompts", choice=0)
    ids = model.backbone.tokenize([" ".join(["a"] * 14)])
    with pytest.raises(ValueError, match="a text has more than 15 tokens"):
        model.encode_text(ids)
    model.encode_text(model.tokenize([" ".join(["a"] * 14)]))  # cut, and said


def test_lora_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(ConfigError, match=r"lora needs the package peft: pip install 'msta\[lora\]'"):
        msta.attach(msta.random_backbone(tiny()), "lora")
