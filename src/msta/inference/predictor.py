"""Predictor: video files -> ranked classes with probabilities."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from msta.data.clips import ONE_VIEW, Views, read_views
from msta.errors import MSTAError, is_text
from msta.evaluation.evaluate import class_embeddings, class_probabilities, clip_format
from msta.methods.base import AdaptedModel
from msta.methods.task import DEFAULT_TEMPLATE


@dataclass(frozen=True)
class Prediction:
    """A class and how likely it is; the probabilities of a video's classes sum to one."""

    label: str
    probability: float


class Predictor:
    """A model with its classes, ready for files. The class prompts are read once.

    Args:
        model: from :func:`msta.load_adapter`, or a backbone with "zero-shot" attached.
        classes: any names. None: those the adapter was trained for.
        template: their prompt, or several, whose embeddings are averaged. None: the adapter's.
        views: test views, see :class:`Views`.

    Raises:
        MSTAError: no classes, or the same one twice.

    Example:
        >>> predictor = Predictor(msta.load_adapter("runs/mine/adapter"))  # doctest: +SKIP
        >>> predictor("clip.mp4")[0].label  # doctest: +SKIP
        'swipe left'
    """

    def __init__(
        self,
        model: AdaptedModel,
        classes: Sequence[str] | None = None,
        *,
        template: str | Sequence[str] | None = None,
        views: Views = ONE_VIEW,
    ) -> None:
        task = model.task
        names = tuple(classes) if classes is not None else task.classes if task else ()
        if not names or not all(name.strip() for name in names):
            raise MSTAError("no classes to choose from: the adapter names none, give labels")
        if not all(map(is_text, names)):
            raise MSTAError(f"a label is no valid text: {next(n for n in names if not is_text(n))!r}")
        if len(set(names)) < len(names):
            raise MSTAError(f"a label is given twice: {next(n for n in names if names.count(n) > 1)!r}")
        self.model = model.eval()
        self.classes = names
        self.views = views
        self.format = clip_format(model)
        self._text = class_embeddings(model, names, template or (task.template if task else DEFAULT_TEMPLATE))

    def __call__(self, path: str | os.PathLike[str]) -> list[Prediction]:
        """All classes, the most likely first.

        Raises:
            DecodeError: the file cannot be read.
        """
        video = read_views(os.fspath(path), self.format, self.views)
        with torch.inference_mode():
            probabilities = class_probabilities(self.model, video.to(self._text.device)[:, None].unbind(0), self._text)[
                0
            ]
        order = probabilities.argsort(descending=True).tolist()
        return [Prediction(self.classes[i], float(probabilities[i])) for i in order]
