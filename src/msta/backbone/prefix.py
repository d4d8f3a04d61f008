"""The fast path through a tower. It gives the same numbers as the plain ``tower(…)``, as the tests check.

The blocks below the first trainable one are the prefix. It needs no autograd, and its output can be kept: for the class
prompts, which are the same in every step, for a whole run; for clips, on disk. A step then runs only the suffix, and
computes of its last block only the tokens that are used, if they are not all. Texts are cut to the longest, if the
tower is causal. On a CPU clips are computed one by one, so that the output of a block is still in the caches when the
next one reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat

import torch
from torch import Tensor

from msta.backbone.blocks import ParallelAdapter, Tower, mixes_frames
from msta.backbone.layout import VideoLayout
from msta.backbone.text import TextTower
from msta.backbone.video import VideoTower

_AFTER_THE_BLOCKS = ("ln_post.", "ln_final.", "proj", "attention_pooling.")


@dataclass(frozen=True)
class Tokens:
    """Sequences inside a tower, between two blocks.

    Attributes:
        x: [b, s, d], after the blocks below ``start``.
        start: the next block, from 0.
        query_index: int64 [b], the position in each sequence that is used after the last block; None: all positions.
        layout: of a video; None for text.
        frozen_output: [b, s, d], the frozen part of block ``start``, if its adapter stands beside it.
    """

    x: Tensor
    start: int
    query_index: Tensor | None
    layout: VideoLayout | None = None
    frozen_output: Tensor | None = None

    def parts(self, sequences: int) -> Iterator[Tokens]:
        """These sequences in parts of so many."""
        frozen_outputs = repeat(None) if self.frozen_output is None else self.frozen_output.split(sequences)
        query_indices = repeat(None) if self.query_index is None else self.query_index.split(sequences)
        split = zip(self.x.split(sequences), query_indices, frozen_outputs, strict=False)
        for x, query_index, frozen_output in split:
            yield replace(self, x=x, query_index=query_index, frozen_output=frozen_output)


def prefix_length(tower: Tower) -> int | None:
    """The number of blocks below the first one that trains; None if something before the blocks trains.

    The last block never counts: only the tokens that are used are computed there, whether it trains or not.
    """
    for name, parameter in tower.named_parameters():
        if parameter.requires_grad and not name.startswith(("blocks.", *_AFTER_THE_BLOCKS)):
            return None
    below = (i for i, block in enumerate(tower.blocks) if any(p.requires_grad for p in block.parameters()))
    return min(next(below, len(tower.blocks)), len(tower.blocks) - 1)


def video_prefix(tower: VideoTower, video: Tensor, kept: Tensor | None = None) -> Tokens:
    """Patches, positions and the frozen blocks.

    Args:
        tower: its blocks may be wrapped.
        video: [B, T, 3, H, W], normalised.
        kept: int64 [B, n], the patches to use, in all frames of a clip; None: all.
    """
    tower.check(video)
    blocks = None if video.requires_grad and torch.is_grad_enabled() else prefix_length(tower)
    with _autograd_unless(blocks):
        x, layout = tower.embed(video)
        if kept is not None:
            x, layout = layout.keep(x, kept)
        few, frozen = at_once(x, layout), frozen_part(tower, blocks)
        if blocks:
            x = torch.cat([tower.run(part, 0, blocks, layout=layout) for part in x.split(few)])
        frozen_output = torch.cat([frozen(part, layout) for part in x.split(few)]) if frozen else None
    return Tokens(x, blocks or 0, tower.query_index(x), layout, frozen_output)


def frozen_part(tower: Tower, blocks: int | None) -> Callable[[Tensor, VideoLayout | None], Tensor] | None:
    """Computes the part of the first trainable block that comes before its adapter. None for the last block."""
    if blocks is None or blocks + 1 >= len(tower.blocks):
        return None
    block = tower.blocks[blocks]
    return block.frozen_part if isinstance(block, ParallelAdapter) else None


def _autograd_unless(blocks: int | None) -> torch.set_grad_enabled:
    """No gradients for a prefix of so many blocks; the caller's setting if there is no prefix."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and blocks is None)


def tensors_per_sequence(tower: Tower) -> int:
    """How many tensors :func:`video_prefix` gives per sequence: x, and perhaps frozen_output."""
    return 1 if frozen_part(tower, prefix_length(tower)) is None else 2


def pack_tokens(tokens: Tokens, clips: int) -> Tensor:
    """The output of :func:`video_prefix` as one tensor: [clips, parts, sequences per clip, s, d]."""
    parts = [tokens.x] if tokens.frozen_output is None else [tokens.x, tokens.frozen_output]
    return torch.stack([part.unflatten(0, (clips, -1)) for part in parts], dim=1)


