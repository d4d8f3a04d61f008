"""A model and clips -> probabilities -> accuracy."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from msta.adapters.inputs import views_of
from msta.adapters.model import AdaptedModel
from msta.adapters.task import per_class, prompts
from msta.backbone.prefix import Tokens
from msta.data.clips import Failures
from msta.errors import ConfigError
from msta.evaluation.metrics import accuracy
from msta.evaluation.predictions import Recorder


@torch.no_grad()
def class_embeddings(model: AdaptedModel, classes: Sequence[str], template: str | Sequence[str]) -> Tensor:
    """[K, D]: the prompts of the classes, read by the adapted text tower.

    Raises:
        ConfigError: a template without a place for the name; or the method answers for the classes it was trained on
            alone, and these are others.
    """
    for each in (template,) if isinstance(template, str) else template:
        if "{}" not in each:
            raise ConfigError(f"--template: {each!r} has no {{}} for the class name")
    model.check_classes(classes)
    ids = model.tokenize(prompts(classes, template)).to(model.backbone.logit_scale.device)
    return per_class(model.encode_text(ids), len(classes))


@torch.no_grad()
def read_views(model: AdaptedModel, views: Sequence[Tensor | Tokens], text: Tensor) -> tuple[Tensor, Tensor]:
    """V views [B, T, 3, H, W] each, text [K, D] -> probabilities [V, B, K], embeddings [V, B, D]."""
    embeddings = torch.stack([model.encode_video(view) for view in views])
    return view_probabilities(model, embeddings, text), embeddings


@torch.no_grad()
def view_probabilities(model: AdaptedModel, embeddings: Tensor, text: Tensor) -> Tensor:
    """Video [V, B, D], text [K, D] -> [V, B, K]."""
    return torch.stack([model.logits(view, text).softmax(-1) for view in embeddings])


def evaluate(
    model: AdaptedModel,
    batches: Iterable[dict[str, Any]],
    text: Tensor,
    failures: Failures,
    *,
    autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
    progress: Callable[[], None] = lambda: None,
    recorder: Recorder | None = None,
    gather: Callable[[Any], list[Any]] = lambda own: [own],
) -> dict[str, float]:
    """Accuracy of ``model`` over the clips that can be read.

    Args:
        model: adapted or zero-shot.
        batches: from a loader of test views.
        text: class embeddings [K, D].
        failures: collects the others.
        autocast: context for mixed precision.
        progress: called once a batch.
        recorder: collects the predictions.
        gather: something of this process -> that of each process, where several have a share of the clips each. All
            of them get the figures of all clips.

    Returns:
        See :func:`accuracy`, and "clips", how many were measured. Empty if none could be read.
    """
    device = model.backbone.logit_scale.device
    probabilities: list[Tensor] = []
    labels: list[Tensor] = []
    numbers: list[Tensor] = []
    for batch in batches:
        failures.add(batch["failures"])
        with autocast():
            views = views_of(batch, model, device)
            if views is not None:
                each, embeddings = read_views(model, views, text)
                probabilities.append(each.mean(0).float().cpu())
        if views is not None:
            labels.append(batch["label"].cpu())
            numbers.append(batch["index"].cpu())
            if recorder is not None:
                recorder.add(batch["index"], batch["label"], each, embeddings)
        progress()
    shares = gather((probabilities, labels, numbers, failures.reasons))
    if recorder is not None:
        recorder.gather(gather)
    for share in shares:
        failures.add(share[3].items())
    if not any(share[1] for share in shares):
        return {}
    every, truth, order = (torch.cat([part for share in shares for part in share[i]]) for i in range(3))
    order = order.argsort()  # the same sums in the same order, whoever measured what
    return {**accuracy(every[order], truth[order]), "clips": len(order)}
