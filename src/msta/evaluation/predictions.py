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
from msta.errors import DataError, as_text, in_short
from msta.evaluation.metrics import Array, Integers
from msta.files import write_parquet

FORMAT = "msta-predictions-1"
_CLIPS = (0, 0, 1, 1)  # the axis of the clips in index, label, probabilities and embeddings


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
        self.batches: list[tuple[Tensor, ...]] = []

    def add(self, index: Tensor, label: Tensor, probabilities: Tensor, embeddings: Tensor) -> None:
        """A batch: index, label [B]; probabilities [V, B, K]; embeddings [V, B, D]."""
        kept = embeddings if self.with_embeddings else embeddings[..., :0]
        self.batches.append((index.cpu(), label.cpu(), probabilities.float().cpu(), kept.float().cpu()))

    def gather(self, gather: Callable[[Any], list[Any]]) -> None:
        """Take over what all processes have collected, in the order of the clips. ``gather``: see evaluate."""
        self.batches = [batch for share in gather(self.batches) for batch in share]
        if self.batches:  # the same sums in the same order, whoever measured what
            order = self.indices.argsort()
            self.batches = [tuple(self._whole(i).index_select(dim, order) for i, dim in enumerate(_CLIPS))]

    def _whole(self, i: int) -> Tensor:
        return torch.cat([batch[i] for batch in self.batches], _CLIPS[i])

    @property
    def indices(self) -> Tensor:
        """int64 [N], of the clips."""
        return self._whole(0)

    @property
    def labels(self) -> Tensor:
        """int64 [N]."""
        return self._whole(1)

    @property
    def probabilities(self) -> Tensor:
        """float32 [V, N, K], of every view."""
        return self._whole(2)

    @property
    def embeddings(self) -> Tensor:
        """[V, N, D], of every view."""
        return self._whole(3)

    def predictions(self) -> Predictions:
        """What was collected.

        Raises:
            ValueError: nothing was collected.
        """
        if not self.batches:
            raise ValueError("no predictions")
        clips = [self.clips[i] for i in self.indices.tolist()]
        return Predictions(
            self.classes,
            tuple(clip.name for clip in clips),
            tuple((clip.path, clip.span) for clip in clips),
            self.labels.numpy(),
            self.probabilities.double().mean(0).numpy(),
            self.embeddings.mean(0).numpy() if self.with_embeddings else None,
        )

    def write(self, path: Path, **about: Any) -> None:
        """Write what was collected, see :func:`write_predictions`."""
        each = [view.double().numpy() for view in self.probabilities] if len(self.probabilities) > 1 else []
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

    columns: dict[str, list[Any]] = {name: [] for name in _columns(pa)}
    for view, probabilities in ((None, whole.probabilities), *enumerate(views)):
        top = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        nothing = [None] * len(top)
        columns["clip"] += map(as_text, whole.clips)
        columns["path"] += [as_text(path) for path, _ in whole.files]
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
    write_parquet(path, table)


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
