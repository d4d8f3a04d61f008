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
from msta.backbone.architecture import Architecture
from msta.backbone.blocks import TowerShape

settings.register_profile("msta", deadline=None)  # another job on the machine is no failure
settings.load_profile("msta")

DATA = Path(__file__).parent / "data"
SHARED = Path(os.environ.get("MSTA_SHARED") or Path(__file__).parents[2] / "shared")


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest absolute difference over largest absolute value."""
    return ((a - b).abs().max() / b.abs().max()).item()


def tiny(attention: str = "joint", *, video_layers: int = 3, text_layers: int = 3, **changes) -> Architecture:
    """32 px in patches of 16, 4 frames, CLIP's vocabulary: small enough to train in a test."""
    numbers = dict(
        attention=attention,
        image_size=32,
        patch_size=16,
        frames=4,
        embed_dim=24,
        video=TowerShape(48, video_layers, 3, 96),
        text=TowerShape(32, text_layers, 2, 64),
        context_length=16,
    )
    return Architecture(**{**numbers, **changes})


def saved_backbone(folders: pytest.TempPathFactory, attention: str = "joint") -> Path:
    """A tiny one, in a folder of its own."""
    path = folders.mktemp("backbone") / "tiny"
    msta.random_backbone(tiny(attention)).save(path)
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


@pytest.fixture(params=["joint", "frame-wise"])
def backbone(request) -> msta.DualEncoder:
    return msta.random_backbone(tiny(request.param))


@pytest.fixture
def joint_backbone() -> msta.DualEncoder:
    return msta.random_backbone(tiny("joint"))
