"""The order in which an epoch reads shards: random enough to train by, near enough together to be read fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msta.data.storage import is_member

WINDOW = 8192
"""Clips that are shuffled among each other, whole shards side by side."""


def by_shard(shards: NDArray[np.int64], generator: np.random.Generator, window: int = WINDOW) -> NDArray[np.int64]:
    """Every clip once: the shards in random order, then, in the row of clips they make, each ``window`` shuffled.

    Args:
        shards: [N], the number of each clip's shard, from 0.
        generator: decides.
        window: what is read at about the same time: a few shards, which a disk's or a server's cache holds.

    Returns:
        [N], clips' numbers.
    """
    rank = generator.permutation(int(shards.max(initial=-1)) + 1)
    row = np.argsort(rank[shards], kind="stable")
    places = np.arange(len(row)) // window + generator.random(len(row))
    return row[np.argsort(places)]


def shard_numbers(paths: Sequence[str]) -> NDArray[np.int64] | None:
    """[N], which shard each path names; None if they are not all members of shards."""
    if not all(map(is_member, paths)) or not paths:
        return None
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(path.partition("::")[0], len(numbers)) for path in paths], np.int64)
