"""A trained adapter as a directory, written and read. Nothing here knows about models.

adapter_config.json         method, settings, and the backbone it belongs to
adapter_model.safetensors   the trained weights
classes.json                names, template, where the anchors came from
metrics.json                what was measured, and the temperature fitted on the validation clips
README.md                   a model card
"""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as to_safetensors
from torch import Tensor

from msta._version import __version__
from msta.adapters.card import model_card
from msta.adapters.task import Task
from msta.errors import CheckpointError, in_short
from msta.files import new_directory, read_json, write_bytes, write_json

FORMAT = "msta-adapter-1"
CONFIG, WEIGHTS, CLASSES = "adapter_config.json", "adapter_model.safetensors", "classes.json"
METRICS, CARD = "metrics.json", "README.md"


def adapter_in(directory: str | os.PathLike[str]) -> Path:
    """An adapter's directory: the one given, or the ``adapter/`` in it if it is that of a run of ``msta train``."""
    folder = Path(directory).expanduser()
    return folder / "adapter" if (folder / "adapter" / CONFIG).is_file() else folder


def written_at(directory: Path) -> int | None:
    """When the weights of an adapter were written, in nanoseconds; None if there are none."""
    weights = adapter_in(directory) / WEIGHTS
    return weights.stat().st_mtime_ns if weights.exists() else None


@dataclass(frozen=True)
class Artefact:
    """The content of the directory.

    Attributes:
        method: name of the method.
        label: the method and its size, see :class:`AdaptedModel`.
        settings: of the method's config.
        backbone: "source", "fingerprint" and perhaps "base" of the frozen backbone.
        state: the trained tensors, by name, on the CPU.
        trained: number of trained parameters.
        total: number of all parameters, including the backbone's.
        task: classes and template; None if it was not trained for any.
        temperature: from the metrics; 1 if none was fitted.
    """

    method: str
    label: str
    settings: dict[str, Any]
    backbone: dict[str, str]
    state: dict[str, Tensor]
    trained: int
    total: int
    task: Task | None
    temperature: float = 1.0

    def write(self, directory: str | os.PathLike[str], metrics: dict[str, Any]) -> None:
        """Write the directory under another name and rename it: nobody sees it half-written, and it overwrites nothing.

        Raises:
            MSTAError: the directory exists with other contents.
        """
        with new_directory(directory) as folder:
            write_bytes(folder / WEIGHTS, to_safetensors(self.state))
            config = {
                "format": FORMAT,
                "msta_version": __version__,
                "method": self.method,
                "label": self.label,
                "settings": self.settings,
                "backbone": self.backbone,
                "trained_parameters": self.trained,
                "total_parameters": self.total,
            }
            write_json(folder / CONFIG, config)
            if self.task is not None:
                task = asdict(self.task)
                write_json(folder / CLASSES, {"names": task.pop("classes"), **task})
            write_json(folder / METRICS, metrics)
            write_bytes(folder / CARD, model_card(self, metrics).encode())

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> Artefact:
        """Read the directory of an adapter or a run.

        Raises:
            CheckpointError: there is no adapter, or it is damaged; the message names the file.
        """
        folder = adapter_in(directory)
        if not (folder / CONFIG).exists():
            why = "its run has not finished" if (folder / "config.yaml").exists() else f"there is no {CONFIG} in it"
            raise CheckpointError(f"{folder}: no adapter directory: {why}")
        config = read_json(folder / CONFIG, CheckpointError)
        if config.get("format") != FORMAT:
            raise CheckpointError(f"{folder}: an adapter of format {config.get('format')!r}, expected {FORMAT}")
        try:
            state = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{folder / WEIGHTS}: damaged ({in_short(error)})") from error
        try:
            return cls(
                method=str(config["method"]),
                label=str(config.get("label", config["method"])),
                settings=dict(config["settings"]),
                backbone=_texts(config["backbone"]),
                state=state,
                trained=int(config["trained_parameters"]),
                total=int(config["total_parameters"]),
                task=_read_task(folder / CLASSES) if (folder / CLASSES).exists() else None,
                temperature=_read_temperature(folder / METRICS) if (folder / METRICS).exists() else 1.0,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(f"{folder / CONFIG}: damaged or not ours ({error!r})") from error


def _texts(content: Any) -> dict[str, str]:
    if not isinstance(content, dict) or not {"source", "fingerprint"} <= content.keys():
        raise KeyError("backbone: source and fingerprint")
    return {name: str(value) for name, value in content.items()}


def _read_temperature(path: Path) -> float:
    value = read_json(path, CheckpointError).get("temperature")
    if value is None:
        return 1.0
    if not isinstance(value, int | float) or not 0 < value < math.inf:
        raise CheckpointError(f"{path}: temperature: expected a positive number or null, got {value!r}")
    return float(value)


def _read_task(path: Path) -> Task:
    content = read_json(path, CheckpointError)
    names, template = content.get("names"), content.get("template")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise CheckpointError(f"{path}: names: expected a list of class names")
    if len(set(names)) < len(names):
        raise CheckpointError(f"{path}: names: a class is there twice")
    each = tuple(template) if isinstance(template, list) and template else (template,)
    if not all(isinstance(one, str) and "{}" in one for one in each):
        raise CheckpointError(f"{path}: template: expected a text with {{}} in it, or several")
    for name in ("frames", "size"):
        if content.get(name) is not None and not (isinstance(content[name], int) and content[name] > 0):
            raise CheckpointError(f"{path}: {name}: expected a positive number or null")
    if content.get("fit") not in (None, "crop", "squash"):
        raise CheckpointError(f"{path}: fit: expected crop, squash or null")
    read_as = each if isinstance(template, list) else each[0]
    return Task(tuple(names), read_as, *(content.get(name) for name in ("frames", "size", "fit", "descriptions")))
