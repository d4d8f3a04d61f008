"""Augmentation of training clips: what is drawn for a clip, and how it is applied, to one clip or many, on any device.

The draws and the arithmetic are kornia's. Drawing needs no pixels. So a process that decodes a clip can draw and crop,
and leave the arithmetic to the device.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Drawn:
    """What was drawn for a clip.

    Attributes:
        box: left, top, right and bottom of the crop, in pixels of the decoded frames; right and bottom are excluded.
        factors: of brightness, contrast, saturation and hue.
        order: the numbers of these four in the order in which they are applied; empty without jitter.
        greyscale: whether the clip loses its colours.
        flip: whether left and right are swapped.
    """

    box: tuple[int, int, int, int]
    factors: tuple[float, ...]
    order: tuple[int, ...]
    greyscale: bool
    flip: bool


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of a training clip, the same for all of its frames.

    ``crop_area`` is the range of the share of a frame that a random resized crop keeps. ``jitter``, ``greyscale`` and
    ``flip`` are probabilities. The strengths of the jitter (brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1) are
    those of the pipeline that the authors started from.
    """

    crop_area: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.8
    greyscale: float = 0.2
    flip: float = 0.5

    def draw(self, seed: int, height: int, width: int) -> Drawn:
        """Draw for frames of this size. The result depends on the arguments alone; torch's generator is not changed."""
        state = torch.random.get_rng_state()
        torch.default_generator.manual_seed(seed)
        crop, jitter, greyscale, flip = (step.forward_parameters((1, 3, height, width)) for step in _steps(self))
        torch.random.set_rng_state(state)
        left, top = crop["src"][0, 0].int().tolist()
        right, bottom = (crop["src"][0, 2].int() + 1).tolist()
        jittered, grey, flipped = (bool(step["batch_prob"][0]) for step in (jitter, greyscale, flip))
        factors = tuple(float(jitter[f"{name}_factor"][0]) for name in ("brightness", "contrast", "saturation", "hue"))
        order = tuple(jitter["order"].tolist()) if jittered else ()
        return Drawn((left, top, right, bottom), factors, order, grey, flipped)


def augment(clips: Sequence[Tensor], drawn: Sequence[Drawn], size: int) -> Tensor:
    """Apply what was drawn.

    Args:
        clips: for each clip float [T, 3, h, w] in 0..1, cropped to its box.
        drawn: for each clip.
        size: height and width of the result, in pixels.

    Returns:
        [B, T, 3, size, size] in 0..1. On a CPU the numbers are those of kornia's own pipeline, to the bit, if the clips
        come one by one.
    """
    done = [_resized(clip, size) for clip in clips]
    jittered = [i for i, d in enumerate(drawn) if d.order]
    _together(done, jittered, _clamped)
    for place in range(4):
        for number, adjust in enumerate(_adjustments()):
            chosen = [i for i in jittered if drawn[i].order[place] == number]
            factors = torch.tensor([drawn[i].factors[number] for i in chosen]).repeat_interleave(len(clips[0]))
            _together(done, chosen, functools.partial(adjust, factor=factors))
    _together(done, jittered, _clamped)
    _together(done, [i for i, d in enumerate(drawn) if d.greyscale], _grey)
    return torch.stack([clip.flip(-1) if d.flip else clip for clip, d in zip(done, drawn, strict=True)])


def _together(clips: list[Tensor], chosen: Sequence[int], change: Any) -> None:
    """Apply ``change`` to all frames of the chosen clips at once."""
    if chosen:
        frames = len(clips[0])
        changed = change(torch.cat([clips[i] for i in chosen])).split(frames)
        for i, clip in zip(chosen, changed, strict=True):
            clips[i] = clip


def _resized(clip: Tensor, size: int) -> Tensor:
    if clip.shape[-2:] == (size, size):
        return clip
    return F.interpolate(clip, (size, size), mode="bilinear", align_corners=True)


def _clamped(frames: Tensor) -> Tensor:
    return frames.clamp(0, 1)


def _grey(frames: Tensor) -> Tensor:
    from kornia.color import rgb_to_grayscale

    return rgb_to_grayscale(frames).repeat(1, 3, 1, 1)


@functools.lru_cache(maxsize=4)
def _steps(augmentation: Augmentation) -> tuple[Any, ...]:
    """The steps of kornia that draw. The size of the result does not matter to them."""
    import kornia.augmentation as K

    same = {"same_on_batch": True}
    return (
        K.RandomResizedCrop((1, 1), scale=augmentation.crop_area, **same),
        K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=augmentation.jitter, **same),
        K.RandomGrayscale(p=augmentation.greyscale, **same),
        K.RandomHorizontalFlip(p=augmentation.flip, **same),
    )


def _adjustments() -> tuple[Any, ...]:
    """Frames [N, 3, H, W] and factors [N] -> frames, in the order of :attr:`Drawn.factors`, as in kornia's jitter."""
    from kornia import enhance

    return (
        enhance.adjust_brightness_accumulative,
        enhance.adjust_contrast_with_mean_subtraction,
        enhance.adjust_saturation_with_gray_subtraction,
        lambda frames, factor: enhance.adjust_hue(frames, factor * 2 * math.pi),
    )
