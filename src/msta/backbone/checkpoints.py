"""A name, a file, a folder or a Hub id -> DualEncoder, exactly or not at all.

This file finds the weights and the configs beside them; :mod:`msta.backbone.formats` has one file per format.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import torch
from huggingface_hub import hf_hub_download, snapshot_download

from msta.backbone.dual_encoder import FORMAT, DualEncoder, WithoutInitialising, freeze, random_backbone
from msta.backbone.formats import hugging_face, open_clip, own, resblocks
from msta.backbone.formats.parts import Facts, Parts, Tensors, strip
from msta.backbone.formats.unsupported import refusal
from msta.backbone.published import PUBLISHED, hub_reason
from msta.backbone.tensor_files import WEIGHTS, index_of, read_tensors, weights_in
from msta.backbone.tokenizer import Tokenizer, foreign_tokenizer, read_tokenizer
from msta.errors import CheckpointError, few, in_short
from msta.files import read_json, sha256_of
from msta.notices import notice

# In the file but no weights of ours: buffers, OpenAI's archived sizes, ViFi-CLIP's prompts for its own classes.
_IGNORED = re.compile(
    r"(^|\.)(position_ids|attn_mask|input_resolution|context_length|vocab_size|rope\.\w+)$"
    r"|^prompt_learner\.|^(text\.)?(complete_text_embeddings|token_prefix|token_suffix)$"
)


TOY = "toy"
"""The name of the embedded default: a small ViCLIP, pretrained on a synthetic world by ``msta pretrain``."""
TOY_FRAMES = "toy-frames"
"""The same with attention within frames, as in CLIP, so that it does not know the order of the frames."""
EMBEDDED = (TOY, TOY_FRAMES)
_MOTIONS = "motions.txt"  # in the toy's folder: names of the motions that can be drawn, and of their classes


def load_backbone(name: str | os.PathLike[str], *, base: str | os.PathLike[str] | None = None) -> DualEncoder:
    """A frozen backbone, in float32, on the CPU, in evaluation mode.

    Args:
        name: "toy" or "toy-frames", which come with the package; a name of
            :data:`msta.backbone.published.PUBLISHED`, such as "viclip-b16", which is fetched from the Hub once; a
            directory (ours; Hugging Face's CLIP, Meta CLIP 2 and SigLIP; open_clip's); a file (``.pt``, ``.pth``,
            ``.ckpt``, ``.bin``, ``.safetensors``: ViCLIP, OpenAI CLIP as state dict or TorchScript archive, open_clip,
            or fine-tuned in the manner of ViFi-CLIP); a Hub id (``owner/model``, ``hf-hub:owner/model``,
            ``owner/model/file.pth``); or ``random:`` and the name of an architecture (see :func:`random_backbone`).
            Facts that a file lacks can be added, as in ``ViT.pt?activation=gelu&heads=16``: see
            :data:`msta.backbone.formats.parts.OPTIONS`.
        base: the backbone that a fine-tuned file started from. ViFi-CLIP's files lack the token embedding, which it
            never trains; it is then taken from here.

    Raises:
        CheckpointError: one line that names the file, the format it looked like, and what is missing, unexpected or
            unknown.

    Nothing from a file is ever executed. A text is represented by its highest token id (OpenAI, ViCLIP) or as the
    config says.
    """
    name = os.fspath(name)
    if name in EMBEDDED:
        with resources.as_file(resources.files("msta.backbone") / name) as folder:
            backbone = _build(_from_folder(folder, Facts(name)), folder)
        backbone.source = name
        return backbone
    if name.startswith("random:"):
        _, architecture, seed = f"{name}:0".split(":")[:3]
        if not seed.isdecimal():
            raise CheckpointError(f"{name}: expected random:ARCHITECTURE or random:ARCHITECTURE:SEED")
        return random_backbone(architecture, int(seed))
    place, _, query = (name, "", "") if os.path.lexists(name) else name.partition("?")
    if place in PUBLISHED and not os.path.lexists(place):
        place = PUBLISHED[place].hub
    path, facts = Path(place).expanduser(), Facts(place, dict(parse_qsl(query, keep_blank_values=True)))
    options = f"?{query}" if query else ""
    if path.is_dir():
        parts, source = _from_folder(path, facts), str(path.absolute())
    elif os.path.lexists(path):
        parts = _from_file(path, facts, load_backbone(base) if base is not None else None)
        source = str(path.absolute())
    elif (hub := place.removeprefix("hf-hub:")) != place or _is_hub_id(place):
        path = _download(hub)
        parts = _from_folder(path, facts) if path.is_dir() else _from_file(path, facts, None)
        source = place
    else:
        raise CheckpointError(
            f"{name}: no such file or directory, nor a Hub id (owner/model), a name that msta backbones lists, toy or "
            "random:ARCHITECTURE"
        )
    backbone = _build(parts, path)
    backbone.source = source + options
    backbone.base = os.path.abspath(base) if base is not None and os.path.exists(base) else base
    return backbone


# ---------------------------------------------------------------- finding


def tell_of_toy(backbone: DualEncoder, texts: Iterable[str]) -> None:
    """Give a notice if the embedded backbone is asked about anything but the motions that it has seen."""
    if backbone.source in EMBEDDED:
        known = (resources.files("msta.backbone") / TOY / _MOTIONS).read_text(encoding="utf-8").splitlines()
        if not {text.casefold() for text in texts} <= {name.casefold() for name in known}:
            notice(
                f"The built-in backbone ({backbone.source}) has seen drawn motion only, and nothing that a camera "
                "filmed. For the real world train with another; msta backbones lists some."
            )


def _is_hub_id(name: str) -> bool:
    """Whether it is ``owner/model``, or a file in such a repository."""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        return not name.endswith(WEIGHTS)
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+/[\w./-]+", name) is not None and name.endswith(WEIGHTS)


def _download(hub_id: str) -> Path:
    """A folder with the configs and weights of a model, or the one file that is named."""
    if "/" not in hub_id:
        raise CheckpointError(f"{hub_id}: no id on the Hub; expected owner/model")
    owner, model, *file = hub_id.split("/", 2)
    patterns = ["*.json", "*.safetensors", "merges.txt"]
    try:
        if file:
            return Path(hf_hub_download(f"{owner}/{model}", file[0]))
        folder = Path(snapshot_download(hub_id, allow_patterns=patterns))
        if not list(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(hub_id, allow_patterns=[*patterns, *(f"*{end}" for end in WEIGHTS)]))
    except Exception as error:  # the Hub's errors have no common base
        raise CheckpointError(f"{hub_id}: no path here, and not to be had from the Hub: {hub_reason(error)}") from error
    if not any(file.name == "config.json" or file.name.endswith(WEIGHTS) for file in folder.glob("*")):
        ends = ", ".join(WEIGHTS)
        raise CheckpointError(f"{hub_id}: no file at the top of its repository ends in {ends}; name one: {hub_id}/FILE")
    return folder


def fetch(name: str) -> Path:
    """Download the weights of a short name or a Hub id, and check them against the Hub's hash.

    A download that was cut off is continued. Files that exist already are only checked.

    Returns:
        The folder, or the file, for :func:`load_backbone`, in the cache of the Hub's client.

    Raises:
        CheckpointError: it cannot be downloaded, or a file is damaged.
    """
    path = _download(PUBLISHED[name].hub if name in PUBLISHED else name.removeprefix("hf-hub:"))
    for file in [path] if path.is_file() else sorted(path.iterdir()):
        blob = file.resolve()  # large files are called by their SHA-256 there
        if re.fullmatch(r"[0-9a-f]{64}", blob.name) and sha256_of(blob) != blob.name:
            raise CheckpointError(f"{blob}: damaged, it is not what the Hub has; delete it and fetch it again")
    return path


def _kind(path: Path) -> tuple[str | None, dict[str, Any]]:
    """The kind of model and the config in a directory's config.json; (None, {}) if it says nothing."""
    config = read_json(path / "config.json", CheckpointError) if (path / "config.json").exists() else {}
    kind = config.get("format") or config.get("model_type")
    return (None if kind is None else str(kind)), config


