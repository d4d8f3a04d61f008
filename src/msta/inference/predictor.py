"""Predictor: an adapted model with its classes; videos -> ranked classes with probabilities."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.backbone.checkpoints import TOY, load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.data.clips import ONE_VIEW, ClipFormat, Views, read_views
from msta.data.video_file import DecodeError
from msta.errors import ConfigError, MSTAError, is_text
from msta.evaluation.evaluate import class_embeddings, view_probabilities
from msta.evaluation.metrics import Array, scaled
from msta.inference.live import array_views, as_frames
from msta.inference.onnx_predictor import OnnxPredictor
from msta.inference.shared_backbone import SharedBackbone
from msta.methods import attach, load_adapters

Path = str | os.PathLike[str]  # of a file
T = TypeVar("T")


@dataclass(frozen=True)
class Prediction:
    """A class and its probability. The probabilities of all classes of a video sum to one."""

    label: str
    probability: float


def ranked(classes: Sequence[str], probabilities: Array) -> list[Prediction]:
    """Probabilities [K] of the classes, in their order -> all classes, the most likely first."""
    order = np.argsort(-probabilities, kind="stable")
    return [Prediction(classes[i], float(probabilities[i])) for i in order]


def load_model(adapter: Path | None, backbone: str | None = None, base: str | None = None) -> AdaptedModel:
    """An adapter in its backbone or in the one given, or a backbone as it is; on the device that the user chose.

    Raises:
        MSTAError: it cannot be loaded.
    """
    return load_models([] if adapter is None else [adapter], backbone, base)[0]


def load_models(adapters: Sequence[Path], backbone: str | None = None, base: str | None = None) -> list[AdaptedModel]:
    """Adapters in one backbone, which is loaded once: see :func:`load_model`. Without any, the backbone as it is.

    Raises ConfigError if there is a ``base`` but no ``backbone`` that it could complete.
    """
    if base is not None and backbone is None:
        raise ConfigError("--base: completes a file that --backbone names; give both")
    if adapters:
        frozen = load_backbone(backbone, base=base) if backbone is not None else None
        models = load_adapters(adapters, frozen)
    else:
        models = [attach(load_backbone(backbone or TOY, base=base), "zero-shot")]
    return [model.placed() for model in models]


class Predictor:
    """An adapted model with its classes. The class prompts are encoded once, when it is made.

    Args:
        model: from :func:`msta.load_adapter`, or a backbone with "zero-shot" attached.
        classes: any names. None: the classes that the adapter was trained for.
        template: the prompt of each class, or several, whose embeddings are averaged. None: the adapter's own.
        views: test views, see :class:`Views`.

    Attributes:
        text: [K, D], the class embeddings.
        temperature: the adapter's, fitted on validation clips, if these are the classes it was fitted on. Else 1: the
            probabilities are those of the model.
        format: the clips that the model expects.

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
        task = model.task
        names = tuple(classes) if classes is not None else task.classes if task else ()
        if not names or not all(name.strip() for name in names):
            raise MSTAError("no classes to choose from: the adapter names none, give labels")
        if not all(map(is_text, names)):
            raise MSTAError(f"a label is not valid text: {next(n for n in names if not is_text(n))!r}")
        if len(set(names)) < len(names):
            raise MSTAError(f"a label is given twice: {next(n for n in names if names.count(n) > 1)!r}")
        self.model = model.eval()
        self.classes = names
        self.template = template or (task.template if task else DEFAULT_TEMPLATE)
        self.text = class_embeddings(model, names, self.template)
        self.temperature = model.temperature_for(names)
        self.format, self.views = clip_format(model), views

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

    def probabilities(self, embeddings: Tensor) -> Array:
        """Embeddings of V views of B clips [V, B, D] -> float64 [B, K]: the mean over the views, at the temperature."""
        with torch.inference_mode():
            mean = view_probabilities(self.model, embeddings, self.text).mean(0).cpu().double().numpy()
        return mean if self.temperature == 1 else scaled(mean, self.temperature)

    def rank(self, probabilities: Array) -> list[Prediction]:
        """Probabilities of a clip [K] -> all classes, the most likely first."""
        return ranked(self.classes, probabilities)

    def own_bytes(self, backbone: DualEncoder) -> int:
        """The memory that it adds to the backbone's: its own parameters and class embeddings."""
        shared = {id(tensor) for tensor in (*backbone.parameters(), *backbone.buffers())}
        own = {id(t): t for t in (*self.model.parameters(), *self.model.buffers()) if id(t) not in shared}
        return sum(t.nbytes for t in (*own.values(), self.text))


