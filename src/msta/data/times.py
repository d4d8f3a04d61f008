"""When, within a video, the frames of a clip are taken."""

from __future__ import annotations

import numpy as np


def segment_times(duration: float, frames: int, position: float | np.ndarray = 0.5) -> np.ndarray:
    """TSN sampling (Wang et al. 2016): one time, in seconds, from each of ``frames`` equal segments.

    Args:
        duration: of the video, in seconds.
        frames: T.
        position: where in its segment each time lies, 0..1: 0.5 is the centre (testing), an array of T random numbers
            is training.
    """
    return (np.arange(frames) + position) * (duration / frames)


def view_times(duration: float, frames: int, clips: int) -> np.ndarray:
    """Times of ``clips`` test clips, [clips, frames]: clip i takes position (i + 1/2) / clips in every segment."""
    return np.stack([segment_times(duration, frames, (i + 0.5) / clips) for i in range(clips)])
