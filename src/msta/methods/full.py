"""Full fine-tuning: both towers and the temperature train, as in ViFi-CLIP (CVPR 2023)."""

from __future__ import annotations

import copy
from typing import ClassVar

from msta.backbone.dual_encoder import DualEncoder
from msta.methods.base import AdaptedModel, MethodConfig


class FullConfig(MethodConfig):
    """No settings. What is saved is as large as the backbone."""

    name: ClassVar[str] = "full"

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """A copy of the backbone, all of it trainable: the original stays frozen, to read the descriptions."""
        twin = copy.deepcopy(backbone).requires_grad_(True)
        return AdaptedModel(self, twin, twin, origin=backbone, trains="both towers and the temperature")
