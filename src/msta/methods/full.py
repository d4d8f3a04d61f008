"""Full fine-tuning, as in ViFi-CLIP (CVPR 2023): both towers and the temperature, or one tower alone.

The trained parts are those of the authors' code. Their ``image`` is the whole video tower. Their ``text`` leaves out
the token embedding, because their code reads the prompts' embeddings once, before training. Our ``both`` trains the
token embedding, too.
"""

from __future__ import annotations

import copy
from typing import ClassVar

from torch import nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.methods.wrapping import Towers

VIFI_CLIP = {"train.lr": 2e-6, "train.epochs": 50, "train.warmup_epochs": 5, "train.weight_decay": 1e-3}
"""ViFi-CLIP's few-shot schedule, for CLIP ViT-B/16."""


class FullConfig(MethodConfig):
    """The saved adapter has all trained weights. The original backbone stays frozen, to read the descriptions.

    Args:
        towers: "both" (with the temperature), "video" or "text". ``full-video`` and ``full-text`` are shortcuts.
    """

    name: ClassVar[str] = "full"
    default_overrides: ClassVar[dict[str, float]] = {"train.lr": 3e-5}
    paper_overrides: ClassVar[dict[str, float]] = VIFI_CLIP
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-6, 1e-3)}
    towers: Towers = "both"

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Make trainable copies of the chosen towers; the other tower is the backbone's own."""
        if self.towers == "both":
            twin = copy.deepcopy(backbone).requires_grad_(True)
            trains = "both towers and the temperature"
            return AdaptedModel(self, twin, twin, origin=backbone, trains=trains, frozen="nothing")
        view, trains = backbone.view(), f"the {self.towers} tower"
        if self.towers == "video":
            view.video = copy.deepcopy(backbone.video).requires_grad_(True)
            frozen = "the text tower and the temperature"
            return AdaptedModel(self, view.video, view, origin=backbone, trains=trains, frozen=frozen)
        shared = {id(p): p for p in backbone.text.token_embedding.parameters()}
        tower = view.text = copy.deepcopy(backbone.text, shared).requires_grad_(True)
        tower.token_embedding.requires_grad_(False)
        adapter = nn.Module()
        adapter._modules = {name: module for name, module in tower._modules.items() if name != "token_embedding"}
        adapter._parameters = dict(tower._parameters)
        frozen = "the video tower, the token embedding and the temperature"
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains, frozen=frozen)


class FullVideoConfig(FullConfig):
    """``full`` with ``towers="video"``."""

    name: ClassVar[str] = "full-video"
    towers: Towers = "video"


class FullTextConfig(FullConfig):
    """``full`` with ``towers="text"``."""

    name: ClassVar[str] = "full-text"
    towers: Towers = "text"
