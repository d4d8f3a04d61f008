"""Hugging Face's directories: CLIP, Meta CLIP 2, SigLIP and SigLIP 2 of fixed resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msta.backbone.architecture import CLIP_MEAN, CLIP_STD, HALF, SIGLIP
from msta.backbone.formats.folder import read_sharded
from msta.backbone.formats.parts import Facts, Parts, Tensors, architecture, join_qkv, rename, sizes, strip, tower_facts
from msta.backbone.tokenizer import Tokenizer, foreign_tokenizer, read_tokenizer, tokenizer_from_directory
from msta.errors import CheckpointError
from msta.files import read_json

_NAMES = [
    (r"^vision_model\.", "video."),
    (r"^text_model\.", "text."),
    (r"^visual_projection\.weight", "video.proj"),
    (r"^text_projection\.weight", "text.proj"),
    (r"^video\.head\.probe$", "video.attention_pooling.query"),
    (r"^video\.head\.attention\.in_proj_", "video.attention_pooling.attn.qkv."),
    (r"^video\.head\.attention\.out_proj\.", "video.attention_pooling.attn.proj."),
    (r"^video\.head\.layernorm\.", "video.attention_pooling.ln."),
    (r"^video\.head\.mlp\.", "video.attention_pooling.mlp."),
    (r"^text\.head\.weight$", "text.proj"),
    (r"^text\.head\.bias$", "text.proj_bias"),
    (r"\.encoder\.layers\.(\d+)\.", r".blocks.\1."),
    (r"\.self_attn\.out_proj\.", ".attn.proj."),
    (r"\.self_attn\.", ".attn."),
    (r"\.layer_norm(\d)\.", r".ln_\1."),
    (r"\.embeddings\.(class_embedding|patch_embedding\.|token_embedding\.)", r".\1"),
    (r"\.embeddings\.position_embedding\.weight", ".positional_embedding"),
    (r"\.pre_layrnorm\.", ".ln_pre."),  # the typo is Hugging Face's
    (r"\.post_layernorm\.", ".ln_post."),
    (r"\.final_layer_norm\.", ".ln_final."),
]

_SIDES = {"video": "vision", "text": "text"}
_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}
_DEFAULTS = {  # transformers', for what a config leaves out: heads of video and text, activation, epsilon
    "clip": ({"video": 12, "text": 8}, "quick_gelu", 1e-5),
    "metaclip_2": ({"video": 12, "text": 8}, "quick_gelu", 1e-5),
    "siglip": ({"video": 12, "text": 12}, "gelu_pytorch_tanh", 1e-6),
}


def load(path: Path, config: dict[str, Any], facts: Facts, tokenizer: Tokenizer | None) -> Parts:
    """A directory whose config.json has a model_type of MODEL_TYPES; ``tokenizer``: given by the user.

    Raises:
        CheckpointError: something is missing, or the config asks for what is not supported.
    """
    kind = str(config["model_type"])
    tensors = _tensors(path)
    label = {"clip": "a Hugging Face CLIP", "metaclip_2": "a Meta CLIP 2", "siglip": "a SigLIP"}[kind]
    found = sizes(tensors, path, label)
    sides, configs = {}, {}
    for side in _SIDES:
        # older uploads keep the values in text_config_dict, which wins in transformers too
        section = f"{_SIDES[side]}_config"
        beside = {**(config.get(section) or {}), **(config.get(f"{section}_dict") or {})}
        configs[side] = beside
        sides[side] = _side(facts, kind, side, beside)
    pixels, stated = _pixels(path, kind), {}
    stated["pixel_mean"] = facts.take("mean", *pixels["mean"])
    stated["pixel_std"] = facts.take("std", *pixels["std"])
    eos = configs["text"].get("eos_token_id", 49407 if kind == "clip" else 2)
    if kind == "siglip":
        if configs["video"].get("vision_use_head", True) is not True:
            raise CheckpointError(f"{path}: a SigLIP without its attention pooling (vision_use_head) is not supported")
        stated = {**SIGLIP, **stated}
    else:
        # 2 is the old configs' mistake; transformers reads the highest id then
        stated["eos_token_id"] = None if eos == 2 and kind == "clip" else eos
    stated["fit"] = facts.take("fit", (stated.get("fit", "crop"), f"as in {label}"))
    made = architecture(found, facts, sides, **stated)
    return Parts(label, made, tensors, tokenizer or _tokenizer(path, kind, made.vocab_size), facts.origins)


MODEL_TYPES = tuple(_DEFAULTS)


def _side(facts: Facts, kind: str, side: str, config: dict[str, Any]) -> dict[str, Any]:
    heads, activation, eps = _DEFAULTS[kind]
    file, default = "config.json", "transformers' default"
    named = config.get("hidden_act", activation)
    if named not in _ACTIVATIONS:
        raise CheckpointError(f"{facts.name}: the activation {named!r} of its config.json is not supported")
    given = file if "hidden_act" in config else default
    return tower_facts(
        facts, side, [(config.get("num_attention_heads"), file), (heads[side], default)],
        [(_ACTIVATIONS[named], given)], [(config.get("layer_norm_eps"), file), (eps, default)],
    )  # fmt: skip


def _tensors(path: Path) -> Tensors:
    tensors = rename(join_qkv(strip(read_sharded(path))), _NAMES)
    for side in ("video", "text"):
        if f"{side}.proj" in tensors:
            tensors[f"{side}.proj"] = tensors[f"{side}.proj"].T
    for name in ("video.attention_pooling.query", "logit_scale", "logit_bias"):
        if name in tensors:
            tensors[name] = tensors[name].flatten() if name.startswith("video") else tensors[name].reshape(())
    return tensors


def _pixels(path: Path, kind: str) -> dict[str, list[tuple[Any, str]]]:
    """Mean and std, each as (value, where from), from the file of the image processor; transformers 5 has another."""
    given: dict[str, Any] = {}
    file = ""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (path / name).is_file():
            given, file = read_json(path / name, CheckpointError), name
            given = given.get("image_processor") or given
            break
    default = (HALF, HALF) if kind == "siglip" else (CLIP_MEAN, CLIP_STD)
    read = {}
    for name, usual in zip(("mean", "std"), default, strict=True):
        value = given.get(f"image_{name}")
        read[name] = [(tuple(value) if value else None, file), (usual, "the model's usual")]
    return read


def _tokenizer(path: Path, kind: str, vocab_size: int) -> Tokenizer:
    if kind == "clip":
        return tokenizer_from_directory(path, vocab_size)
    file = path / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(f"{path}: its tokenizer.json is missing; fetch it from where the weights are from")
    hf = read_tokenizer(file)
    if kind == "metaclip_2":
        return foreign_tokenizer(file, hf, "none", ("<s>", "</s>", "<pad>"))
    if hf.token_to_id("<eos>") is not None:  # SigLIP 2 has Gemma's
        return foreign_tokenizer(file, hf, "lower", (None, "<eos>", "<pad>"))
    return foreign_tokenizer(file, hf, "siglip", (None, "</s>", "</s>"))
