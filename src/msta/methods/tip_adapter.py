"""Tip-Adapter (Zhang et al., ECCV 2022): the training clips' own embeddings are a cache that new clips look up.

With f a clip's embedding and W the classes', both of length one, F the N cached embeddings and L their labels, one-hot,

    logits = s * f W^T + alpha * exp( -beta * (1 - f F^T) ) L

with s the backbone's factor on cosine similarities. Nothing trains: every training clip is read in a few augmented
views, whose embeddings are averaged. With ``trained`` (Tip-Adapter-F), the keys F train from this start: N D parameters
for N clips. alpha, beta and the number of views are those of the authors' code (configs/dtd.yaml), which then searches
alpha and beta on validation clips. Here they are settings like any other. The cache knows only its own classes.
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError


class TipAdapterConfig(MethodConfig):
    """How the cache is used.

    Args:
        alpha: weight of the cache's scores.
        beta: sharpness of the look-up.
        trained: whether the keys train, starting as the embeddings (Tip-Adapter-F).
        views: augmented views of each training clip that its key is the mean of.
    """

    name: ClassVar[str] = "tip-adapter"
    closed_set: ClassVar[bool] = True
    paper_overrides: ClassVar[dict[str, float]] = {"train.lr": 1e-3, "train.epochs": 20}
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"method.alpha": (0.2, 20.0), "method.beta": (0.3, 30.0)}
    alpha: float = Field(2.0, ge=0)
    beta: float = Field(1.0, ge=0)
    trained: bool = False
    views: int = Field(10, ge=1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """The backbone and a cache, which is filled with the training clips before training."""
        trains = (
            "the keys of a cache of training clips" if self.trained else "nothing; a cache of training clips is kept"
        )
        model = TipAdapter(self, nn.Module(), backbone, origin=backbone, trains=trains)
        model.support_views = self.views
        return model


class TipAdapter(AdaptedModel):
    """A model that adds the cache's scores to those of the classes."""

    config: TipAdapterConfig

    def prepare(self, classes: int, clips: int) -> None:
        """Make an empty cache, with zero keys."""
        device, width = self.backbone.logit_scale.device, self.backbone.architecture.embed_dim
        self._fill(torch.zeros(clips, width, device=device), torch.zeros(clips, dtype=torch.int64, device=device))

    def add_support(self, embeddings: Tensor, labels: Tensor) -> None:
        """Fill the cache."""
        self._fill(F.normalize(embeddings.float(), dim=-1), labels)

    def load_adapter_state(self, state: dict[str, Tensor]) -> None:
        """As in the base class; the number of clips comes from the state."""
        labels = state.get("adapter.labels")
        if labels is not None and (not hasattr(self.adapter, "labels") or len(labels) != len(self._part("labels"))):
            self.prepare(0, len(labels))
        super().load_adapter_state(state)

    def logits(self, video: Tensor, text: Tensor) -> Tensor:
        """[B, D], [K, D] -> [B, K].

        Raises:
            ConfigError: the cache does not exist yet.
        """
        keys, labels = self._part("keys"), self._part("labels")
        near = F.normalize(video.float(), dim=-1) @ keys.float().T  # [B, N]
        one_hot = labels[:, None] == torch.arange(len(text), device=labels.device)  # F.one_hot looks at the numbers
        said = (self.config.beta * (near - 1)).exp() @ one_hot.to(near.dtype)
        return super().logits(video, text) + self.config.alpha * said

    def _fill(self, keys: Tensor, labels: Tensor) -> None:
        if self.config.trained:
            self.adapter.keys = nn.Parameter(keys)
        else:
            self.adapter.register_buffer("keys", keys)
        self.adapter.register_buffer("labels", labels)

    def _part(self, name: str) -> Tensor:
        if not hasattr(self.adapter, name):
            raise ConfigError(
                "tip-adapter has no cache yet: train it, load it, or call add_support(embeddings, labels)"
            )
        part: Tensor = getattr(self.adapter, name)
        return part
