"""Figures that others published, to stand beside ours. None comes with the package: they are read from a file.

The file is JSON: a model's name -> {"source": where it is from, "few_shot" | "base_to_novel" | "zero_shot" |
"fully_supervised": {data set: figures}}, all in percent of top-1. A line of text under "about" is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msta.errors import DataError
from msta.files import read_json

KEYS = {
    "zero-shot": "zero_shot",
    "few-shot": "few_shot",
    "base-to-novel": "base_to_novel",
    "supervised": "fully_supervised",
}
"""Protocol -> its name in the file."""

_ALIASES = {
    "k400": "kinetics400",
    "k600": "kinetics600",
    "somethingsomethingv2": "ssv2",
    "hmdb": "hmdb51",
    "ucf": "ucf101",
}


@dataclass(frozen=True)
class Published:
    """Somebody's figures on one data set.

    Attributes:
        model: and how it was fed.
        source: where the figures were read.
        dataset: as the file calls it.
        figures: what ("2" shots, "base", "top1") -> percent.
    """

    model: str
    source: str
    dataset: str
    figures: dict[str, float]

    def is_on(self, dataset: str) -> bool:
        """Whether that is our ``dataset``, however either is spelt."""
        return _key(self.dataset) == _key(dataset)


def read_published(path: Path, protocol: str) -> list[Published]:
    """The figures for a protocol, in the file's order.

    Raises:
        DataError: unreadable, or not of that form.
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


def _key(name: str) -> str:
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _ALIASES.get(plain, plain)
