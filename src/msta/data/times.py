"""The times of a clip's frames within a video."""

from __future__ import annotations

import numpy as np


def segment_times(duration: float, frames: int, position: float | np.ndarray = 0.5) -> np.ndarray:
    """TSN sampling (Wang et al. 2016): one time, in seconds, from each of ``frames`` equal segments.

    Args:
        duration: of the video, in seconds.
        frames: T.
        position: the place of each time in its segment, 0..1: 0.5 is the centre (testing); training uses an array of T
            random numbers.
    """
    return (np.arange(frames) + position) * (duration / frames)


def view_times(duration: float, frames: int, clips: int) -> np.ndarray:
    """Times of ``clips`` test clips, [clips, frames]: clip i takes position (i + 1/2) / clips in every segment."""
    return np.stack([segment_times(duration, frames, (i + 0.5) / clips) for i in range(clips)])
