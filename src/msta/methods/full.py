"""Full fine-tuning, as in ViFi-CLIP (CVPR 2023): both towers and the temperature, or one tower alone.

What trains is what their code names: ``image`` is the whole video tower; ``text`` leaves the token embedding as it is,
since it reads the prompts' embeddings once, before training. ``both`` is theirs and the token embedding.
"""

from __future__ import annotations

import copy
from typing import ClassVar

from torch import nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder

VIFI_CLIP = {"train.lr": 2e-6, "train.epochs": 50, "train.warmup_epochs": 5, "train.weight_decay": 1e-3}
"""Its few-shot schedule, for CLIP ViT-B/16."""


class FullConfig(MethodConfig):
    """No settings. What is saved is as large as the backbone."""

    name: ClassVar[str] = "full"
    usual: ClassVar[dict[str, float]] = {"train.lr": 3e-5}
    recipe: ClassVar[dict[str, float]] = VIFI_CLIP
    search: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-6, 1e-3)}

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """A copy of the backbone, all of it trainable: the original stays frozen, to read the descriptions."""
        twin = copy.deepcopy(backbone).requires_grad_(True)
        return AdaptedModel(
            self, twin, twin, origin=backbone, trains="both towers and the temperature", frozen="nothing"
        )


class FullVideoConfig(MethodConfig):
    """No settings."""

    name: ClassVar[str] = "full-video"
    usual: ClassVar[dict[str, float]] = {"train.lr": 3e-5}
    recipe: ClassVar[dict[str, float]] = VIFI_CLIP
    search: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-6, 1e-3)}

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """The video tower a trainable copy, the text tower the backbone's own."""
        view = backbone.view()
        view.video = copy.deepcopy(backbone.video).requires_grad_(True)
        frozen = "the text tower and the temperature"
        return AdaptedModel(self, view.video, view, origin=backbone, trains="the video tower", frozen=frozen)


class FullTextConfig(MethodConfig):
    """No settings."""

    name: ClassVar[str] = "full-text"
    usual: ClassVar[dict[str, float]] = {"train.lr": 3e-5}
    recipe: ClassVar[dict[str, float]] = VIFI_CLIP
    search: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-6, 1e-3)}

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """The text tower a trainable copy but for the token embedding, the video tower the backbone's own."""
        view = backbone.view()
        shared = {id(p): p for p in backbone.text.token_embedding.parameters()}
        tower = view.text = copy.deepcopy(backbone.text, shared).requires_grad_(True)
        adapter = nn.Module()
        adapter.blocks, adapter.ln_final = tower.blocks, tower.ln_final
        adapter.positional_embedding, adapter.proj = tower.positional_embedding, tower.proj
        tower.token_embedding.requires_grad_(False)
        return AdaptedModel(
            self, adapter, view, origin=backbone,
            trains="the text tower", frozen="the video tower, the token embedding and the temperature",
        )  # fmt: skip
