"""A model and clips -> probabilities -> accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from msta.data.clips import ClipFormat, Failures, batch_video
from msta.evaluation.metrics import accuracy
from msta.methods.base import AdaptedModel
from msta.methods.task import prompts
from msta.training.losses import class_logits


def clip_format(model: AdaptedModel) -> ClipFormat:
    """What the model wants to see: frames, size and fit of its task, else of its backbone."""
    task, a = model.task, model.backbone.architecture
    frames, size, fit = (task.frames, task.size, task.fit) if task else (None, None, None)
    return ClipFormat(frames or a.frames, size or a.image_size, a.pixel_mean, a.pixel_std, fit or a.fit)


@torch.no_grad()
def class_embeddings(model: AdaptedModel, classes: Sequence[str], template: str) -> Tensor:
    """[K, D]: the prompts of the classes, read by the adapted text tower."""
    ids = model.tokenize(prompts(classes, template)).to(model.backbone.logit_scale.device)
    return model.encode_text(ids)


@torch.no_grad()
def class_probabilities(model: AdaptedModel, video: Tensor, text: Tensor) -> Tensor:
    """video [B, views, T, 3, H, W], text [K, D] -> [B, K], averaged over the views, which are read one by one."""
    views = [class_logits(model.encode_video(v), text, model.backbone.logit_scale) for v in video.unbind(1)]
    return torch.stack([logits.softmax(-1) for logits in views]).mean(0)


def evaluate(
    model: AdaptedModel,
    batches: Iterable[dict[str, Any]],
    text: Tensor,
    failures: Failures,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Accuracy of ``model`` over the clips that can be read.

    Args:
        model: adapted or zero-shot.
        batches: from a loader of test views.
        text: class embeddings [K, D].
        failures: collects the others.
        autocast: context for mixed precision.
        progress: called once a batch.

    Returns:
        See :func:`accuracy`, and "clips", how many were measured. Empty if none could be read.
    """
    device = model.backbone.logit_scale.device
    probabilities, labels = [], []
    for batch in batches:
        failures.add(batch["failures"])
        video = batch_video(batch, device)
        if video is not None:
            with autocast():
                probabilities.append(class_probabilities(model, video, text).float().cpu())
            labels.append(batch["label"].cpu())
        progress()
    if not labels:
        return {}
    every = torch.cat(labels)
    return {**accuracy(torch.cat(probabilities), every), "clips": len(every)}
