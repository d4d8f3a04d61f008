"""The task of an adapter: its classes, and the prompts for them."""

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
        frames: frames per clip in training; None: as many as for the backbone.
        size: height and width in training, in pixels; None: as for the backbone.
        fit: "crop" or "squash", how frames in training were made square; None: as for the backbone.
        descriptions: where the anchors of the consistency term came from; None if it was off.
    """

    classes: tuple[str, ...]
    template: str | tuple[str, ...] = DEFAULT_TEMPLATE
    frames: int | None = None
    size: int | None = None
    fit: str | None = None
    descriptions: str | None = None

    def prompts(self) -> list[str]:
        """One prompt per class; with several templates, one per class and template, see :func:`per_class`."""
        return prompts(self.classes, self.template)


def prompts(classes: Sequence[str], template: str | Sequence[str] = DEFAULT_TEMPLATE) -> list[str]:
    """The template, or each of several, filled with each class name. Other braces in it are kept."""
    templates = (template,) if isinstance(template, str) else template
    return [each.replace("{}", name) for name in classes for each in templates]


def per_class(text: Tensor, classes: int) -> Tensor:
    """Embeddings of :func:`prompts` -> one per class.

    With several templates: the mean of their embeddings, each first scaled to length 1 (CLIP's prompt ensemble).

    Args:
        text: [K * templates, D].
        classes: K.

    Returns:
        [K, D], not L2-normalised; ``text`` itself for one template.
    """
    if len(text) == classes:
        return text
    return F.normalize(text.float(), dim=-1).unflatten(0, (classes, -1)).mean(1)
