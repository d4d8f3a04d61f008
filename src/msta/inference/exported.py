"""An exported model in the place of an adapter: ``msta predict --adapter exported/video.onnx``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from msta.data.clips import ONE_VIEW, ClipFormat
from msta.data.video_file import DecodeError
from msta.evaluation.metrics import Array
from msta.inference.loaded_adapter import Prediction, ranked
from msta.inference.onnx_predictor import OnnxPredictor
from msta.inference.predictor import batched, read_ahead


class ExportedPredictor:
    """What :class:`Predictor` does, by ONNX Runtime, with one view per video and the classes of the export.

    Args:
        directory: what ``msta export`` wrote.

    Raises:
        MSTAError: see :class:`OnnxPredictor`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.onnx = OnnxPredictor(directory)
        self.classes, self.views, about = self.onnx.classes, ONE_VIEW, self.onnx.about
        self.format = ClipFormat(
            about["frames"], about["size"], tuple(about["mean"]), tuple(about["std"]), about["fit"]
        )

    def each(
        self, videos: Sequence[str], *, batch: int = 8, workers: int = 2
    ) -> Iterator[tuple[str, list[Prediction] | DecodeError]]:
        """See :meth:`Predictor.each`."""
        for group in batched(read_ahead(videos, lambda video: torch.from_numpy(self.onnx.read(video)), workers), batch):
            readable = [clip for _, clip in group if isinstance(clip, Tensor)]
            rows = iter(self.probabilities(torch.stack(readable)) if readable else ())
            for video, clip in group:
                yield video, clip if isinstance(clip, DecodeError) else ranked(self.classes, next(rows))

    def probabilities(self, clips: Tensor) -> Array:
        """Clips [B, T, 3, size, size], normalised -> float64 [B, K]."""
        return self.onnx.run(clips.numpy())[0].astype("float64")
