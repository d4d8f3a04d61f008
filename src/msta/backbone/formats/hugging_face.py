"""Directories of Hugging Face: CLIP, Meta CLIP 2, SigLIP and SigLIP 2 of fixed resolution."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msta.backbone.architecture import CLIP_MEAN, CLIP_STD, HALF, SIGLIP
from msta.backbone.blocks import Activation
from msta.backbone.formats.parts import Facts, Parts, Tensors, architecture, join_qkv, rename, sizes
from msta.backbone.known import Traits
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
_ACTIVATIONS: dict[Any, Activation] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
}
_DEFAULTS = {  # transformers', for what a config leaves out: heads of video and text, activation, epsilon
    "clip": ({"video": 12, "text": 8}, "quick_gelu", 1e-5),
    "metaclip_2": ({"video": 12, "text": 8}, "quick_gelu", 1e-5),
    "siglip": ({"video": 12, "text": 12}, "gelu_pytorch_tanh", 1e-6),
}


def load(raw: Tensors, path: Path, config: dict[str, Any], facts: Facts, tokenizer: Tokenizer | None) -> Parts:
    """Tensors without prefixes, and the config.json in their folder, with a model_type of MODEL_TYPES -> the model.

    ``tokenizer``: given by the user.

    Raises:
        CheckpointError: something is missing, or the config asks for something that is not supported.
    """
    kind = str(config["model_type"])
    tensors = _tensors(raw)
    label = {"clip": "a Hugging Face CLIP", "metaclip_2": "a Meta CLIP 2", "siglip": "a SigLIP"}[kind]
    found = sizes(tensors, path, label)
    towers, configs = {}, {}
    for side, theirs in _SIDES.items():
        # older uploads keep the values in text_config_dict, which wins in transformers too
        configs[side] = {**(config.get(f"{theirs}_config") or {}), **(config.get(f"{theirs}_config_dict") or {})}
        towers[side] = _traits(facts, kind, side, configs[side])
    stated: dict[str, Any] = {}
    eos = configs["text"].get("eos_token_id", 49407 if kind == "clip" else 2)
    if kind == "siglip":
        if configs["video"].get("vision_use_head", True) is not True:
            raise CheckpointError(f"{path}: a SigLIP without its attention pooling (vision_use_head) is not supported")
        stated = SIGLIP
    else:
        # 2 is the old configs' mistake; transformers reads the highest id then
        stated["eos_token_id"] = None if eos == 2 and kind == "clip" else eos
    mean, std = (HALF, HALF) if kind == "siglip" else (CLIP_MEAN, CLIP_STD)
    usual = Traits("the model's usual", mean=mean, std=std)
    fit = Traits(f"as in {label}", fit=stated.get("fit", "crop"))
    made = architecture(found, facts, towers, [_pixels(path), usual, fit], **stated)
    return Parts(label, made, tensors, tokenizer or _tokenizer(path, kind, made.vocab_size), facts.origins)


MODEL_TYPES = tuple(_DEFAULTS)


def _traits(facts: Facts, kind: str, side: str, config: dict[str, Any]) -> list[Traits]:
    """What the config says about a tower, and the defaults of transformers for what it leaves out."""
    heads, activation, eps = _DEFAULTS[kind]
    named = config.get("hidden_act")
    if named is not None and named not in _ACTIVATIONS:
        raise CheckpointError(f"{facts.name}: the activation {named!r} of its config.json is not supported")
    return [
        Traits("config.json", _ACTIVATIONS.get(named), config.get("num_attention_heads"), config.get("layer_norm_eps")),
        Traits("transformers' default", _ACTIVATIONS[activation], heads[side], eps),
    ]


def _tensors(raw: Tensors) -> Tensors:
    tensors = rename(join_qkv(raw), _NAMES)
    for side in ("video", "text"):
        if f"{side}.proj" in tensors:
            tensors[f"{side}.proj"] = tensors[f"{side}.proj"].T
    if (name := "video.attention_pooling.query") in tensors:
        tensors[name] = tensors[name].flatten()
    return tensors


def _pixels(path: Path) -> Traits:
    """Mean and std from the file of the image processor, which has another name in transformers 5."""
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (path / name).is_file():
            given = read_json(path / name, CheckpointError)
            given = given.get("image_processor") or given
            mean, std = (tuple(given.get(f"image_{what}") or ()) or None for what in ("mean", "std"))
            return Traits(name, mean=mean, std=std)
    return Traits("no file")


def _tokenizer(path: Path, kind: str, vocab_size: int) -> Tokenizer:
    if kind == "clip":
        try:
            return tokenizer_from_directory(path, vocab_size)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from error
    file = path / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(f"{path}: its tokenizer.json is missing; fetch it from where the weights are from")
    hf = read_tokenizer(file)
    if kind == "metaclip_2":
        return foreign_tokenizer(file, hf, "none", ("<s>", "</s>", "<pad>"))
    if hf.token_to_id("<eos>") is not None:  # SigLIP 2 has Gemma's
        return foreign_tokenizer(file, hf, "lower", (None, "<eos>", "<pad>"))
    return foreign_tokenizer(file, hf, "siglip", (None, "</s>", "</s>"))
