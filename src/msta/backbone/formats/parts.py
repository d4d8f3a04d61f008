"""The common parts of all formats: sizes from tensors, and facts that no tensor shows.

Such a fact (activation, heads, epsilon, pixel statistics …) comes from the first of these that knows it: the user
(``FILE?activation=gelu``), the config beside the weights, a table of known models, the code of the format. The source
of each fact is remembered, and ``msta info`` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from msta.backbone.architecture import Architecture
from msta.backbone.blocks import ACTIVATIONS, TowerShape
from msta.backbone.known import Traits
from msta.backbone.tokenizer import Tokenizer
from msta.errors import CheckpointError
from msta.notices import notice

Tensors = dict[str, Tensor]


def _triple(text: str) -> tuple[float, float, float]:
    numbers = [float(number) for number in text.split(",")]
    red, green, blue = numbers * 3 if len(numbers) == 1 else numbers
    return red, green, blue


def _activation(text: str) -> str:
    text = {"quickgelu": "quick_gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh"}.get(text, text)
    if text not in ACTIVATIONS:
        raise ValueError(f"it is none of {', '.join(ACTIVATIONS)}")
    return text


OPTIONS: dict[str, tuple[Callable[[str], Any], str]] = {
    "activation": (_activation, " | ".join(ACTIVATIONS)),
    "heads": (int, "of the video tower's blocks"),
    "text_heads": (int, "of the text tower's blocks"),
    "layer_norm_eps": (float, "of both towers"),
    "mean": (_triple, "pixel mean, 0.5 or R,G,B"),
    "std": (_triple, "pixel standard deviation"),
    "fit": (str, "crop | squash"),
    "tokenizer": (Path, "a tokenizer.json"),
    "prefix": (str, "what stands before the names of the one model to read, if a file holds several"),
}
"""Options after the question mark of a backbone's name: facts about the model, and how the file is read."""


@dataclass
class Facts:
    """The facts about one model that its tensors do not show.

    Args:
        name: of the model, for messages.
        options: what the user gave, as text; see OPTIONS.

    Attributes:
        origins: fact -> its value and its source, in words.

    Raises:
        CheckpointError: an option does not exist, or its value is not possible.
    """

    name: str
    options: Mapping[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._said: dict[str, Any] = {}
        for key, text in self.options.items():
            if key not in OPTIONS:
                raise CheckpointError(f"{self.name}: there is no ?{key}=; there are {', '.join(OPTIONS)}")
            try:
                self._said[key] = OPTIONS[key][0](text)
            except ValueError as error:
                raise CheckpointError(f"{self.name}: ?{key}={text}: expected {OPTIONS[key][1]} ({error})") from error

    def said(self, name: str) -> Any:
        """The value that the user gave, or None."""
        return self._said.get(name)

    def take(self, name: str, sources: Sequence[Traits], side: str = "") -> Any:
        """The value that the user gave, else that of the first of ``sources`` that knows it. ``side``: of which tower.

        Raises:
            CheckpointError: no source knows it.
        """
        known = [(getattr(one, name.removeprefix("text_")), one.origin) for one in sources]
        for value, origin in ((self._said.get(name), "said by you"), *known):
            if value is not None:
                shown = ",".join(f"{x:g}" for x in value) if isinstance(value, tuple) else value
                self.origins[f"{side} {name}".strip()] = f"{shown} ({origin})"
                return value
        raise CheckpointError(f"{self.name}: nothing says its {name}; say it: ?{name}=… ({OPTIONS[name][1]})")


@dataclass
class Parts:
    """A model as a format gives it: tensors with our names, all facts, and their sources."""

    kind: str
    architecture: Architecture
    tensors: Tensors
    tokenizer: Tokenizer
    origins: dict[str, str]


# ---------------------------------------------------------------- names


def rename(tensors: Tensors, table: Iterable[tuple[str, str]]) -> Tensors:
    """Replace every pattern of ``table`` in every name, in order. If two tensors get one name, the second is marked."""
    renamed: Tensors = {}
    for given, tensor in tensors.items():
        name = given
        for pattern, ours in table:
            name = re.sub(pattern, ours, name)
        again = name in renamed and not _equal(tensor, renamed[name])
        renamed[f"{name} (again, as {given})" if again else name] = tensor
    return renamed


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())


