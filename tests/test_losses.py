"""The objective, and the anchors it holds the text to."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import SHARED
from hypothesis import given
from hypothesis import strategies as st

from msta.descriptions.anchors import anchors
from msta.descriptions.bank import load_descriptions
from msta.errors import DataError
from msta.notices import notice
from msta.training.losses import class_logits, consistency, objective

OFFICIAL = SHARED / "reference" / "official_descriptions"


@given(b=st.integers(1, 4), k=st.integers(1, 5), alpha=st.floats(0, 10))
def test_the_objective_is_the_formula(b, k, alpha):
    video, text, spatial, temporal = torch.randn(b, 6), torch.randn(k, 6), torch.randn(k, 6), torch.randn(k, 6)
    labels, scale = torch.randint(k, (b,)), torch.tensor(2.3)
    loss, parts = objective(video, text, labels, scale, [spatial, temporal], alpha)

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


def test_indices_or_names_and_either_kind_alone(tmp_path):
    spatial = write(tmp_path / "s.json", {"0": ["a", "b"], "1": ["c", "d"]})
    temporal = write(tmp_path / "t.json", {"hug": ["x"], "push": ["y"]})
    bank = load_descriptions(spatial, temporal, ["push", "hug"])
    assert bank.spatial == {"push": ("a", "b"), "hug": ("c", "d")}
    assert bank.temporal == {"push": ("y",), "hug": ("x",)}
    assert load_descriptions(None, temporal, ["push", "hug"]).spatial is None
    assert load_descriptions(None, None, ["push"]) is None


def test_an_odd_count_is_accepted_and_said(tmp_path, caplog):
    notice.cache_clear()
    file = write(tmp_path / "8_s.json", {"0": ["a"] * 8, "1": ["b"], "2": ["c"] * 8})
    with caplog.at_level(logging.WARNING, "msta"):
        bank = load_descriptions(file, None, ["push", "hug", "kick"])
    assert len(bank.spatial["hug"]) == 1
    assert "8 sentences a class, but 'hug' has 1" in caplog.text


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


@pytest.mark.skipif(not OFFICIAL.exists(), reason="the authors' files are not at ../shared/reference")
def test_every_official_file_is_read(caplog):
    notice.cache_clear()
    files = sorted(OFFICIAL.glob("*.json"))
    assert len(files) > 40
    for file in files:
        content = json.loads(file.read_text())
        classes = [f"class {i}" for i in range(len(content))]
        bank = load_descriptions(file, None, classes)
        assert [len(s) for s in bank.spatial.values()] == [len(content[str(i)]) for i in range(len(content))]
    assert "8_s_description_k400.json: 8 sentences a class" in caplog.text
