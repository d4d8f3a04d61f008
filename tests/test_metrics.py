"""Figures and how sure they are: against other implementations, and against simulated truth."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from msta.errors import DataError
from msta.evaluation import figures
from msta.evaluation.calibration import KEEP, choose_threshold, rejection
from msta.evaluation.intervals import Answers, interval, paired_test
from msta.evaluation.metrics import (
    accuracy,
    auroc,
    calibration,
    confusion,
    fit_temperature,
    harmonic_mean,
    in_words,
    per_class,
    scaled,
)


def random_predictions(seed: int, n: int, k: int, sharp: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [n, k] and labels that they know something of."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, k, n)
    logits = sharp * random.normal(size=(n, k))
    logits[np.arange(n), labels] += sharp
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True), labels


SIZES = {"seed": st.integers(0, 1000), "n": st.integers(1, 60), "k": st.integers(2, 12)}


@given(**SIZES)
@settings(max_examples=40)
def test_accuracy_is_scikit_learns(seed, n, k):
    probabilities, labels = random_predictions(seed, n, k)
    ours = accuracy(torch.from_numpy(probabilities), torch.from_numpy(labels))
    predicted = probabilities.argmax(1)
    assert ours["top1"] == pytest.approx(100 * sklearn.metrics.accuracy_score(labels, predicted))
    present = [100 * (predicted[labels == c] == c).mean() for c in set(labels.tolist())]
    assert ours["mean_class"] == pytest.approx(np.mean(present))
    if k > 5:
        top5 = sklearn.metrics.top_k_accuracy_score(labels, probabilities, k=5, labels=np.arange(k))
        assert ours["top5"] == pytest.approx(100 * top5)
    else:
        assert ours["top5"] == 100
    assert ours["nll"] == pytest.approx(sklearn.metrics.log_loss(labels, probabilities, labels=np.arange(k)))


@given(**SIZES)
@settings(max_examples=40)
def test_confusion_and_classes_add_up(seed, n, k):
    probabilities, labels = random_predictions(seed, n, k)
    predicted = probabilities.argmax(1)
    matrix = confusion(labels, predicted, k)
    by_hand = np.zeros((k, k), int)
    for truth, said in zip(labels, predicted, strict=True):
        by_hand[truth, said] += 1
    assert (matrix == by_hand).all()
    with np.errstate(invalid="ignore"):
        expected = 100 * np.diag(by_hand) / by_hand.sum(1)
    np.testing.assert_allclose(per_class(labels, predicted, k), expected)


@given(
    higher=st.lists(st.integers(0, 5), min_size=1, max_size=30),
    lower=st.lists(st.integers(0, 5), min_size=1, max_size=30),
)
def test_auroc_is_scikit_learns(higher, lower):
    truth = [1] * len(higher) + [0] * len(lower)
    expected = 100 * sklearn.metrics.roc_auc_score(truth, [*higher, *lower])
    assert auroc(np.array(higher, float), np.array(lower, float)) == pytest.approx(expected)


@given(bins=st.integers(1, 20), **SIZES)
@settings(max_examples=40)
def test_the_calibration_error_is_that_of_plain_loops(seed, n, k, bins):
    probabilities, labels = random_predictions(seed, n, k)
    error = 0.0
    for b in range(bins):
        inside = [
            i
            for i in range(n)
            if b <= probabilities[i].max() * bins < b + 1 or (b == bins - 1 and probabilities[i].max() == 1)
        ]
        if inside:
            confidence = np.mean([probabilities[i].max() for i in inside])
            right = np.mean([probabilities[i].argmax() == labels[i] for i in inside])
            error += len(inside) / n * abs(confidence - right)
    assert calibration(probabilities, labels, bins) == pytest.approx(100 * error)


@given(seed=st.integers(0, 1000), k=st.integers(2, 8), true=st.floats(0.3, 3))
@settings(max_examples=20)
def test_the_temperature_is_the_one_another_optimiser_finds(seed, k, true):
    probabilities, labels = random_predictions(seed, 200, k, sharp=1.0)
    distorted = scaled(probabilities, true)

    def nll(log_t: float) -> float:
        return sklearn.metrics.log_loss(labels, scaled(distorted, np.exp(log_t)), labels=np.arange(k))

    found = optimize.minimize_scalar(nll, bounds=(-4.6, 4.6), method="bounded", options={"xatol": 1e-6})
    assert fit_temperature(distorted, labels) == pytest.approx(np.exp(found.x), rel=1e-3)
    assert (scaled(distorted, 1.7).argmax(1) == distorted.argmax(1)).all()


def test_the_temperature_mends_what_is_over_confident():
    probabilities, labels = random_predictions(0, 4000, 6, sharp=1.0)
    sharp = scaled(probabilities, 0.3)
    half = 2000
    temperature = fit_temperature(sharp[:half], labels[:half])
    assert temperature > 1
    assert calibration(scaled(sharp[half:], temperature), labels[half:]) < calibration(sharp[half:], labels[half:]) / 3


def test_the_harmonic_mean():
    assert harmonic_mean(50, 50) == 50
    assert harmonic_mean(0, 0) == 0
    assert harmonic_mean(77.24, 65.86) == pytest.approx(stats.hmean([77.24, 65.86]))


# ---------------------------------------------------------------- intervals


@pytest.mark.parametrize("runs", [1, 3])
def test_bootstrap_intervals_cover_the_truth_19_times_in_20(runs):
    # clips differ in difficulty, and every run answers the same clips: answers of one clip are not independent
    random = np.random.default_rng(runs)
    covered = 0
    for trial in range(400):
        difficulty = random.beta(2, 1, 150)  # truth: 2/3 on average
        clips = [f"{i}" for i in range(150)]
        answers = Answers((clips, list(random.random(150) < difficulty)) for _ in range(runs))
        low, high = interval(answers.resampled(seed=trial, resamples=300))
        covered += low <= 100 * 2 / 3 <= high
    assert 0.92 < covered / 400 < 0.98


def test_an_interval_that_took_answers_for_clips_would_be_too_narrow():
    clips = [f"{i}" for i in range(100)]
    hits = [i < 70 for i in range(100)]
    once = interval(Answers([(clips, hits)]).resampled())
    thrice = interval(Answers([(clips, hits)] * 3).resampled())
    assert thrice == pytest.approx(once)  # the same clips three times tell nothing new


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(0, 99))
def test_the_mean_is_that_of_the_runs_whatever_their_sizes(sizes, seed):
    random = np.random.default_rng(seed)
    runs = [([f"{i}" for i in range(n)], list(random.random(n) < 0.5)) for n in sizes]
    assert Answers(runs).mean() == pytest.approx(100 * np.mean([np.mean(hits) for _, hits in runs]))
    low, high = interval(Answers(runs).resampled(resamples=50))
    assert 0 <= low <= high <= 100


@given(seed=st.integers(0, 500), n=st.integers(1, 80))
@settings(max_examples=30)
def test_one_run_each_is_mcnemars_exact_test(seed, n):
    random = np.random.default_rng(seed)
    clips = [f"{i}" for i in range(n)]
    a, b = (list(random.random(n) < p) for p in (0.7, 0.5))
    result = paired_test(Answers([(clips, a)]), Answers([(clips, b)]))
    better, worse = (sum(x and not y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
    expected = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert result["p"] == pytest.approx(expected)
    assert result["difference"] == pytest.approx(100 * (better - worse) / n)


def test_several_runs_agree_with_scipys_permutation_test():
    random = np.random.default_rng(0)
    clips = [f"{i}" for i in range(40)]
    a, b = ([(clips, list(random.random(40) < p)) for _ in range(3)] for p in (0.7, 0.5))
    ours = paired_test(Answers(a), Answers(b))
    shares = [np.mean([hits for _, hits in runs], 0) for runs in (a, b)]
    theirs = stats.permutation_test(
        shares, lambda x, y, axis: (x - y).mean(axis), permutation_type="samples", vectorized=True, n_resamples=20_000
    )
    assert ours["p"] == pytest.approx(theirs.pvalue, abs=0.02)


def test_only_common_clips_are_compared():
    a = Answers([(["x", "y"], [True, False])])
    assert paired_test(a, Answers([(["z"], [True])])) == {}
    assert paired_test(a, Answers([(["y", "z"], [False, True])])) == {"clips": 1, "difference": 0, "p": 1}


# ---------------------------------------------------------------- unknown


@given(seed=st.integers(0, 500), n=st.integers(1, 200))
@settings(max_examples=40)
def test_the_threshold_keeps_what_it_promises(seed, n):
    known = np.random.default_rng(seed).random(n)
    threshold = choose_threshold(known)
    assert (known >= threshold).mean() >= KEEP
    higher = np.sort(known[known > threshold])
    if len(higher):
        assert (known >= higher[0]).mean() < KEEP + 1 / n  # none much higher would do


def test_known_and_unknown_validation_clips_are_parted():
    random = np.random.default_rng(0)
    known, unknown = random.normal(0.8, 0.05, 300), random.normal(0.4, 0.05, 300)
    threshold = choose_threshold(known)
    assert 0.6 < threshold < 0.8
    assert rejection(threshold, known, unknown) == pytest.approx({"kept": 95, "refused": 100, "auroc": 100}, abs=0.5)
    assert rejection(threshold, known, known)["auroc"] == pytest.approx(50)


def test_no_threshold_without_clips():
    with pytest.raises(DataError, match="validation clips"):
        choose_threshold(np.array([]))


def test_top_five_of_five_classes_is_not_mentioned():
    measured = {"top1": 62.5, "top5": 100.0}
    assert in_words({**measured, "classes": 5}) == "top-1 62.5 %"
    assert in_words({**measured, "classes": 6}) == "top-1 62.5 %, top-5 100.0 %"


def test_curves_without_a_validation_clip_that_can_be_read():
    assert figures.learning_curves({"a": [{"epoch": 0, "loss": 1.0}, {"epoch": 1, "val": {"clips": 0}}]})


def test_axes_of_percent_end_at_0_and_100(monkeypatch):
    drawn = []
    monkeypatch.setattr(figures, "png", lambda figure: drawn.append(figure) or b"")
    row = {"shots": 2, "label": "a", "set": "", "top1": 100.0, "low": 98.0, "high": 100.0, "share": 100.0}
    rows = [row, {**row, "shots": 4, "top1": 0.0, "low": 0.0, "high": 1.0, "share": 0.0}]
    figures.accuracy_by_shots(rows)
    figures.trainable_share(rows)
    figures.accuracy_bars(rows)
    figures.pareto_front({"a": (1.0, 0.0), "b": (2.0, 100.0)}, "s", "top-1, %", logarithmic=False)
    figures.reliability_diagram({"a": (np.array([[1.0, 0.0], [0.01, 0.99]]), np.array([1, 1]))})
    log = [{"epoch": 0, "step": 1, "loss": 1.0}, *({"epoch": e, "step": e, "val": {"top1": 100.0 * e}} for e in (0, 1))]
    figures.learning_curves({"a": log})
    ends = [axes.get_ylim() for figure in drawn for axes in figure.axes if "%" in axes.get_ylabel()]
    ends += [axes.get_xlim() for figure in drawn for axes in figure.axes if "%" in axes.get_xlabel()]
    assert len(ends) == 8
    assert all(0 <= min(end) < max(end) <= 100 for end in ends), ends
