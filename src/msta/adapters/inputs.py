"""The inputs of a model: the format of its clips, and a loader's batch in the form that its video tower takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.prefix import Tokens, unpack_tokens
from msta.data.clips import ClipFormat, on_device


def backbone_format(backbone: DualEncoder) -> ClipFormat:
    """The format that the backbone was trained with: frames, size, pixel statistics and fit."""
    a = backbone.architecture
    return ClipFormat(a.frames, a.image_size, a.pixel_mean, a.pixel_std, a.fit)


def clip_format(model: AdaptedModel) -> ClipFormat:
    """The format that the model takes: frames, size and fit of its task, or else of its backbone."""
    task, usual = model.task, backbone_format(model.backbone)
    if task is None:
        return usual
    return replace(usual, frames=task.frames or usual.frames, size=task.size or usual.size, fit=task.fit or usual.fit)


def views_of(batch: dict[str, Any], model: AdaptedModel, device: torch.device) -> list[Tensor | Tokens] | None:
    """A loader's batch, view by view, in the form that ``model.encode_video`` takes; None if no file could be read."""
    if (tokens := on_device(batch, "tokens", device)) is not None:  # [B, views, parts, sequences per clip, s, d]
        frames = clip_format(model).frames
        return [unpack_tokens(model.backbone.video, view, frames) for view in tokens.unbind(1)]
    if (video := on_device(batch, "video", device)) is None:
        return None
    kept = on_device(batch, "kept", device)
    return [view if kept is None else model.video_prefix(view, kept) for view in video.unbind(1)]
