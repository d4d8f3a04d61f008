"""Linear probe: a linear classifier on the frozen video tower's embeddings. It does not use the classes' names.

    logits = s * ( W v / |v| + b )

v is the embedding [D], and s is the backbone's own factor on cosine similarities, so that a usual learning rate fits. W
and b are zero at the start: (D + 1) K parameters for K classes, 513 K on ViT-B/16. (CLIP's paper fits a logistic
regression, by L-BFGS, on the features before the projection. Ours is trained like every other method, on the
embeddings after it.)
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError


class LinearProbeConfig(MethodConfig):
    """No settings."""

    name: ClassVar[str] = "linear-probe"
    closed_set: ClassVar[bool] = True

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """The backbone and a classifier, which is made when the number of classes is known."""
        return LinearProbe(self, nn.Module(), backbone, origin=backbone, trains="a linear classifier of embeddings")


class LinearProbe(AdaptedModel):
    """A model that scores clips by its own classifier."""

    def prepare(self, classes: int, clips: int) -> None:
        """Make the classifier, with all weights zero."""
        a = self.backbone.architecture
        scale = self.backbone.logit_scale
        self.adapter.weight = nn.Parameter(torch.zeros(classes, a.embed_dim, device=scale.device))
        self.adapter.bias = nn.Parameter(torch.zeros(classes, device=scale.device))

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """As in the base class; the number of classes comes from the state."""
        weight = state.get("adapter.weight")
        if weight is not None and (self.num_trainable() == 0 or len(weight) != len(self._weight())):
            self.prepare(len(weight), 0)
        super().load_adapter_state(state)

    def logits(self, video: Tensor, text: Tensor) -> Tensor:
        """[B, D] -> [B, K]; ``text`` is not used.

        Raises:
            ConfigError: the classes are not known yet.
        """
        weight = self._weight()
        bias: Tensor = self.adapter.bias  # type: ignore[assignment]
        scores = F.linear(F.normalize(video.float(), dim=-1), weight.float(), bias.float())
        return self.backbone.logit_scale.float().exp() * scores

    def _weight(self) -> Tensor:
        if not hasattr(self.adapter, "weight"):
            raise ConfigError("linear-probe has no classifier yet: train it, load it, or call prepare(classes, clips)")
        weight: Tensor = self.adapter.weight  # type: ignore[assignment]
        return weight
