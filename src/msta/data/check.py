"""``msta data check``: the contents of a data set, and what in it will make a bad classifier.

:func:`quick_warnings` opens no video; ``msta train`` and the app call it by themselves. :func:`check` opens every file.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from msta.data.catalog import Catalog, Clip, require_files
from msta.data.decode import part_of, probe, read_frames
from msta.data.names import class_words, is_number, told_by_side
from msta.data.processes import with_bar
from msta.data.storage import absolute, as_url, content_hash, size_of
from msta.data.times import segment_times
from msta.data.verify import in_processes
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import few, in_short
from msta.notices import notice

IMBALANCE, ODD_LENGTH = 3, 4
"""Classes are unequal from this ratio on; a clip is odd from this multiple or fraction of the usual length on."""
_SAYS_NOTHING = re.compile(
    r"([a-z]|class|label|untitled.*|new folder.*|(class|label|category|action|gesture|type|clip|video) ?([a-z]|\d+))",
    re.I,
)
_MOST_FILES = 5000  # whose sizes are compared before a training
_GRID, _FRAMES, _ALIKE = 16, 4, 0.1
# Of 169 real clips of fixed cameras no two differ in less than 15 % of the bits; encoded again at a third of the
# width a clip differs from itself in 9 % at most.


@dataclass(frozen=True)
class Warning:
    """Something to correct: its subject, a sentence that says what to do, and the clips that it is about, if any."""

    about: str  # names, balance, shots, duplicates, near-duplicates, unreadable, lengths, sides
    text: str
    clips: tuple[str, ...] = ()


@dataclass(frozen=True)
class Checked:
    """The contents of a data set.

    Attributes:
        classes: one row per class: "class", "clips", "train", "val", "test", "unreadable", "seconds", "shortest",
            "longest", "sizes" and "rates" (counts of sizes like "128x128" and of frame rates like "25"; of the readable
            clips).
        warnings: what to correct.
    """

    classes: list[dict[str, Any]]
    warnings: list[Warning]


def check(
    catalog: Catalog,
    *,
    shots: int | None = None,
    flip: bool = True,
    workers: int | None = None,
    timeout: float = 60.0,
    console: Console | None = None,
) -> Checked:
    """Open every clip.

    Args:
        catalog: the data set.
        shots: training clips per class that will be asked for.
        flip: whether training flips clips.
        workers: processes; None: one per processor.
        timeout: seconds that a clip may take.
        console: where progress is shown; None: nowhere.

    Raises:
        DataError: the files have moved, or a server does not answer.
    """
    require_files(catalog)
    looking = in_processes(catalog.clips, workers or os.cpu_count() or 1, timeout, _look)
    found = dict(with_bar(looking, "looking", len(catalog.clips), console))

    warnings = [
        *quick_warnings(catalog, shots, most=len(catalog.clips)),
        *_unreadable(catalog, found),
        *_near_duplicates(catalog, found),
        *_odd_lengths(found),
        *(_sides(catalog) if flip else ()),
    ]
    return Checked([_row(catalog, label, found) for label in range(len(catalog.classes))], warnings)


def quick_warnings(catalog: Catalog, shots: int | None = None, *, most: int = _MOST_FILES) -> list[Warning]:
    """Warnings that need no video to be opened. Files of equal size are compared if there are at most ``most``."""
    warnings = [*_names(catalog), *_balance(catalog), *_too_few(catalog, shots)]
    return warnings + (list(_duplicates(catalog)) if len(catalog.clips) <= most else [])


def tell_quickly(catalog: Catalog) -> None:
    """Give a notice of each of :func:`quick_warnings`, except those that reading and splitting the data give."""
    for warning in quick_warnings(catalog):
        if warning.about != "shots" and not (warning.about == "names" and all(map(is_number, catalog.classes))):
            notice(f"{catalog.source}: {warning.text}")


# ---------------------------------------------------------------- without opening a video


def _names(catalog: Catalog) -> Iterator[Warning]:
    empty = [name for name in catalog.classes if is_number(name) or _SAYS_NOTHING.fullmatch(class_words(name))]
    if empty:
        yield Warning(
            "names", f"The model reads the names, and {few(empty, repr)} says nothing; write what is to be seen."
        )


def _balance(catalog: Catalog) -> Iterator[Warning]:
    counts = _training_counts(catalog)
    least, most = min(counts, key=lambda name: counts[name]), max(counts, key=lambda name: counts[name])
    if counts[most] > IMBALANCE * counts[least] > 0:
        yield Warning(
            "balance",
            f"{most!r} has {counts[most]} clips, {least!r} {counts[least]}; train.balance=classes lets all classes "
            "count alike, or --shots takes as many clips of each.",
        )


def _too_few(catalog: Catalog, shots: int | None) -> Iterator[Warning]:
    lacking = [f"{name!r} ({count})" for name, count in _training_counts(catalog).items() if count < (shots or 2)]
    if lacking:
        wanted = f"{shots} shots are asked for" if shots else "a class needs two clips, one of them to test with"
        yield Warning("shots", f"Too few clips: {', '.join(lacking[:5])}{' …' if len(lacking) > 5 else ''}; {wanted}.")


def _training_counts(catalog: Catalog) -> dict[str, int]:
    """Clips per class that training may use: those of the split "train" and those without a split."""
    counter = Counter(clip.label for clip in catalog.clips if clip.split in (None, "train"))
    return {name: counter[label] for label, name in enumerate(catalog.classes)}


def _duplicates(catalog: Catalog) -> Iterator[Warning]:
    """The same content under several names, or one clip in two classes. Files of equal size are compared by SHA-256."""
    files: dict[str, list[Clip]] = defaultdict(list)
    by_size: dict[int, list[str]] = defaultdict(list)
    for clip in catalog.clips:
        if as_url(clip.path) is None:
            files[absolute(clip.path)].append(clip)
    for path in files:
        with contextlib.suppress(OSError, ValueError):  # met when it is read
            by_size[size_of(path)].append(path)
    groups = [[clip for clip in clips if clip.span == clips[0].span] for clips in files.values()]
    for size, paths in by_size.items():
        by_content: dict[str, list[Clip]] = defaultdict(list)
        for path in paths if len(paths) > 1 and size else ():
            with contextlib.suppress(OSError):
                by_content[content_hash(path)].append(files[path][0])
        groups += by_content.values()
    yield from _alike(catalog, [same for same in groups if len(same) > 1], "duplicates", "the same file")


def _sides(catalog: Catalog) -> Iterator[Warning]:
    if sided := told_by_side(catalog.classes):
        yield Warning(
            "sides",
            f"{few(sided, repr)} would be wrong for a mirrored clip: training does not flip clips (data.flip_guard).",
        )


def _alike(catalog: Catalog, groups: Iterable[Sequence[Clip]], about: str, what: str) -> Iterator[Warning]:
    """One warning for each kind of harm that similar clips do."""
    kinds: dict[str, list[Sequence[Clip]]] = defaultdict(list)
    for group in groups:
        splits = {clip.split or "train" for clip in group}
        if len({clip.label for clip in group}) > 1:
            kinds["in two classes: one of the labels is wrong; remove it"].append(group)
        elif len(splits) > 1:
            kinds[f"in {' and '.join(sorted(splits))}: the test is easier than it looks; keep one"].append(group)
        else:
            kinds["twice in one class: a split could test on what was trained on; keep one"].append(group)
    for harm, found in kinds.items():
        names = [clip.name for clip in found[0]]
        more = f" ({len(found) - 1} more such groups)" if len(found) > 1 else ""
        labels = " and ".join(sorted({repr(catalog.classes[clip.label]) for clip in found[0]}))
        first = f"{names[0]} and {names[1]}, {labels}"
        yield Warning(about, f"{what.capitalize()} {harm}: {first}{more}.", tuple(c.name for g in found for c in g))


# ---------------------------------------------------------------- with every video opened


def _look(clip: Clip) -> dict[str, Any]:
    """In a process: a clip's facts and its hash, uint8 [bytes]; or the reason why it cannot be read."""
    try:
        info = probe(clip.path)
        _, seconds = part_of(clip.path, info.duration, clip.span)
        frames = read_frames(clip.path, _times(_FRAMES), _GRID, squash=True, within=clip.span)
    except OutOfReach:
        raise
    except DecodeError as error:
        return {"reason": error.reason}
    size, rate = f"{info.width}x{info.height}", "unknown" if info.fps is None else f"{info.fps:.0f}"
    return {"seconds": seconds, "size": size, "rate": rate, "hash": np.packbits(difference_hash(frames))}


