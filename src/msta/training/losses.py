"""The objective: contrastive cross-entropy over class prompts, and consistency with the description anchors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def class_logits(video: Tensor, text: Tensor, logit_scale: Tensor) -> Tensor:
    """Scaled cosine similarities, in float32.

    Args:
        video: [B, D], any length.
        text: [K, D], any length.
        logit_scale: logarithm of the factor (the backbone's own).

    Returns:
        [B, K].
    """
    return logit_scale.float().exp() * F.normalize(video.float(), dim=-1) @ F.normalize(text.float(), dim=-1).T


def consistency(text: Tensor, anchors: Sequence[Tensor]) -> Tensor:
    """Mean over classes of the cosine distance to the class's anchors, summed over the kinds of anchor.

    Args:
        text: [K, D], adapted class embeddings.
        anchors: for each kind (spatial, temporal) [K, D].

    Returns:
        A scalar, 0 for no anchors.
    """
    distances = [(1 - F.cosine_similarity(text.float(), anchor.float(), dim=-1)).mean() for anchor in anchors]
    return torch.stack(distances).sum() if distances else text.new_zeros((), dtype=torch.float32)


def objective(
    video: Tensor, text: Tensor, labels: Tensor, logit_scale: Tensor, anchors: Sequence[Tensor], alpha: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """L = CE(logits, labels) + alpha * consistency, with its parts for the log.

    Args:
        video: [B, D].
        text: [K, D].
        labels: int64 [B], class indices.
        logit_scale: logarithm of the factor on cosine similarities.
        anchors: see :func:`consistency`.
        alpha: weight of the consistency term; the paper does not give its value.
    """
    cross_entropy = F.cross_entropy(class_logits(video, text, logit_scale), labels)
    drift = consistency(text, anchors)
    return cross_entropy + alpha * drift, {
        "cross_entropy": cross_entropy.detach(),
        "consistency": drift.detach(),
    }
