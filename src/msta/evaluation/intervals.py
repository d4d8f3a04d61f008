"""How sure a figure is: bootstrap intervals over clips, and a paired test of two models on the same clips.

A figure is the mean accuracy over runs (seeds, splits). The bootstrap draws clips, not answers: each clip comes with
all of its answers, because three seeds on one test set are not three times as many clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from msta.evaluation.metrics import Array

RESAMPLES, SIGNS = 2000, 9999


class Answers:
    """The clips that several runs of one model answered, and which were right.

    Args:
        runs: for each run its clips' names, and whether each was answered rightly.
    """

    def __init__(self, runs: Iterable[tuple[Sequence[str], Sequence[bool]]]) -> None:
        right: dict[str, float] = {}
        weight: dict[str, float] = {}
        for clips, hits in runs:
            for clip, hit in zip(clips, hits, strict=True):
                right[clip] = right.get(clip, 0.0) + hit / len(clips)  # every run counts the same
                weight[clip] = weight.get(clip, 0.0) + 1 / len(clips)
        self.clips = sorted(weight)
        self.right = np.array([right[clip] for clip in self.clips])
        self.weight = np.array([weight[clip] for clip in self.clips])

    def mean(self) -> float:
        """In percent: the mean of the runs' accuracies."""
        return float(100 * self.right.sum() / self.weight.sum())

    def share(self) -> dict[str, float]:
        """Clip -> the share of its runs in which it was right."""
        return dict(zip(self.clips, (self.right / self.weight).tolist(), strict=True))

    def resampled(self, seed: int = 0, resamples: int = RESAMPLES) -> Array:
        """[resamples] accuracies in percent, each of as many clips, drawn with replacement."""
        random, count = np.random.default_rng(seed), len(self.clips)
        figures = []
        for _ in range(resamples):
            times = np.bincount(random.integers(0, count, count), minlength=count)
            figures.append((times @ self.right) / (times @ self.weight))
        return 100 * np.array(figures)


def interval(resampled: Array) -> tuple[float, float]:
    """The middle 95 % of resampled figures (Efron's percentile interval)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def wilson(right: int, clips: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy, in percent, of one model (Wilson 1927); it is not empty even at 100 %."""
    z = 1.96
    share, spread = right / clips, z**2 / clips
    middle = (share + spread / 2) / (1 + spread)
    half = math.sqrt(spread * (share * (1 - share) + spread / 4)) / (1 + spread)
    return 100 * max(0.0, middle - half), 100 * min(1.0, middle + half)


def paired_test(one: Answers, other: Answers) -> dict[str, float]:
    """Is ``one`` better than ``other`` on the clips that both answered, or is it chance?

    If they were equal, each clip's difference could as well have the other sign. For one run each, this is McNemar's
    exact test. For several runs, a clip's difference is one of shares, and signs are drawn SIGNS times.

    Returns:
        "clips"; "difference", in points of percent; "p", two-sided, 1 if they never differ. Empty if they have no
        common clips.
    """
    a, b = one.share(), other.share()
    common = sorted(a.keys() & b.keys())
    if not common:
        return {}
    difference = np.array([a[clip] - b[clip] for clip in common])
    result = {"clips": float(len(common)), "difference": float(100 * difference.mean())}
    difference = difference[difference != 0]
    if np.isin(difference, (-1, 1)).all():
        n, fewer = len(difference), int(min((difference > 0).sum(), (difference < 0).sum()))
        p = min(1.0, 2 * sum(math.comb(n, i) for i in range(fewer + 1)) / 2**n)
        return result | {"p": p}
    random, seen = np.random.default_rng(0), abs(difference.sum()) - 1e-9
    as_far = sum(abs((random.integers(0, 2, len(difference)) * 2 - 1) @ difference) >= seen for _ in range(SIGNS))
    return result | {"p": (1 + as_far) / (1 + SIGNS)}
