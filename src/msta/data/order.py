"""The order of an epoch: a function of (seed, epoch). Of shards, those read at about the same time are neighbours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msta.data.storage import is_member

WINDOW = 8192
"""Clips that are shuffled among each other, whole shards side by side."""


def epoch_order(count: int, seed: int, epoch: int, shards: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """[count], clips' numbers: shuffled, or :func:`by_shard` where ``shards`` [count] says in which each lies."""
    generator = np.random.default_rng((seed, epoch))
    if shards is not None:
        return by_shard(shards, generator)
    order = np.arange(count)
    generator.shuffle(order)
    return order


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
