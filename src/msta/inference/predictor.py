"""Predictor: videos -> ranked classes with probabilities."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.data.clips import ONE_VIEW, ClipFormat, Views, read_views
from msta.data.decode import DecodeError
from msta.errors import ConfigError, MSTAError, is_text
from msta.evaluation.evaluate import class_embeddings, view_probabilities
from msta.evaluation.metrics import Array, scaled
from msta.inference.live import array_views, as_frames
from msta.inference.shared import SharedBackbone

Path = str | os.PathLike[str]
"""Of a file."""
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """A class and how likely it is; the probabilities of a video's classes sum to one."""

    label: str
    probability: float


class Predictor:
    """A model with its classes, ready for videos. The class prompts are read once.

    Args:
        model: from :func:`msta.load_adapter`, or a backbone with "zero-shot" attached.
        classes: any names. None: those the adapter was trained for.
        template: their prompt, or several, whose embeddings are averaged. None: the adapter's.
        views: test views, see :class:`Views`.

    Attributes:
        temperature: the adapter's, fitted on validation clips, for the classes it was fitted on; else 1, and the
            probabilities are as the model gives them.

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
        self.temperature = model.temperature_for(names)
        self.template = template or (task.template if task else DEFAULT_TEMPLATE)
        self.text = class_embeddings(model, names, self.template)

    def __call__(self, video: Path | NDArray[np.uint8] | Tensor) -> list[Prediction]:
        """All classes, the most likely first.

        Args:
            video: a file, or frames: uint8 [T, H, W, 3], RGB, evenly spaced in time.

        Raises:
            DecodeError: the file cannot be read.
            ValueError: frames of another shape or type.
        """
        with torch.inference_mode():
            embeddings = self.model.encode_video(self.read(video).to(self.text.device))
        return self.ranked(embeddings, 1)[0]

    def each(
        self, videos: Iterable[Path], *, batch: int = 8, workers: int = 2
    ) -> Iterator[tuple[Path, list[Prediction] | DecodeError]]:
        """The same of many files, in their order, read ahead by threads and encoded ``batch`` at a time.

        A file that cannot be read gives its error in its place.
        """
        for path, answer in predict_each([self], videos, batch=batch, workers=workers):
            yield path, answer if isinstance(answer, DecodeError) else answer[0]

    def read(self, video: Path | NDArray[np.uint8] | Tensor) -> Tensor:
        """A file or frames -> float [views, T, 3, size, size], as the model wants to see it."""
        if isinstance(video, str | os.PathLike):
            return read_views(os.fspath(video), self.format, self.views)
        return array_views(as_frames(video), self.format, self.views)

    def ranked(self, embeddings: Tensor, clips: int) -> list[list[Prediction]]:
        """Embeddings of the views of so many clips, clip by clip, [clips * views, D] -> each clip's classes."""
        by_view = embeddings.unflatten(0, (clips, -1)).transpose(0, 1)
        return [self.rank(probabilities) for probabilities in self.probabilities(by_view)]

    def probabilities(self, embeddings: Tensor) -> Array:
        """Of clips: embeddings [views, B, D] -> float64 [B, K], averaged over the views, at the temperature."""
        with torch.inference_mode():
            mean = view_probabilities(self.model, embeddings, self.text).mean(0).double().cpu().numpy()
        return mean if self.temperature == 1 else scaled(mean, self.temperature)

    def rank(self, probabilities: Array) -> list[Prediction]:
        """[K] -> all classes, the most likely first."""
        order = np.argsort(-probabilities, kind="stable")
        return [Prediction(self.classes[i], float(probabilities[i])) for i in order]


def predict_each(
    predictors: Sequence[Predictor], videos: Iterable[Path], *, batch: int = 8, workers: int = 2
) -> Iterator[tuple[Path, list[list[Prediction]] | DecodeError]]:
    """Each file with each predictor's answer; a file is read once. See :meth:`Predictor.each`.

    Raises:
        ConfigError: the predictors do not see the same frames.
    """
    common_format(predictors)
    first = predictors[0]
    shared = SharedBackbone(first.model.backbone)
    for group in batched(read_ahead(videos, first.read, workers), batch):
        readable = [video for _, video in group if isinstance(video, Tensor)]
        ranked: list[Iterator[list[Prediction]]] = []
        if readable:
            views = torch.cat(readable).to(first.text.device)  # [B * views, T, 3, H, W]
            with torch.inference_mode():
                embeddings = shared.encode_each(views, predictors)
            ranked = [iter(p.ranked(e, len(readable))) for p, e in zip(predictors, embeddings, strict=True)]
        for path, video in group:
            yield path, video if isinstance(video, DecodeError) else [next(answers) for answers in ranked]


def common_format(predictors: Sequence[Predictor]) -> ClipFormat:
    """What all of them want to see.

    Raises:
        ConfigError: it is not the same.
    """
    form, views = predictors[0].format, predictors[0].views
    for predictor in predictors:
        if predictor.format != form or predictor.views != views:
            each = [f"{f.frames} of {f.size} px ({f.fit})" for f in (form, predictor.format)]
            raise ConfigError(
                f"--adapter: one pass shows all adapters the same frames; one wants {' and another '.join(each)}"
            )
    return form


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """``size`` items at a time."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


def read_ahead(paths: Iterable[Path], read: Any, workers: int) -> Iterator[tuple[Path, Tensor | DecodeError]]:
    """``read`` of each path, or its error, in order; up to 4 a thread are in memory."""

    def attempt(path: Path) -> Tensor | DecodeError:
        try:
            return read(path)
        except DecodeError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        pending: deque[tuple[Path, Future[Tensor | DecodeError]]] = deque()
        for path in paths:
            pending.append((path, pool.submit(attempt, path)))
            if len(pending) >= 4 * workers:
                first, found = pending.popleft()
                yield first, found.result()
        while pending:
            first, found = pending.popleft()
            yield first, found.result()
