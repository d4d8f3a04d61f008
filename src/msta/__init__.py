"""Adapt video-language foundation models (CLIP, ViCLIP) to your own actions with a few labelled clips."""

from msta._version import __version__
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder, random_backbone
from msta.inference.predictor import Predictor
from msta.methods import attach, load_adapter
from msta.methods.base import AdaptedModel
from msta.methods.full import FullConfig
from msta.methods.msta import MSTAConfig
from msta.methods.zero_shot import ZeroShotConfig

__all__ = [
    "AdaptedModel",
    "DualEncoder",
    "FullConfig",
    "MSTAConfig",
    "Predictor",
    "ZeroShotConfig",
    "__version__",
    "attach",
    "load_adapter",
    "load_backbone",
    "random_backbone",
]
