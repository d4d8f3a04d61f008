"""What the validation clips teach about confidence: a temperature, and when to say "unknown"."""

from __future__ import annotations

from pathlib import Path

from msta.evaluation.metrics import fit_temperature, scaled
from msta.evaluation.predictions import read_predictions
from msta.evaluation.unknown import choose_threshold


def calibrated(validation: Path) -> dict[str, float | None]:
    """What goes into an adapter's metrics.json, chosen on the predictions in a file; None without the file.

    Returns:
        "temperature" (Guo et al. 2017), which makes the probabilities of its classes as high as they are right, and
        "unknown_below", the probability, at that temperature, which 95 % of the clips reach. Few clips, of which none
        may be wrong, prove little: the temperature is fitted as if of n clips one in n + 2 were wrong (Laplace).
    """
    if not validation.exists():
        return {"temperature": None, "unknown_below": None}
    found = read_predictions(validation)
    temperature = fit_temperature(found.probabilities, found.labels, doubt=1 / (len(found.labels) + 2))
    confidence = scaled(found.probabilities, temperature).max(1)
    return {"temperature": temperature, "unknown_below": choose_threshold(confidence)}
