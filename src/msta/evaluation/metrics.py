"""Accuracy, as the field reports it: in percent."""

from __future__ import annotations

from torch import Tensor


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


def harmonic_mean(base: float, novel: float) -> float:
    """Of two accuracies, 0 if both are (Xian et al. 2017): high only if both are."""
    return 2 * base * novel / (base + novel) if base + novel else 0.0