class ExportedPredictor:
    """An exported model in the place of an adapter: ``msta predict --adapter exported/video.onnx``.

    It has one view per video and the classes of the export, and ONNX Runtime computes it.

    Args:
        directory: what ``msta export`` wrote.

    Raises:
        MSTAError: see :class:`OnnxPredictor`.
    """

    def __init__(self, directory: Path) -> None:
        self.onnx = OnnxPredictor(directory)
        self.classes, self.views, about = self.onnx.classes, ONE_VIEW, self.onnx.about
        self.format = ClipFormat(
            about["frames"], about["size"], tuple(about["mean"]), tuple(about["std"]), about["fit"]
        )

    def read(self, video: Path) -> Tensor:
        """A file -> float [1, T, 3, size, size], normalised for the model."""
        return torch.from_numpy(self.onnx.read(video))[None]

    def probabilities(self, clips: Tensor) -> Array:
        """Clips [B, T, 3, size, size], normalised -> float64 [B, K]."""
        return self.onnx.run(clips.numpy())[0].astype("float64")


AnyPredictor = Predictor | ExportedPredictor


def predict_each(
    predictors: Sequence[AnyPredictor], videos: Iterable[Path], *, batch: int = 8, workers: int = 2
) -> Iterator[tuple[Path, list[list[Prediction]] | DecodeError]]:
    """Each file with the answer of each predictor. Every file is read once. See :meth:`Predictor.each`.

    Raises ConfigError if the predictors expect different frames.
    """
    common_format(predictors)
    for path, rows in probabilities_each(predictors, videos, predictors[0].read, batch=batch, workers=workers):
        if isinstance(rows, DecodeError):
            yield path, rows
        else:
            yield path, [ranked(predictor.classes, row) for predictor, row in zip(predictors, rows, strict=True)]


def probabilities_each(
    predictors: Sequence[AnyPredictor], clips: Iterable[T], read: Callable[[T], Tensor], *, batch: int, workers: int
) -> Iterator[tuple[T, Sequence[Array] | DecodeError]]:
    """Each clip with the probabilities [K] by each predictor, in order, or with the error if it cannot be read.

    ``read`` gives the views of a clip [V, T, 3, H, W]. It runs in ``workers`` threads; ``batch`` clips are encoded
    together.
    """
    for group in batched(read_ahead(clips, read, workers), batch):
        readable = [views for _, views in group if isinstance(views, Tensor)]
        answers = zip(*_probabilities(predictors, readable), strict=True) if readable else iter(())
        for clip, views in group:
            yield clip, views if isinstance(views, DecodeError) else next(answers)


def _probabilities(predictors: Sequence[AnyPredictor], clips: Sequence[Tensor]) -> list[Array]:
    """The views [V, T, 3, H, W] of B clips -> [B, K] by each predictor. An exported model stands alone."""
    if isinstance(exported := predictors[0], ExportedPredictor):
        return [exported.probabilities(torch.cat(list(clips)))]
    loaded = [predictor for predictor in predictors if isinstance(predictor, Predictor)]
    views = torch.cat(list(clips)).to(loaded[0].text.device)
    with torch.inference_mode():
        embeddings = SharedBackbone(loaded[0].model.backbone).encode_each(views, [p.model for p in loaded])
    by_view = [e.unflatten(0, (len(clips), -1)).transpose(0, 1) for e in embeddings]
    return [predictor.probabilities(e) for predictor, e in zip(loaded, by_view, strict=True)]


def common_format(predictors: Sequence[AnyPredictor]) -> ClipFormat:
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