def unpack_tokens(tower: VideoTower, kept: Tensor, frames: int) -> Tokens:
    """The inverse of :func:`pack_tokens`."""
    x, *frozen_output = (part.flatten(0, 1) for part in kept.unbind(1))
    layout = tower.layout(frames, x.shape[1])
    return Tokens(x, prefix_length(tower) or 0, tower.query_index(x), layout, *frozen_output)


def cut_to_longest(tower: TextTower, token_ids: Tensor) -> Tensor:
    """Ids [k, l] without the columns that are padding in every text, which a causal tower never sees.

    Looking at the ids waits for a GPU. Ids that are shorter than the context were cut before and stay so.
    """
    if not tower.causal or token_ids.shape[1] < tower.context_length:
        return token_ids
    return token_ids[:, : int(tower.end_of_text(token_ids).max()) + 1]


def text_prefix(tower: TextTower, token_ids: Tensor) -> Tokens:
    """Embeddings and the frozen blocks of texts [k, l], cut to the longest, see :func:`cut_to_longest`."""
    tower.check(token_ids)
    blocks = prefix_length(tower)
    token_ids = cut_to_longest(tower, token_ids)
    end = tower.end_of_text(token_ids)
    with _autograd_unless(blocks):
        x = tower.run(tower.embed(token_ids), 0, blocks or 0)
        frozen = frozen_part(tower, blocks)
        frozen_output = frozen(x, None) if frozen else None
    return Tokens(x, blocks or 0, end, frozen_output=frozen_output)


def suffix(tower: VideoTower | TextTower, tokens: Tokens) -> Tensor:
    """The blocks from the first trainable one on -> embeddings [b, D]."""
    if isinstance(tower, TextTower):
        return tower.project(_go_on(tower, tokens))
    layout = tokens.layout
    assert layout is not None
    return torch.cat([tower.pool(_go_on(tower, part), layout) for part in tokens.parts(at_once(tokens.x, layout))])


def _go_on(tower: Tower, tokens: Tokens) -> Tensor:
    x, start = tokens.x, tokens.start
    if tokens.frozen_output is not None:
        x = tower.through(tower.blocks[start], x, tokens.layout, frozen_output=tokens.frozen_output)
        start += 1
    return tower.run(x, start, layout=tokens.layout, query_index=tokens.query_index)


def at_once(x: Tensor, layout: VideoLayout) -> int:
    """Sequences [b, s, d] to compute together: whole clips, on a CPU about 2,048 tokens."""
    if x.device.type != "cpu":
        return max(1, len(x))
    a_clip = 1 if layout.class_token == "shared" else layout.frames
    return a_clip * max(1, 2048 // (a_clip * x.shape[1]))


# ---------------------------------------------------------------- frames that overlapping clips share


def per_frame_blocks(tower: VideoTower) -> int | None:
    """The number of blocks, from the first one on, that see each frame by itself; None if frames mix before the first.

    Overlapping clips can share the output of these blocks. With frame-wise attention (CLIP) they are those below the
    first block that mixes frames, as MSTA's temporal up-projection does, or all if none does. Joint attention (ViCLIP,
    toy) mixes frames in its first block, and adds a frame's place in the clip before it, so overlapping clips share
    nothing but their pixels.
    """
    if tower.attention != "frame-wise":
        return None
    mixing = (i for i, block in enumerate(tower.blocks) if mixes_frames(block))
    return next(mixing, len(tower.blocks))


def begin_alone(tower: VideoTower, frames: Tensor, blocks: int = 0) -> Tokens:
    """Frames [f, 3, H, W], normalised, through the first ``blocks`` blocks, each as its own clip -> [f, s, d]."""
    x, layout = tower.embed(frames[:, None])
    if blocks:
        x = torch.cat([tower.run(part, 0, blocks, layout=layout) for part in x.split(at_once(x, layout))])
    return Tokens(x, blocks, tower.query_index(x), layout)


def go_on_alone(tower: VideoTower, begun: Tokens, blocks: int) -> list[Tokens]:
    """Continue the output of :func:`begin_alone` up to ``blocks``. For each frame: x [1, s, d].

    After the last block, if only the class token is used, it is that token, [1, 1, d].
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
    """B clips of T frames each, from :func:`go_on_alone` -> embeddings [B, D]."""
    frames = [frame for clip in clips for frame in clip]
    x, first = torch.cat([frame.x for frame in frames]), frames[0]
    assert first.layout is not None
    layout = replace(first.layout, frames=len(clips[0]))
    if first.start == len(tower.blocks):
        return tower.pool(x, layout)
    each = [frame.frozen_output for frame in frames if frame.frozen_output is not None]
    return suffix(tower, Tokens(x, first.start, tower.query_index(x), layout, torch.cat(each) if each else None))
