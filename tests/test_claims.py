"""The study of the paper's claims: its halves, its strengths, its intervals and verdicts."""

from __future__ import annotations

import json

import claims
import claims_report as stats
import numpy as np
import presets
import pytest
import torch

import msta
from msta.config import make_config
from msta.motionworld.motions import OVERLAPS, backwards


def test_the_halves_have_what_time_alone_tells_apart_and_no_two_of_one_meaning():
    assert (len(claims.BASE), len(claims.NOVEL)) == (30, 29)
    assert not set(claims.BASE) & set(claims.NOVEL)
    for half in (claims.BASE, claims.NOVEL):
        assert sum(backwards(motion) in half for motion in half) >= 20
        assert not [pair for pair in OVERLAPS if set(pair) <= set(half)]


@pytest.mark.parametrize("whose", ["good", "templates", "model"])
def test_every_class_has_two_sentences_of_either_kind(whose):
    bank = claims.sentences(claims.BASE + claims.NOVEL, whose)
    assert len(bank.classes) == 59
    assert all(len(said.spatial) == len(said.temporal) == 2 for said in bank.classes.values())


@pytest.mark.parametrize("method", ["msta", "lora", "adaptformer", "full"])
def test_strength_goes_from_the_frozen_to_the_trained_model(method):
    backbone = msta.load_backbone("toy")
    model = msta.attach(backbone, msta.MSTAConfig(dim=8, scale=0.5) if method == "msta" else method)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.adapter.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    video = torch.randn(1, 8, 3, 64, 64)
    with torch.no_grad():
        frozen, trained = backbone.encode_video(video), model.encode_video(video)
        none, half, whole = (claims.at_strength(model, backbone, s).encode_video(video) for s in (0, 0.5, 1))
    torch.testing.assert_close(whole, trained)
    torch.testing.assert_close(none, frozen)
    assert 0 < (half - frozen).norm() < 2 * (trained - frozen).norm()
    assert not torch.equal(half, trained)


def test_two_runs_of_one_variant_agree_to_the_last_bit(tmp_path, monkeypatch):
    for half in ("base", "novel"):
        motion = next(motion for motion in claims.MOTIONS[half] if backwards(motion) in claims.MOTIONS[half])
        monkeypatch.setitem(claims.MOTIONS, half, (motion, backwards(motion)))
        monkeypatch.setattr(claims, half.upper(), claims.MOTIONS[half])
    for name, value in (("TRAINING", 2), ("TESTING", 2), ("EPOCHS", 1)):
        monkeypatch.setattr(claims, name, value)
    bench, variant = claims.Bench(tmp_path, 0), claims.Variant(shots=2, control=True)
    one, other = bench(variant), claims.Bench(tmp_path, 0)(variant)
    assert one == other
    assert one["tested"] == dict.fromkeys(
        (f"{half}{test}" for half in ("base", "novel") for test in ("", " pairs", " shuffled")), 4
    )
    monkeypatch.setitem(claims.MOTIONS, "swipes", claims.MOTIONS["base"])
    swipes = claims.Bench(tmp_path, 0)(claims.Variant(task="swipes", shots=3, backbone="toy-frames"))
    assert swipes["tested"] == {"swipes": 4, "swipes pairs": 4}
    assert len(list((tmp_path / "seed-0" / "training-swipes").glob("*/*.mp4"))) == 6
    results = claims.Results(tmp_path / "results.json")
    first = results.measure("msta", bench, variant)
    monkeypatch.setattr(claims.Bench, "__call__", None)  # what is there is not measured again
    assert claims.Results(tmp_path / "results.json").measure("msta", bench, variant) == first


def seeds(count: int, base: float, novel: float, clips: int = 400, noise: float = 0.0) -> stats.Hits:
    random = np.random.default_rng(0)
    shift = random.normal(0, noise, count)
    return [
        {name: random.random(clips) < share + shift[s] for name, share in (("base", base), ("novel", novel))}
        for s in range(count)
    ]


def test_a_real_difference_holds_and_none_does_not():
    better, worse = seeds(5, 0.8, 0.8), seeds(5, 0.6, 0.6)
    low, high, p = stats.interval_of(better, worse, "harmonic mean")
    assert low < 20 < high
    assert p < 0.01
    assert stats.verdict(low, high) == "holds here"
    assert stats.verdict(-high, -low) == "the opposite holds here"
    assert stats.interval_of(better, better, "base") == (0, 0, 1)
    assert stats.verdict(-0.5, 0.5) == stats.verdict(0.2, 0.8) == "no difference"
    assert stats.verdict(-3, 0.5) == "cannot be told"
    assert stats.verdict(-3, 4, control=True) == "as it should be"
    assert stats.verdict(-30, 40, control=True) == "cannot be told"
    assert stats.verdict(3, 6, control=True) == "it fails"


def test_seeds_that_disagree_are_not_told_by_many_clips():
    """A clip test of these two sees thousands of clips; seeds see that training decides."""
    one, other = seeds(5, 0.7, 0.7, 2000, noise=0.05), seeds(5, 0.7, 0.7, 2000)
    low, high, _ = stats.interval_of(one, other, "base")
    assert low < 0 < high
    assert high - low > 5


def test_the_results_have_the_seeds_that_are_measured_by_default():
    measured: dict[str, set[int]] = {}
    for run in json.loads((claims.RESULTS / "claims.json").read_text())["runs"]:
        if run["seed"] not in claims.TUNING_SEEDS:
            measured.setdefault(run["variant"], set()).add(run["seed"])
    assert measured == {name: set(claims.SEEDS.get(name, claims.USUAL_SEEDS)) for name in claims.variants()}


def test_the_harmonic_mean_is_that_of_the_shares():
    assert stats.together("harmonic mean", [np.array(0.5), np.array(1.0)]) == pytest.approx(200 / 3)
    assert stats.together("pairs", [np.array(0.5), np.array(1.0)]) == pytest.approx(75)


def test_every_recipe_has_a_name_and_settings_of_its_own():
    for name, task in presets.TASKS.items():
        assert len({presets.name(name, recipe) for recipe in task.recipes}) == len(task.recipes)
        settings = [presets.variant(recipe, task).settings for recipe in task.recipes]
        assert all(one not in settings[:i] for i, one in enumerate(settings))


def test_the_recipe_of_small_is_the_presets():
    config = make_config("small", {"data.path": "."})
    method = config.method_config()
    recipe = (config.train.epochs, config.train.lr, config.descriptions.alpha, method.scale, method.init)
    assert recipe == presets.SMALL


def test_a_checkpoint_is_chosen_by_top1_first_or_by_likelihood_alone():
    sure, right = {"top1": 80.0, "nll": 0.2}, {"top1": 90.0, "nll": 0.9}
    chosen = {way: max((sure, right), key=choose) for way, choose in presets.CHOICES.items()}
    assert chosen == {"top-1, then likelihood": right, "likelihood": sure}
