"""What the benchmarks share: videos to decode, and times as text."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_video(path: Path, pictures: Iterable[np.ndarray], *, fps: int = 25, **options: str) -> Path:
    """H.264 of pictures, uint8 [H, W, 3] each; a last odd row or column is left out. ``options`` are those of x264."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=fps, options=options)
        for i, picture in enumerate(pictures):
            if i == 0:
                height, width = picture.shape[:2]
                stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def spread(measured: Sequence[float], digits: int = 2) -> str:
    """Median (smallest..largest)."""
    return f"{statistics.median(measured):.{digits}f} ({min(measured):.{digits}f}..{max(measured):.{digits}f})"
