"""What the tests share: small random backbones, and where the given files are."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import settings

import msta
from msta.adapters.task import Task
from msta.backbone.architecture import PERCEPTION_ENCODER, SIGLIP, Architecture
from msta.backbone.blocks import TowerShape

settings.register_profile("msta", deadline=None)  # another job on the machine is no failure
settings.load_profile("msta")

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("MSTA_SHARED") or Path(__file__).parents[2] / "shared")


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference over largest absolute value."""
    return ((a - b).abs().max() / b.abs().max()).item()


KINDS = ["joint", "frame-wise", "siglip", "perception"]
"""Of backbones: ViCLIP's, CLIP's, SigLIP's (no class token, no causal text) and the Perception Encoder's (rotary)."""
_OTHER = {"siglip": {**SIGLIP, "embed_dim": 48}, "perception": {**PERCEPTION_ENCODER, "pool_heads": 2}}


def tiny(kind: str = "joint", *, video_layers: int = 3, text_layers: int = 3, **changes) -> Architecture:
    """One of KINDS. 32 px in patches of 16, 4 frames, CLIP's vocabulary: small enough to train in a test."""
    numbers = dict(
        attention="joint" if kind == "joint" else "frame-wise",
        image_size=32,
        patch_size=16,
        frames=4,
        embed_dim=24,
        video=TowerShape(48, video_layers, 3, 96),
        text=TowerShape(32, text_layers, 2, 64),
        context_length=16,
    )
    return Architecture(**{**numbers, **_OTHER.get(kind, {}), **changes})


def refused(method: str, kind: str) -> bool:
    """Whether a method cannot adapt this kind of backbone: prompts and AIM need CLIP's tokens and positions."""
    return (method == "prompts" and kind in ("siglip", "perception")) or (method == "aim" and kind == "perception")


def saved_backbone(folders: pytest.TempPathFactory, kind: str = "joint") -> Path:
    """A tiny one, in a folder of its own."""
    path = folders.mktemp("backbone") / "tiny"
    msta.random_backbone(tiny(kind)).save(path)
    return path


def saved_adapter(
    path: Path, seed: int, classes: Sequence[str], backbone: msta.DualEncoder, metrics: dict[str, float] | None = None
) -> None:
    """Of MSTA, in a folder of its own, with answers of its own: every parameter is moved by chance."""
    torch.manual_seed(seed)
    model = msta.attach(backbone, msta.MSTAConfig(dim=16))
    with torch.no_grad():
        for p in model.trainable_parameters():
            p.add_(0.1 * torch.randn_like(p))
    model.task = Task(tuple(classes))
    model.save(path, metrics or {})


@pytest.fixture(params=KINDS)
def backbone(request) -> msta.DualEncoder:
    return msta.random_backbone(tiny(request.param))


@pytest.fixture
def joint_backbone() -> msta.DualEncoder:
    return msta.random_backbone(tiny("joint"))
