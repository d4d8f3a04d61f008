"""Splits: which clips train, validate and test. Seeded, stratified, and nested in the number of shots."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from msta.data.catalog import Catalog, Clip
from msta.errors import DataError
from msta.notices import notice


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of clips; ``val`` may be empty."""

    train: tuple[Clip, ...]
    val: tuple[Clip, ...]
    test: tuple[Clip, ...]

    def all(self) -> tuple[Clip, ...]:
        """Every clip, each with the name of its split."""
        return tuple(replace(clip, split=name) for name in ("train", "val", "test") for clip in getattr(self, name))


def make_split(catalog: Catalog, *, shots: int | None, val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Divide a catalog class by class.

    Splits that the data brings are kept: ``val`` or ``test`` that it lacks are taken from its training clips. With
    ``shots`` K every class trains on K clips, the same first K of a seeded order, so that the 2-shot set lies inside
    the 4-shot set; of the clips left over a third validates and the rest tests. If the data has a test set, up to K of
    the left-over clips a class validate. Without ``shots`` the fractions decide. No clip validates if
    ``val_fraction`` is 0.

    Raises:
        DataError: fewer than two classes, a class with fewer than K clips, or nothing left to test on.
    """
    if len(catalog.classes) < 2:
        raise DataError(f"{catalog.source}: only one class, {catalog.classes[0]!r}; a classifier needs two or more")
    given: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    for clip in catalog.clips:
        given[clip.split or "train"].append(clip)
    parts: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(catalog.classes):
        pool = sorted((c for c in given["train"] if c.label == label), key=lambda c: c.path)
        random.Random(f"{seed}/{name}").shuffle(pool)
        needed = shots or (1 if given["test"] else 2)
        if len(pool) < needed:
            raise DataError(f"{catalog.source}: the class {name!r} has {len(pool)} clips to train on, {needed} needed")
        divided = _divide(pool, shots, val_fraction, test_fraction, bool(given["val"]), bool(given["test"]))
        for part, clips in zip(("train", "val", "test"), divided, strict=True):
            parts[part].extend(clips)
    for part in ("val", "test"):
        parts[part] = given[part] or parts[part]
    if not parts["test"]:
        raise DataError(f"{catalog.source}: no clips are left to test on; take fewer shots")
    if not parts["val"]:
        notice(f"{catalog.source}: no clips are left to validate on; the last checkpoint is taken, not the best.")
    untrained = {c.label for c in parts["test"]} - {c.label for c in parts["train"]}
    if untrained:
        raise DataError(f"{catalog.source}: no clips to train on for {catalog.classes[min(untrained)]!r}")
    return Split(tuple(parts["train"]), tuple(parts["val"]), tuple(parts["test"]))


def _divide(
    pool: Sequence[Clip],
    shots: int | None,
    val_fraction: float,
    test_fraction: float,
    has_val: bool,
    has_test: bool,
) -> tuple[Sequence[Clip], Sequence[Clip], Sequence[Clip]]:
    """One class's shuffled clips -> train, val, test; the latter two empty where the data has its own."""
    if shots is None:
        val = 0 if has_val else _share(len(pool), val_fraction)
        test = 0 if has_test else max(1, _share(len(pool), test_fraction))
        train = len(pool) - val - test
    else:
        train, rest = shots, len(pool) - shots
        val = min(shots, rest) if has_test else rest // 3 or int(rest > 1)
        val = 0 if has_val or not val_fraction else val
        test = 0 if has_test else rest - val
    return pool[:train], pool[train : train + val], pool[train + val : train + val + test]


def _share(count: int, fraction: float) -> int:
    """A fraction of the clips: at least one of three or more (unless the fraction is 0), never half."""
    return min(max(1, round(count * fraction)), (count - 1) // 2) if fraction else 0
