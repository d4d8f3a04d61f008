"""Anchors: the frozen text tower's embeddings of each class's sentences, computed once, before training."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from msta.backbone.blocks import exact_reference_mode
from msta.backbone.dual_encoder import DualEncoder
from msta.descriptions.bank import KINDS, DescriptionBank, Sentences
from msta.files import replacing
from msta.notices import notice

Average = Literal["anchors", "sentences"]
Distance = Literal["cosine", "l1", "mse"]
WORTH_KEEPING = 5.0
"""Embeddings that take more seconds than this are kept on disk."""


def anchors(
    backbone: DualEncoder,
    sentences: Sentences,
    classes: Sequence[str],
    batch: int = 256,
    *,
    average: Average = "anchors",
    exact_reference: bool = False,
    cache: Path | None = None,
) -> Tensor:
    """One anchor per class, [K, D], float32: the normalised mean of the normalised embeddings of its sentences.

    Args:
        backbone: frozen, without adapters.
        sentences: class name -> sentences.
        classes: names, in the order of the anchors.
        batch: sentences encoded at a time.
        average: "sentences" returns an anchor per sentence instead: [K, N, D], N the largest number of sentences, with
            zeros for classes that have fewer.
        exact_reference: pad every sentence to the context length, and encode them in the order given.
        cache: a folder for embeddings that took long to compute; None: no cache.
    """
    flat = [sentence for name in classes for sentence in sentences[name]]
    each = embed(backbone, flat, batch, exact_reference=exact_reference, cache=cache)
    per_class = each.split([len(sentences[name]) for name in classes])
    if average == "sentences":
        return torch.nn.utils.rnn.pad_sequence(list(per_class), batch_first=True)
    return F.normalize(torch.stack([e.mean(0) for e in per_class]), dim=-1)


def anchors_of(
    bank: DescriptionBank,
    backbone: DualEncoder,
    classes: Sequence[str],
    *,
    average: Average = "anchors",
    exact_reference: bool = False,
    cache: Path | None = None,
) -> list[Tensor]:
    """The anchors of each kind that the bank has, see :func:`anchors`."""
    kinds = [bank.sentences(kind) for kind in KINDS]
    return [
        anchors(backbone, kind, classes, average=average, exact_reference=exact_reference, cache=cache)
        for kind in kinds
        if kind is not None
    ]


@torch.no_grad()
def embed(
    backbone: DualEncoder,
    texts: Sequence[str],
    batch: int = 256,
    *,
    exact_reference: bool = False,
    cache: Path | None = None,
) -> Tensor:
    """Normalised embeddings of M texts, float32 [M, D].

    A text that occurs several times is encoded once. Texts of the same length are encoded together, so that short ones
    are not padded to the longest. If this takes longer than WORTH_KEEPING, the expected time is announced, and the
    result is kept in ``cache`` for the next run with the same backbone and texts.
    """
    every = backbone.tokenize(texts)
    device = backbone.logit_scale.device
    if exact_reference:
        with exact_reference_mode():
            found = torch.cat([backbone.text(part) for part in every.to(device).split(batch)])
        return F.normalize(found.float(), dim=-1)
    ids, where = every.unique(dim=0, return_inverse=True)
    file = None if cache is None else cache / f"{_name(backbone, ids)}.npy"
    kept = None if file is None else _kept(file, len(ids))
    if kept is None:
        kept = _embed(backbone, ids, batch, file)
    return kept.to(device)[where.to(device)]


def _embed(backbone: DualEncoder, ids: Tensor, batch: int, file: Path | None) -> Tensor:
    device, start = backbone.logit_scale.device, time.perf_counter()
    tokens = backbone.text.end_of_text(ids) + 1  # what the time goes into, nearly
    parts = list(_batches(tokens, batch, device))
    parts.insert(0, parts.pop(len(parts) // 2))  # of middling length: by it the rest is judged
    found = torch.empty(len(ids), backbone.architecture.embed_dim)
    for i, part in enumerate(parts):
        found[part] = F.normalize(backbone.encode_text(ids[part].to(device)).float(), dim=-1).cpu()
        whole = (time.perf_counter() - start) * int(tokens.sum()) / int(tokens[part].sum())
        if i == 0 and whole > WORTH_KEEPING:
            keeping = "" if file is None else ", once: they are kept on disk"
            notice(f"Reading {len(ids):,} descriptions: about {timedelta(seconds=round(whole))}{keeping}.")
    if file is not None and time.perf_counter() - start > WORTH_KEEPING:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as aside, aside.open("wb") as stream:
            np.save(stream, found.numpy())
    return found


def _batches(tokens: Tensor, batch: int, device: torch.device) -> Iterator[Tensor]:
    """Numbers of the texts to encode together, int64: texts of one length, and on a CPU few enough for its caches."""
    for part in tokens.argsort(stable=True).split(batch):
        few = batch if device.type != "cpu" else max(1, 2048 // int(tokens[part].max()))
        yield from part.split(few)


def _name(backbone: DualEncoder, ids: Tensor) -> str:
    """A hash of the weights and of the tokens, in any order of the sentences."""
    digest = hashlib.sha256(backbone.fingerprint().encode())
    digest.update(np.ascontiguousarray(ids.numpy()).tobytes())
    return digest.hexdigest()


def _kept(file: Path, count: int) -> Tensor | None:
    try:
        content = np.load(file)
    except (OSError, ValueError, EOFError):
        return None  # not there, or damaged: computed anew
    return torch.from_numpy(content) if len(content) == count else None
