"""Accuracy and calibration, as the field reports them: in percent. The tests compare them with scikit-learn's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

Array = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]


def accuracy(probabilities: Tensor, labels: Tensor) -> dict[str, float]:
    """Top-1, top-5 and mean class accuracy, in percent, and the mean negative log likelihood, in nats.

    Args:
        probabilities: [N, K].
        labels: int64 [N].

    With fewer than five classes top-5 is 100. Mean class accuracy is over the classes that occur in ``labels``.

    Raises:
        ValueError: nothing to measure.
    """
    if not len(labels):
        raise ValueError("accuracy of no clips")
    ranked = probabilities.topk(min(5, probabilities.shape[1]), dim=1).indices
    hits = ranked == labels[:, None]
    per_class = [hits[labels == label, 0].double().mean() for label in labels.unique()]
    return {
        "top1": 100 * hits[:, 0].double().mean().item(),
        "top5": 100 * hits.any(1).double().mean().item(),
        "mean_class": 100 * sum(p.item() for p in per_class) / len(per_class),
        "nll": -probabilities.double().clamp_min(1e-12)[range(len(labels)), labels].log().mean().item(),
    }


def in_words(metrics: Mapping[str, Any]) -> str:
    """ "top-1 62.5 %, top-5 91.7 %", of "top1", "top5" and "classes"; top-5 of five classes or less says nothing."""
    top5 = f", top-5 {metrics['top5']:.1f} %" if metrics.get("classes", 6) > 5 else ""
    return f"top-1 {metrics['top1']:.1f} %{top5}"


def harmonic_mean(base: float, novel: float) -> float:
    """Harmonic mean of two accuracies, 0 if both are 0 (Xian et al. 2017). It is high only if both are high."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0


def confusion(labels: Integers, predicted: Integers, classes: int) -> Integers:
    """[K, K] counts: one row per true class, one column per predicted class."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def per_class(labels: Integers, predicted: Integers, classes: int) -> Array:
    """[K] accuracy on the clips of each class, in percent; NaN for a class without clips."""
    counts = confusion(labels, predicted, classes)
    with np.errstate(invalid="ignore"):
        return 100 * np.diag(counts) / counts.sum(1)


def auroc(higher: Array, lower: Array) -> float:
    """Share, in percent, of pairs in which the first score is higher; a tie counts half (Mann-Whitney). 50: chance."""
    order = np.sort(lower)
    below, at_most = (np.searchsorted(order, higher, side) for side in ("left", "right"))
    return float(100 * (below + at_most).mean() / (2 * len(lower)))


# ---------------------------------------------------------------- calibration

BINS = 15


def calibration(probabilities: Array, labels: Integers, bins: int = BINS) -> float:
    """Expected calibration error (Guo et al. 2017) in percent: how far confidence lies from accuracy.

    Args:
        probabilities: [N, K].
        labels: [N].
        bins: of equal width over the confidence, the highest probability of a clip.
    """
    confidence, right, share = reliability(probabilities, labels, bins)
    return float(100 * np.nansum(share * np.abs(confidence - right)))


def reliability(probabilities: Array, labels: Integers, bins: int = BINS) -> tuple[Array, Array, Array]:
    """For each bin of confidence: mean, share of right answers, share of clips. NaN if a bin is empty."""
    confidence = probabilities.max(1)
    hits = probabilities.argmax(1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean, right = (np.bincount(which, weights=w, minlength=bins) / count for w in (confidence, hits))
    return mean, right, count / len(labels)


def fit_temperature(probabilities: Array, labels: Integers, *, doubt: float = 0.0) -> float:
    """The temperature with the lowest negative log likelihood on these (validation) clips, between 1/100 and 100.

    The likelihood is convex in the inverse temperature, so its derivative is bisected. If all clips are right, the best
    temperature is 0, and the lowest allowed one is returned. ``doubt`` is the share of each label that is spread evenly
    over all classes; it bounds the confidence, and so the temperature, in this case.
    """
    logits = np.log(np.clip(probabilities, 1e-12, None))
    own = (1 - doubt) * logits[np.arange(len(labels)), labels] + doubt * logits.mean(1)
    low, high = np.log(1e-2), np.log(1e2)  # of the inverse temperature
    for _ in range(50):
        middle = (low + high) / 2
        expected = (_softmax(np.exp(middle) * logits) * logits).sum(1)
        low, high = (middle, high) if (expected - own).sum() < 0 else (low, middle)
    return float(np.exp(-(low + high) / 2))


def scaled(probabilities: Array, temperature: float) -> Array:
    """The probabilities [N, K] at another temperature. The order of the classes does not change."""
    return _softmax(np.log(np.clip(probabilities, 1e-12, None)) / temperature)


def _softmax(logits: Array) -> Array:
    powers: Array = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)
