"""Zero-shot: the frozen backbone as it is. Nothing trains. Every other method has to beat this baseline."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder


class ZeroShotConfig(MethodConfig):
    """No settings."""

    name: ClassVar[str] = "zero-shot"
    search_space: ClassVar[dict[str, tuple[float, float]]] = {}

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """The backbone with an empty adapter."""
        return AdaptedModel(self, nn.Module(), backbone, origin=backbone, trains="nothing")
