"""Every file format -> DualEncoder. Nothing else in the package knows about formats.

A format is a table of name changes into ours; sizes are read from the tensors. Only what tensors cannot tell (number
of heads, activation, which token ends a text, pixel statistics) comes from a config file or the format's convention.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from torch import Tensor

from msta.backbone.architecture import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, Architecture
from msta.backbone.blocks import TowerShape
from msta.backbone.dual_encoder import FORMAT, DualEncoder, freeze, random_backbone
from msta.backbone.tensor_files import read_tensors
from msta.backbone.tokenizer import Tokenizer, clip_tokenizer, tokenizer_from_directory, tokenizer_from_json
from msta.errors import CheckpointError, in_short
from msta.files import read_json

Tensors = dict[str, Tensor]

# What training scripts wrap around a model, taken off the front of a name, one after the other.
_PREFIXES = ("module.", "model.", "clip_model.", "clip.", "_orig_mod.")

_RESBLOCKS = [
    (r"transformer\.resblocks\.(\d+)\.", r"blocks.\1."),
    (r"\.attn\.in_proj_(weight|bias)", r".attn.qkv.\1"),
    (r"\.attn\.out_proj\.", ".attn.proj."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
    (r"^(vision_encoder|image_encoder|visual)\.", "video."),
    (r"^video\.conv1\.", "video.patch_embedding."),
    (
        r"^(?:text_encoder|text_model|prompt_learner|text)\.(?=token_embedding|positional_|blocks|ln_final|text_proj)",
        "",
    ),
    (r"^(token_embedding|positional_embedding|blocks|ln_final)", r"text.\1"),
    (r"^text_projection$", "text.proj"),
]

_HUGGING_FACE = [
    (r"^vision_model\.", "video."),
    (r"^text_model\.", "text."),
    (r"^visual_projection\.weight", "video.proj"),
    (r"^text_projection\.weight", "text.proj"),
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

# In the file but no weights of ours: buffers, OpenAI's archived sizes, ViFi-CLIP's prompts for its own classes.
_IGNORED = re.compile(
    r"(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size)$"
    r"|^prompt_learner\.|^(text\.)?(complete_text_embeddings|token_prefix|token_suffix)$"
)


TOY = "toy"
"""Name of the embedded default: a small ViCLIP, pretrained on a synthetic world by ``msta pretrain``."""


def load_backbone(name: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None) -> DualEncoder:
    """A frozen backbone, in float32, on the CPU, in evaluation mode.

    Args:
        name: "toy", the small one that comes with the package; a directory (ours or Hugging Face's CLIP); a file
            (``.pt``, ``.pth``, ``.safetensors``: ViCLIP, OpenAI CLIP as state dict or TorchScript archive, or
            fine-tuned from it in the manner of ViFi-CLIP); a Hub id of a CLIP model; or ``random:`` and the name of
            an architecture (see :func:`random_backbone`).
        base: the backbone a fine-tuned file started from. ViFi-CLIP's files lack the token embedding, which it never
            trains; it is then taken from here.

    Raises:
        CheckpointError: one line that names the file, the format it looked like, and what is missing or unexpected.

    Nothing from a file is ever executed. Text is read at the highest token id (OpenAI, ViCLIP) or at the configured
    end-of-text token (Hugging Face).
    """
    name = os.fspath(name)
    path = Path(name).expanduser()
    if name == TOY:
        with resources.as_file(resources.files("msta.backbone") / TOY) as folder:
            backbone = _load_directory(folder)
        backbone.source = TOY
        return backbone
    if name.startswith("random:"):
        _, architecture, seed = f"{name}:0".split(":")[:3]
        if not seed.isdecimal():
            raise CheckpointError(f"{name}: expected random:ARCHITECTURE or random:ARCHITECTURE:SEED")
        return random_backbone(architecture, int(seed))
    if path.is_dir():
        backbone = _load_directory(path)
    elif os.path.lexists(path):
        backbone = _load_file(path, load_backbone(base) if base is not None else None)
    elif re.fullmatch(r"[\w.-]+/[\w.-]+", name) and path.suffix not in (".pt", ".pth", ".bin", ".safetensors"):
        backbone = _load_directory(_download(name))
        backbone.source = name
        return backbone
    else:
        raise CheckpointError(
            f"{name}: no such file or directory, nor a Hub id (owner/model), toy or random:ARCHITECTURE"
        )
    backbone.source = str(path.absolute())
    backbone.base = os.path.abspath(base) if base is not None and os.path.exists(base) else base
    return backbone


def _download(hub_id: str) -> Path:
    patterns = ["*.json", "*.safetensors", "merges.txt", "pytorch_model*.bin"]
    try:
        files = snapshot_download(hub_id, allow_patterns=patterns[:3])
        if not list(Path(files).glob("*.safetensors")):
            files = snapshot_download(hub_id, allow_patterns=patterns)
    except Exception as error:  # the Hub's errors have no common base and run over many lines
        raise CheckpointError(f"{hub_id}: no path here, and not to be had from the Hub: {in_short(error)}") from error
    return Path(files)


# ---------------------------------------------------------------- directories


def _load_directory(path: Path) -> DualEncoder:
    if not (config_file := path / "config.json").exists():
        raise CheckpointError(f"{path}: no backbone directory: there is no config.json in it")
    config = read_json(config_file, CheckpointError)
    kind = str(config.get("format") or config.get("model_type") or "unknown")
    if (load := {FORMAT: _load_own, "clip": _load_hugging_face}.get(kind)) is None:
        raise CheckpointError(
            f"{config_file}: a model of type {kind!r}, neither Hugging Face's CLIP nor our own format"
        )
    try:
        return load(path, config)
    except CheckpointError:
        raise
    except Exception as error:  # configs and tokenizers can be damaged in any way
        raise CheckpointError(f"{path}: damaged: {in_short(error)}") from error


def _load_own(path: Path, config: dict[str, Any]) -> DualEncoder:
    try:
        architecture = Architecture.from_dict(config["architecture"])
        tokenizer = config["tokenizer"]
        hashes = dict(config["sha256"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path / 'config.json'}: no valid architecture: {error}") from error
    for name, expected in hashes.items():
        try:
            found = hashlib.sha256((path / name).read_bytes()).hexdigest()
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from error
        if found != expected:
            raise CheckpointError(f"{path / name}: damaged: its SHA-256 is not the one that config.json names")
    own = tokenizer == "tokenizer.json"
    return _build(
        architecture,
        read_tensors(path / "model.safetensors"),
        tokenizer_from_json((path / tokenizer).read_text(encoding="utf-8")) if own else None,
        path,
        "our own format",
    )


def _load_hugging_face(path: Path, config: dict[str, Any]) -> DualEncoder:
    tensors = _read_sharded(path)
    for name in [n for n in tensors if n.endswith("q_proj.weight") or n.endswith("q_proj.bias")]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(p in tensors for p in parts):
            tensors[name.replace("q_proj", "qkv")] = torch.cat([tensors.pop(p) for p in parts])
    tensors = _rename(tensors, _HUGGING_FACE)
    for side in ("video", "text"):
        if f"{side}.proj" in tensors:
            tensors[f"{side}.proj"] = tensors[f"{side}.proj"].T
    sides = {"video": config.get("vision_config") or {}, "text": config.get("text_config") or {}}
    architecture = _infer(
        tensors,
        path,
        "a Hugging Face CLIP",
        {side: c.get("num_attention_heads") for side, c in sides.items()},
    )
    shapes = {
        side: replace(
            getattr(architecture, side),
            activation=c.get("hidden_act", "quick_gelu"),
            layer_norm_eps=c.get("layer_norm_eps", 1e-5),
        )
        for side, c in sides.items()
    }
    eos = sides["text"].get("eos_token_id", 49407)
    pixels: dict[str, Any] = {}
    if (path / "preprocessor_config.json").is_file():
        pixels = read_json(path / "preprocessor_config.json", CheckpointError)
    architecture = replace(
        architecture,
        eos_token_id=None if eos == 2 else eos,  # 2 is the old configs' mistake; transformers reads the highest id then
        pixel_mean=tuple(pixels.get("image_mean", CLIP_MEAN)),
        pixel_std=tuple(pixels.get("image_std", CLIP_STD)),
        **shapes,
    )
    tokenizer = tokenizer_from_directory(path, architecture.vocab_size)
    return _build(architecture, tensors, tokenizer, path, "a Hugging Face CLIP")


def _read_sharded(path: Path) -> Tensors:
    """``model.safetensors``, or the shards its index names; the same for ``pytorch_model.bin``."""
    for stem in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{stem}.index.json"
        if index.is_file():
            weight_map = read_json(index, CheckpointError).get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(f"{index}: no index of shards: it has no weight_map")
            shards = sorted(set(weight_map.values()))
            tensors: Tensors = {}
            for shard in shards:
                tensors.update(read_tensors(path / shard))
            return tensors
        if (path / stem).is_file():
            return read_tensors(path / stem)
    raise CheckpointError(f"{path}: a Hugging Face CLIP without weights: no model.safetensors, whole or in shards")


# ---------------------------------------------------------------- single files


def _load_file(path: Path, base: DualEncoder | None) -> DualEncoder:
    raw = read_tensors(path)
    if path.suffix == ".safetensors" and any(k.startswith(("vision_model.", "video.")) for k in raw):
        if (path.parent / "config.json").is_file():
            return _load_directory(path.parent)
        raise CheckpointError(f"{path}: weights of a directory format; their config.json is not beside them")
    raw = _strip(raw)
    joint = any("temporal_positional_embedding" in k for k in raw)
    kind = (
        "ViCLIP"
        if joint
        else "a fine-tuned CLIP"
        if any(k.startswith("image_encoder.") for k in raw)
        else "OpenAI CLIP"
    )
    if not any(k.startswith(("vision_encoder.", "image_encoder.", "visual.")) for k in raw):
        raise CheckpointError(
            f"{path}: no CLIP or ViCLIP: no video or image tower among its {len(raw)} tensors "
            f"(first: {', '.join(sorted(raw)[:3])})"
        )
    if any(".layer1." in k or ".attnpool." in k for k in raw):
        raise CheckpointError(f"{path}: a CLIP with a ResNet image tower; only vision transformers are supported")
    tensors = _rename(raw, _RESBLOCKS)
    if joint:
        positions = tensors["video.temporal_positional_embedding"]
        tensors["video.temporal_positional_embedding"] = positions.reshape(-1, positions.shape[-1])
    if tensors.get("video.patch_embedding.weight", torch.empty(0)).ndim == 5:  # a 3-D convolution one frame deep
        tensors["video.patch_embedding.weight"] = tensors["video.patch_embedding.weight"].squeeze(2)
    if "temp" in tensors:
        tensors["logit_scale"] = -tensors.pop("temp").float().log()
    if "text.token_embedding.weight" not in tensors and base is not None:
        tensors["text.token_embedding.weight"] = base.text.token_embedding.weight
    architecture = _infer(tensors, path, kind, {"video": None, "text": None})
    if kind == "a fine-tuned CLIP":  # X-CLIP's data pipeline, which ViFi-CLIP and TC-CLIP took over, has ImageNet's
        architecture = replace(architecture, pixel_mean=IMAGENET_MEAN, pixel_std=IMAGENET_STD)
    return _build(architecture, tensors, None, path, kind)


def _strip(tensors: Tensors) -> Tensors:
    """Names without the wrappers' prefixes; DataParallel, compile and trainers stack them in any order."""

    def bare(name: str) -> str:
        while (prefix := next((p for p in _PREFIXES if name.startswith(p)), None)) is not None:
            name = name[len(prefix) :]
        return name

    return {bare(name): tensor for name, tensor in tensors.items()}


# ---------------------------------------------------------------- names, sizes, weights


def _rename(tensors: Tensors, table: Iterable[tuple[str, str]]) -> Tensors:
    renamed = {}
    for name, tensor in tensors.items():
        for pattern, ours in table:
            name = re.sub(pattern, ours, name)
        renamed[name] = tensor
    return renamed


def _infer(tensors: Tensors, path: Path, kind: str, heads: dict[str, int | None]) -> Architecture:
    """The architecture that the tensors' own sizes spell out; CLIP's width / 64 where ``heads`` does not know."""
    try:
        patch_embedding = tensors["video.patch_embedding.weight"]
        width, patch = patch_embedding.shape[0], patch_embedding.shape[-1]
        grid = round((tensors["video.positional_embedding"].shape[0] - 1) ** 0.5)
        temporal = tensors.get("video.temporal_positional_embedding")
        vocab_size, text_width = tensors["text.token_embedding.weight"].shape

        def shape(side: str, width: int) -> TowerShape:
            layers = 1 + max(
                (int(m[1]) for n in tensors if (m := re.match(rf"{side}\.blocks\.(\d+)\.", n))), default=-1
            )
            mlp = tensors[f"{side}.blocks.0.mlp.fc1.weight"].shape[0]
            return TowerShape(width, layers, heads[side] or max(1, width // 64), mlp)

        return Architecture(
            attention="frame-wise" if temporal is None else "joint",
            image_size=grid * patch,
            patch_size=patch,
            frames=8 if temporal is None else temporal.shape[0],
            embed_dim=tensors["video.proj"].shape[1],
            video=shape("video", width),
            text=shape("text", text_width),
            vocab_size=vocab_size,
            context_length=tensors["text.positional_embedding"].shape[0],
            fit="crop" if temporal is None else "squash",
            pixel_mean=CLIP_MEAN if temporal is None else IMAGENET_MEAN,
            pixel_std=CLIP_STD if temporal is None else IMAGENET_STD,
        )
    except KeyError as error:
        missing = str(error.args[0])
        hint = ""
        if missing == "text.token_embedding.weight":
            hint = "; ViFi-CLIP does not save it: name the CLIP the file was tuned from as base"
        raise CheckpointError(f"{path}: looked like {kind}, but {missing} is missing{hint}") from error
    except (ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: looked like {kind}, but its tensors have no sensible sizes ({error})"
        ) from error


def _build(
    architecture: Architecture, tensors: Tensors, tokenizer: Tokenizer | None, path: Path, kind: str
) -> DualEncoder:
    with torch.device("meta"):
        backbone = DualEncoder(architecture, tokenizer or clip_tokenizer(architecture.vocab_size))
    expected = backbone.state_dict()
    given = {k: v for k, v in tensors.items() if not _IGNORED.search(k)}
    missing = [k for k in expected if k not in given]
    unexpected = [k for k in given if k not in expected]
    reshaped = [
        f"{k} is {list(given[k].shape)}, not {list(v.shape)}"
        for k, v in expected.items()
        if k in given and given[k].shape != v.shape
    ]
    problems = [
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another size", reshaped))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path}: looked like {kind}, but does not fit; {'; '.join(problems)}")
    weights = {k: given[k].to(torch.float32).clone().contiguous() for k in expected}
    backbone.load_state_dict(weights, assign=True)
    backbone.pixel_mean = torch.tensor(architecture.pixel_mean)
    backbone.pixel_std = torch.tensor(architecture.pixel_std)
    return freeze(backbone)
