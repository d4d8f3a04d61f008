"""Use a trained adapter: on files, on long videos, in a service, outside torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msta.inference.predictor import Prediction, Predictor
    from msta.inference.segments import Segment, Smoothing
    from msta.inference.timeline import Timeline, read_timelines
    from msta.inference.windows import Windows

# These modules import torch, so they are imported on first use: the ONNX predictor works without torch.
_MODULES = {
    "Prediction": "predictor",
    "Predictor": "predictor",
    "Segment": "segments",
    "Smoothing": "segments",
    "Timeline": "timeline",
    "Windows": "windows",
    "read_timelines": "timeline",
}

__all__ = [
    "Prediction", "Predictor", "Segment", "Smoothing", "Timeline", "Windows", "read_timelines",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'msta.inference' has no attribute {name!r}")
    return getattr(import_module(f"msta.inference.{_MODULES[name]}"), name)
