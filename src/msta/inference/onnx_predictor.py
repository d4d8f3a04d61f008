"""OnnxPredictor: video files -> ranked classes, with ONNX Runtime and without torch.

Usage: python -m msta.inference.onnx_predictor EXPORT VIDEO...
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from msta.data.decode import read_frames
from msta.data.times import view_times
from msta.errors import CheckpointError, ConfigError, MSTAError, in_short, one_line
from msta.files import read_json

FORMAT, DESCRIPTION = "msta-export-1", "export.json"


def export_in(path: str | os.PathLike[str]) -> Path | None:
    """The directory of an exported model: the one given, or that of the ``.onnx`` file given. None: it is neither."""
    folder = Path(path)
    if folder.suffix.lower() == ".onnx" and not folder.is_dir():
        return folder.parent
    return folder if (folder / DESCRIPTION).is_file() else None


class OnnxPredictor:
    """A model that ``msta export`` wrote.

    Args:
        directory: what ``msta export`` wrote.
        threads: of ONNX Runtime; None: its default.

    Attributes:
        classes: names, in the order of the outputs.
        about: the content of ``export.json``: also the clips' "frames", "size", "fit", "mean" and "std".

    Raises:
        CheckpointError: there is no export, or it is damaged.
        ConfigError: onnxruntime is not installed.

    Example:
        >>> OnnxPredictor("exported")("clip.mp4")[0]  # doctest: +SKIP
        ('swipe left', 0.97)
    """

    def __init__(self, directory: str | os.PathLike[str], threads: int | None = None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ConfigError("this needs the package onnxruntime: pip install 'msta[onnx]'") from error
        folder = Path(directory)
        about = read_json(folder / DESCRIPTION, CheckpointError)
        if about.get("format") != FORMAT or about.get("as") != "onnx":
            raise CheckpointError(f"{folder / DESCRIPTION}: not an export to ONNX that this version reads")
        options = onnxruntime.SessionOptions()
        if threads is not None:
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(
                folder / "video.onnx", options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's errors have no common class
            raise CheckpointError(f"{folder / 'video.onnx'}: cannot be loaded ({in_short(error)})") from error
        self.about: dict[str, Any] = about
        self.classes: tuple[str, ...] = tuple(about["classes"])

    def __call__(self, path: str | os.PathLike[str]) -> list[tuple[str, float]]:
        """All classes with their probabilities, the most likely first. Raises DecodeError for an unreadable file."""
        probabilities, _ = self.run(self.read(path)[None])
        order = np.argsort(-probabilities[0], kind="stable")
        return [(self.classes[i], float(probabilities[0, i])) for i in order]

    def run(self, video: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Video [B, T, 3, H, W], normalised -> probabilities [B, K], embeddings [B, D]."""
        probabilities, embeddings = self._session.run(None, {"input": video})
        return probabilities, embeddings

    def read(self, path: str | os.PathLike[str]) -> NDArray[np.float32]:
        """The middle view of a video: [T, 3, size, size], normalised."""
        frames, size = self.about["frames"], self.about["size"]
        squash = self.about["fit"] == "squash"
        pixels = read_frames(path, lambda seconds: view_times(seconds, frames, 1).ravel(), size, squash=squash)
        height, width = pixels.shape[1:3]
        top, left = round((height - size) * 0.5), round((width - size) * 0.5)
        cut = pixels[:, top : top + size, left : left + size].transpose(0, 3, 1, 2).astype(np.float32) / 255
        mean, std = (np.asarray(self.about[name], np.float32)[:, None, None] for name in ("mean", "std"))
        return np.ascontiguousarray((cut - mean) / std)


def main(arguments: Sequence[str]) -> int:
    """Print the three most likely classes of each video. Returns the exit code."""
    if len(arguments) < 2:
        print("usage: python -m msta.inference.onnx_predictor EXPORT VIDEO...", file=sys.stderr)
        return 2
    try:
        predictor = OnnxPredictor(arguments[0])
        for path in arguments[1:]:
            print(one_line(f"{path}: ") + ", ".join(f"{name} {100 * p:.1f} %" for name, p in predictor(path)[:3]))
    except MSTAError as error:
        print(f"msta: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
