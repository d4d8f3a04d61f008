"""Using a trained adapter."""

from msta.inference.predictor import Prediction, Predictor
from msta.inference.segments import Segment, Smoothing
from msta.inference.timeline import Timeline, Windows, read_timelines

__all__ = ["Prediction", "Predictor", "Segment", "Smoothing", "Timeline", "Windows", "read_timelines"]
