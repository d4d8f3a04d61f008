"""DescriptionBank: for every class, sentences on what is seen (spatial) and on what happens (temporal).

Read by the frozen text tower they become the anchors that the consistency term holds the adapted one to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from msta.backbone.blocks import plainly
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import DataError
from msta.files import read_json
from msta.notices import notice

Sentences = dict[str, tuple[str, ...]]
"""Class name -> sentences."""


@dataclass(frozen=True)
class DescriptionBank:
    """Sentences of either kind by class name; a kind that is None was not given.

    Attributes:
        source: the files it came from.
    """

    source: str
    spatial: Sentences | None = None
    temporal: Sentences | None = None


def load_descriptions(spatial: Path | None, temporal: Path | None, classes: Sequence[str]) -> DescriptionBank | None:
    """Read one or two files in the authors' format: a JSON object, class index (or name) -> list of sentences.

    Classes may have different numbers of sentences (in the authors' K400 file one has a single sentence, the others
    eight): accepted, and said.

    Args:
        spatial: file of sentences on what is seen, or None.
        temporal: file of sentences on what happens, or None.
        classes: names in the order of the indices.

    Returns:
        None if neither file is given.

    Raises:
        DataError: unreadable, not that format, or a class without sentences.
    """
    if spatial is None and temporal is None:
        return None
    kinds = [None if path is None else _read(path, classes) for path in (spatial, temporal)]
    return DescriptionBank(", ".join(str(p) for p in (spatial, temporal) if p is not None), *kinds)


def _read(path: Path, classes: Sequence[str]) -> Sentences:
    content = read_json(path, DataError)
    sentences: Sentences = {}
    for index, name in enumerate(classes):
        found = content.get(str(index), content.get(name))
        if not isinstance(found, list) or not found or not all(isinstance(s, str) and s.strip() for s in found):
            raise DataError(f"{path}: no list of sentences for class {index}, {name!r}")
        sentences[name] = tuple(found)
    surplus = len(content) - len(classes)
    if surplus:
        raise DataError(f"{path}: has {len(content)} classes, the data {len(classes)}; indices would not match")
    counts = [len(s) for s in sentences.values()]
    usual = max(set(counts), key=counts.count)
    odd = [f"{name!r} has {len(s)}" for name, s in sentences.items() if len(s) != usual]
    if odd:
        notice(f"{path}: {usual} sentences a class, but {', '.join(odd[:3])}{' …' if len(odd) > 3 else ''}. Accepted.")
    return sentences


@torch.no_grad()
def anchors(
    backbone: DualEncoder,
    sentences: Sentences,
    classes: Sequence[str],
    batch: int = 256,
    *,
    exact_reference: bool = False,
) -> Tensor:
    """One anchor a class: the mean of its sentences' normalised embeddings, normalised again. [K, D], float32.

    Sentences of a length are read together: the short ones then cost what they are, not what the longest is.

    Args:
        backbone: the frozen one, without adapters.
        sentences: by class name.
        classes: names, in the order of the anchors.
        batch: sentences encoded at a time.
        exact_reference: every sentence padded to the context length, in the order given.
    """
    flat = [sentence for name in classes for sentence in sentences[name]]
    ids = backbone.tokenize(flat).to(backbone.logit_scale.device)
    if exact_reference:
        with plainly():
            embeddings = torch.cat([backbone.text(part) for part in ids.split(batch)])
    else:
        order = backbone.text.end(ids).argsort()
        parts = [backbone.encode_text(part) for part in ids[order].split(batch)]
        embeddings = torch.cat(parts)[order.argsort()]
    embeddings = F.normalize(embeddings.float(), dim=-1)
    per_class = embeddings.split([len(sentences[name]) for name in classes])
    return F.normalize(torch.stack([e.mean(0) for e in per_class]), dim=-1)
