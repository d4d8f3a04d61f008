"""The order of clips in an epoch: a function of (seed, epoch). Clips of a shard stay near each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from msta.data.storage import is_member

WINDOW = 8192
"""Clips that are shuffled among each other."""


def epoch_order(count: int, seed: int, epoch: int, shards: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Numbers of clips [count]: shuffled, or by :func:`by_shard` if ``shards`` [count] has the shard of each."""
    generator = np.random.default_rng((seed, epoch))
    if shards is not None:
        return by_shard(shards, generator)
    order = np.arange(count)
    generator.shuffle(order)
    return order


def by_shard(shards: NDArray[np.int64], generator: np.random.Generator, window: int = WINDOW) -> NDArray[np.int64]:
    """Shuffle the shards, put their clips in a row, and shuffle each ``window`` of that row.

    Args:
        shards: [N], the number of each clip's shard, from 0.
        generator: of the shuffling.
        window: clips that are read at about the same time: a few shards, which the cache of a disk or server holds.

    Returns:
        [N], numbers of clips.
    """
    rank = generator.permutation(int(shards.max(initial=-1)) + 1)
    row = np.argsort(rank[shards], kind="stable")
    places = np.arange(len(row)) // window + generator.random(len(row))
    return row[np.argsort(places)]


def shard_numbers(paths: Sequence[str]) -> NDArray[np.int64] | None:
    """[N], the number of each path's shard; None if not all paths are members of shards."""
    if not all(map(is_member, paths)) or not paths:
        return None
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(path.partition("::")[0], len(numbers)) for path in paths], np.int64)
