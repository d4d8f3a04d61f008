"""The part of a video tower that looks at each frame by itself, so that overlapping clips can share it.

Frame-wise attention (CLIP) has such a part: the blocks below the first that mixes frames, as MSTA's temporal
up-projection does; all of them, where nothing mixes. Joint attention (ViCLIP, toy) mixes frames in its first block, and
adds a frame's place in the clip before that: overlapping clips share nothing but their pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from msta.backbone.blocks import mixes_frames
from msta.backbone.prefix import Tokens, at_once, frozen_part, suffix
from msta.backbone.video import VideoTower


def per_frame_blocks(tower: VideoTower) -> int | None:
    """How many blocks from the first one on see each frame by itself; None if frames mix before the first.

    See :func:`msta.backbone.blocks.mixes_frames`.
    """
    if tower.attention != "frame-wise":
        return None
    mixing = (i for i, block in enumerate(tower.blocks) if mixes_frames(block))
    return next(mixing, len(tower.blocks))


def begin_alone(tower: VideoTower, frames: Tensor, blocks: int = 0) -> Tokens:
    """Frames [f, 3, H, W], normalised, through the first ``blocks`` blocks, each a clip by itself -> [f, s, d]."""
    x, layout = tower.embed(frames[:, None])
    if blocks:
        x = torch.cat([tower.run(part, 0, blocks, layout=layout) for part in x.split(at_once(x, layout))])
    return Tokens(x, blocks, tower.query_index(x), layout)


def go_on_alone(tower: VideoTower, begun: Tokens, blocks: int) -> list[Tokens]:
    """What :func:`begin_alone` gave, up to ``blocks``: for each frame x [1, s, d], or after the last block, if only the
    class token is read, that token [1, 1, d].
    """
    assert begun.layout is not None
    whole = blocks == len(tower.blocks) > begun.start
    frozen = frozen_part(tower, blocks)
    found = []
    for part in begun.parts(at_once(begun.x, begun.layout)):
        x = tower.run(part.x, part.start, blocks, layout=begun.layout, query_index=part.query_index if whole else None)
        frozen_output = frozen(x, begun.layout) if frozen else None
        for i in range(len(x)):  # in copies, so that a frame that is kept does not keep the others
            own = None if frozen_output is None else _row(frozen_output, i)
            query_index = None if part.query_index is None else _row(part.query_index, i)
            found.append(Tokens(_row(x, i), blocks, query_index, begun.layout, own))
    return found


def _row(x: Tensor, i: int) -> Tensor:
    return x[i : i + 1].clone()


def read_together(tower: VideoTower, clips: Sequence[Sequence[Tokens]]) -> Tensor:
    """B clips of T frames each, as :func:`go_on_alone` gave them -> embeddings [B, D]."""
    frames = [frame for clip in clips for frame in clip]
    x, first = torch.cat([frame.x for frame in frames]), frames[0]
    assert first.layout is not None
    layout = replace(first.layout, frames=len(clips[0]))
    if first.start == len(tower.blocks):
        return tower.pool(x, layout)
    each = [frame.frozen_output for frame in frames if frame.frozen_output is not None]
    return suffix(tower, Tokens(x, first.start, tower.query_index(x), layout, torch.cat(each) if each else None))
