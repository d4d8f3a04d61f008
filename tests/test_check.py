"""Checking a bank: the bad sentences are found, for the right reason, and shown first."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F

from msta.descriptions.bank import Described, DescriptionBank
from msta.descriptions.check import check
from msta.errors import ConfigError, DataError, MSTAError
from msta.evaluation.descriptions import check_bank, print_check

TEMPLATE = "a video of {}."
CLASSES = ("push", "hug", "swipe left")


def prompt(name: str) -> str:
    return TEMPLATE.replace("{}", name)


def bank(**more: Described) -> DescriptionBank:
    """Of each class, its own prompt as the only sentence of a kind: nothing could be nearer."""
    return DescriptionBank("b", {name: Described((prompt(name),)) for name in CLASSES} | more)


def test_a_class_that_is_described_by_its_own_prompt_is_at_home(joint_backbone):
    found = check(bank(), joint_backbone, [prompt(name) for name in CLASSES])
    assert found.bad == []
    assert found.irregular == []
    (spatial,) = found.distances
    assert torch.allclose(spatial.own(), torch.ones(3), atol=1e-6)
    home = F.normalize(joint_backbone.encode_text(joint_backbone.tokenize([prompt(n) for n in CLASSES])), dim=-1)
    assert torch.allclose(spatial.cosines, home @ home.T, atol=1e-6)
    others, which = spatial.nearest()
    assert (others < 1).all()
    assert (which != torch.arange(3)).all()


def test_bad_sentences_are_found_and_the_worst_comes_first(joint_backbone):
    long = "one word after the other " * 9
    spoiled = bank(
        push=Described((prompt("hug"), prompt("push"))), hug=Described((prompt("hug").upper(), prompt("hug"), long))
    )
    found = check(spoiled, joint_backbone, [prompt(name) for name in spoiled.classes])
    whys = [(b.name, b.sentence, b.why) for b in found.bad]
    first = found.bad[0]
    assert (first.name, first.sentence) == ("push", prompt("hug"))
    assert first.why.startswith("nearer to 'hug' (1.00) than to its own class (")
    assert [b.by for b in found.bad] == sorted((b.by for b in found.bad), reverse=True)
    assert ("hug", prompt("hug"), "is there before, for 'push'") in whys
    assert ("hug", prompt("hug").upper(), "is there before, for 'push'") in whys
    cut = [why for name, sentence, why in whys if sentence == long and "cut" in why]
    assert re.fullmatch(r"cut: \d+ tokens, and the backbone reads 16", cut[0])
    assert found.irregular == ["spatial: 2 sentences per class, but 'hug' has 3, 'swipe left' has 1"]


def test_a_kind_that_only_some_classes_have_is_an_error(joint_backbone):
    with pytest.raises(DataError, match="no temporal sentences for 'push'"):
        check(bank(hug=Described(("x",), ("y",))), joint_backbone, [prompt(name) for name in CLASSES])
    with pytest.raises(DataError, match="no spatial sentences for 'a'"):
        check(DescriptionBank("b", {"a": Described()}), joint_backbone, ["a"])


def test_the_report_puts_bad_sentences_before_everything_else(joint_backbone, tmp_path, capsys):
    bank(push=Described((prompt("hug") + " <b>&",), ())).save(tmp_path / "bank.json")
    out = tmp_path / "page.html"
    found = check_bank(tmp_path / "bank.json", joint_backbone, None, template=TEMPLATE, out=out)
    assert {row["class"] for row in found["classes"]} == set(CLASSES)
    leads = [row["spatial"]["own"] - row["spatial"]["other"] for row in found["classes"]]
    assert leads == sorted(leads)
    print_check(found)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{len(found['bad'])} faults in 3 sentences:"
    page = out.read_text()
    assert "a video of hug. &lt;b&gt;&amp;" in page
    assert page.index("a video of hug. &lt;b&gt;") < page.index("<img")
    assert "data:image/png;base64," in page
    with pytest.raises(MSTAError, match=r"page\.html: exists already"):
        check_bank(tmp_path / "bank.json", joint_backbone, None, template=TEMPLATE, out=out)
    with pytest.raises(DataError, match="'kick'"):
        check_bank(tmp_path / "bank.json", joint_backbone, ["kick"], template=TEMPLATE)
    with pytest.raises(ConfigError, match="--template"):
        check_bank(tmp_path / "bank.json", joint_backbone, None, template="no place")
    with pytest.raises(ConfigError, match=r"--out.*\.html"):
        check_bank(tmp_path / "bank.json", joint_backbone, None, template=TEMPLATE, out=tmp_path / "x.txt")
