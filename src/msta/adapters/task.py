"""The task of an adapter: its classes, and how they are put to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

DEFAULT_TEMPLATE = "a video of {}."


@dataclass(frozen=True)
class Task:
    """The classes an adapter was trained for, in the order of its outputs, and how they are put into words.

    Attributes:
        classes: names as text.
        template: the prompt, or several, whose embeddings are averaged.
        frames: frames per clip it was trained with; None: as many as the backbone was.
        size: pixels per side it was trained with; None: as the backbone was.
        fit: "crop" or "squash", how it was shown frames that are no squares; None: as the backbone was.
        descriptions: where the anchors of the consistency term came from; None if it was off.
    """

    classes: tuple[str, ...]
    template: str | tuple[str, ...] = DEFAULT_TEMPLATE
    frames: int | None = None
    size: int | None = None
    fit: str | None = None
    descriptions: str | None = None

    def prompts(self) -> list[str]:
        """One sentence a class; with several templates as many, class by class: see :func:`per_class`."""
        return prompts(self.classes, self.template)


def prompts(classes: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE) -> list[str]:
    """The template, or each of several, filled with each class name; other braces in it stay as they are."""
    templates = (template,) if isinstance(template, str) else template
    return [each.replace("{}", name) for name in classes for each in templates]


def per_class(text: Tensor, classes: int) -> Tensor:
    """Embeddings of :func:`prompts` -> one per class.

    With several templates: the mean of their embeddings, each scaled to length 1 before (CLIP's prompt ensemble).

    Args:
        text: [K * templates, D].
        classes: K.

    Returns:
        [K, D], not L2-normalised; ``text`` itself for one template.
    """
    if len(text) == classes:
        return text
    return F.normalize(text.float(), dim=-1).unflatten(0, (classes, -1)).mean(1)
