"""Using a trained adapter: on files, on long videos, in a service, elsewhere than in torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msta.inference.predictor import Prediction, Predictor
    from msta.inference.segments import Segment, Smoothing
    from msta.inference.timeline import Timeline, Windows, read_timelines

# Imported when asked for, with torch, which the ONNX predictor beside them does without.
_WHERE = {
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Segment": "segments",
    "Smoothing": "segments",
    "Timeline": "timeline",
    "Windows": "timeline",
    "read_timelines": "timeline",
}

__all__ = ["Prediction", "Predictor", "Segment", "Smoothing", "Timeline", "Windows", "read_timelines"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'msta.inference' has no attribute {name!r}")
    return getattr(import_module(f"msta.inference.{_WHERE[name]}"), name)
