"""Using a trained adapter: on files, in a service, elsewhere than in torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from msta.inference.predictor import Predictor

__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    if name != "Predictor":
        raise AttributeError(f"module 'msta.inference' has no attribute {name!r}")
    from msta.inference.predictor import Predictor  # with torch, which not all of this package needs

    return Predictor
