"""Check a bank with a text tower: the sentences that it misreads, and how near anchors are to their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from msta.backbone.dual_encoder import DualEncoder
from msta.descriptions.anchors import embed
from msta.descriptions.bank import KINDS, DescriptionBank, Kind, same_text

CLEARLY = 0.05
"""A training gives a notice if the cosine of an anchor to another class's prompt is higher by this much."""


@dataclass(frozen=True)
class Bad:
    """A sentence that needs attention.

    Attributes:
        name: its class.
        kind: spatial or temporal.
        sentence: its text.
        why: in words.
        by: its cosine to another class minus its cosine to its own class; 0 if nothing was compared.
    """

    name: str
    kind: Kind
    sentence: str
    why: str
    by: float = 0.0


@dataclass(frozen=True)
class Distances:
    """The cosines between the anchors of one kind and the prompts of the classes.

    Attributes:
        kind: spatial or temporal.
        cosines: [K, K], anchor of a class x prompt of a class.
    """

    kind: Kind
    cosines: Tensor

    def own(self) -> Tensor:
        """Cosine of each anchor to its own prompt, [K]."""
        return self.cosines.diagonal()

    def nearest(self) -> tuple[Tensor, Tensor]:
        """For each anchor the nearest other class: cosine [K], class int64 [K]. With one class: -1, and that class."""
        return _nearest_other(self.cosines)


@dataclass(frozen=True)
class Check:
    """The result of :func:`check`.

    Attributes:
        classes: names.
        bad: sentences, the worst first.
        distances: of each kind that the bank has.
        irregular: in words, how the numbers of sentences differ between classes.
        sentences: the number of sentences that were checked.
    """

    classes: tuple[str, ...]
    bad: list[Bad]
    distances: list[Distances]
    irregular: list[str]
    sentences: int


def check(
    bank: DescriptionBank, backbone: DualEncoder, prompts: Sequence[str], batch: int = 256, *, cache: Path | None = None
) -> Check:
    """Compare every sentence with the prompts of all classes.

    Args:
        bank: each class has a sentence of at least one kind.
        backbone: frozen.
        prompts: one per class, in the bank's order.
        batch: sentences encoded at a time.
        cache: a folder for embeddings that took long to compute, which a training will use; None: no cache.

    Raises:
        DataError: some classes have sentences of a kind and others do not.
    """
    classes = tuple(bank.classes)
    kinds = [kind for kind in KINDS if bank.sentences(kind) is not None]
    bank.complete(kinds or KINDS)
    home = embed(backbone, prompts, batch)
    bad = _twice(bank) + _cut(bank, backbone)
    distances, count = [], 0
    for kind in kinds:
        per_class = [each.of(kind) for each in bank.classes.values()]
        flat = embed(backbone, [sentence for sentences in per_class for sentence in sentences], batch, cache=cache)
        count += len(flat)
        anchors = F.normalize(torch.stack([e.mean(0) for e in flat.split([len(s) for s in per_class])]), dim=-1)
        distances.append(Distances(kind, (anchors @ home.T).cpu()))
        bad += _astray(kind, classes, per_class, (flat @ home.T).cpu())
    bad.sort(key=lambda each: -each.by)
    irregular = [f"{kind}: {odd}" for kind in kinds if (odd := bank.counts(kind))]
    return Check(classes, bad, distances, irregular, count)


def mismatched(anchors: Sequence[Tensor], home: Tensor) -> dict[int, int]:
    """Class -> another class, if an anchor of the former is clearly nearer to the prompt of the latter than to its own.

    Args:
        anchors: of each kind, see :func:`msta.descriptions.anchors.anchors`.
        home: [K, D], the frozen tower's embeddings of the class prompts.
    """
    home = F.normalize(home.float(), dim=-1)
    found: dict[int, int] = {}
    for kind in anchors:
        one = kind if kind.ndim == 2 else kind.sum(1)
        cosines = F.normalize(one.float(), dim=-1) @ home.T
        other, nearest = _nearest_other(cosines)
        clear = other - cosines.diagonal() > CLEARLY
        found |= {label: int(nearest[label]) for label in clear.nonzero().flatten().tolist()}
    return found


def _nearest_other(cosines: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines [K, K] to each class -> the highest cosine to another class [K], and that class [K]."""
    others = cosines.clone()
    others.fill_diagonal_(-1.0)
    best = others.max(dim=1)
    return best.values, best.indices


def _astray(kind: Kind, classes: Sequence[str], per_class: Sequence[Sequence[str]], cosines: Tensor) -> list[Bad]:
    """Sentences that are nearer to the prompt of another class than to that of their own: cosines [sentences, K]."""
    found = []
    every = [(label, sentence) for label, sentences in enumerate(per_class) for sentence in sentences]
    for (label, sentence), row in zip(every, cosines.tolist(), strict=True):
        own, other = row[label], max(row)
        if other > own:
            why = f"nearer to {classes[row.index(other)]!r} ({other:.2f}) than to its own class ({own:.2f})"
            found.append(Bad(classes[label], kind, sentence, why, other - own))
    return found


def _twice(bank: DescriptionBank) -> list[Bad]:
    """Sentences that occur before, in the same class or another."""
    where: dict[str, str] = {}
    found = []
    for name, kind, sentence in bank.every():
        if before := where.get(same_text(sentence)):
            found.append(Bad(name, kind, sentence, f"is there before, for {before!r}"))
        where.setdefault(same_text(sentence), name)
    return found


def _cut(bank: DescriptionBank, backbone: DualEncoder) -> list[Bad]:
    """Sentences that are longer than what the tower reads."""
    limit = backbone.text.context_length
    return [
        Bad(name, kind, sentence, f"cut: {length} tokens, and the backbone reads {limit}")
        for name, kind, sentence in bank.every()
        if (length := backbone.tokenizer.length(sentence)) > limit
    ]
