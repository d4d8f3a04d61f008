"""Image towers that open_clip takes from timm: those of SigLIP and the Perception Encoder. Source: timm 1.0.31."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from msta.backbone.architecture import PERCEPTION_ENCODER, SIGLIP
from msta.backbone.blocks import Activation
from msta.backbone.formats.parts import Tensors, rename
from msta.errors import CheckpointError

_NAMES = [
    (r"^visual\.trunk\.", "video."),
    (r"^video\.patch_embed\.proj\.", "video.patch_embedding."),
    (r"^video\.pos_embed$", "video.positional_embedding"),
    (r"^video\.cls_token$", "video.class_embedding"),
    (r"^video\.norm_pre\.", "video.ln_pre."),
    (r"^video\.norm\.", "video.ln_post."),
    (r"^video\.head\.weight$", "video.proj"),
    (r"^video\.head\.bias$", "video.proj_bias"),
    (r"^(video\.blocks\.\d+\.)norm(\d)\.", r"\1ln_\2."),
    (r"^video\.attn_pool\.latent$", "video.attention_pooling.query"),
    (r"^video\.attn_pool\.(q|kv|proj)\.", r"video.attention_pooling.attn.\1."),
    (r"^video\.attn_pool\.norm\.", "video.attention_pooling.ln."),
    (r"^video\.attn_pool\.mlp\.", "video.attention_pooling.mlp."),
]
_MODELS = re.compile(r"vit_(?P<size>\w+?)_patch\d+_siglip_\d+|vit_pe_core_(?P<pe>tiny|small|base|large)_patch\d+_\d+")
_HEADS = {  # size in the name, width -> heads
    ("tiny", 192): 3, ("small", 384): 6, ("base", 768): 12, ("large", 1024): 16, ("so400m", 1152): 16,
    ("giantopt", 1536): 16,
}  # fmt: skip


@dataclass(frozen=True)
class TimmTower:
    """The facts in timm's name for a tower."""

    size: str
    unlike_clip: dict[str, Any]
    activation: Activation
    layer_norm_eps: float

    def heads(self, width: int) -> int | None:
        """The number of heads; None if towers of that name have another width."""
        return _HEADS.get((self.size, width))


def tower_called(name: str) -> TimmTower | None:
    """The tower of this name; None if it is not supported."""
    if (found := _MODELS.fullmatch(name)) is None:
        return None
    if found["pe"]:
        return TimmTower(found["pe"], PERCEPTION_ENCODER, "gelu", 1e-5)
    return TimmTower(found["size"], SIGLIP, "gelu_tanh" if found["size"] == "giantopt" else "gelu", 1e-6)


def tower_tensors(raw: Tensors, folder: Path) -> Tensors:
    """The tensors of the image tower, with our names in place of open_clip's.

    Raises:
        CheckpointError: there is no attention pooling in it.
    """
    tensors = rename(raw, _NAMES)
    try:
        tensors["video.positional_embedding"] = tensors["video.positional_embedding"].squeeze(0)
        for name in ("video.class_embedding", "video.attention_pooling.query"):
            if name in tensors:
                tensors[name] = tensors[name].flatten()
        attention = "video.attention_pooling.attn."
        for part in ("weight", "bias"):
            q, kv = tensors.pop(f"{attention}q.{part}"), tensors.pop(f"{attention}kv.{part}")
            tensors[f"{attention}qkv.{part}"] = torch.cat((q, kv))
    except KeyError as error:
        raise CheckpointError(f"{folder}: looked like a tower of timm, but {error.args[0]} is missing") from error
    if "video.proj" in tensors:
        tensors["video.proj"] = tensors["video.proj"].T
    return tensors
