"""The world itself: what clips are like (WorldConfig), drawing them (MotionWorld), and what a Batch of them holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from msta.errors import ConfigError
from msta.motionworld.captions import captions
from msta.motionworld.motions import (
    ALL_MOTIONS,
    MEANING,
    MOTIONS,
    OVERLAPS,
    check_motions,
)
from msta.motionworld.raster import MAIN, Array, f32
from msta.motionworld.scenes import compose, render

Domain = Literal["train", "shifted", "held-out"]


@dataclass(frozen=True)
class WorldConfig:
    """What the clips are like.

    Attributes:
        size: height and width in pixels.
        frames: T, at least 1, spread evenly over the clip.
        domain: "train"; "held-out" has the same distribution and other clips; "shifted" has things, colours,
            patterns, backgrounds and compositions of motions that the other two never show.
        motions: which ones, None for all of the domain.
        busy: 0..1. At 0 backgrounds are plain and the camera is still; at 1 a clip may have everything.
        captions: wordings per clip.
        grid: side of the occupancy grid, a divisor of ``size``.
    """

    size: int = 64
    frames: int = 8
    domain: Domain | str = "train"
    motions: tuple[str, ...] | None = None
    busy: float = 1.0
    captions: int = 4
    grid: int = 8

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: one line that names the field.
        """
        for name, least in (("size", 16), ("frames", 1), ("captions", 1), ("grid", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigError(f"{name}: expected a whole number of at least {least}, got {value!r}")
        if self.domain not in get_args(Domain):
            raise ConfigError(f"domain: expected one of {', '.join(get_args(Domain))}, got {self.domain!r}")
        if not 0 <= self.busy <= 1:
            raise ConfigError(f"busy: expected a number from 0 to 1, got {self.busy!r}")
        if self.size % self.grid:
            raise ConfigError(f"grid: expected a divisor of the size {self.size}, got {self.grid}")
        if self.motions is not None:
            object.__setattr__(self, "motions", check_motions(self.motions, shifted=self.domain == "shifted"))

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The motions that clips are drawn from."""
        return self.motions or (ALL_MOTIONS if self.domain == "shifted" else MOTIONS)


@dataclass(frozen=True)
class Batch:
    """B clips with everything known of them.

    Attributes:
        video: uint8 [B, T, 3, H, W], RGB.
        captions: B lists of wordings.
        motions: B names.
        meaning: int64 [B], the motion's place in ALL_MOTIONS. See :func:`same_meaning`.
        trajectory: float [B, T, 2], x and y of the main thing in frames, (0, 0) top left: a thing's centre, a hand's
            fingertip, the hand or foot with which a person acts, a walker's chest. May lie outside 0..1.
        visible: bool [B, T], whether that point is in the frame, and shown.
        other: float [B, T, 2], the second thing's centre or person's chest; NaN where there is none.
        occupancy: float [B, T, grid, grid], the share 0..1 of each cell that the main thing covers.
    """

    video: Tensor
    captions: list[list[str]]
    motions: list[str]
    meaning: Tensor
    trajectory: Tensor
    visible: Tensor
    other: Tensor
    occupancy: Tensor


class MotionWorld:
    """An endless sequence of clips.

    Args:
        config: what they are like.
        seed: of everything random, not negative.
    """

    def __init__(self, config: WorldConfig | None = None, seed: int = 0) -> None:
        if seed < 0:
            raise ConfigError(f"seed: expected no negative number, got {seed}")
        self.config = config or WorldConfig()
        self.seed = seed

    def batch(self, indices: Sequence[int], motions: Sequence[str] | None = None) -> Batch:
        """Clips by number.

        Args:
            indices: any non-negative numbers.
            motions: of each clip; by default each draws its own from ``config.vocabulary``, each equally likely.

        Raises:
            ConfigError: unknown motions, no indices, or not as many as motions.
        """
        if not len(indices):
            raise ConfigError("indices: expected at least one clip, got none")
        if motions is not None:
            check_motions(dict.fromkeys(motions), shifted=self.config.domain == "shifted")
            if len(motions) != len(indices):
                raise ConfigError(f"motions: expected one for each of {len(indices)} clips, got {len(motions)}")
        clips = [self.clip(int(i), None if motions is None else motions[k]) for k, i in enumerate(indices)]
        names = [clip.motion for clip in clips]

        def stack(field: str) -> Tensor:
            return torch.from_numpy(np.stack([getattr(clip, field) for clip in clips]))

        return Batch(
            video=stack("video"),
            captions=[clip.captions for clip in clips],
            motions=names,
            meaning=torch.tensor([MEANING[name] for name in names]),
            trajectory=stack("trajectory"),
            visible=stack("visible"),
            other=stack("other"),
            occupancy=stack("occupancy"),
        )

    def clip(self, index: int, motion: str | None = None) -> Clip:
        """One clip: see :class:`Batch` for its fields, here without B."""
        config = self.config
        if index < 0:
            raise ConfigError(f"indices: expected no negative number, got {index}")
        rng = np.random.default_rng((self.seed, get_args(Domain).index(config.domain), index))
        drawn = config.vocabulary[rng.integers(len(config.vocabulary))]
        motion = drawn if motion is None else motion
        shifted = config.domain == "shifted"
        busy = config.busy * rng.uniform(0.1, 1) ** 0.5
        phase = 0.5 + rng.uniform(-0.3, 0.3) * busy
        times = (np.arange(config.frames) + phase) / config.frames
        scene = compose(motion, rng, times, busy, shifted)
        video, scene, canvas = render(scene, rng, times, config.size, busy, shifted)
        point = scene.main
        visible = ((point > 0) & (point < 1)).all(1) & (scene.shown > 0.3)
        cell = config.size // config.grid
        covered = canvas.coverage.get(MAIN, np.zeros((config.frames, config.size, config.size), np.float32))
        cells = covered.reshape(config.frames, config.grid, cell, config.grid, cell)
        return Clip(
            video=video,
            motion=motion,
            captions=captions(motion, scene.cast, rng, config.captions),
            trajectory=point,
            visible=visible,
            other=scene.other,
            occupancy=f32(cells.mean((2, 4))),
        )


@dataclass(frozen=True)
class Clip:
    """One clip; see :class:`Batch`."""

    video: np.ndarray
    motion: str
    captions: list[str]
    trajectory: Array
    visible: np.ndarray
    other: Array
    occupancy: Array


def same_meaning(meaning: Tensor, other: Tensor | None = None) -> Tensor:
    """Which clips and captions are no negatives of each other: bool [B, C] for int64 [B] and [C] (by default, [B]).

    True for the same motion, and for two of which one could be called the other: "circle" and "circle clockwise".
    """
    return _SAME[meaning][:, meaning if other is None else other]


_SAME = torch.eye(len(ALL_MOTIONS), dtype=torch.bool)
for _a, _b in OVERLAPS:
    _SAME[MEANING[_a], MEANING[_b]] = _SAME[MEANING[_b], MEANING[_a]] = True
