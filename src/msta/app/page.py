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
NONE = "-"
"""What a list of adapters has for the backbone as it is."""
COMPUTING: dict[str, Any] = {"concurrency_id": "computing", "concurrency_limit": 1, "api_visibility": "private"}
"""Of events that use the model: one at a time."""
QUICK: dict[str, Any] = {"concurrency_limit": None, "api_visibility": "private", "show_progress": "hidden"}
"""Of events that do not."""
ALONE: dict[str, Any] = {"concurrency_id": "training", "concurrency_limit": 1, "api_visibility": "private"}
"""Of events that begin a training."""


@dataclass(frozen=True)
class Page:
    """What the handlers work with.

    Attributes:
        models: to choose from.
        trainings: the run under way.
        scratch: the app's own folder.
        folder: that is offered for a search.
        limits: what a video may have.
    """

    models: Models
    trainings: Trainings
    scratch: Path
    folder: Path | None
    limits: dict[str, float]

    def attempt(self, work: Callable[[], T]) -> tuple[T | None, str]:
        """See :func:`render.attempt`."""
        return render.attempt(work, str(self.scratch))

    def choices(self) -> list[tuple[str, str]]:
        """For a list of adapters."""
        return [("none: the backbone as it is", NONE), *((name, name) for name in self.models.adapters())]


def chosen(adapter: str | None) -> str | None:
    """Of a list of adapters -> its name."""
    return None if adapter in (None, NONE) else adapter


def waiting(text: str) -> str:
    """Where something will be."""
    return f'<div class="msta-wait">{text}</div>'


def bring(*selectors: str) -> str:
    """A script that brings the first of these that there is into a phone's sight."""
    found = f"{list(selectors)}.map((one) => document.querySelector(one)).find(Boolean)"
    return f"() => innerWidth < 700 && {found}?.scrollIntoView({{behavior: 'smooth'}})"
