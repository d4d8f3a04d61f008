"""What the tabs share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from msta.app import render
from msta.app.models import Models
from msta.app.training import Trainings

T = TypeVar("T")
NONE = "-"  # the value for no adapter in a list of adapters
COMPUTING: dict[str, Any] = {"concurrency_id": "computing", "concurrency_limit": 1, "api_visibility": "private"}
"""Settings of events that use the model: one at a time."""
QUICK: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
"""Settings of events that do not use the model."""
ALONE: dict[str, Any] = {"concurrency_id": "training", "concurrency_limit": 1, "api_visibility": "private"}
"""Settings of events that start a training."""


@dataclass(frozen=True)
class Page:
    """What the event handlers use."""

    models: Models
    trainings: Trainings
    scratch: Path  # a folder for temporary files
    folder: Path | None  # the folder suggested for a search
    limits: dict[str, float]  # of a video

    def attempt(self, work: Callable[[], T]) -> tuple[T | None, str]:
        """See :func:`render.attempt`."""
        return render.attempt(work, str(self.scratch))

    def choices(self) -> list[tuple[str, str]]:
        """The entries of a list of adapters."""
        return [("none: the backbone as it is", NONE), *((name, name) for name in self.models.adapters())]


def chosen(adapter: str | None) -> str | None:
    """The entry of a list of adapters -> the name of the adapter, or None."""
    return None if adapter in (None, NONE) else adapter


def placeholder(text: str) -> str:
    """HTML to show until there is a result."""
    return f'<div class="msta-wait">{text}</div>'


def scroll_to(*selectors: str) -> str:
    """A script that, on a phone, scrolls to the first of these elements that exists."""
    found = f"{list(selectors)}.map((one) => document.querySelector(one)).find(Boolean)"
    return f"() => innerWidth < 700 && {found}?.scrollIntoView({{behavior: 'smooth'}})"
