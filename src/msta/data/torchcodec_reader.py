"""The optional second decoder: torchcodec, for who has it and FFmpeg's shared libraries; ``data.decoder=torchcodec``.

Same frames as :func:`msta.data.decode.read_frames`, in other pixels: its resize is another one. See there for
arguments and errors. It is no faster for small files (``benchmarks/loader.py``), knows no damaged ones, and cannot be
told to open without a name; PyAV stays the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from msta.data.decode import DecodeError, member_bytes, part_of
from msta.errors import ConfigError, in_short

_A_LITTLE = 1e-6  # seconds


def require_torchcodec() -> Any:
    """torchcodec's decoder.

    Raises:
        ConfigError: not installed, or it finds no FFmpeg.
    """
    try:
        from torchcodec.decoders import VideoDecoder  # type: ignore[attr-defined]
    except ImportError as error:
        raise ConfigError("data.decoder: torchcodec is not installed; pip install 'msta[torchcodec]'") from error
    except (OSError, RuntimeError) as error:
        raise ConfigError(
            "data.decoder: torchcodec cannot load: it needs FFmpeg's libraries and the release made for this torch"
        ) from error
    return VideoDecoder


def read_frames(
    path: str | os.PathLike[str],
    choose: Sequence[float] | NDArray[Any] | Callable[[float], Sequence[float] | NDArray[Any]],
    short_side: int | None = None,
    *,
    squash: bool = False,
    within: tuple[float | None, float | None] = (None, None),
) -> NDArray[np.uint8]:
    """uint8 [T, H, W, 3] on display at the chosen times."""
    decoder = require_torchcodec()
    path = os.fsdecode(path)
    content = member_bytes(path)
    try:
        video = decoder(os.path.abspath(path) if content is None else content, num_ffmpeg_threads=1)
        about = video.metadata
        first = float(about.begin_stream_seconds)
        start, length = part_of(path, float(about.end_stream_seconds) - first, within)
        times = np.asarray(choose(length) if callable(choose) else choose, dtype=np.float64) + start
        latest = float(about.end_stream_seconds) - _A_LITTLE
        absolute = np.clip(times + first + _A_LITTLE, first, latest)  # k / fps in floating point must find frame k
        frames = video.get_frames_played_at(absolute.tolist()).data  # uint8 [T, 3, H, W]
    except (RuntimeError, ValueError, IndexError, OSError) as error:
        raise DecodeError(path, f"torchcodec: {in_short(error)}") from None
    height, width = frames.shape[-2:]
    aspect = float(about.pixel_aspect_ratio or 1)
    wide = width * aspect if not (about.rotation or 0) % 180 else width / aspect
    scale = short_side / min(wide, height) if short_side else 1.0
    size = (max(1, round(height * scale)), max(1, round(wide * scale)))
    if squash and short_side:
        size = (short_side, short_side)
    if size != (height, width):
        frames = F.interpolate(frames, size, mode="bilinear", antialias=True, align_corners=False)
    return np.ascontiguousarray(frames.permute(0, 2, 3, 1).to(torch.uint8).numpy())
