"""All predictions, saved as Parquet, so that any table can be made again.

One row per clip: its name, file and time range, its label, the five likeliest labels with their probabilities, the
probabilities of all classes and, if wanted, the embedding, all averaged over the test views; ``view`` is then null.
With several views, one row per view follows, without the long columns. The class names are in the file's metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from msta.data.catalog import Clip, Span
from msta.errors import DataError, in_short
from msta.evaluation.metrics import Array, Integers
from msta.files import replacing

FORMAT = "msta-predictions-1"


@dataclass(frozen=True)
class Predictions:
    """The predictions for N clips, averaged over their views.

    Attributes:
        classes: K names.
        clips: N names: a path, and a time range if the clip is one.
        files: for each clip its file, and the part of it that the clip is.
        labels: int64 [N].
        probabilities: float64 [N, K].
        embeddings: float32 [N, D], of the video tower, or None.
    """

    classes: tuple[str, ...]
    clips: tuple[str, ...]
    files: tuple[tuple[str, Span], ...]
    labels: Integers
    probabilities: Array
    embeddings: npt.NDArray[np.float32] | None = None

    @cached_property
    def predicted(self) -> Integers:
        """[N], the likeliest label."""
        return self.probabilities.argmax(1)

    @property
    def hits(self) -> list[bool]:
        """[N], whether the likeliest label is right."""
        return list((self.predicted == self.labels).tolist())

    @property
    def confidence(self) -> Array:
        """[N], the highest probability."""
        return np.asarray(self.probabilities.max(1), np.float64)


class Recorder:
    """Collects predictions while a model is measured.

    Args:
        clips: of the data set that is measured; the numbers in batches are positions in this list.
        classes: the classes to choose from.
        embeddings: whether to keep the embeddings of all views, too.
    """

    def __init__(self, clips: Sequence[Clip], classes: Sequence[str], *, embeddings: bool = False) -> None:
        self.clips, self.classes, self.with_embeddings = clips, tuple(classes), embeddings
        self._indices: list[Tensor] = []
        self._labels: list[Tensor] = []
        self._probabilities: list[Tensor] = []
        self._embeddings: list[Tensor] = []

    def add(self, index: Tensor, label: Tensor, probabilities: Tensor, embeddings: Tensor) -> None:
        """A batch: index, label [B]; probabilities [V, B, K]; embeddings [V, B, D]."""
        self._indices.append(index.cpu())
        self._labels.append(label.cpu())
        self._probabilities.append(probabilities.float().cpu())
        if self.with_embeddings:
            self._embeddings.append(embeddings.float().cpu())

    def gather(self, gather: Callable[[Any], list[Any]]) -> None:
        """Take over what all processes have collected, in the order of the clips. ``gather``: see evaluate."""
        shares = gather((self._indices, self._labels, self._probabilities, self._embeddings))
        whole = [[part for share in shares for part in share[i]] for i in range(4)]
        if len(shares) > 1 and whole[0]:
            order = torch.cat(whole[0]).argsort()
            whole = [[torch.cat(parts, 0 if i < 2 else 1)] if parts else [] for i, parts in enumerate(whole)]
            whole = [[part.index_select(0 if i < 2 else 1, order) for part in parts] for i, parts in enumerate(whole)]
        self._indices, self._labels, self._probabilities, self._embeddings = whole

    @property
    def embeddings(self) -> Tensor:
        """[V, N, D], of every view."""
        return torch.cat(self._embeddings, 1)

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return torch.cat(self._labels)

    @property
    def indices(self) -> Tensor:
        """int64 [N], of the clips."""
        return torch.cat(self._indices)

    def predictions(self) -> Predictions:
        """What was collected.

        Raises:
            ValueError: nothing was collected.
        """
        if not self._indices:
            raise ValueError("no predictions")
        clips = [self.clips[i] for i in self.indices.tolist()]
        return Predictions(
            self.classes,
            tuple(clip.name for clip in clips),
            tuple((clip.path, clip.span) for clip in clips),
            self.labels.numpy(),
            torch.cat(self._probabilities, 1).double().mean(0).numpy(),
            self.embeddings.mean(0).numpy() if self._embeddings else None,
        )

    def write(self, path: Path, **about: Any) -> None:
        """Write what was collected, see :func:`write_predictions`."""
        views = torch.cat(self._probabilities, 1)
        each = [view.double().numpy() for view in views] if len(views) > 1 else []
        write_predictions(path, self.predictions(), each, **about)


def pooled(parts: Sequence[Predictions]) -> Predictions:
    """Predictions for different clips, of models with the same classes, as if one model had made them."""
    embeddings = [part.embeddings for part in parts if part.embeddings is not None]
    return Predictions(
        parts[0].classes,
        tuple(clip for part in parts for clip in part.clips),
        tuple(file for part in parts for file in part.files),
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
        np.concatenate(embeddings) if len(embeddings) == len(parts) else None,
    )


def write_predictions(path: Path, whole: Predictions, views: Sequence[Array] = (), **about: Any) -> None:
    """Write a file of predictions, aside, then rename it.

    Args:
        path: of the file; its folder is made.
        whole: the predictions.
        views: the probabilities [N, K] of each test view, if there are several.
        about: for the file's metadata.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, list[Any]] = {name: [] for name in _columns(pa)}
    for view, probabilities in ((None, whole.probabilities), *enumerate(views)):
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        nothing = [None] * len(top)
        columns["clip"] += map(_text, whole.clips)
        columns["path"] += [_text(path) for path, _ in whole.files]
        columns["start"] += [start for _, (start, _) in whole.files]
        columns["end"] += [end for _, (_, end) in whole.files]
        columns["view"] += [view] * len(top)
        columns["label"] += whole.labels.tolist()
        columns["top_labels"] += top.tolist()
        columns["top_probabilities"] += np.take_along_axis(probabilities, top, 1).tolist()
        columns["probabilities"] += list(probabilities.astype(np.float32)) if view is None else nothing
        kept = view is None and whole.embeddings is not None
        columns["embedding"] += list(whole.embeddings) if kept and whole.embeddings is not None else nothing
    metadata = {"msta": json.dumps({"format": FORMAT, "classes": whole.classes, **about})}
    table = pa.table(columns, schema=pa.schema(list(_columns(pa).items()), metadata=metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        pq.write_table(table, aside, compression="zstd")


def read_predictions(path: Path) -> Predictions:
    """Read a file of predictions.

    Raises:
        DataError: the file does not exist, is damaged, or has another format.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        about = json.loads((table.schema.metadata or {})[b"msta"])
        if about["format"] != FORMAT:
            raise DataError(f"{path}: predictions of format {about['format']!r}, expected {FORMAT}")
        table = table.filter(table["view"].is_null())
        embeddings = table["embedding"]
        paths, starts, ends = (table[name].to_pylist() for name in ("path", "start", "end"))
        return Predictions(
            tuple(about["classes"]),
            tuple(table["clip"].to_pylist()),
            tuple(zip(paths, zip(starts, ends, strict=True), strict=True)),
            table["label"].to_numpy().astype(np.int64),
            np.array(table["probabilities"].to_pylist(), np.float64),
            None if embeddings.null_count else np.array(embeddings.to_pylist(), np.float32),
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path}: no predictions that msta wrote ({in_short(error)})") from error


def _text(path: str) -> str:
    """A path that is no UTF-8, as a file system may hold, with its odd bytes spelt out."""
    return path.encode(errors="backslashreplace").decode()


def _columns(pa: Any) -> dict[str, Any]:
    return {
        "clip": pa.string(),
        "path": pa.string(),
        "start": pa.float64(),
        "end": pa.float64(),
        "view": pa.int16(),
        "label": pa.int32(),
        "top_labels": pa.list_(pa.int32()),
        "top_probabilities": pa.list_(pa.float32()),
        "probabilities": pa.list_(pa.float32()),
        "embedding": pa.list_(pa.float32()),
    }
