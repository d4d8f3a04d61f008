"""The model card of an adapter, for its page on the Hub."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from msta._version import __version__
from msta.backbone.checkpoints import EMBEDDED

if TYPE_CHECKING:
    from msta.adapters.artefact import Artefact

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
# As their owners state them; of others nothing is claimed.
_LICENCES = {
    **dict.fromkeys(EMBEDDED, "Apache-2.0, as this library, which it comes with"),
    "openai/": "MIT, by its authors' repository (github.com/openai/CLIP)",
    "laion/": "MIT, by its page on the Hub",
}


def model_card(artefact: Artefact, metrics: dict[str, Any], where: str = "THIS_DIRECTORY") -> str:
    """The text of README.md.

    Args:
        artefact: the adapter.
        metrics: its measured figures.
        where: its directory or Hub id, for the lines on how to use it.
    """
    source, fingerprint = artefact.backbone["source"], artefact.backbone["fingerprint"][:12]
    on_hub = bool(HUB_ID.fullmatch(source)) and not Path(source).exists()
    name = source if on_hub else Path(source).name
    settings = ", ".join(f"{k}={v}" for k, v in artefact.settings.items()) or "none"
    return "\n".join(
        [
            "---",
            "library_name: msta",
            "pipeline_tag: video-classification",
            "tags: [video-classification, msta, adapter]",
            *([f"base_model: {source}"] if on_hub else []),
            "---",
            f"# {artefact.label} adapter",
            "",
            f"- backbone: `{name}` (fingerprint {fingerprint}), not included",
            f"- licence of the backbone: {licence_of(source)}",
            f"- method: {artefact.label}; settings: {settings}",
            f"- trained parameters: {artefact.trained:,} of {artefact.total:,}",
            f"- made with msta {__version__}, torch {torch.__version__}",
            "",
            *_classes(artefact),
            *_measured(metrics),
            *_use(where, name),
        ]
    )


def licence_of(source: str) -> str:
    """The licence of a backbone, if its source is known to state one."""
    for start, licence in _LICENCES.items():
        if source == start or (start.endswith("/") and source.startswith(start) and HUB_ID.fullmatch(source)):
            return licence
    return "not known here; see where it is from, and ask before you share what was made with it"


def _classes(artefact: Artefact) -> list[str]:
    if artefact.task is None:
        return []
    template = artefact.task.template
    read_as = f'"{template}"' if isinstance(template, str) else f"the mean of {len(template)} templates"
    return ["## Classes", "", f"Read as {read_as}:", "", *(f"- {name}" for name in artefact.task.classes), ""]


def _measured(metrics: dict[str, Any]) -> list[str]:
    lines = [f"- {name}: {value}" for name, value in metrics.items() if isinstance(value, int | float | str)]
    return ["## Measured", "", *(lines or ["Nothing yet."]), ""]


def _use(where: str, backbone: str) -> list[str]:
    return [
        "## Use",
        "",
        "```",
        f"msta predict VIDEO --adapter {where}",
        "```",
        "",
        "```python",
        "import msta",
        "from msta.inference import Predictor",
        "",
        f"predictor = Predictor(msta.load_adapter({json.dumps(where)}))",
        'print(predictor("clip.mp4")[0])',
        "```",
        "",
        f"If the backbone `{backbone}` is elsewhere on your machine: `--backbone PATH`, or "
        "`load_adapter(…, msta.load_backbone(PATH))`. Another one's weights are refused.",
        "",
    ]
