"""Any list of names, several templates, and "unknown"."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from hypothesis import given
from hypothesis import strategies as st

import msta
from msta.errors import ConfigError, DataError
from msta.evaluation.evaluate import class_embeddings
from msta.inference.arguments import class_names, unknown_threshold


@given(st.lists(st.text("abcdé", min_size=1), min_size=2, max_size=5, unique=True))
def test_names_come_back_from_text_and_files(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("names")
    assert class_names(", ".join(names)) == names
    (folder / "n.txt").write_text("\n\n".join(names) + "\n", encoding="utf-8")
    assert class_names(str(folder / "n.txt")) == names
    (folder / "n.csv").write_text(
        "id,name\n" + "".join(f'{i},"{name}"\n' for i, name in enumerate(names)), encoding="utf-8"
    )
    assert class_names(str(folder / "n.csv")) == names


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("n.txt", None, "No such file"),
        ("n.txt", "\n \n", "no class names in it"),
        ("n.csv", "id,name\n1\n", "expected id,name"),
    ],
)
def test_a_bad_list_is_named(tmp_path, file, content, words):
    if content is not None:
        (tmp_path / file).write_text(content)
    with pytest.raises(DataError, match=rf"{file}.*{words}"):
        class_names(str(tmp_path / file))


def test_several_templates_are_averaged_and_one_is_as_before():
    model = msta.attach(msta.random_backbone(tiny()), "zero-shot")
    names, templates = ["push", "pull it"], ["a video of {}.", "{}, seen from afar"]
    each = [class_embeddings(model, names, t) for t in templates]
    together = class_embeddings(model, names, templates)
    torch.testing.assert_close(together, sum(F.normalize(e, dim=-1) for e in each) / 2)
    assert torch.equal(class_embeddings(model, names, templates[:1]), each[0])
    assert torch.equal(class_embeddings(model, names[::-1], templates), together.flip(0))
    with pytest.raises(ConfigError, match="no place"):
        class_embeddings(model, names, ["no place"])


@pytest.mark.parametrize("text", ["1.1", "-0.1", "nan", "often"])
def test_a_threshold_is_a_probability(text):
    with pytest.raises(ConfigError, match="--unknown-below: expected a probability"):
        unknown_threshold(text, None)


def test_the_threshold_that_validation_chose(tmp_path):
    assert unknown_threshold("0.4", None) == 0.4
    with pytest.raises(ConfigError, match="goes with --adapter"):
        unknown_threshold("val", None)
    (tmp_path / "metrics.json").write_text(json.dumps({"unknown_below": 0.31}))
    assert unknown_threshold("val", tmp_path) == 0.31
    (tmp_path / "metrics.json").write_text(json.dumps({"unknown_below": None}))
    with pytest.raises(ConfigError, match="without validation clips"):
        unknown_threshold("val", tmp_path)
