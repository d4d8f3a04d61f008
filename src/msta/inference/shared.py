"""One frozen backbone, many adapters on it: what they have in common is computed once.

All adapters of a backbone see the same tokens up to the first block that one of them has touched. So a batch of clips,
each for an adapter of its own, goes through the frozen blocks together and parts where the adapters do; and a clip that
several adapters are asked about is decoded once and goes through the frozen blocks once.

    clips ── embed ── frozen blocks ──┬── blocks of adapter a ── its classes
                                      └── blocks of adapter b ── its classes

Where an adapter leaves the frozen tower is seen from which modules are the very same objects: what shares none of
them, such as full fine-tuning, runs alone, with the same result.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.backbone.dual_encoder import DualEncoder
from msta.backbone.layout import VideoLayout
from msta.backbone.prefix import Tokens, at_once, suffix
from msta.backbone.video import VideoTower
from msta.data.clips import ClipFormat
from msta.errors import MSTAError
from msta.evaluation.evaluate import class_embeddings
from msta.methods import load_adapter

_BEFORE_THE_BLOCKS = (
    "patch_embedding", "class_embedding", "positional_embedding", "temporal_positional_embedding", "ln_pre",
)  # fmt: skip


class HasModel(Protocol):
    """A :class:`Member`, a :class:`Predictor`."""

    @property
    def model(self) -> AdaptedModel:
        """The adapter in its backbone."""


class Member:
    """An adapter of a shared backbone with its classes, whose embeddings are computed here, once.

    Args:
        model: attached to the shared backbone, or to another, which only saves less.
        classes: any names. None: those the adapter was trained for.
        template: their prompt, or several, whose embeddings are averaged. None: the adapter's.

    Attributes:
        text: [K, D], the classes' embeddings.
        temperature: the adapter's, for the classes it was fitted on; else 1.
        format: the clips it wants to see.

    Raises:
        MSTAError: no classes.
    """

    def __init__(
        self, model: AdaptedModel, classes: Sequence[str] | None = None, template: str | Sequence[str] | None = None
    ) -> None:
        task = model.task
        self.model = model.eval()
        self.classes = tuple(classes) if classes is not None else task.classes if task else ()
        if not self.classes:
            raise MSTAError("no classes to choose from: the adapter names none, give labels")
        self.format: ClipFormat = clip_format(model)
        self.text = class_embeddings(model, self.classes, template or (task.template if task else DEFAULT_TEMPLATE))
        self.temperature = model.temperature_for(self.classes)

    def probabilities(self, embeddings: Tensor) -> Tensor:
        """Of clips of one view: [B, D] -> [B, K]."""
        return (self.model.logits(embeddings, self.text) / self.temperature).softmax(-1)

    def probabilities_of_views(self, embeddings: Tensor) -> Tensor:
        """Of one clip: [V, D] -> [K], the mean over its views, at the temperature."""
        mean = self.model.logits(embeddings, self.text).softmax(-1).mean(0)
        return (mean.clamp_min(1e-12).log() / self.temperature).softmax(-1)

    def own_bytes(self, backbone: DualEncoder) -> int:
        """Memory it takes beside the backbone: its parameters and class embeddings."""
        shared = {id(tensor) for tensor in (*backbone.parameters(), *backbone.buffers())}
        own = {id(t): t for t in (*self.model.parameters(), *self.model.buffers()) if id(t) not in shared}
        return sum(t.nbytes for t in (*own.values(), self.text))


class SharedBackbone:
    """A frozen backbone that members are loaded onto and asked together.

    Args:
        backbone: from :func:`msta.load_backbone`; on any device.

    Example:
        >>> shared = SharedBackbone(msta.load_backbone("toy"))  # doctest: +SKIP
        >>> a, b = shared.load("runs/a/adapter"), shared.load("runs/b/adapter")  # doctest: +SKIP
        >>> shared.classify([(clip, a), (clip, b), (another, a)])  # each [K], of its member  # doctest: +SKIP
    """

    def __init__(self, backbone: DualEncoder) -> None:
        self.backbone = backbone.eval()

    def load(self, directory: str | os.PathLike[str], classes: Sequence[str] | None = None) -> Member:
        """Read an adapter's directory onto this backbone.

        Raises:
            CheckpointError: no adapter, damaged, or trained on another backbone.
            MSTAError: no classes.
        """
        return Member(load_adapter(directory, self.backbone), classes)

    @torch.no_grad()
    def encode(self, video: Tensor, members: Sequence[Member]) -> Tensor:
        """Each clip through its own member: [B, T, 3, H, W], normalised, and B members -> [B, D]."""
        clips: dict[Member, list[int]] = {}
        for i, member in enumerate(members):
            clips.setdefault(member, []).append(i)
        groups = [_Group(member.model, tuple(rows)) for member, rows in clips.items()]
        embeddings = _encode(self.backbone.video, video, groups)
        order = torch.tensor([row for group in groups for row in group.clips]).argsort()
        return torch.cat(embeddings)[order.to(video.device)]

    @torch.no_grad()
    def encode_each(self, video: Tensor, members: Sequence[HasModel]) -> list[Tensor]:
        """Each clip through every member: [B, T, 3, H, W], normalised -> [B, D] for each member."""
        every = tuple(range(len(video)))
        return _encode(self.backbone.video, video, [_Group(member.model, every) for member in members])

    @torch.no_grad()
    def answer(self, requests: Sequence[tuple[Tensor, Member]]) -> list[tuple[Tensor, Tensor]]:
        """Requests of any shapes, each a video's views [V, T, 3, H, W] and a member -> probabilities [K], their mean
        over the views, and embeddings [V, D].
        """
        shapes: dict[tuple[int, ...], list[int]] = {}
        for i, (views, _) in enumerate(requests):
            shapes.setdefault(tuple(views.shape[1:]), []).append(i)
        answers: dict[int, tuple[Tensor, Tensor]] = {}
        device = self.backbone.logit_scale.device
        for alike in shapes.values():
            video = torch.cat([requests[i][0] for i in alike]).to(device)
            members = [requests[i][1] for i in alike for _ in requests[i][0]]
            embeddings = self.encode(video, members).split([len(requests[i][0]) for i in alike])
            for i, of_views in zip(alike, embeddings, strict=True):
                answers[i] = requests[i][1].probabilities_of_views(of_views), of_views
        return [answers[i] for i in range(len(requests))]

    def classify(self, requests: Sequence[tuple[Tensor, Member]]) -> list[Tensor]:
        """As :meth:`answer`, the probabilities alone."""
        return [probabilities for probabilities, _ in self.answer(requests)]


# ---------------------------------------------------------------- where adapters part


def fork(frozen: VideoTower, adapted: VideoTower) -> int | None:
    """How many blocks, from the first on, both towers share; None if they differ before the first.

    The last block never counts: of it, only the tokens that are read are computed.
    """
    if any(getattr(frozen, name, None) is not getattr(adapted, name, None) for name in _BEFORE_THE_BLOCKS):
        return None
    if len(frozen.blocks) != len(adapted.blocks):
        return None
    apart = (i for i, (a, b) in enumerate(zip(frozen.blocks, adapted.blocks, strict=True)) if a is not b)
    return min(next(apart, len(frozen.blocks)), len(frozen.blocks) - 1)


@dataclass(frozen=True)
class _Group:
    """The clips, by their place in the batch, that one model is asked about."""

    model: AdaptedModel
    clips: tuple[int, ...]

    @property
    def tower(self) -> VideoTower:
        return self.model.backbone.video


def _encode(frozen: VideoTower, video: Tensor, groups: Sequence[_Group]) -> list[Tensor]:
    """[B, T, 3, H, W] -> for each group [its clips, D]."""
    embeddings: dict[int, Tensor] = {}
    sharing: list[tuple[int, int]] = []  # (fork, which group)
    for i, group in enumerate(groups):
        at = None if group.model.exact_reference else fork(frozen, group.tower)
        if at is None:
            embeddings[i] = group.model.encode_video(video[list(group.clips)])
        else:
            sharing.append((at, i))
    for i, tokens in _parting(frozen, video, groups, sorted(sharing)):
        embeddings[i] = suffix(groups[i].tower, tokens)
    return [embeddings[i] for i in range(len(groups))]


def _parting(
    frozen: VideoTower, video: Tensor, groups: Sequence[_Group], forks: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, Tokens]]:
    """Go up the frozen tower with the clips that are still needed; at each fork, hand out the tokens of its groups."""
    if not forks:
        return
    clips = _clips_of(groups[i] for _, i in forks)
    x, layout = frozen.embed(video[list(clips)])
    depth = 0
    for at, parting in groupby(forks, key=lambda one: one[0]):
        needed = _clips_of(groups[i] for later, i in forks if later >= at)
        x, clips = _rows(x, clips, needed, layout), needed
        x, depth = _run(frozen, x, depth, at, layout), at
        leaving = [i for _, i in parting]
        entered = [i for i in leaving if _takes_ahead(frozen, groups[i].tower, at)]
        ahead = _run(frozen, x, at, at + 1, layout) if entered else None
        for i in leaving:
            its = _rows(x, clips, groups[i].clips, layout)
            its_ahead = _rows(ahead, clips, groups[i].clips, layout) if ahead is not None and i in entered else None
            read = torch.zeros(len(its), dtype=torch.int64, device=its.device)
            yield i, Tokens(its, at, read, layout, its_ahead)
        if ahead is not None:
            x, depth = ahead, at + 1


def _takes_ahead(frozen: VideoTower, adapted: VideoTower, at: int) -> bool:
    """Whether the adapted block is the frozen one with something beside it, unless it is the last."""
    block = adapted.blocks[at]
    return at + 1 < len(frozen.blocks) and hasattr(block, "frozen") and block.block is frozen.blocks[at]


def _run(tower: VideoTower, x: Tensor, start: int, stop: int, layout: VideoLayout) -> Tensor:
    return torch.cat([tower.run(part, start, stop, layout=layout) for part in x.split(at_once(x, layout))])


def _clips_of(groups: Iterator[_Group]) -> tuple[int, ...]:
    return tuple(sorted({clip for group in groups for clip in group.clips}))


def _rows(x: Tensor, clips: tuple[int, ...], wanted: tuple[int, ...], layout: VideoLayout) -> Tensor:
    """The sequences of the wanted clips; ``x`` has those of ``clips``."""
    if clips == wanted:
        return x
    place = {clip: i for i, clip in enumerate(clips)}
    index = torch.tensor([place[clip] for clip in wanted], device=x.device)
    return x.unflatten(0, (len(clips), -1))[index].flatten(0, 1)
