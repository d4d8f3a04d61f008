"""Adapt video-language foundation models (CLIP, ViCLIP) to your own actions with a few labelled clips."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from msta._version import __version__

if TYPE_CHECKING:
    from msta.adapters.model import AdaptedModel
    from msta.api import Trained, evaluate, predict, train
    from msta.backbone.checkpoints import load_backbone
    from msta.backbone.dual_encoder import DualEncoder, random_backbone
    from msta.inference.predictor import Predictor
    from msta.methods import attach, load_adapter
    from msta.methods.full import FullConfig
    from msta.methods.msta import MSTAConfig
    from msta.methods.zero_shot import ZeroShotConfig

# Imported when asked for: what needs no torch (decoding, ONNX) then does without it.
_WHERE = {
    "AdaptedModel": "adapters.model",
    "DualEncoder": "backbone.dual_encoder",
    "FullConfig": "methods.full",
    "MSTAConfig": "methods.msta",
    "Predictor": "inference.predictor",
    "Trained": "api",
    "ZeroShotConfig": "methods.zero_shot",
    "attach": "methods",
    "evaluate": "api",
    "load_adapter": "methods",
    "load_backbone": "backbone.checkpoints",
    "predict": "api",
    "random_backbone": "backbone.dual_encoder",
    "train": "api",
}

__all__ = [
    "AdaptedModel",
    "DualEncoder",
    "FullConfig",
    "MSTAConfig",
    "Predictor",
    "Trained",
    "ZeroShotConfig",
    "__version__",
    "attach",
    "evaluate",
    "load_adapter",
    "load_backbone",
    "predict",
    "random_backbone",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'msta' has no attribute {name!r}")
    return getattr(import_module(f"msta.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return __all__
