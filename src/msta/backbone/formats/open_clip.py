"""Models of open_clip: weights with an ``open_clip_config.json`` beside them, as in its Hub repositories.

Its native ViTs, and the towers that it takes from timm for SigLIP and the Perception Encoder. An unknown key in the
config may change what is computed, so it is refused. Source: ``CLIPVisionCfg`` and ``CLIPTextCfg`` of open_clip 3.3.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msta.backbone.architecture import CLIP_MEAN, CLIP_STD, Fit
from msta.backbone.blocks import Activation
from msta.backbone.formats.parts import RESBLOCKS, Facts, Parts, Tensors, architecture, rename, sizes
from msta.backbone.formats.timm import TimmTower, tower_called, tower_tensors
from msta.backbone.known import Traits, Triple
from msta.backbone.tokenizer import Clean, TextRules, Tokenizer, clip_tokenizer, foreign_tokenizer, read_tokenizer
from msta.errors import CheckpointError
from msta.files import read_json

CONFIG = "open_clip_config.json"
_TOP = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_bias", "init_logit_scale"}
_WITHOUT_EFFECT = {  # in training alone, or on what is not read here
    "patch_dropout", "output_tokens", "timm_model_pretrained", "timm_drop", "timm_drop_path", "hf_model_pretrained",
    "attn_pooler_queries", "attn_pooler_heads", "pad_id", "pos_embed_type", "timm_proj_bias",
}  # fmt: skip
_VISION = {
    "layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "no_ln_pre", "final_ln_after_pool",
    "pool_type", "act_kwargs", "norm_kwargs", "timm_model_name", "timm_pool", "timm_proj",
}  # fmt: skip
_TEXT = {
    "context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "width", "heads", "layers", "mlp_ratio",
    "eos_id", "no_causal_mask", "pool_type", "proj_bias", "act_kwargs", "norm_kwargs",
}  # fmt: skip
_FITS: dict[Any, Fit] = {"shortest": "crop", "squash": "squash"}  # by open_clip's resize_mode


def load(raw: Tensors, folder: Path, facts: Facts, tokenizer: Tokenizer | None) -> Parts:
    """Tensors without prefixes, and the config in their folder -> the model.

    Raises:
        CheckpointError: a tower or a setting is not supported, or does not fit the weights.
    """
    whole = read_json(folder / CONFIG, CheckpointError)
    config, pixels = whole.get("model_cfg", whole), whole.get("preprocess_cfg") or {}
    kind = "an open_clip model"
    if not isinstance(config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= set(config):
        raise CheckpointError(f"{folder / CONFIG}: no config of a model: it lacks embed_dim, vision_cfg or text_cfg")
    vision, text = dict(config["vision_cfg"]), dict(config["text_cfg"])
    name = str(vision.get("timm_model_name") or "")
    timm = tower_called(name)
    if other := (name if timm is None else "") or text.get("hf_model_name"):
        raise CheckpointError(
            f"{folder}: an open_clip model with a tower of another kind ({other}), which is not supported; its ViTs, "
            "SigLIP and PE-Core are"
        )
    _refuse_unknown(folder, config, vision, text)
    tensors = rename(raw if timm is None else tower_tensors(raw, folder), RESBLOCKS)
    if "text.text_projection.weight" in raw:
        tensors["text.proj"] = raw["text.text_projection.weight"].T
        tensors["text.proj_bias"] = raw["text.text_projection.bias"]
        tensors = {k: v for k, v in tensors.items() if not k.startswith(("text_projection.", "text.text_projection."))}
    found = sizes(tensors, folder, kind)
    stated: dict[str, Any] = {"pooling": _pooling(folder, vision)} if timm is None else dict(timm.unlike_clip)
    stated |= _text_fields(folder, text)
    if "video.proj_bias" in tensors:
        stated["video_projection"] = "linear"
    mean, std, mode = _triple(pixels.get("mean")), _triple(pixels.get("std")), pixels.get("resize_mode")
    usual = [stated.get(name, default) for name, default in (("pixel_mean", CLIP_MEAN), ("pixel_std", CLIP_STD))]
    shown = [
        Traits(CONFIG, mean=mean, std=std, fit=_FITS.get(mode)),
        Traits("the model's usual", mean=usual[0], std=usual[1], fit=stated.get("fit", "crop")),
    ]
    stated["logit_bias"] = "logit_bias" in tensors
    _compare(folder, found, config, vision, text, native=timm is None)
    made = architecture(found, facts, _towers(config, vision, text, timm, found), shown, **stated)
    if tokenizer is None:
        tokenizer = _tokenizer(folder, text, made.vocab_size)
    return Parts(kind, made, tensors, tokenizer, facts.origins)


def _refuse_unknown(folder: Path, config: dict[str, Any], vision: dict[str, Any], text: dict[str, Any]) -> None:
    for section, given, known in (("", config, _TOP), ("vision_cfg.", vision, _VISION), ("text_cfg.", text, _TEXT)):
        for key, value in given.items():
            usual = value in (None, False) or (key, value) == ("proj_type", "linear")
            if key not in known | _WITHOUT_EFFECT and not usual:
                raise CheckpointError(f"{folder / CONFIG}: {section}{key} = {value!r} is not supported")


def _pooling(folder: Path, vision: dict[str, Any]) -> str:
    kind = vision.get("pool_type", "tok")
    if kind == "tok":
        return "class"
    if kind == "avg" and vision.get("final_ln_after_pool"):
        return "mean"
    raise CheckpointError(f"{folder / CONFIG}: vision_cfg.pool_type = {kind!r} is not supported")


def _text_fields(folder: Path, text: dict[str, Any]) -> dict[str, Any]:
    kind = text.get("pool_type", "argmax")
    if kind not in ("argmax", "eos", "last"):
        raise CheckpointError(f"{folder / CONFIG}: text_cfg.pool_type = {kind!r} is not supported")
    return {
        "causal": not text.get("no_causal_mask", False),
        "text_pooling": "last" if kind == "last" else "end",
        "eos_token_id": text.get("eos_id", 2) if kind == "eos" else None,
        "text_projection": "linear" if text.get("proj_bias") else "matrix",
    }


def _towers(
    config: dict[str, Any], vision: dict[str, Any], text: dict[str, Any], timm: TimmTower | None, found: dict[str, Any]
) -> dict[str, list[Traits]]:
    def traits(section: dict[str, Any], heads: int) -> Traits:
        tanh = (section.get("act_kwargs") or {}).get("approximate") == "tanh"
        activation: Activation = "quick_gelu" if config.get("quick_gelu") else "gelu_tanh" if tanh else "gelu"
        return Traits(CONFIG, activation, heads, float((section.get("norm_kwargs") or {}).get("eps", 1e-5)))

    if timm is None:
        video = traits(vision, vision.get("width", 768) // vision.get("head_width", 64))
    else:
        video = Traits("timm", timm.activation, timm.heads(found["video"]["width"]), timm.layer_norm_eps)
    return {"video": [video], "text": [traits(text, text.get("heads", 8))]}


def _compare(
    folder: Path, found: dict[str, Any], config: dict[str, Any], vision: dict[str, Any], text: dict[str, Any],
    native: bool,
) -> None:  # fmt: skip
    """Refuse a config that does not belong to these weights."""
    stated = {
        "embed_dim": (config["embed_dim"], found["embed_dim"]),
        "vision_cfg.image_size": (vision.get("image_size", 224), found["image_size"]),
        "text_cfg.context_length": (text.get("context_length", 77), found["context_length"]),
        "text_cfg.vocab_size": (text.get("vocab_size", 49408), found["vocab_size"]),
        "text_cfg.width": (text.get("width", 512), found["text"]["width"]),
        "text_cfg.layers": (text.get("layers", 12), found["text"]["layers"]),
    }
    if native:
        stated |= {
            "vision_cfg.width": (vision.get("width", 768), found["video"]["width"]),
            "vision_cfg.layers": (vision.get("layers", 12), found["video"]["layers"]),
            "vision_cfg.patch_size": (vision.get("patch_size", 16), found["patch_size"]),
            "vision_cfg.no_ln_pre": (bool(vision.get("no_ln_pre")), not found["ln_pre"]),
        }
    for name, (said, is_so) in stated.items():
        if said != is_so:
            raise CheckpointError(f"{folder / CONFIG}: {name} is {said}, but in the weights it is {is_so}")


def _triple(value: Any) -> Triple | None:
    return (float(value[0]), float(value[1]), float(value[2])) if value else None


def _tokenizer(folder: Path, text: dict[str, Any], vocab_size: int) -> Tokenizer:
    name, settings = text.get("hf_tokenizer_name"), dict(text.get("tokenizer_kwargs") or {})
    if not name:
        return clip_tokenizer(vocab_size)
    if set(settings) - {"clean", "strip_sep_token"}:
        raise CheckpointError(f"{folder / CONFIG}: text_cfg.tokenizer_kwargs = {settings!r} is not supported")
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(
            f"{folder}: its tokenizer is {name}, whose tokenizer.json is not in the folder; put it there, or name it: "
            "?tokenizer=FILE"
        )
    clean: Clean = settings.get("clean", "whitespace")
    made = foreign_tokenizer(file, read_tokenizer(file), clean, (None, None, "<pad>"))
    if settings.get("strip_sep_token"):  # open_clip puts 0 in the place of the last token
        rules = TextRules(made.rules.start, 0, made.rules.pad, clean)
        made = Tokenizer(made._encode, rules, made.source)
    return made
