"""Two numbers fitted on the validation clips: a temperature, and the confidence below which an answer is "unknown".

A clip of no known class should be refused, not assigned to the likeliest class.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from msta.errors import DataError
from msta.evaluation.metrics import Array, auroc, fit_temperature, scaled
from msta.evaluation.predictions import Predictions, read_predictions

KEEP = 0.95
"""Share of the validation clips that the threshold lets pass."""


def calibrated(validation: Path) -> dict[str, float | None]:
    """Both numbers for an adapter's metrics.json, fitted on the predictions in a file; None without the file.

    Returns:
        "temperature", see :func:`temperature_of`, and "unknown_below", the probability, at that temperature, which
        95 % of the clips reach.
    """
    if not validation.exists():
        return {"temperature": None, "unknown_below": None}
    found = read_predictions(validation)
    temperature = temperature_of(found)
    confidence = scaled(found.probabilities, temperature).max(1)
    return {"temperature": temperature, "unknown_below": choose_threshold(confidence)}


def temperature_of(validation: Predictions) -> float:
    """The temperature (Guo et al. 2017) at which the probabilities match the share of right answers.

    A few clips that are all right prove little, so the temperature is fitted as if one of n + 2 clips were wrong, for n
    clips (Laplace).
    """
    return fit_temperature(validation.probabilities, validation.labels, doubt=1 / (len(validation.labels) + 2))


def choose_threshold(known: Array) -> float:
    """The confidence below which a clip is called unknown: the highest that still keeps a share KEEP of known clips.

    Args:
        known: confidences (highest probabilities) of validation clips whose class is one of the known ones.

    Raises:
        DataError: there are no known clips.
    """
    if not len(known):
        raise DataError("a threshold for unknown clips is chosen on validation clips, and there are none")
    return float(np.sort(known)[int((1 - KEEP) * len(known) + 1e-9)])


def rejection(below: float, known: Array, unknown: Array) -> dict[str, float]:
    """How a threshold treats test clips, in percent.

    Returns:
        "kept": share of known clips kept; "refused": share of unknown clips refused; "auroc": how well the confidence
        separates them over all thresholds (50: not at all).
    """
    return {
        "kept": float(100 * (known >= below).mean()),
        "refused": float(100 * (unknown < below).mean()),
        "auroc": auroc(known, unknown),
    }
