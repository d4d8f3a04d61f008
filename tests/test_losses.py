"""The objective, and the anchors it holds the text to."""

from __future__ import annotations

import functools
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import OUTSIDE, needs, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

import msta
from msta.adapters.model import class_logits
from msta.descriptions import anchors as anchors_module
from msta.descriptions.anchors import anchors, embed
from msta.descriptions.bank import load_descriptions
from msta.descriptions.check import mismatched
from msta.errors import DataError
from msta.notices import notice
from msta.training.losses import consistency, distances, objective

OFFICIAL = OUTSIDE / "reference" / "official_descriptions"


@given(b=st.integers(1, 4), k=st.integers(1, 5), alpha=st.floats(0, 10))
def test_the_objective_is_the_formula(b, k, alpha):
    video, text, spatial, temporal = torch.randn(b, 6), torch.randn(k, 6), torch.randn(k, 6), torch.randn(k, 6)
    labels, scale = torch.randint(k, (b,)), torch.tensor(2.3)
    loss, parts = objective(video, text, labels, lambda v, t: class_logits(v, t, scale), [spatial, temporal], alpha)

    def cos(a, b):
        return (a @ b / a.norm() / b.norm()).item()

    logits = torch.tensor([[scale.exp() * cos(v, t) for t in text] for v in video])
    entropy = F.cross_entropy(logits, labels)
    term = sum((1 - cos(t, s)) + (1 - cos(t, m)) for t, s, m in zip(text, spatial, temporal, strict=True)) / k
    assert loss.item() == pytest.approx(entropy.item() + alpha * term, rel=1e-4, abs=1e-4)
    assert parts["consistency"].item() == pytest.approx(term, rel=1e-4, abs=1e-4)


def test_without_anchors_the_term_is_off_and_at_its_anchors_it_is_zero():
    text = torch.randn(3, 5)
    assert consistency(text, []) == 0
    assert consistency(3 * text, [text]).item() == pytest.approx(0, abs=1e-6)
    assert consistency(-text, [text, text]).item() == pytest.approx(4)


@given(k=st.integers(1, 4), n=st.integers(1, 4), distance=st.sampled_from(["cosine", "l1", "mse"]))
def test_a_term_a_sentence_is_the_mean_over_the_sentences_a_class_has(k, n, distance):
    text, counts = torch.randn(k, 6), torch.randint(1, n + 1, (k,)).tolist()
    each = [F.normalize(torch.randn(count, 6), dim=-1) for count in counts]
    padded = torch.nn.utils.rnn.pad_sequence(each, batch_first=True)
    wanted = torch.stack([distances(t, a, distance).mean() for t, a in zip(text, each, strict=True)]).mean()
    assert consistency(text, [padded], distance).item() == pytest.approx(wanted.item(), rel=1e-4)
    if distance == "cosine":  # as with the averaged anchor, weighted by how much the sentences agree
        cosines = torch.stack([F.cosine_similarity(t, a.mean(0), dim=0) for t, a in zip(text, each, strict=True)])
        agreement = torch.stack([a.mean(0).norm() for a in each])
        assert consistency(text, [padded]).item() == pytest.approx((1 - agreement * cosines).mean().item(), rel=1e-4)
    one = torch.stack([a[0] for a in each])
    assert consistency(text, [one[:, None]], distance).item() == pytest.approx(
        consistency(text, [one], distance).item(), rel=1e-4
    )


@given(st.integers(0, 99))
def test_distances_are_of_directions_and_related_as_they_say(seed):
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(seed))
    for distance in ("cosine", "l1", "mse"):
        assert torch.allclose(distances(3 * a, b / 9, distance), distances(a, b, distance), atol=1e-5)
        assert torch.allclose(distances(a, 2 * a, distance), torch.zeros(5), atol=1e-5)
    assert torch.allclose(distances(a, b, "mse"), 2 * distances(a, b, "cosine"), atol=1e-5)
    assert (distances(a, b, "l1") >= distances(a, b, "mse").sqrt() - 1e-5).all()  # of any vector


