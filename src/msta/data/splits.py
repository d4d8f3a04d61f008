"""Splits: the clips to train, validate and test on. Seeded, stratified, and nested in the number of shots."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from msta.data.catalog import Catalog, Clip, write_catalog
from msta.errors import ConfigError, DataError
from msta.files import new_directory
from msta.notices import notice

FEW = 10
"""With fewer clips per class, cross-validation is advised, see :func:`make_folds`, because none can be spared."""


@dataclass(frozen=True)
class Split:
    """Three disjoint sets of clips; ``val`` may be empty."""

    train: tuple[Clip, ...]
    val: tuple[Clip, ...]
    test: tuple[Clip, ...]

    def all(self) -> tuple[Clip, ...]:
        """Every clip, with the name of its split."""
        return tuple(
            clip if clip.split == name else replace(clip, split=name)
            for name in ("train", "val", "test")
            for clip in getattr(self, name)
        )


def make_split(catalog: Catalog, *, shots: int | None, val_fraction: float, test_fraction: float, seed: int) -> Split:
    """Divide a catalog class by class.

    Splits of the data are kept; if it lacks ``val`` or ``test``, they are taken from its training clips. With ``shots``
    K every class trains on K clips: the first K of a seeded order, so the 2-shot set lies inside the 4-shot set. Of the
    remaining clips a third validates and the rest tests. If the data has a test set, up to K of the remaining clips per
    class validate. Without ``shots`` the fractions decide. No clip validates if ``val_fraction`` is 0. Time ranges of
    one video never lie on both sides of a division made here: those that would are left out of the validation or test
    clips, with a notice.

    Raises:
        DataError: there are fewer than two classes, a class has fewer than K clips, or no clip is left to test on.
    """
    if len(catalog.classes) < 2:
        raise DataError(f"{catalog.source}: only one class, {catalog.classes[0]!r}; a classifier needs two or more")
    given: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    for clip in catalog.clips:
        given[clip.split or "train"].append(clip)
    pools: dict[int, list[Clip]] = defaultdict(list)
    for clip in given["train"]:
        pools[clip.label].append(clip)
    parts: dict[str, list[Clip]] = {"train": [], "val": [], "test": []}
    needed = shots or (1 if given["test"] else 2)
    for label, name in enumerate(catalog.classes):
        pool = _shuffled(pools[label], f"{seed}/{name}")
        if len(pool) < needed:
            raise DataError(
                f"{catalog.source}: the class {name!r} has {len(pool)} clips to train on, {needed} needed; "
                f"{'take fewer shots, add clips' if pool and shots else 'add clips'} or leave the class out"
            )
        divided = _divide(pool, shots, val_fraction, test_fraction, bool(given["val"]), bool(given["test"]))
        for part, clips in zip(("train", "val", "test"), divided, strict=True):
            parts[part].extend(clips)
    _keep_videos_apart(catalog.source, parts)
    for part in ("val", "test"):
        parts[part] = given[part] or parts[part]
    if not parts["test"]:
        raise DataError(f"{catalog.source}: no clips are left to test on; take fewer shots")
    if not parts["val"] and val_fraction:
        notice(f"{catalog.source}: no clips are left to validate on; the last checkpoint is taken, not the best.")
    untrained = {c.label for c in parts["test"]} - {c.label for c in parts["train"]}
    if untrained:
        raise DataError(f"{catalog.source}: no clips to train on for {catalog.classes[min(untrained)]!r}")
    untested = set(range(len(catalog.classes))) - {c.label for c in parts["test"]}
    if untested:
        notice(
            f"{catalog.source}: {len(untested)} of {len(catalog.classes)} classes have no test clip, "
            f"{catalog.classes[min(untested)]!r} for one; the test says nothing of them."
        )
    return Split(tuple(parts["train"]), tuple(parts["val"]), tuple(parts["test"]))


def every_clip(catalog: Catalog) -> Split:
    """A split in which all clips train."""
    return Split(tuple(replace(clip, split="train") for clip in catalog.clips), (), ())


def make_folds(catalog: Catalog, folds: int, seed: int) -> list[Split]:
    """Divide a catalog for cross-validation: every clip tests once, and trains in all other folds.

    The videos of each class are dealt out like cards in a seeded order, so each fold has about the same share of each
    class. Time ranges of one video stay together. Splits of the data do not matter.

    Raises:
        DataError: a class would have no training clip in some fold, or there are fewer videos than folds.
    """
    clips_of: dict[int, list[Clip]] = defaultdict(list)
    for clip in catalog.clips:
        clips_of[clip.label].append(clip)
    fold_of: dict[str, int] = {}
    for label, name in enumerate(catalog.classes):
        for clip in _shuffled(clips_of[label], f"{seed}/{name}"):
            fold_of.setdefault(clip.path, len(fold_of) % folds)
        if len({fold_of[clip.path] for clip in clips_of[label]}) < 2:
            raise DataError(
                f"{catalog.source}: the clips of {name!r} lie in one video or fold; cross-validation trains on some "
                "videos of each class and tests on others: add clips, take other folds, or leave the class out"
            )
    if len(fold_of) < folds:
        raise DataError(f"{catalog.source}: {len(fold_of)} videos cannot be divided into {folds} folds")
    return [
        Split(
            tuple(replace(c, split="train") for c in catalog.clips if fold_of[c.path] != fold),
            (),
            tuple(replace(c, split="test") for c in catalog.clips if fold_of[c.path] == fold),
        )
        for fold in range(folds)
    ]


def write_split(
    catalog: Catalog,
    out: Path,
    classes: str = "all",
    *,
    shots: int | None,
    val_fraction: float,
    test_fraction: float,
    seed: int,
) -> dict[str, int]:
    """Make a split of all classes, or of the "base" or "novel" half, and write it to ``out/split.csv``.

    Returns:
        Counts of "classes", "train", "val" and "test" clips.

    Raises:
        DataError, ConfigError, MSTAError: see :func:`make_split`; there is no such half; ``out`` exists.
    """
    halves: dict[str, Sequence[int]] = {"all": range(len(catalog.classes))}
    if classes != "all":
        halves |= dict(zip(("base", "novel"), base_novel(catalog.classes), strict=True))
    if classes not in halves:
        raise ConfigError(f"--classes: {classes!r} is none of all, base, novel")
    catalog = restrict(catalog, halves[classes])
    made = make_split(catalog, shots=shots, val_fraction=val_fraction, test_fraction=test_fraction, seed=seed)
    with new_directory(out) as folder:
        write_catalog(folder / "split.csv", catalog.classes, made.all())
    counts = {part: len(getattr(made, part)) for part in ("train", "val", "test")}
    return {"classes": len(catalog.classes), **counts}


def _shuffled(clips: Sequence[Clip], seed: str) -> list[Clip]:
    """The clips in a seeded order. Time ranges of one video stay together."""
    videos: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        videos[clip.path].append(clip)
    order = sorted(videos)
    random.Random(seed).shuffle(order)
    return [clip for path in order for clip in sorted(videos[path], key=lambda c: c.start or 0.0)]


def _keep_videos_apart(source: str, parts: dict[str, list[Clip]]) -> None:
    """Leave out ranges of videos that an earlier part has. The order is training, test, validation."""
    taken = {clip.path for clip in parts["train"]}
    for part in ("test", "val"):
        kept = [clip for clip in parts[part] if clip.path not in taken]
        if left_out := len(parts[part]) - len(kept):
            notice(f"{source}: {left_out} clips are left out of {part}: other parts of their videos are used already")
        taken |= {clip.path for clip in kept}
        parts[part] = kept


def _divide(
    pool: Sequence[Clip],
    shots: int | None,
    val_fraction: float,
    test_fraction: float,
    has_val: bool,
    has_test: bool,
) -> tuple[Sequence[Clip], Sequence[Clip], Sequence[Clip]]:
    """The shuffled clips of one class -> train, val, test; val and test are empty if the data has its own."""
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
    """A fraction of the clips: less than half, and at least one of three or more clips unless the fraction is 0."""
    return min(max(1, round(count * fraction)), (count - 1) // 2) if fraction else 0


# ---------------------------------------------------------------- sets of classes


def restrict(catalog: Catalog, labels: Sequence[int]) -> Catalog:
    """These classes alone, renumbered in this order, and their clips, in the order of the catalog.

    Raises:
        DataError: a label occurs twice, or the catalog does not have it.
    """
    new = {label: i for i, label in enumerate(labels)}
    if len(new) < len(labels) or not new.keys() <= set(range(len(catalog.classes))):
        raise DataError(f"{catalog.source}: expected different labels below {len(catalog.classes)}, got {list(labels)}")
    clips = tuple(replace(clip, label=new[clip.label]) for clip in catalog.clips if clip.label in new)
    return replace(catalog, classes=tuple(catalog.classes[label] for label in labels), clips=clips)


def base_novel(classes: Sequence[str], counts: Sequence[int] | None = None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Labels of the base half of the classes, ceil(n / 2) of them, and of the novel half.

    Args:
        classes: names, in the order of the catalog. Base is their first half, as in CoOp (Zhou et al. 2022).
        counts: training clips per class. If given, base is the half with more of them, as in ViFi-CLIP (Rasheed et al.
            2023), and both halves are ordered by them, the rarest first. The authors' halves of HMDB-51 and UCF-101 are
            like this; those of Kinetics-400 and SSv2 come with their own lists.

    Raises:
        DataError: there are fewer than two classes, or not as many counts as classes.
    """
    if len(classes) < 2:
        raise DataError(f"base and novel halves: expected two or more classes, got {len(classes)}")
    if counts is None:
        middle = -(-len(classes) // 2)
        return tuple(range(middle)), tuple(range(middle, len(classes)))
    if len(counts) != len(classes):
        raise DataError(f"base and novel halves: {len(counts)} counts for {len(classes)} classes")
    order = sorted(range(len(classes)), key=lambda label: counts[label])
    middle = len(classes) // 2
    return tuple(order[middle:]), tuple(order[:middle])


def unseen(classes: Sequence[str], known: Sequence[str]) -> tuple[int, ...]:
    """Labels of the classes that are not in ``known``, such as the classes of Kinetics-600 not in Kinetics-400."""
    names = {name.casefold() for name in known}
    return tuple(label for label, name in enumerate(classes) if name.casefold() not in names)


def class_sets(labels: Sequence[int], size: int, sets: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """Random sets of ``size`` labels, each sorted. Kinetics-600's zero-shot test has three sets of 160 unseen classes.

    The three published sets (Chen and Huang 2021) are lists: give their CSVs as ``data.labels``.

    Raises:
        DataError: there are too few classes.
    """
    if not 1 <= size <= len(labels):
        raise DataError(f"class sets: {size} classes asked for, there are {len(labels)}")
    return tuple(tuple(sorted(random.Random(f"{seed}/{number}").sample(list(labels), size))) for number in range(sets))
