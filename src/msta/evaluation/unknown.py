"""Saying "unknown": a clip of no known class should be refused, not forced into the likeliest one."""

from __future__ import annotations

import numpy as np

from msta.errors import DataError
from msta.evaluation.metrics import Array

KEEP = 0.95
"""Share of the validation clips that the threshold lets pass."""


def choose_threshold(known: Array, unknown: Array | None = None, *, keep: float = KEEP) -> float:
    """The confidence below which a clip is called unknown, chosen on validation clips.

    Args:
        known: confidences, each the highest probability, of clips whose class is among those chosen from.
        unknown: the same of clips of other classes. Given, the threshold that parts the two best: the highest sum of
            known clips kept and unknown ones refused. None: the highest that keeps a share ``keep`` of the known.

    Raises:
        DataError: no known clips.
    """
    if not len(known):
        raise DataError("a threshold for unknown clips is chosen on validation clips, and there are none")
    if unknown is None or not len(unknown):
        return float(np.quantile(known, 1 - keep, method="lower"))
    candidates = np.unique(np.concatenate([known, unknown]))
    kept, refused = (known[:, None] >= candidates).mean(0), (unknown[:, None] < candidates).mean(0)
    return float(candidates[np.argmax(kept + refused)])


def rejection(below: float, known: Array, unknown: Array) -> dict[str, float]:
    """What a threshold does to test clips, in percent.

    Returns:
        "kept" of the known, "refused" of the unknown, and "auroc", how well confidence parts them at any threshold
        (50: not at all).
    """
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.ones(len(known)), np.zeros(len(unknown))])
    return {
        "kept": float(100 * (known >= below).mean()),
        "refused": float(100 * (unknown < below).mean()),
        "auroc": float(100 * roc_auc_score(truth, np.concatenate([known, unknown]))),
    }
