"""MSTA-plus: MSTA, and what its own training clips look like. Ours, not the paper's.

MSTA asks a class's name alone. After training, the adapted video tower has also seen the class: with p_k the mean
embedding of its training clips (each the mean over some augmented views, all of length one) and t_k that of its name,

    t'_k = t_k / |t_k| + blend * ( p_k - mean_j p_j )

takes the name's place. The mean of all classes is taken off because clips and texts lie in different parts of the
space: what is left is how a class differs from the others. A class without training clips keeps its name's embedding,
so that new names can be asked for as ever. Nothing more trains than in MSTA; K D numbers more are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from msta.backbone.dual_encoder import DualEncoder
from msta.methods.base import AdaptedModel
from msta.methods.msta import MSTAConfig


class MSTAPlusConfig(MSTAConfig):
    """MSTA's settings and two more.

    Args:
        blend: how much the clips count beside the name. 0: MSTA.
        views: augmented views of each training clip.
    """

    name: ClassVar[str] = "msta-plus"
    recipe: ClassVar[dict[str, float]] = {}
    blend: float = Field(1.0, ge=0)
    views: int = Field(4, ge=1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """As MSTA."""
        return self.wrap(backbone, MSTAPlus)


class MSTAPlus(AdaptedModel):
    """MSTA that keeps a prototype of each class it was trained on."""

    config: MSTAPlusConfig

    def expect(self, classes: int, clips: int) -> None:
        """Make room for the prototypes: zero, which blends nothing in."""
        scale = self.backbone.logit_scale
        width = self.backbone.architecture.embed_dim
        self.adapter.register_buffer("prototypes", torch.zeros(classes, width, device=scale.device))
        self.settle_views = self.config.views

    def settle(self, embeddings: Tensor, labels: Tensor) -> None:
        """Make the prototypes of the clips shown. A class of which none could be read keeps zero."""
        prototypes = self._prototypes()
        clips = F.normalize(embeddings.float(), dim=-1)
        found = labels.unique()
        means = torch.stack([clips[labels == label].mean(0) for label in found])
        means = F.normalize(means, dim=-1)
        prototypes.zero_()
        prototypes[found] = means - means.mean(0)

    def class_vectors(self, classes: Sequence[str], text: Tensor) -> Tensor:
        """The names' embeddings, moved towards the clips of those that were trained on."""
        if self.task is None or not hasattr(self.adapter, "prototypes"):
            return text
        rows = dict(zip(self.task.classes, self._prototypes(), strict=True))
        nothing = torch.zeros(text.shape[-1], device=text.device)
        shift = torch.stack([rows.get(name, nothing) for name in classes])
        return F.normalize(text.float(), dim=-1) + self.config.blend * shift

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """As ever; the number of classes is the state's."""
        if (kept := state.get("adapter.prototypes")) is not None:
            self.expect(len(kept), 0)
        super().load_adapter_state(state)

    def _prototypes(self) -> Tensor:
        prototypes: Tensor = self.adapter.prototypes  # type: ignore[assignment]
        return prototypes
