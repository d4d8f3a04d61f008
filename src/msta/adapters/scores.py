"""How a clip's embedding and the classes' become scores, where a method has no way of its own."""

from __future__ import annotations

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