RESBLOCKS = [
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
"""OpenAI's tensor names, which open_clip, ViCLIP and many others use too."""


_TOWER = r"(?<![^./])(visual|vision_encoder|image_encoder|vision_model|video)\."
_PATCHES = _TOWER + r"(.*\.)?(conv1|patch_embed\w*)\."
_WRAPPER = (r"(?<![^.])(module|_\w*mod|_\w*module)\.", "")  # of DataParallel, compile, FSDP, checkpointing …
_SCALARS = ("logit_scale", "logit_bias", "temp")
_USUAL = {"state_dict", "model", "module", "model_state_dict", "model_state", "checkpoint"}


def strip(tensors: Tensors, facts: Facts) -> Tensors:
    """The tensors of the one model among those of a file, under the names that it has by itself.

    A model is what stands behind one prefix: what comes before the name of the image tower. Trainers, wrappers and the
    nested dictionaries of a file add prefixes. Names behind no such prefix (metrics, optimizers) are left out.

    Raises:
        CheckpointError: there are several models of different weights, and neither the user nor their places say which.
    """
    found = _before(_PATCHES, tensors) or _before(_TOWER, tensors)
    if not found:
        return tensors
    models: dict[str, Tensors] = {prefix: {} for prefix in sorted(found)}
    for name, tensor in tensors.items():
        prefix = max((p for p in found if name.startswith(p)), key=len, default=None)
        if prefix is not None and "/" not in name[len(prefix) :]:
            models[prefix][name[len(prefix) :]] = tensor
    models = {prefix: rename(model, [_WRAPPER]) for prefix, model in models.items()}
    taken = facts.said("prefix")
    if taken is None:
        taken = max(models, key=lambda p: (any("text" in n for n in models[p]), _is_usual(p), len(models[p])))
        if others := [p for p in models if p != taken and not _within(models[p], models[taken])]:
            if not _is_usual(taken) or any(map(_is_usual, others)):
                choices = " or ".join(f"?prefix={prefix}" for prefix in (taken, *others))
                raise CheckpointError(f"{facts.name}: several models of different weights; say which: {choices}")
            notice(f"{facts.name}: {taken} is read, not {', '.join(others)}; ?prefix={others[0]} reads the other.")
    elif taken not in models:
        raise CheckpointError(
            f"{facts.name}: ?prefix={taken}: no model there; there are {', '.join(map(repr, models))}"
        )
    model = models[taken]
    return model | {n: model[n].reshape(()) for n in _SCALARS if n in model and model[n].numel() == 1}


def _before(pattern: str, names: Iterable[str]) -> set[str]:
    return {name[: found.start()] for name in names if (found := re.search(pattern, name))}


def _within(copy: Tensors, model: Tensors) -> bool:
    return all(name in model and _equal(tensor, model[name]) for name, tensor in copy.items())


def _is_usual(prefix: str) -> bool:
    """Whether the dictionaries around a model are called as plain weights are, not as an average or a teacher."""
    return _USUAL.issuperset(prefix.split("/")[:-1])


def join_qkv(tensors: Tensors) -> Tensors:
    """Join queries, keys and values that are three layers (``q_proj`` …) to one, ``qkv``."""
    tensors = dict(tensors)
    for name in [n for n in tensors if n.endswith(("q_proj.weight", "q_proj.bias"))]:
        parts = [name.replace("q_proj", f"{part}_proj") for part in "qkv"]
        if all(part in tensors for part in parts):
            tensors[name.replace("q_proj", "qkv")] = torch.cat([tensors.pop(part) for part in parts])
    return tensors


# ---------------------------------------------------------------- sizes


def sizes(tensors: Tensors, path: Path, kind: str) -> dict[str, Any]:
    """The fields of an :class:`Architecture` that follow from the names and sizes of our tensors.

    ``video`` and ``text`` are the fields of a TowerShape except heads, activation and epsilon.

    Raises:
        CheckpointError: a tensor is missing, or the sizes make no sense.
    """
    try:
        patch_embedding = tensors["video.patch_embedding.weight"]
        width, patch = patch_embedding.shape[0], patch_embedding.shape[-1]
        class_token = "video.class_embedding" in tensors
        positions = len(tensors["video.positional_embedding"]) - class_token
        temporal = tensors.get("video.temporal_positional_embedding")
        vocab_size, text_width = tensors["text.token_embedding.weight"].shape
        projection = tensors.get("video.proj")

        def tower(side: str, width: int) -> dict[str, int]:
            numbers = (int(m[1]) for n in tensors if (m := re.match(rf"{side}\.blocks\.(\d+)\.", n)))
            mlp = tensors[f"{side}.blocks.0.mlp.fc1.weight"].shape[0]
            return {"width": width, "layers": 1 + max(numbers, default=-1), "mlp_width": mlp}

        return {
            "attention": "frame-wise" if temporal is None else "joint",
            "image_size": round(positions**0.5) * patch,
            "patch_size": patch,
            "frames": 8 if temporal is None else temporal.shape[0],
            "embed_dim": width if projection is None else projection.shape[1],
            "video": tower("video", width),
            "text": tower("text", text_width),
            "vocab_size": vocab_size,
            "context_length": tensors["text.positional_embedding"].shape[0],
            "class_token": class_token,
            "patch_bias": "video.patch_embedding.bias" in tensors,
            "ln_pre": "video.ln_pre.weight" in tensors,
            "logit_bias": "logit_bias" in tensors,
        }
    except KeyError as error:
        missing = str(error.args[0])
        hint = ""
        if not any("text" in name for name in tensors):
            hint = ": it has no text tower; give the whole model"
        elif missing == "text.token_embedding.weight":
            hint = "; ViFi-CLIP does not save it: name the CLIP the file was tuned from as base"
        raise CheckpointError(f"{path}: looked like {kind}, but {missing} is missing{hint}") from error
    except (ValueError, IndexError) as error:
        raise CheckpointError(
            f"{path}: looked like {kind}, but its tensors have no sensible sizes ({error})"
        ) from error


def architecture(
    found: dict[str, Any], facts: Facts, towers: Mapping[str, Sequence[Traits]], pixels: Sequence[Traits], **stated: Any
) -> Architecture:
    """The result of :func:`sizes`, completed.

    Args:
        found: the sizes.
        facts: what the user gave; it notes the source of each fact.
        towers: sources of heads, activation and layer_norm_eps for the "video" and the "text" tower, the best first.
        pixels: sources of mean, std and fit.
        stated: the other fields, which win over those found.

    Raises:
        CheckpointError: they contradict each other, or no source knows a fact.
    """
    try:
        shapes = {
            side: TowerShape(
                **found[side],
                heads=int(facts.take("heads" if side == "video" else "text_heads", known)),
                activation=facts.take("activation", known, side),
                layer_norm_eps=facts.take("layer_norm_eps", known, side),
            )
            for side, known in towers.items()
        }
        shown = {field: facts.take(name, pixels) for field, name in _PIXELS.items()}
        return Architecture(**{**found, **shapes, **stated, **shown})
    except ValueError as error:
        raise CheckpointError(f"{facts.name}: its sizes make no model ({error})") from error


_PIXELS = {"pixel_mean": "mean", "pixel_std": "std", "fit": "fit"}
"""Fields of an Architecture, and the names of their facts."""
