"""Zero-shot figures on MotionWorld's held-out and shifted renderings: by these alone the small backbone is chosen."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from msta.adapters.model import class_logits
from msta.adapters.task import prompts
from msta.backbone.dual_encoder import DualEncoder
from msta.data.clips import ClipFormat
from msta.motionworld import MOTIONS, MotionWorld, WorldConfig, class_name
from msta.motionworld.world import Domain

TWENTY = (
    "swipe left", "swipe right", "swipe up", "swipe down", "circle", "square", "triangle", "star",
    "check mark", "caret", "delete mark", "spiral", "grow", "shrink", "approach", "move apart",
    "handshake", "kick", "walk left", "stay still",
)  # fmt: skip
PAIRS = ("swipe left", "swipe right", "grow", "shrink", "approach", "move apart")
"""Each beside the one that the same frames backwards show."""


@torch.no_grad()
def measure(backbone: DualEncoder, clips: int, seed: int) -> dict[str, float]:
    """Zero-shot figures in percent, on ``clips`` renderings each.

    Returns:
        "twenty": top-1 among TWENTY motions (chance 5); "all": among all that pretraining had; "shifted": as "twenty",
        with things, colours, patterns and backgrounds that pretraining never had; "reversed": the right
        one of a pair that only time tells apart (chance 50); "shuffled": the same with the frames in random order;
        "text_to_video": how often a caption's own clip is the nearest of half of ``clips``, and "video_to_text".
    """
    half = max(len(PAIRS), clips // 2)
    told = _repeat(PAIRS, half)
    told_text = _names(backbone, PAIRS)
    captions, video = _captioned(backbone, half, seed)
    text = backbone.encode_text(backbone.tokenize(captions))
    similarity = class_logits(video, text, backbone.logit_scale)
    own = torch.arange(half)
    return {
        "twenty": _top1(backbone, TWENTY, clips, seed),
        "all": _top1(backbone, MOTIONS, clips, seed),
        "shifted": _top1(backbone, TWENTY, clips, seed, "shifted"),
        "reversed": _pairwise(class_logits(_encode(backbone, told, seed), told_text, backbone.logit_scale)),
        "shuffled": _pairwise(
            class_logits(_encode(backbone, told, seed, shuffled=True), told_text, backbone.logit_scale)
        ),
        "text_to_video": 100 * (similarity.argmax(0) == own).double().mean().item(),
        "video_to_text": 100 * (similarity.argmax(1) == own).double().mean().item(),
    }


def _repeat(names: Sequence[str], count: int) -> list[str]:
    return [names[i % len(names)] for i in range(count)]


def _names(backbone: DualEncoder, motions: Sequence[str]) -> Tensor:
    return backbone.encode_text(backbone.tokenize(prompts([class_name(motion) for motion in motions])))


def _top1(backbone: DualEncoder, motions: Sequence[str], clips: int, seed: int, domain: Domain = "held-out") -> float:
    video = _encode(backbone, _repeat(motions, clips), seed, domain)
    chosen = class_logits(video, _names(backbone, motions), backbone.logit_scale).argmax(1)
    return 100 * (chosen == torch.arange(clips) % len(motions)).double().mean().item()


def _pairwise(logits: Tensor) -> float:
    """[N, 6] -> in how many clips the true motion beats its reverse."""
    clip = torch.arange(len(logits))
    true = clip % len(PAIRS)
    return 100 * (logits[clip, true] > logits[clip, true ^ 1]).double().mean().item()


def _encode(
    backbone: DualEncoder, motions: Sequence[str], seed: int, domain: Domain = "held-out", *, shuffled: bool = False
) -> Tensor:
    world = _world(backbone, seed, domain)
    parts = []
    for start in range(0, len(motions), 50):
        part = motions[start : start + 50]
        video = world.batch(range(start, start + len(part)), part).video
        if shuffled:
            order = torch.rand(video.shape[:2], generator=torch.Generator().manual_seed(start)).argsort(1)
            video = video.gather(1, order[:, :, None, None, None].expand_as(video))
        parts.append(_read(backbone, video))
    return torch.cat(parts)


def _captioned(backbone: DualEncoder, clips: int, seed: int) -> tuple[list[str], Tensor]:
    world = _world(backbone, seed)
    batches = [world.batch(range(i, min(i + 50, clips))) for i in range(0, clips, 50)]
    captions = [wordings[0] for batch in batches for wordings in batch.captions]
    return captions, torch.cat([_read(backbone, batch.video) for batch in batches])


def _world(backbone: DualEncoder, seed: int, domain: Domain = "held-out") -> MotionWorld:
    a = backbone.architecture
    return MotionWorld(WorldConfig(a.image_size, a.frames, domain, captions=1), seed)


def _read(backbone: DualEncoder, video: Tensor) -> Tensor:
    a = backbone.architecture
    form = ClipFormat(a.frames, a.image_size, a.pixel_mean, a.pixel_std)
    return backbone.encode_video(form.normalise(video.float() / 255))