def test_logits_do_not_depend_on_length_and_are_float32():
    video, text = torch.randn(2, 5), torch.randn(3, 5)
    logits = class_logits(video.bfloat16(), text.bfloat16(), torch.tensor(0.0, dtype=torch.bfloat16))
    assert logits.dtype == torch.float32
    assert torch.allclose(
        class_logits(7 * video, text / 3, torch.tensor(1.0)), class_logits(video, text, torch.tensor(1.0))
    )


def write(path: Path, content) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_anchors_are_normalised_means_whatever_the_order_and_batch(backbone, tmp_path):
    classes = ["push", "hug"]
    sentences = {
        "push": ("A video about a shove.", "Arms go forward.", "Hands."),
        "hug": ("Two people hold each other.",),
    }
    result = anchors(backbone, sentences, classes)
    for row, name in zip(result, classes, strict=True):
        each = F.normalize(backbone.encode_text(backbone.tokenize(sentences[name])), dim=-1)
        assert torch.allclose(row, F.normalize(each.mean(0), dim=-1), atol=1e-6)
    shuffled = {"hug": sentences["hug"], "push": sentences["push"][::-1]}
    assert torch.allclose(anchors(backbone, shuffled, classes, batch=2), result, atol=1e-6)
    assert torch.allclose(anchors(backbone, sentences, classes[::-1]).flip(0), result, atol=1e-6)


def test_a_class_is_astray_if_any_of_its_anchors_lies_nearer_to_another():
    home = 3 * torch.eye(3, 4)
    near = F.normalize(torch.eye(3, 4) + 0.1, dim=-1)
    assert mismatched([near, near], home) == {}
    swapped = near[[0, 2, 1]]
    assert mismatched([near, swapped], home) == {1: 2, 2: 1}
    between = F.normalize(torch.eye(3, 4) + torch.tensor([[0, 1.02, 0, 0]]), dim=-1)
    assert mismatched([between], home) == {}  # a little nearer to another
    sentences = torch.stack((swapped, torch.zeros(3, 4)), dim=1)  # one per class, and places without any
    assert mismatched([sentences], home) == {1: 2, 2: 1}


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_an_anchor_depends_on_its_own_sentences_alone(data):
    backbone = anchor_backbone()
    words = ["a", "hand", "moves", "left", "then two people meet before a door and part", "stop", "x" * 40]
    sentence = st.lists(st.sampled_from(words), min_size=1, max_size=12).map(" ".join)
    mine = data.draw(st.lists(sentence, min_size=1, max_size=4))
    alone = anchors(backbone, {"mine": tuple(mine)}, ["mine"])[0]
    others = {str(i): tuple(s) for i, s in enumerate(data.draw(st.lists(st.lists(sentence, min_size=1), max_size=4)))}
    names = data.draw(st.permutations(["mine", *others]))
    bank = {**others, "mine": tuple(data.draw(st.permutations(mine)))}
    among = anchors(backbone, bank, names, batch=data.draw(st.integers(1, 9)))[names.index("mine")]
    padded = anchors(backbone, bank, names, exact_reference=True)[names.index("mine")]
    assert torch.allclose(among, alone, atol=1e-6)
    assert torch.allclose(padded, alone, atol=1e-6)


@functools.cache
def anchor_backbone() -> msta.DualEncoder:
    return msta.random_backbone(tiny())


def test_an_anchor_a_sentence_holds_each_and_then_zeros(joint_backbone):
    sentences = {"push": ("one", "two", "three"), "hug": ("four",)}
    each = anchors(joint_backbone, sentences, ["push", "hug"], average="sentences")
    assert each.shape[:2] == (2, 3)
    assert torch.allclose(each[0], embed(joint_backbone, sentences["push"]), atol=1e-6)
    assert each[1].any(-1).tolist() == [True, False, False]


