"""The task of an adapter: its classes, and how they are put to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DEFAULT_TEMPLATE = "a video of {}."


@dataclass(frozen=True)
class Task:
    """The classes an adapter was trained for, in the order of its outputs, and how they are put into words.

    Attributes:
        classes: names as text.
        template: the prompt.
        frames: frames a clip it was trained with; None: as many as the backbone was.
        size: pixels a side it was trained with; None: as the backbone was.
        fit: "crop" or "squash", how it was shown frames that are no squares; None: as the backbone was.
        descriptions: where the anchors of the consistency term came from; None if it was off.
    """

    classes: tuple[str, ...]
    template: str = DEFAULT_TEMPLATE
    frames: int | None = None
    size: int | None = None
    fit: str | None = None
    descriptions: str | None = None

    def prompts(self) -> list[str]:
        """One sentence a class."""
        return prompts(self.classes, self.template)


def prompts(classes: Sequence[str], template: str = DEFAULT_TEMPLATE) -> list[str]:
    """The template filled with each class name; other braces in it stay as they are."""
    return [template.replace("{}", name) for name in classes]
