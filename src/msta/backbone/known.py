"""Known models with OpenAI's tensor names, for files that come without a config.

Sizes and vocabulary tell a ViT-B/16 from others, but not OpenAI's from LAION's, which has another activation. The name
of the file or of its folder may. Source: ``open_clip/pretrained.py`` and ``model_configs`` of open_clip 3.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msta.backbone.architecture import CLIP_MEAN, CLIP_STD, HALF, Fit
from msta.backbone.blocks import Activation
from msta.errors import CheckpointError

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Traits:
    """What one source knows about a model that no tensor shows; None for what it does not know.

    ``origin`` is the source, in words. ``heads``, ``activation`` and ``layer_norm_eps`` are of one tower or of both.
    """

    origin: str
    activation: Activation | None = None
    heads: int | None = None
    layer_norm_eps: float | None = None
    mean: Triple | None = None
    std: Triple | None = None
    fit: Fit | None = None


OPENAI = Traits("as OpenAI's; nothing says so", "quick_gelu", mean=CLIP_MEAN, std=CLIP_STD, fit="crop")


# (width, layers, patch, pixels) of the image tower, (width, layers) of the text tower -> name, heads
_SIZES: dict[tuple[int, ...], tuple[str, int]] = {
    (768, 12, 32, 224, 512, 12): ("ViT-B/32", 12),
    (768, 12, 32, 256, 512, 12): ("ViT-B/32-256", 12),
    (768, 12, 16, 224, 512, 12): ("ViT-B/16", 12),
    (896, 12, 16, 240, 640, 12): ("ViT-B/16-plus-240", 14),
    (1024, 24, 14, 224, 768, 12): ("ViT-L/14", 16),
    (1024, 24, 14, 336, 768, 12): ("ViT-L/14-336", 16),
    (1280, 32, 14, 224, 1024, 24): ("ViT-H/14", 16),
    (1280, 32, 14, 378, 1024, 24): ("ViT-H/14-378", 16),
    (1408, 40, 14, 224, 1024, 24): ("ViT-g/14", 16),
    (1664, 48, 14, 224, 1280, 32): ("ViT-bigG/14", 16),
}


@dataclass(frozen=True)
class _Maker:
    """Models of several sizes, ``models``, with the same activation and statistics. ``pattern`` matches file names."""

    name: str
    pattern: str
    models: tuple[str, ...]
    activation: Activation
    mean: Triple = CLIP_MEAN
    std: Triple = CLIP_STD


_B32, _B16, _L14, _H14, _BIG = "ViT-B/32", "ViT-B/16", "ViT-L/14", "ViT-H/14", "ViT-bigG/14"
_MAKERS = (
    _Maker("OpenAI", r"openai|^vit-[bl]-(32|16|14)(@336px)?\.pt$", (_B32, _B16, _L14, "ViT-L/14-336"), "quick_gelu"),
    _Maker("MetaCLIP", r"metaclip|quick.?gelu", (_B32, _B16, _L14, _H14, _BIG), "quick_gelu"),
    _Maker("DFN", r"dfn(?!.*39b)|quick.?gelu", (_B16, _L14, _H14, "ViT-H/14-378"), "quick_gelu"),
    _Maker("LAION-400M", r"laion.?400m", (_B32,), "quick_gelu"),
    _Maker("LAION-400M", r"laion.?400m", (_B16, _L14, "ViT-B/16-plus-240"), "gelu"),
    _Maker("LAION-2B", r"laion.?2b", (_B32, _B16, _H14, "ViT-g/14", _BIG), "gelu"),
    _Maker("LAION-2B", r"laion.?2b", (_L14,), "gelu", HALF, HALF),
    _Maker("DataComp, CommonPool", r"datacomp|commonpool", (_B32, "ViT-B/32-256", _B16, _L14), "gelu"),
    _Maker("DFN-2B 39B", r"dfn.*39b", (_L14,), "gelu"),
)


def identify(
    path: Path, sizes: dict[str, Any], activation: str | None = None, mean: Triple | None = None
) -> Traits | None:
    """What is known about a model of these sizes; None if no known model has them.

    Args:
        path: the file; its name, or that of its folder, may name the maker.
        sizes: from :func:`msta.backbone.formats.parts.sizes`.
        activation: if the user gave it.
        mean: if the user gave it.

    Raises:
        CheckpointError: there are models of these sizes that compute different things.
    """
    video, text = sizes["video"], sizes["text"]
    key = (video["width"], video["layers"], sizes["patch_size"], sizes["image_size"], text["width"], text["layers"])
    if key not in _SIZES or (sizes["vocab_size"], sizes["context_length"]) != (49408, 77):
        return None
    model, heads = _SIZES[key]
    fitting = [maker for maker in _MAKERS if model in maker.models]
    named = [m for m in fitting if any(re.search(m.pattern, name.lower()) for name in (path.name, path.parent.name))]
    left = named or fitting
    if activation is not None:
        left = [m for m in fitting if m.activation == activation] or left
    if mean is not None:
        left = [m for m in left if m.mean == mean] or left
    if len({(m.activation, m.mean, m.std) for m in left}) > 1:
        raise CheckpointError(
            f"{path}: a {model} by {_list_of(left, 'quick_gelu')}, or by {_list_of(left, 'gelu')}: they have the same "
            "tensors and compute different things. Give the folder with its open_clip_config.json, or say which: "
            f"{' or '.join(_asked(left))}"
        )
    found = left[0]
    origin = f"{model} by {found.name}, {'by the name' if named else 'by its sizes'}"
    return replace(OPENAI, origin=origin, activation=found.activation, heads=heads, mean=found.mean, std=found.std)


def _list_of(makers: Iterable[_Maker], activation: str) -> str:
    names = [f"{m.name}{' (mean 0.5)' if m.mean == HALF else ''}" for m in makers if m.activation == activation]
    return f"{', '.join(dict.fromkeys(names))} ({activation})" if names else ""


def _asked(makers: list[_Maker]) -> list[str]:
    """The options that distinguish the makers."""
    asked: dict[str, None] = {}
    for maker in makers:
        shifted = any(other.activation == maker.activation and other.mean != maker.mean for other in makers)
        mean = (
            ""
            if not shifted
            else "&mean=0.5&std=0.5"
            if maker.mean == HALF
            else "&mean=" + ",".join(f"{x:.8g}" for x in maker.mean)
        )
        asked[f"?activation={maker.activation}{mean}"] = None
    return list(asked)
