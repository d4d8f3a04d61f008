"""Published figures, shown beside ours: those of the package (published.json), and files of the user.

Each figure names its source: the paper's readers, the authors' logs, or a README. We measured none of them. A file is
JSON: a model's name -> {"source": where it is from, "few_shot" | "base_to_novel" | "zero_shot" | "fully_supervised":
{data set: figures}}, all in percent of top-1. A line of text under "about" is allowed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from msta.data.names import canonical
from msta.errors import DataError
from msta.files import read_json

KEYS = {
    "zero-shot": "zero_shot",
    "few-shot": "few_shot",
    "base-to-novel": "base_to_novel",
    "supervised": "fully_supervised",
}
"""Protocol -> its name in the file."""


@dataclass(frozen=True)
class Published:
    """A model's published figures on one data set.

    Attributes:
        model: its name and setting.
        source: where the figures were read.
        dataset: as the file calls it.
        figures: what ("2" shots, "base", "top1") -> percent.
    """

    model: str
    source: str
    dataset: str
    figures: dict[str, float]

    def is_on(self, dataset: str) -> bool:
        """Whether the figures are on ``dataset``, in any spelling."""
        return canonical(self.dataset) == canonical(dataset)


PACKAGED = Path(str(resources.files("msta.studies"))) / "published.json"
"""Figures on the field's data sets, each with its source."""


def read_published(path: Path, protocol: str) -> list[Published]:
    """The figures for a protocol, in the file's order.

    Raises:
        DataError: the file cannot be read, or has another form.
    """
    found = []
    for model, block in read_json(path, DataError).items():
        if model == "about":
            continue
        if not isinstance(block, dict) or not isinstance(block.get("source"), str):
            raise DataError(f"{path}: {model!r} has no source; figures of others need one")
        sets = block.get(KEYS[protocol], {})
        if not isinstance(sets, dict):
            raise DataError(f"{path}: {model!r}: {KEYS[protocol]}: expected data set -> figures")
        found += [Published(model, block["source"], dataset, _figures(each)) for dataset, each in sets.items()]
    return found


def _figures(content: Any) -> dict[str, float]:
    """Single numbers, by what they are; lists (of seeds) and words are left out."""
    if isinstance(content, int | float):
        return {"top1": float(content)}
    if not isinstance(content, dict):
        return {}
    return {str(name): float(value) for name, value in content.items() if isinstance(value, int | float)}