def _from_folder(path: Path, facts: Facts, raw: Tensors | None = None) -> Parts:
    """The model of a directory. ``raw``: the content of the one file in it that is asked for."""
    kind, config = _kind(path)
    try:
        if kind == FORMAT:
            return own.load(path, config, facts, raw)
        if kind in hugging_face.MODEL_TYPES:
            raw = raw or strip(read_tensors(weights_in(path, open_clip=False)), facts)
            return hugging_face.load(raw, path, config, facts, _tokenizer(facts))
        if (path / open_clip.CONFIG).is_file():
            return open_clip.load(strip(read_tensors(weights_in(path)), facts), path, facts, _tokenizer(facts))
    except CheckpointError:
        raise
    except Exception as error:  # configs and tokenizers can be damaged in any way
        raise CheckpointError(f"{path}: damaged: {in_short(error)}") from error
    if (reason := refusal(kind)) is not None:
        raise CheckpointError(f"{path}: {reason}")
    if kind is not None and not any(f.is_file() and f.name.endswith(WEIGHTS) for f in path.iterdir()):
        raise CheckpointError(f"{path}: no backbone directory: its config.json is of a model of type {kind!r}")
    return _from_file(weights_in(path), facts, None)


def _from_file(path: Path, facts: Facts, base: DualEncoder | None) -> Parts:
    raw = strip(read_tensors(index_of(path)), facts)
    if (path.parent / open_clip.CONFIG).is_file() and any(name.startswith("visual.") for name in raw):
        return open_clip.load(raw, path.parent, facts, _tokenizer(facts))
    if any(name.startswith(("vision_model.", "video.")) for name in raw):
        kind, _ = _kind(path.parent)
        if kind in (FORMAT, *hugging_face.MODEL_TYPES):
            return _from_folder(path.parent, facts, raw)
        reason = refusal(kind, raw)
        raise CheckpointError(
            f"{path}: {reason or 'weights of a directory format; their config.json is not beside them'}"
        )
    if (reason := refusal(None, raw)) is not None:
        raise CheckpointError(f"{path}: {reason}")
    if any(name.startswith("visual.trunk.") for name in raw):
        raise CheckpointError(f"{path}: an open_clip model with a tower of timm; {open_clip.CONFIG} must be beside it")
    if re.search(r"swa_\d+_\d+\.|open.?vclip", path.name.lower()):
        raise CheckpointError(
            f"{path}: Open-VCLIP's files are called like this; its attention also looks at neighbouring frames. No "
            "tensor shows that, and it is not supported. If it is another model, rename the file"
        )
    if (path.parent / "tokenizer.json").is_file() and facts.said("tokenizer") is None:
        notice(f"{path}: the tokenizer.json beside it is not read; ?tokenizer=FILE takes one")
    return resblocks.load(raw, path, facts, _tokenizer(facts), base)


