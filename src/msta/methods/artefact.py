"""A trained adapter as a directory, written and read.

adapter_config.json         method, settings, and the backbone it belongs to
adapter_model.safetensors   what trained
classes.json                names, template, where the anchors came from
metrics.json                what was measured
README.md                   a model card
"""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors

from msta._version import __version__
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import CheckpointError, ConfigError, in_short
from msta.files import new_directory, read_json, write_bytes, write_json
from msta.methods import attach, method_config
from msta.methods.base import AdaptedModel, Task

FORMAT = "msta-adapter-1"


def save_adapter(model: AdaptedModel, directory: str | os.PathLike[str], metrics: dict[str, Any] | None = None) -> None:
    """Write the directory aside and rename it: it is never seen half-written, and never overwrites another.

    Raises:
        MSTAError: the directory exists with other contents.
    """
    with new_directory(directory) as folder:
        state = {name: tensor.cpu().contiguous() for name, tensor in model.adapter_state().items()}
        write_bytes(folder / "adapter_model.safetensors", to_safetensors(state))
        write_json(
            folder / "adapter_config.json",
            {
                "format": FORMAT,
                "msta_version": __version__,
                "method": model.config.name,
                "settings": model.config.model_dump(),
                "backbone": model.origin,
                "trainable_parameters": model.num_trainable(),
            },
        )
        if model.task is not None:
            task = asdict(model.task)
            write_json(folder / "classes.json", {"names": task.pop("classes"), **task})
        write_json(folder / "metrics.json", metrics or {})
        (folder / "README.md").write_text(_model_card(model, metrics or {}), encoding="utf-8")


def load_adapter(directory: str | os.PathLike[str], backbone: DualEncoder | None = None) -> AdaptedModel:
    """Read an adapter's directory and attach it, ready to predict.

    Args:
        directory: what :meth:`AdaptedModel.save` wrote.
        backbone: the backbone it was trained on. None: loaded from where it came from then.

    Raises:
        CheckpointError: no adapter, damaged, or trained on another backbone.
    """
    folder = Path(directory)
    if not (folder / "adapter_config.json").exists():
        raise CheckpointError(f"{folder}: no adapter directory: there is no adapter_config.json in it")
    config = read_json(folder / "adapter_config.json", CheckpointError)
    try:
        if config["format"] != FORMAT:
            raise CheckpointError(f"{folder}: an adapter of format {config['format']!r}, expected {FORMAT}")
        origin = config["backbone"]
        method = method_config(config["method"], **config["settings"])
        source, fingerprint = origin["source"], origin["fingerprint"]
    except (KeyError, TypeError, ValidationError, ConfigError) as error:
        raise CheckpointError(f"{folder / 'adapter_config.json'}: damaged or not ours ({in_short(error)})") from error
    if backbone is None:
        try:
            backbone = load_backbone(source)
        except CheckpointError as error:
            raise CheckpointError(
                f"{folder}: was trained on the backbone {source}, which cannot be loaded; give it as backbone ({error})"
            ) from error
    if backbone.fingerprint() != fingerprint:
        raise CheckpointError(
            f"{folder}: was trained on the backbone {source} (fingerprint {fingerprint[:12]}); "
            f"{backbone.source} has other weights (fingerprint {backbone.fingerprint()[:12]})"
        )
    model = attach(backbone, method)
    weights = folder / "adapter_model.safetensors"
    try:
        model.load_adapter_state(load_file(weights))
    except (OSError, SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"{weights}: damaged, or of another adapter ({in_short(error)})") from error
    if (folder / "classes.json").exists():
        model.task = _read_task(folder / "classes.json")
    return model.eval()


def _read_task(path: Path) -> Task:
    content = read_json(path, CheckpointError)
    names, template = content.get("names"), content.get("template")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise CheckpointError(f"{path}: names: expected a list of class names")
    if len(set(names)) < len(names):
        raise CheckpointError(f"{path}: names: a class is there twice")
    if not isinstance(template, str) or "{}" not in template:
        raise CheckpointError(f"{path}: template: expected a text with {{}} in it")
    for name in ("frames", "size"):
        if content.get(name) is not None and not (isinstance(content[name], int) and content[name] > 0):
            raise CheckpointError(f"{path}: {name}: expected a positive number or null")
    return Task(tuple(names), template, content.get("frames"), content.get("size"), content.get("descriptions"))


def _model_card(model: AdaptedModel, metrics: dict[str, Any]) -> str:
    task = model.task
    measured = [f"- {name}: {value}" for name, value in metrics.items() if isinstance(value, int | float | str)]
    total = sum(p.numel() for p in set(model.parameters()))
    settings = ", ".join(f"{k}={v}" for k, v in model.config.model_dump().items()) or "none"
    lines = [
        "---",
        "library_name: msta",
        "tags: [video-classification, msta, adapter]",
        "---",
        f"# {model.config.name} adapter",
        "",
        f"- backbone: `{Path(model.origin['source']).name}` (fingerprint {model.origin['fingerprint'][:12]})",
        f"- method: {model.config.name} (settings: {settings})",
        f"- trained parameters: {model.num_trainable():,} of {total:,}",
        f"- made with msta {__version__}, torch {torch.__version__}",
        "",
    ]
    if task is not None:
        lines += [
            "## Classes",
            "",
            f'Read as "{task.template}":',
            "",
            *(f"- {name}" for name in task.classes),
            "",
        ]
    lines += ["## Measured", "", *(measured or ["Nothing yet."]), ""]
    lines += ["## Use", "", "```", "msta predict VIDEO --adapter THIS_DIRECTORY", "```", ""]
    return "\n".join(lines)
