"""What the tests share: small random backbones, and where the given files are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from video_files import moving_squares

import msta
from msta.adapters.method import MethodConfig
from msta.adapters.task import Task
from msta.backbone.architecture import PERCEPTION_ENCODER, SIGLIP, Architecture
from msta.backbone.blocks import TowerShape
from msta.methods import method_config
from msta.notices import notice

# Another job on the machine is no failure. CI draws the same examples each time; at your desk they are new ones.
settings.register_profile("msta", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("msta")

DATA = Path(__file__).parent / "data"
OUTSIDE = Path(os.environ.get("MSTA_TEST_DATA") or Path(__file__).parents[2] / "shared")
"""Data of others, which the repository does not hold: real clips, published lists. CONTRIBUTING says what is where."""


def needs(*folders: str) -> pytest.MarkDecorator:
    """Skip a test unless these folders of OUTSIDE are there."""
    missing = [folder for folder in folders if not (OUTSIDE / folder).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"MSTA_TEST_DATA ({OUTSIDE}) lacks {', '.join(missing)}")


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


def stir(model: msta.AdaptedModel, std: float = 0.1) -> msta.AdaptedModel:
    """Away from the zero start, so that every part of the adapter has a say."""
    with torch.no_grad():
        for p in model.trainable_parameters():
            p.add_(std * torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())))
    return model


def saved_backbone(folders: pytest.TempPathFactory, kind: str = "joint") -> Path:
    """A tiny one, in a folder of its own."""
    path = folders.mktemp("backbone") / "tiny"
    msta.random_backbone(tiny(kind)).save(path)
    return path


SPANNING = {"bitfit", "lora", "adaptformer", "st-adapter", "aim"}
"""Methods that adapt all blocks from ``first_block`` on."""


def small(name: str, layers: tuple[int, int], span: tuple[int, int], choice: int) -> MethodConfig:
    """A method that fits towers of these depths, with one of its variants."""
    first, last = sorted(min(s, max(layers)) for s in span)
    towers = ("video", "text", "both")[choice % 3]
    if name in ("msta", "mma"):
        kernel = {} if name == "mma" else {"temporal_kernel": (0, 3, 5)[choice % 3]}
        blocks = {"first_block": first, "last_block": last}
        towers = towers if layers[0] == layers[1] else "both"  # else the blocks may lie in the other tower alone
        return method_config(name, **blocks, dim=4, scale=0.3, shared=choice < 3, towers=towers, **kernel)
    if name == "prompts":
        enter = min(first, *layers)
        kind = ("coop", "vpt", "ivlp", "maple")[choice % 4]
        depth = 1 + (last - first) % (min(layers) - enter + 1)
        return method_config(name, kind=kind, tokens=1 + choice % 3, depth=depth, first_block=enter)
    if name == "tip-adapter":
        return method_config(name, trained=choice < 3)
    if name not in SPANNING:
        return method_config(name)
    own = {
        "bitfit": {"towers": towers},
        "lora": {"rank": 2, "towers": towers, "modules": (["qkv"], ["proj", "fc1"], ["fc2"], ["qkv", "fc2"])[choice % 4]},
        "adaptformer": {"dim": 4, "towers": towers},
        "st-adapter": {
            "dim": 4, "before": ("mlp", "attention", "both")[choice % 3], "kernel": ([3, 1, 1], [3, 3, 3])[choice // 3],
        },
        "aim": {"frames": 1 + choice},
    }[name]  # fmt: skip
    return method_config(name, first_block=first, **own)


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


def read_log(run: Path) -> list[dict]:
    """The lines of a run's log."""
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def _the_same_chance_every_time() -> None:
    """What a test draws does not depend on the tests that ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def moving_clips(tmp_path_factory) -> Path:
    """Two classes of 9 clips: a square that moves left, one that moves right."""
    return moving_squares(tmp_path_factory.mktemp("clips"), {"go_there": -1, "go_back": 1}, 9)


@pytest.fixture(scope="session")
def tiny_backbone(tmp_path_factory) -> Path:
    """A saved backbone, small enough to train in a test."""
    return saved_backbone(tmp_path_factory)


@pytest.fixture
def every_notice() -> None:
    """A notice is given once a process; a test that uses this hears it, whatever was said before."""
    notice.cache_clear()


@pytest.fixture(params=KINDS)
def backbone(request) -> msta.DualEncoder:
    return msta.random_backbone(tiny(request.param))


@pytest.fixture
def joint_backbone() -> msta.DualEncoder:
    return msta.random_backbone(tiny("joint"))


@pytest.fixture(scope="module")
def browser():
    """Chromium, with a camera that is not there."""
    pytest.importorskip("playwright", reason="needs playwright: pip install 'msta[dev]'")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
        found = (
            own if os.path.exists(own) else next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
        )
        if found is None:
            pytest.skip("needs Chromium: playwright install chromium, or one in PATH")
        camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]  # a picture that moves
        launched = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", *camera])
        yield launched
        launched.close()