def _tokenizer(facts: Facts) -> Tokenizer | None:
    """The tokenizer that the user names."""
    file = facts.said("tokenizer")
    if file is None:
        return None
    file = file / "tokenizer.json" if file.is_dir() else file
    return foreign_tokenizer(file, read_tokenizer(file), "none", (None, None, "<pad>"))


# ---------------------------------------------------------------- building


def _build(parts: Parts, path: Path) -> DualEncoder:
    with WithoutInitialising(), torch.device("meta"):
        backbone = DualEncoder(parts.architecture, parts.tokenizer)
    expected = backbone.state_dict()
    given = {k: v for k, v in parts.tensors.items() if not _IGNORED.search(k)}
    missing = [k for k in expected if k not in given]
    unexpected = [k for k in given if k not in expected]
    reshaped = [
        f"{k} is {list(given[k].shape)}, not {list(v.shape)}"
        for k, v in expected.items()
        if k in given and given[k].shape != v.shape
    ]
    problems = [
        f"{what}: {few(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected), ("of another size", reshaped))
        if names
    ]
    if problems:
        raise CheckpointError(f"{path}: looked like {parts.kind}, but does not fit; {'; '.join(problems)}")
    weights: Tensors = {k: given[k].to(torch.float32).clone().contiguous() for k in expected}
    backbone.load_state_dict(weights, assign=True)
    own_tokenizer = {"clip": "CLIP's", "folded": "CLIP's ids, folded"}.get(parts.tokenizer.source, "tokenizer.json")
    backbone.origins = {**parts.origins, "tokenizer": own_tokenizer}
    return freeze(backbone)
