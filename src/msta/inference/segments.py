"""Probabilities of windows -> segments: which class the video shows from when until when.

Three rules. All of them work online, so that an endless stream has segments too:

1. Time advances in steps of one stride. The probabilities of a step are the mean over the windows that cover it.
2. Hysteresis: the label stays until another class leads it by ``margin``. If the best class is less likely than
   ``unknown_below``, there is no label until a class exceeds that threshold by ``margin``.
3. A segment shorter than ``min_duration`` is merged into the one before it (the first ones: into the one after).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from msta.evaluation.metrics import Array

MARGIN = 0.1
_SAME = 1e-9  # seconds


@dataclass(frozen=True)
class Smoothing:
    """How windows become segments, see above. ``min_duration`` is in seconds; the others are probabilities."""

    min_duration: float = 0.0
    margin: float = MARGIN
    unknown_below: float | None = None


@dataclass(frozen=True)
class Segment:
    """From ``start`` to ``end`` [s] the video shows ``label``, with this mean probability.

    If no class is likely enough, ``label`` is None and ``probability`` is that of the most likely class.
    """

    start: float
    end: float
    label: str | None
    probability: float


@dataclass
class Scored:
    """The probabilities [K] of a window or a step from ``start`` to ``end`` [s]."""

    start: float
    end: float
    probabilities: Array = field(repr=False)


class Segmenter:
    """Takes windows in order and yields each segment as soon as it is over. Segments leave no gaps."""

    def __init__(self, classes: Sequence[str], stride: float, smoothing: Smoothing) -> None:
        self.classes, self.stride, self.smoothing = classes, stride, smoothing
        self._windows: deque[Scored] = deque()  # that cover the current step
        self._number = 0  # of the current step
        self._run: _Run | None = None  # of the current label
        self._held: _Run | None = None  # the run before it, which may still grow

    def add(self, window: Scored) -> Iterator[Segment]:
        """Take the next window. Window i begins after i strides."""
        self._windows.append(window)
        yield from self._take(self._step())

    def finish(self) -> Iterator[Segment]:
        """Yield the rest, after the last window."""
        while self._windows and self._number * self.stride < self._windows[-1].end - _SAME:
            yield from self._take(self._step())
        if self._run is not None:
            yield from self._close(self._run)
        if self._held is not None:
            yield self._segment(self._held)

    def _step(self) -> Scored:
        """Rule 1."""
        start = self._number * self.stride
        end = min(start + self.stride, self._windows[-1].end)
        while self._windows[0].end < end - _SAME:
            self._windows.popleft()
        self._number += 1
        return Scored(start, end, np.mean([w.probabilities for w in self._windows], axis=0))

    def _take(self, step: Scored) -> Iterator[Segment]:
        """Rule 2."""
        label = _next_label(step.probabilities, self._run, self.smoothing)
        one = _Run(step.start, step.end, label, step.probabilities * (step.end - step.start))
        if self._run is None or self._run.label == label:
            self._run = one if self._run is None else self._run.joined(one, label)
            return
        closed, self._run = self._run, one
        yield from self._close(closed)

    def _close(self, run: _Run) -> Iterator[Segment]:
        """Rule 3."""
        held, shortest = self._held, self.smoothing.min_duration - _SAME
        if held is None:
            self._held = run
        elif run.label == held.label or run.seconds < shortest:
            self._held = held.joined(run, held.label)
        elif held.seconds < shortest:
            self._held = held.joined(run, run.label)
        else:
            self._held = run
            yield self._segment(held)

    def _segment(self, run: _Run) -> Segment:
        mean = run.total / run.seconds
        if run.label is None:
            return Segment(run.start, run.end, None, float(mean.max()))
        return Segment(run.start, run.end, self.classes[run.label], float(mean[run.label]))


@dataclass
class _Run:
    """Consecutive steps with one label. ``total`` is the sum of their probabilities, each times its seconds."""

    start: float
    end: float
    label: int | None
    total: Array

    @property
    def seconds(self) -> float:
        return self.end - self.start

    def joined(self, other: _Run, label: int | None) -> _Run:
        return replace(self, end=other.end, label=label, total=self.total + other.total)


def _next_label(probabilities: Array, run: _Run | None, smoothing: Smoothing) -> int | None:
    best = int(probabilities.argmax())
    floor = smoothing.unknown_below or 0.0
    if run is None:
        return best if probabilities[best] >= floor else None
    if run.label is None:
        return best if probabilities[best] >= min(floor + smoothing.margin, 1.0) else None
    if probabilities[best] < floor:
        return None
    return best if probabilities[best] - probabilities[run.label] > smoothing.margin else run.label