def test_what_takes_long_is_computed_once_whatever_the_order(joint_backbone, tmp_path, monkeypatch, caplog):
    texts = [f"sentence {i % 40} of many" for i in range(60)]
    plain = embed(joint_backbone, texts)
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(anchors_module, "WORTH_KEEPING", 0.0)
    notice.cache_clear()
    with caplog.at_level(logging.WARNING, "msta"):
        kept = embed(joint_backbone, texts, batch=16, cache=tmp_path)
    torch.testing.assert_close(kept, plain)  # some processors round differently in other batches
    assert "Reading 40 descriptions: about 0:00:0" in caplog.text
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr(type(joint_backbone), "encode_text", None)  # nothing more may be computed
    assert torch.equal(embed(joint_backbone, texts[::-1], cache=tmp_path), kept.flip(0))
    with pytest.raises(TypeError):
        embed(joint_backbone, texts[1:39], cache=tmp_path)
    with pytest.raises(TypeError):
        embed(msta.random_backbone(tiny(), seed=1), texts, cache=tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(anchors_module, "WORTH_KEEPING", 0.0)
    file.write_bytes(file.read_bytes()[:100])  # damaged: made anew
    assert torch.equal(embed(joint_backbone, texts, cache=tmp_path), plain)
    assert len(np.load(file)) == 40


def test_indices_or_names_and_either_kind_alone(tmp_path):
    spatial = write(tmp_path / "s.json", {"0": ["a", "b"], "1": ["c", "d"]})
    temporal = write(tmp_path / "t.json", {"hug": ["x"], "push": ["y"]})
    bank = load_descriptions(spatial, temporal, ["push", "hug"])
    assert bank.sentences("spatial") == {"push": ("a", "b"), "hug": ("c", "d")}
    assert bank.sentences("temporal") == {"push": ("y",), "hug": ("x",)}
    assert load_descriptions(None, temporal, ["push", "hug"]).sentences("spatial") is None
    assert load_descriptions(None, None, ["push"]) is None


def test_an_odd_count_is_accepted_and_said(tmp_path, caplog):
    notice.cache_clear()
    file = write(tmp_path / "8_s.json", {"0": ["a"] * 8, "1": ["b"], "2": ["c"] * 8})
    with caplog.at_level(logging.WARNING, "msta"):
        bank = load_descriptions(file, None, ["push", "hug", "kick"])
    assert len(bank.sentences("spatial")["hug"]) == 1
    assert "8 sentences per class, but 'hug' has 1" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([["a"]], "JSON object"),
        ({"0": ["a"]}, "class 1, 'hug'"),
        ({"0": ["a"], "1": []}, "class 1, 'hug'"),
        ({"0": ["a"], "1": "text"}, "class 1, 'hug'"),
        ({"0": ["a"], "1": ["b"], "2": ["c"]}, "3 classes, the data 2"),
    ],
)
def test_files_that_do_not_fit_are_named(tmp_path, content, message):
    with pytest.raises(DataError, match=rf"d\.json: .*{message}"):
        load_descriptions(write(tmp_path / "d.json", content), None, ["push", "hug"])


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"none\.json: No such file"):
        load_descriptions(tmp_path / "none.json", None, ["a"])
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match=r"bad\.json: no valid JSON"):
        load_descriptions(tmp_path / "bad.json", None, ["a"])


@needs("reference/official_descriptions")
def test_every_official_file_is_read(caplog):
    notice.cache_clear()
    files = sorted(OFFICIAL.glob("*.json"))
    assert len(files) > 40
    for file in files:
        content = json.loads(file.read_text())
        classes = [f"class {i}" for i in range(len(content))]
        bank = load_descriptions(file, None, classes)
        assert [len(s) for s in bank.sentences("spatial").values()] == [
            len(content[str(i)]) for i in range(len(content))
        ]
    assert "8_s_description_k400.json: 8 sentences per class" in caplog.text
