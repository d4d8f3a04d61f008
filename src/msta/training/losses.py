"""The objective: contrastive cross-entropy over class prompts, and consistency with the description anchors.

:func:`objective` is the loss of every training step (:mod:`msta.training.step`), of the cost model and of the
benchmarks. If you change it, training changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from msta.descriptions.anchors import Distance


def objective(
    video: Tensor,
    text: Tensor,
    labels: Tensor,
    logits: Callable[[Tensor, Tensor], Tensor],
    anchors: Sequence[Tensor],
    alpha: float,
    distance: Distance = "cosine",
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """L = CE(logits, labels) + alpha * consistency, a mean over clips; and its two terms for the log.

    A step that reads its clips in parts adds up the losses of the parts, each weighted by its share of the clips. The
    sum is the loss of all clips together: the cross-entropy is a mean over clips, and the consistency is the same in
    each part.

    Args:
        video: [B, D].
        text: [K, D].
        labels: int64 [B], class indices.
        logits: from video and text to scores [B, K]: :meth:`AdaptedModel.logits`.
        anchors: see :func:`consistency`.
        alpha: weight of the consistency term; 1 is the best of the paper's ablation.
        distance: see :func:`distances`.
        label_smoothing: share of every label that is spread evenly over all classes (Szegedy et al. 2016).
        class_weights: [K], the weight of a clip of each class, see :func:`balanced`; None: 1.
    """
    scores = logits(video, text)
    if class_weights is None:
        cross_entropy = F.cross_entropy(scores, labels, label_smoothing=label_smoothing)
    else:  # a mean over clips all the same, so that parts of a step still add up
        each = F.cross_entropy(scores, labels, label_smoothing=label_smoothing, reduction="none")
        cross_entropy = (class_weights[labels] * each).mean()
    held_to = consistency(text, anchors, distance)
    return cross_entropy + alpha * held_to, {
        "cross_entropy": cross_entropy.detach(),
        "consistency": held_to.detach(),
    }


def balanced(labels: Sequence[int], classes: int) -> Tensor:
    """Weights [K] that give classes the same weight: N / (K n) for one with n of the N training clips; 1 on average."""
    counts = torch.bincount(torch.tensor(labels), minlength=classes)
    return len(labels) / (classes * counts.clamp_min(1).float())


def consistency(text: Tensor, anchors: Sequence[Tensor], distance: Distance = "cosine") -> Tensor:
    """Mean over classes of the distance to the class's anchors, summed over the kinds of anchor.

    Args:
        text: [K, D], adapted class embeddings.
        anchors: for each kind (spatial, temporal) [K, D], one per class; or [K, n, D], one per sentence, with
            zeros if a class has fewer than n. The distance of a class is then the mean over its sentences.
        distance: see :func:`distances`.

    Returns:
        A scalar, 0 for no anchors.
    """
    terms = []
    for anchor in anchors:
        each = distances(text if anchor.ndim == 2 else text[:, None], anchor, distance)
        if anchor.ndim == 3:
            there = anchor.any(dim=-1)
            each = (each * there).sum(1) / there.sum(1)
        terms.append(each.mean())
    return torch.stack(terms).sum() if terms else text.new_zeros((), dtype=torch.float32)


def distances(a: Tensor, b: Tensor, distance: Distance) -> Tensor:
    """Of vectors [..., D], scaled to length 1 -> [...], in float32.

    "cosine" is 1 - cos, the paper's; "l1" and "mse" are sums over D of absolute and of squared differences, so that
    "mse" is 2 - 2 cos.
    """
    if distance == "cosine":
        return 1 - F.cosine_similarity(a.float(), b.float(), dim=-1)
    difference = F.normalize(a.float(), dim=-1) - F.normalize(b.float(), dim=-1)
    return (difference.abs() if distance == "l1" else difference.square()).sum(-1)
