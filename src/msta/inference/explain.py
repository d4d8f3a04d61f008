"""Explain a prediction: which patches of which frames, and which words of the class prompt, led to it.

Patches: integrated gradients (Sundararajan et al. 2017) of the class's log-odds with respect to the pixels, from the
clip's mean colour to the clip, summed over each patch. They add up to the effect of the whole clip on the score, and
work for every method that can be differentiated. ``benchmarks/explain.py`` tests them by deletion: deleting the patches
that are said to matter must lower the score more than deleting others.

Words: how much the score falls if a word is left out of the prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.adapters.task import per_class, prompts
from msta.data.catalog import WHOLE, Span
from msta.data.clips import ONE_VIEW, cut_views
from msta.data.decode import read_frames
from msta.data.names import words_in
from msta.data.times import segment_times
from msta.errors import MSTAError
from msta.inference.predictor import Path, Predictor

STEPS = 16


@dataclass(frozen=True)
class Explanation:
    """Why a model gives a clip a class."""

    label: str
    probability: float
    score: float  # log-odds of the class among all classes, at temperature 1
    times: list[float]  # of the T frames, in seconds from the video's first frame
    frames: NDArray[np.uint8]  # [T, size, size, 3], as the model saw them
    patches: NDArray[np.float64]  # [T, rows, columns], how much each patch raises the score over the mean colour
    words: list[tuple[str, float]]  # of the prompt, with the loss in score without each; empty if the method reads none
    fit: str  # "crop" or "squash": how the frames were made square

    @property
    def by_frame(self) -> NDArray[np.float64]:
        """[T], how much each frame raises the score."""
        return np.asarray(self.patches.sum((1, 2)))


def explain(
    predictor: Predictor, video: Path, label: str | None = None, *, span: Span = WHOLE, steps: int = STEPS
) -> Explanation:
    """Explain why the predictor gives a video a class.

    Args:
        predictor: the model and its classes.
        video: a file.
        label: one of the predictor's classes. None: the most likely one.
        span: (start, end) in seconds, the part of the video to explain.
        steps: of the integral. Each costs a forward and a backward pass; more are more exact.

    Raises:
        DecodeError: the video cannot be read.
        MSTAError: the predictor has no such class.
    """
    if label is not None and label not in predictor.classes:
        raise MSTAError(f"--class: {label!r} is none of {', '.join(predictor.classes[:8])}")
    form = predictor.format
    times: list[float] = []

    def choose(duration: float) -> list[float]:
        times.extend(segment_times(duration, form.frames).tolist())
        return times

    pictures = read_frames(video, choose, form.size, squash=form.fit == "squash", within=span)
    clip = cut_views(pictures, form, ONE_VIEW).to(predictor.text.device)  # [1, T, 3, size, size]
    with torch.no_grad():
        embedding = predictor.model.encode_video(clip)
    probabilities = predictor.probabilities(embedding[None])[0]
    index = int(probabilities.argmax()) if label is None else predictor.classes.index(label)
    patches = patch_relevance(predictor, clip, index, steps)
    mean, std = (torch.tensor(x)[:, None, None] for x in (form.mean, form.std))
    seen = ((clip[0].cpu() * std + mean) * 255).round().clamp(0, 255).byte().permute(0, 2, 3, 1)
    return Explanation(
        label=predictor.classes[index],
        probability=float(probabilities[index]),
        score=float(log_odds(predictor, embedding, index)[0].detach()),
        times=[(span[0] or 0.0) + time for time in times],
        frames=seen.numpy(),
        patches=patches,
        words=word_relevance(predictor, embedding, index),
        fit=form.fit,
    )


def log_odds(predictor: Predictor, embeddings: Tensor, index: int, text: Tensor | None = None) -> Tensor:
    """Embeddings [B, D] -> [B]: log p / (1 - p) of the class among all classes, or its logit if it is the only one."""
    logits = predictor.model.logits(embeddings, predictor.text if text is None else text)
    if logits.shape[1] == 1:
        return logits[:, 0]
    others = torch.cat((logits[:, :index], logits[:, index + 1 :]), dim=1)
    return logits[:, index] - others.logsumexp(1)


# ---------------------------------------------------------------- patches


def patch_relevance(predictor: Predictor, clip: Tensor, index: int, steps: int = STEPS) -> NDArray[np.float64]:
    """Clip [1, T, 3, H, W], normalised -> [T, rows, columns], each patch's share of the class's log-odds."""
    baseline = blank(clip)
    gradient = torch.zeros_like(clip)
    with torch.enable_grad():
        for step in range(steps):
            at = (baseline + (step + 0.5) / steps * (clip - baseline)).requires_grad_()
            score = log_odds(predictor, predictor.model.encode_video(at), index).sum()
            gradient += torch.autograd.grad(score, at)[0] / steps
    relevance = ((clip - baseline) * gradient)[0].sum(1)  # [T, H, W]
    side = predictor.model.backbone.video.patch_size
    patches = relevance.unflatten(2, (-1, side)).unflatten(1, (-1, side)).sum((2, 4))
    return patches.cpu().double().numpy()


def blank(clip: Tensor) -> Tensor:
    """A clip [1, T, 3, H, W] that shows only the mean colour of this one."""
    return clip.mean((1, 3, 4), keepdim=True).expand_as(clip)


def delete(clip: Tensor, patches: NDArray[np.bool_], side: int) -> Tensor:
    """The clip [1, T, 3, H, W] with the chosen patches [T, rows, columns] replaced by :func:`blank`."""
    mask = torch.from_numpy(patches).to(clip.device).repeat_interleave(side, 1).repeat_interleave(side, 2)
    return torch.where(mask[None, :, None], blank(clip), clip)


# ---------------------------------------------------------------- words


@torch.no_grad()
def word_relevance(predictor: Predictor, embedding: Tensor, index: int) -> list[tuple[str, float]]:
    """Embedding [1, D] -> each word of the class prompt, and how much the log-odds fall without it.

    With several templates, a word of the class name is left out of all prompts.
    """
    model = predictor.model
    if model.config.closed_set:
        return []
    name, template = predictor.classes[index], predictor.template
    single = isinstance(template, str)
    text = prompts([name], template)[0] if single else name
    words = words_in(text) or list(re.finditer(r"\S+", text))
    without = [" ".join(f"{text[: word.start()]} {text[word.end() :]}".split()) for word in words]
    texts: Sequence[str] = without if single else prompts(without, template)
    ids = model.tokenize([each or "." for each in texts]).to(embedding.device)
    changed = per_class(model.encode_text(ids), len(words))
    score = float(log_odds(predictor, embedding, index)[0])
    losses = []
    for word, row in zip(words, changed, strict=True):
        classes = predictor.text.clone()
        classes[index] = row
        losses.append((word[0], score - float(log_odds(predictor, embedding, index, classes)[0])))
    return losses
