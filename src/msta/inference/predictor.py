"""Predictor: videos -> ranked classes with probabilities."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.data.clips import ONE_VIEW, ClipFormat, Views, read_views
from msta.data.video_file import DecodeError
from msta.errors import ConfigError
from msta.evaluation.metrics import Array
from msta.inference.live import array_views, as_frames
from msta.inference.loaded_adapter import LoadedAdapter, Prediction
from msta.inference.shared_backbone import SharedBackbone

Path = str | os.PathLike[str]  # of a file
T = TypeVar("T")


class Predictor(LoadedAdapter):
    """A :class:`LoadedAdapter` that reads videos itself.

    Args:
        model: from :func:`msta.load_adapter`, or a backbone with "zero-shot" attached.
        classes: any names. None: the classes that the adapter was trained for.
        template: the prompt of each class, or several, whose embeddings are averaged. None: the adapter's own.
        views: test views, see :class:`Views`.

    Raises:
        MSTAError: there are no classes, or a class is given twice.

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
        super().__init__(model, classes, template)
        self.views = views

    def __call__(self, video: Path | NDArray[np.uint8] | Tensor) -> list[Prediction]:
        """All classes, the most likely first.

        Args:
            video: a file, or frames: uint8 [T, H, W, 3], RGB, evenly spaced in time.

        Raises:
            DecodeError: the file cannot be read.
            ValueError: the frames have another shape or type.
        """
        with torch.inference_mode():
            embeddings = self.model.encode_video(self.read(video).to(self.text.device))
        return self.rank(self.probabilities(embeddings[:, None])[0])

    def each(
        self, videos: Iterable[Path], *, batch: int = 8, workers: int = 2
    ) -> Iterator[tuple[Path, list[Prediction] | DecodeError]]:
        """Each file with its ranked classes, in order, or with the error if it cannot be read.

        ``workers`` threads read the files in advance, and ``batch`` of them are encoded together.
        """
        for path, answer in predict_each([self], videos, batch=batch, workers=workers):
            yield path, answer if isinstance(answer, DecodeError) else answer[0]

    def read(self, video: Path | NDArray[np.uint8] | Tensor) -> Tensor:
        """A file or frames -> float [views, T, 3, size, size], normalised for the model."""
        if isinstance(video, str | os.PathLike):
            return read_views(os.fspath(video), self.format, self.views)
        return array_views(as_frames(video), self.format, self.views)


def predict_each(
    predictors: Sequence[Predictor], videos: Iterable[Path], *, batch: int = 8, workers: int = 2
) -> Iterator[tuple[Path, list[list[Prediction]] | DecodeError]]:
    """Each file with the answer of each predictor. Every file is read once. See :meth:`Predictor.each`.

    Raises ConfigError if the predictors expect different frames.
    """
    common_format(predictors)
    for path, rows in probabilities_each(predictors, videos, predictors[0].read, batch=batch, workers=workers):
        if isinstance(rows, DecodeError):
            yield path, rows
        else:
            yield path, [predictor.rank(row) for predictor, row in zip(predictors, rows, strict=True)]


def probabilities_each(
    adapters: Sequence[LoadedAdapter], clips: Iterable[T], read: Callable[[T], Tensor], *, batch: int, workers: int
) -> Iterator[tuple[T, Sequence[Array] | DecodeError]]:
    """Each clip with the probabilities [K] of each adapter, in order, or with the error if it cannot be read.

    ``read`` gives the views of a clip [V, T, 3, H, W]. It runs in ``workers`` threads; ``batch`` clips are encoded
    together.
    """
    shared, device = SharedBackbone(adapters[0].model.backbone), adapters[0].text.device
    for group in batched(read_ahead(clips, read, workers), batch):
        readable = [views for _, views in group if isinstance(views, Tensor)]
        answers: Iterator[Sequence[Array]] = iter(())
        if readable:
            with torch.inference_mode():
                embeddings = shared.encode_each(torch.cat(readable).to(device), [a.model for a in adapters])
            by_view = [e.unflatten(0, (len(readable), -1)).transpose(0, 1) for e in embeddings]
            answers = zip(*(a.probabilities(e) for a, e in zip(adapters, by_view, strict=True)), strict=True)
        for clip, views in group:
            yield clip, views if isinstance(views, DecodeError) else next(answers)


def common_format(predictors: Sequence[Predictor]) -> ClipFormat:
    """The clip format of all predictors. Raises ConfigError if they expect different frames."""
    form, views = predictors[0].format, predictors[0].views
    for predictor in predictors:
        if predictor.format != form or predictor.views != views:
            each = [f"{f.frames} of {f.size} px ({f.fit})" for f in (form, predictor.format)]
            raise ConfigError(
                f"--adapter: adapters in one pass must expect the same frames; one expects {' and another '.join(each)}"
            )
    return form


def batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of ``size``; the last may be shorter."""
    source = iter(items)
    while group := list(islice(source, size)):
        yield group


def read_ahead(
    items: Iterable[T], read: Callable[[T], Tensor], workers: int
) -> Iterator[tuple[T, Tensor | DecodeError]]:
    """Each item with ``read`` of it, or its error, in order. At most 4 per thread are in memory."""

    def attempt(item: T) -> Tensor | DecodeError:
        try:
            return read(item)
        except DecodeError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:
        pending: deque[tuple[T, Future[Tensor | DecodeError]]] = deque()
        for item in items:
            pending.append((item, pool.submit(attempt, item)))
            if len(pending) >= 4 * workers:
                first, result = pending.popleft()
                yield first, result.result()
        for first, result in pending:
            yield first, result.result()