def _times(frames: int) -> Callable[[float], NDArray[np.float64]]:
    return lambda seconds: segment_times(seconds, frames)


def difference_hash(frames: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """For each of the frames, uint8 [T, n, n, 3], where it gets brighter from left to right: bool [T * n * (n - 1)].

    Size, compression and brightness hardly change it (dHash, N. Krawetz, 2013).
    """
    grey = frames.astype(np.float32).mean(-1)
    brighter: NDArray[np.bool_] = (grey[:, :, 1:] > grey[:, :, :-1]).ravel()
    return brighter


def _near_duplicates(catalog: Catalog, found: dict[Clip, dict[str, Any]]) -> Iterator[Warning]:
    clips = [clip for clip in catalog.clips if "hash" in found[clip]]
    if len(clips) < 2:
        return
    close = alike(np.unpackbits(np.array([found[clip]["hash"] for clip in clips]), axis=1))
    pairs = ((clips[i], clips[j]) for i, j in close)
    yield from _alike(catalog, (p for p in pairs if not _known(*p)), "near-duplicates", "almost the same pictures")


def alike(hashes: NDArray[np.uint8], block: int = 256) -> Iterator[tuple[int, int]]:
    """The pairs (i, j), i < j, of hashes (bits [N, bits]) that differ in a tenth of the bits at most.

    The product of two hashes, with -1 for 0, is the bits that agree minus those that differ; ``block`` hashes are
    multiplied with all others at once.
    """
    signs = 2 * hashes.astype(np.float32) - 1
    least = signs.shape[1] - 2 * int(_ALIKE * signs.shape[1])
    for start in range(0, len(signs), block):
        for i, j in np.argwhere(np.triu(signs[start : start + block] @ signs[start:].T >= least, 1)).tolist():
            yield start + i, start + j


def _known(one: Clip, other: Clip) -> bool:
    """Whether another warning covers two clips already: they are parts of one file, or files with the same content."""
    try:
        return absolute(one.path) == absolute(other.path) or (
            size_of(one.path) == size_of(other.path) and content_hash(one.path) == content_hash(other.path)
        )
    except (OSError, ValueError):
        return False


def _unreadable(catalog: Catalog, found: dict[Clip, dict[str, Any]]) -> Iterator[Warning]:
    broken = [clip for clip in catalog.clips if "reason" in found[clip]]
    if broken:
        first = f"{broken[0].name}: {found[broken[0]]['reason']}"
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        yield Warning(
            "unreadable", f"Not readable: {in_short(first)}{more}; mend or remove them.", tuple(c.name for c in broken)
        )


def _odd_lengths(found: dict[Clip, dict[str, Any]]) -> Iterator[Warning]:
    seconds = {clip: facts["seconds"] for clip, facts in found.items() if "seconds" in facts}
    if len(seconds) < 4:
        return
    usual = statistics.median(seconds.values())
    for what, odd in (
        ("longer", [c for c, s in seconds.items() if s > ODD_LENGTH * usual]),
        ("shorter", [c for c, s in seconds.items() if s * ODD_LENGTH < usual]),
    ):
        if odd:
            first = min(odd, key=lambda clip: (seconds[clip] if what == "shorter" else -seconds[clip], clip.name))
            count = f"{len(odd)} clips are" if len(odd) > 1 else "A clip is"
            yield Warning(
                "lengths",
                f"{count} far {what} than the others, {first.name} with {seconds[first]:.1f} s for one, while "
                f"{usual:.1f} s are usual; the model sees a few frames of each: cut clips to the action.",
                tuple(clip.name for clip in odd),
            )


def _row(catalog: Catalog, label: int, found: dict[Clip, dict[str, Any]]) -> dict[str, Any]:
    own = [clip for clip in catalog.clips if clip.label == label]
    seen = [found[clip] for clip in own if "seconds" in found[clip]]
    lengths = [facts["seconds"] for facts in seen]
    return {
        "class": catalog.classes[label],
        "clips": len(own),
        **{split: sum(clip.split == split for clip in own) for split in ("train", "val", "test")},
        "unreadable": len(own) - len(seen),
        "seconds": round(sum(lengths), 2),
        "shortest": round(min(lengths), 2) if lengths else None,
        "longest": round(max(lengths), 2) if lengths else None,
        "sizes": dict(Counter(facts["size"] for facts in seen).most_common()),
        "rates": dict(Counter(facts["rate"] for facts in seen).most_common()),
    }


def thumbnail(clip: Clip) -> NDArray[np.uint8]:
    """Three frames of a clip: uint8 [3, H, W, 3]. Raises DecodeError if it cannot be read."""
    return read_frames(clip.path, _times(3), 72, within=clip.span)
