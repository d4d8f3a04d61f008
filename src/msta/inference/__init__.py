"""Using a trained adapter."""

from msta.inference.predictor import Predictor

__all__ = ["Predictor"]
