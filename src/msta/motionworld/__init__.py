"""MotionWorld: captioned clips of motion, drawn from random numbers, to pretrain a small video-language model on.

Clip i is a function of (seed, domain, i): the same bytes whatever else is drawn, in batches of any size.

Example:
    >>> world = MotionWorld(WorldConfig(size=64, frames=8), seed=0)
    >>> batch = world.batch(range(96))
    >>> batch.video.shape, batch.captions[0]
    (torch.Size([96, 8, 3, 64, 64]), ['two persons: a handshake', 'shaking hands', ...])
"""

from __future__ import annotations

from msta.motionworld.captions import class_name, descriptions, naming
from msta.motionworld.motions import ALL_MOTIONS, DEMO_MOTIONS, HELD_OUT_MOTIONS, MEANING, MOTIONS, REVERSED
from msta.motionworld.world import Batch, Clip, MotionWorld, WorldConfig, same_meaning
from msta.motionworld.write import write_dataset

__all__ = [
    "ALL_MOTIONS",
    "DEMO_MOTIONS",
    "HELD_OUT_MOTIONS",
    "MEANING",
    "MOTIONS",
    "REVERSED",
    "Batch",
    "Clip",
    "MotionWorld",
    "WorldConfig",
    "class_name",
    "descriptions",
    "naming",
    "same_meaning",
    "write_dataset",
]
