"""Files with OpenAI's tensor names: OpenAI, open_clip, ViCLIP, and models that were fine-tuned from them.

ViCLIP is recognised by its temporal positions, a fine-tuned CLIP by ViFi-CLIP's names. Any other file is OpenAI's or in
open_clip's native form. No tensor distinguishes these two, although they compute different things: see
:mod:`msta.backbone.known`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from msta.backbone.architecture import HALF, IMAGENET_MEAN, IMAGENET_STD, PERCEPTION_ENCODER
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.formats.parts import RESBLOCKS, Facts, Parts, Tensors, architecture, rename, sizes
from msta.backbone.known import OPENAI, Traits, identify
from msta.backbone.tokenizer import Tokenizer, tokenizer_without_file
from msta.errors import CheckpointError
from msta.notices import notice

_ATTENTION_POOLING = [  # PE-Core's own
    (r"^video\.attn_pool\.probe$", "video.attention_pooling.query"),
    (r"^video\.attn_pool\.layernorm\.", "video.attention_pooling.ln."),
    (r"^video\.attn_pool\.", "video.attention_pooling."),
]


def load(raw: Tensors, path: Path, facts: Facts, tokenizer: Tokenizer | None, base: DualEncoder | None) -> Parts:
    """Tensors without prefixes -> the model.

    Args:
        raw: the content of the file.
        path: the file; its name may say what it is.
        facts: what the user gave.
        tokenizer: given by the user or found beside the file; None for CLIP's.
        base: the source of a missing token embedding.

    Raises:
        CheckpointError: the file does not exist, something is missing, or two known models fit.
    """
    if not any(name.startswith(("vision_encoder.", "image_encoder.", "visual.")) for name in raw):
        raise CheckpointError(
            f"{path}: no CLIP or ViCLIP: no video or image tower among its {len(raw)} tensors "
            f"(first: {', '.join(sorted(raw)[:3])})"
        )
    if any(".layer1." in name or ".attnpool." in name for name in raw):
        raise CheckpointError(f"{path}: a CLIP with a ResNet image tower; only vision transformers are supported")
    tensors = rename(rename(raw, RESBLOCKS), _ATTENTION_POOLING)
    joint = "video.temporal_positional_embedding" in tensors
    fine_tuned = any(name.startswith("image_encoder.") for name in raw)
    perception = "visual.attn_pool.probe" in raw
    kind = "ViCLIP" if joint else "a fine-tuned CLIP" if fine_tuned else "PE-Core" if perception else "OpenAI CLIP"
    if perception:
        tensors["video.attention_pooling.query"] = tensors["video.attention_pooling.query"].flatten()
    if joint:
        positions = tensors["video.temporal_positional_embedding"]
        tensors["video.temporal_positional_embedding"] = positions.reshape(-1, positions.shape[-1])
    if tensors.get("video.patch_embedding.weight", torch.empty(0)).ndim == 5:  # a 3-D convolution one frame deep
        tensors["video.patch_embedding.weight"] = tensors["video.patch_embedding.weight"].squeeze(2)
    if "temp" in tensors:
        tensors["logit_scale"] = -tensors.pop("temp").float().log()
    if "text.token_embedding.weight" not in tensors and base is not None:
        tensors["text.token_embedding.weight"] = base.text.token_embedding.weight
    found = sizes(tensors, path, kind)
    if joint:
        known = replace(OPENAI, origin="ViCLIP's code", mean=IMAGENET_MEAN, std=IMAGENET_STD, fit="squash")
    elif fine_tuned:  # X-CLIP's data pipeline, which ViFi-CLIP and TC-CLIP took over, has ImageNet's statistics
        known = replace(OPENAI, origin="ViFi-CLIP's code", mean=IMAGENET_MEAN, std=IMAGENET_STD)
    elif perception:
        known = Traits("PE-Core's code", "gelu", mean=HALF, std=HALF, fit="squash")
    elif "input_resolution" in raw:
        known = replace(OPENAI, origin="OpenAI's archive")
    elif re.search("openai", path.name, re.IGNORECASE):
        known = replace(OPENAI, origin="OpenAI's, by the file's name")
    else:
        known = _known(path, facts, found)
    towers = {
        "video": [known, *_as_in_clip(found["video"])],
        "text": [replace(known, heads=None), *_as_in_clip(found["text"])],
    }
    stated = PERCEPTION_ENCODER if perception else {}
    made = architecture(found, facts, towers, [known], **stated)
    try:
        tokenizer = tokenizer or tokenizer_without_file(made.vocab_size)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    return Parts(kind, made, tensors, tokenizer, facts.origins)


def _known(path: Path, facts: Facts, found: dict[str, Any]) -> Traits:
    """What is known about a model of these sizes; else OpenAI's settings, with a notice.

    Raises:
        CheckpointError: two known models fit.
    """
    traits = identify(path, found, facts.said("activation"), facts.said("mean"))
    if traits is not None:
        return traits
    if facts.said("activation") is None:
        if path.name.startswith("open_clip"):
            raise CheckpointError(
                f"{path}: by its name this is an open_clip model, and only its open_clip_config.json says what it "
                "computes; put that beside it, or say ?activation=gelu (most of them) or ?activation=quick_gelu"
            )
        notice(
            f"{path}: a model of unknown sizes, and nothing beside it says what it computes: taken as OpenAI's "
            "(quick_gelu, heads 64 wide). If it was trained by open_clip, that is mostly gelu: say ?activation=gelu"
        )
    return OPENAI


def _as_in_clip(tower: dict[str, int]) -> list[Traits]:
    """CLIP's rules: heads have 64 channels."""
    width = tower["width"]
    heads = width // 64 if width % 64 == 0 else 1 if width < 64 else None
    return [Traits("width / 64, as in CLIP", heads=heads), Traits("as in CLIP", layer_norm_eps=1e-5)]
