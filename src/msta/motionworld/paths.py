"""Where a thing goes: the strokes of each traced motion, as people really draw them, and their timing.

A path is a list of strokes, each a polyline [n, 2] in a box of about one by one around the origin; y points down.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from msta.motionworld.raster import Array, f32

Rng = np.random.Generator
Points = NDArray[np.float64]
Strokes = list[Points]

DIRECTIONS = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
    "up left": (-1, -1),
    "up right": (1, -1),
    "down left": (-1, 1),
    "down right": (1, 1),
}


def smooth(t: NDArray[np.floating], start: float, end: float) -> NDArray[np.float64]:
    """0 before ``start``, 1 after ``end``, and without a jerk between."""
    u = np.clip((np.asarray(t, np.float64) - start) / max(end - start, 1e-6), 0, 1)
    return np.asarray(u * u * (3 - 2 * u))


def _lines(*points: tuple[float, float]) -> Strokes:
    corners = np.array(points, dtype=np.float64)
    return [corners[i : i + 2] for i in range(len(corners) - 1)]


def _arc(start: float, sweep: float, radius: tuple[float, float] = (0.5, 0.5), n: int = 48) -> Points:
    angle = start + np.linspace(0, sweep, n)
    r = np.linspace(*radius, n)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], 1)


def _turn(rng: Rng) -> int:
    return 1 if rng.random() < 0.5 else -1


def _circle(rng: Rng, turn: int | None = None) -> Strokes:
    """``turn`` is 1 for clockwise as seen: the angle grows from x (right) to y (down)."""
    turn = turn or _turn(rng)
    # mostly from the top or from the right, as people do, else from anywhere
    start = rng.choice([-np.pi / 2, 0, np.pi, np.pi / 2, rng.uniform(-np.pi, np.pi)], p=[0.4, 0.15, 0.1, 0.1, 0.25])
    loops = rng.choice([1, 1.1, 1.5, 2], p=[0.5, 0.3, 0.1, 0.1])
    return [_arc(start + rng.normal(0, 0.2), turn * 2 * np.pi * loops * rng.uniform(0.94, 1.05), n=64)]


def _spiral(rng: Rng) -> Strokes:
    radius = (0.06, 0.5) if rng.random() < 0.75 else (0.5, 0.06)
    sweep = _turn(rng) * 2 * np.pi * rng.uniform(1.6, 2.3)
    return [_arc(rng.uniform(-np.pi, np.pi), sweep, radius, 96)]


def _closed(corners: Points, rng: Rng) -> Strokes:
    """Round a polygon once, from any of its corners, either way. Half start at the first corner."""
    start = 0 if rng.random() < 0.5 else int(rng.integers(len(corners)))
    ring = np.roll(corners, -start, 0)
    if rng.random() < 0.5:
        ring = np.roll(ring[::-1], 1, 0)
    end = ring[:1] * rng.uniform(0.85, 1.0)
    return [np.stack(pair) for pair in zip(ring, np.concatenate([ring[1:], end]), strict=True)]


def _square(rng: Rng) -> Strokes:
    return _closed(np.array([(-0.5, -0.5), (0.5, -0.5), (0.5, 0.5), (-0.5, 0.5)]), rng)


def _triangle(rng: Rng) -> Strokes:
    return _closed(np.array([(rng.uniform(-0.15, 0.15), -0.5), (0.5, 0.45), (-0.5, 0.45)]), rng)


def _star(rng: Rng) -> Strokes:
    """Five strokes without lifting: from bottom left over the top, usually."""
    first = -np.pi / 2
    order = np.arange(6) * 2  # every second of the five tips
    start = rng.choice([3, 0, 2, 1, 4], p=[0.55, 0.25, 0.1, 0.05, 0.05])
    turn = 1 if rng.random() < 0.7 else -1
    tips = first + (start + turn * order) * 2 * np.pi / 5
    return _lines(*[(0.5 * np.cos(a), 0.5 * np.sin(a)) for a in tips])


def _check(rng: Rng) -> Strokes:
    """A short stroke down to the right, then a longer one up to the right."""
    short = rng.uniform(0.3, 0.85)
    x = -0.5 + rng.uniform(0.25, 0.45)
    return _lines((-0.5, 0.5 - short), (x, 0.5), (0.5, -0.5))


def _delete(rng: Rng) -> Strokes:
    """Two crossing strokes; the hand travels from the end of one to the start of the other, and a finger shows it."""
    ends = [((-0.5, -0.5), (0.5, 0.5)), ((0.5, -0.5), (-0.5, 0.5))]
    if rng.random() < 0.35:
        ends.reverse()
    (a, b), (c, d) = ends
    if rng.random() < 0.4:
        c, d = d, c
    if rng.random() < 0.15:
        a, b = b, a
    return _lines(a, b, c, d)


def _zigzag(rng: Rng) -> Strokes:
    count = int(rng.integers(5, 7))
    x = np.linspace(-0.5, 0.5, count)
    y = 0.3 * np.where(np.arange(count) % 2, 1, -1) * _turn(rng)
    points = np.stack([x * _turn(rng), y], 1)
    return _lines(*map(tuple, points if rng.random() < 0.75 else points[:, ::-1]))


def _letter_s(rng: Rng) -> Strokes:
    u = np.linspace(0, 1, 48)
    return [np.stack([0.38 * np.sin(-2 * np.pi * u - 0.5) * (1 - 0.1 * u), u - 0.5], 1)]


def _eight(rng: Rng) -> Strokes:
    u = rng.uniform(0, 2 * np.pi) + _turn(rng) * np.linspace(0, 2 * np.pi * rng.uniform(1, 1.3), 96)
    curve = np.stack([0.5 * np.sin(u), 0.25 * np.sin(2 * u)], 1)
    return [curve if rng.random() < 0.6 else curve[:, ::-1].copy()]


def _letter_u(rng: Rng) -> Strokes:
    bend = _arc(np.pi, -np.pi, (0.4, 0.4), 24) + np.array([0, 0.1])
    return [np.concatenate([[(-0.4, -0.5)], bend, [(0.4, -0.5)]])]


def _to_and_fro(x: float, y: float) -> Callable[[Rng], Strokes]:
    def strokes(rng: Rng) -> Strokes:
        end = np.array([(x, y)]) * 0.5 * _turn(rng)
        count = int(rng.integers(3, 6))
        points = np.concatenate([end * (-1) ** i * rng.uniform(0.75, 1) for i in range(count)])
        return _lines(*map(tuple, points))

    return strokes


def _bounce(rng: Rng) -> Strokes:
    hops = int(rng.integers(2, 4))
    across = _turn(rng) * (rng.uniform(0.5, 1) if rng.random() < 0.75 else 0.05)
    first = np.linspace(0.5, 1, 12)  # begins at the top of a hop
    parts, x, height = [], 0.0, 1.0
    for hop in range(hops):
        u = first if hop == 0 else np.linspace(0, 1, 24)
        parts.append(np.stack([x + (u - u[0]), 0.5 - height * 4 * u * (1 - u)], 1))
        x += 1 - u[0]
        height *= rng.uniform(0.55, 0.9)
    curve = np.concatenate(parts)
    curve[:, 0] = (curve[:, 0] / x - 0.5) * across
    return [curve]


def _straight(x: float, y: float) -> Callable[[Rng], Strokes]:
    return lambda rng: _lines((-x / 2, -y / 2), (x / 2, y / 2))


def _along(legs: Sequence[str]) -> Callable[[Rng], Strokes]:
    """One stroke for each direction; one that goes back over the stroke before it is hardly longer than that."""

    def strokes(rng: Rng) -> Strokes:
        x, y, length = 0.0, 0.0, 0.0
        points = [(x, y)]
        for i, leg in enumerate(legs):
            back = i > 0 and OPPOSITE[legs[i - 1]] == leg
            length = length * rng.uniform(0.85, 1) if back else rng.uniform(0.7, 1.1)
            x, y = x + DIRECTIONS[leg][0] * length, y + DIRECTIONS[leg][1] * length
            points.append((x, y))
        return _lines(*points)

    return strokes


def _fixed(*points: tuple[float, float]) -> Callable[[Rng], Strokes]:
    return lambda rng: _lines(*points)


SHAPES: dict[str, Callable[[Rng], Strokes]] = {
    "circle": _circle,
    "circle clockwise": lambda rng: _circle(rng, 1),
    "circle counterclockwise": lambda rng: _circle(rng, -1),
    "spiral": _spiral,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "check mark": _check,
    "caret": lambda rng: _lines((-0.5, 0.5), (rng.uniform(-0.1, 0.1), -0.5), (0.5, 0.5)),
    "delete mark": _delete,
    "zigzag": _zigzag,
    "figure eight": _eight,
    "letter V": lambda rng: _lines((-0.5, -0.5), (rng.uniform(-0.08, 0.08), 0.5), (0.5, -0.5)),
    "letter L": _fixed((-0.4, -0.5), (-0.4, 0.5), (0.4, 0.5)),
    "letter S": _letter_s,
    "letter Z": _fixed((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)),
    "letter W": _fixed((-0.6, -0.5), (-0.3, 0.5), (0, -0.35), (0.3, 0.5), (0.6, -0.5)),
    "letter M": _fixed((-0.5, 0.5), (-0.4, -0.5), (0, 0.3), (0.4, -0.5), (0.5, 0.5)),
    "letter N": _fixed((-0.45, 0.5), (-0.45, -0.5), (0.45, 0.5), (0.45, -0.5)),
    "letter C": lambda rng: [_arc(-0.9, -2 * np.pi + 1.8)],
    "letter U": _letter_u,
}
MOVES: dict[str, Callable[[Rng], Strokes]] = {
    **{("swipe " if " " not in name else "move ") + name: _straight(*d) for name, d in DIRECTIONS.items()},
    "up and down": _to_and_fro(0, 1),
    "side to side": _to_and_fro(1, 0),
    "bounce": _bounce,
}
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up"}


def composition_name(*legs: str) -> str:
    """("left", "up") -> "left then up"; ("left", "right") -> "left and back"; three: "left then right then up"."""
    if len(legs) == 2 and OPPOSITE[legs[0]] == legs[1]:
        return f"{legs[0]} and back"
    return " then ".join(legs)


LEGS: dict[str, tuple[str, ...]] = {
    composition_name(*legs): legs
    for count in (2, 3)
    for legs in itertools.product(OPPOSITE, repeat=count)
    if all(a != b for a, b in itertools.pairwise(legs))
}
"""The directions, one after the other, of what is composed of two or three strokes."""
COMPOSED: dict[str, Callable[[Rng], Strokes]] = {name: _along(legs) for name, legs in LEGS.items()}


@dataclass(frozen=True)
class Path:
    """Strokes in frame coordinates, with a moment, 0..1 of the clip, at which each begins and ends."""

    strokes: Strokes
    moments: Points
    ease: float

    def at(self, times: NDArray[np.floating]) -> Array:
        """Positions [T, 2] at ``times`` in 0..1; at rest before the first stroke and after the last."""
        result = np.empty((len(times), 2))
        which = np.clip(np.searchsorted(self.moments, times, side="right") - 1, 0, len(self.strokes) - 1)
        for k in np.unique(which):
            rows = which == k
            start, end = self.moments[k], self.moments[k + 1]
            u = np.clip((times[rows] - start) / max(end - start, 1e-6), 0, 1)
            u = u + self.ease * (u * u * (3 - 2 * u) - u)
            line = self.strokes[k]
            length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
            result[rows, 0] = np.interp(u * length[-1], length, line[:, 0])
            result[rows, 1] = np.interp(u * length[-1], length, line[:, 1])
        return f32(result)


def draw(
    motion: str,
    rng: Rng,
    *,
    size: tuple[float, float],
    inside: tuple[float, float, float, float],
    idle: float,
    cut: float,
) -> Path:
    """A traced motion with the variety of real gestures: size, place, aspect, slant, curved strokes, timing.

    Args:
        motion: a key of SHAPES, MOVES or COMPOSED.
        rng: the clip's.
        size: the longer side of the path's box is drawn from this range, in frames.
        inside: left, top, right, bottom that the path stays within, smaller if need be.
        idle: share of the clip that may pass before the path begins, and after it ends.
        cut: how often a path waits long or ends early; and how often the clip ends before it does, unless it is made
            of strokes in several directions, whose last one gives it its name.
    """
    strokes = {**SHAPES, **MOVES, **COMPOSED}[motion](rng)
    plain = motion not in SHAPES  # a direction: no slant or squeeze may change it into another one
    aspect = 1.0 if plain else np.exp(rng.normal(0, 0.16))
    slant = 0.0 if plain else rng.normal(0, 0.1)
    tilt = rng.normal(0, 0.09)
    matrix = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    matrix = matrix @ np.array([[1, slant], [0, 1]]) @ np.diag([aspect, 1 / aspect])
    wobble = 0.01 if motion in ("square", "letter L") else 0.03
    strokes = [_bent(s @ matrix.T, rng.normal(0, wobble)) for s in strokes]
    if not plain:  # nobody hits the same corner twice
        strokes = _displaced(strokes, rng, 0.025)
    points = np.concatenate(strokes)
    low, high = points.min(0), points.max(0)
    left, top, right, bottom = inside
    room = np.array([right - left, bottom - top])
    scale = min(rng.uniform(*size) / float((high - low).max()), float((room / np.maximum(high - low, 1e-6)).min()))
    place = np.array([left, top]) + (room - (high - low) * scale) * rng.random(2)
    place = np.clip(place, 0.15 - (high - low) * scale / 2, 0.85 - (high - low) * scale / 2)  # its middle in the frame
    strokes = [(s - low) * scale + place for s in strokes]
    moments = _timing(strokes, rng, idle)
    if rng.random() < cut:
        early, late = (rng.uniform(0, 0.35) if rng.random() < 0.5 else 0.0 for _ in range(2))
        moments = early + moments * (1 - early - late)
    elif rng.random() < cut and motion not in LEGS:
        moments = moments * rng.uniform(1.05, 1.3)
    return Path(strokes, moments, rng.uniform(0, 1))


def _bent(line: Points, bulge: float) -> Points:
    """A straight stroke, curved a little to one side."""
    if len(line) > 2:
        return line
    u = np.linspace(0, 1, 9)[:, None]
    along = line[1] - line[0]
    across = np.array([-along[1], along[0]])
    return np.asarray(line[0] + u * along + 4 * u * (1 - u) * bulge * across)


def _displaced(strokes: Strokes, rng: Rng, amount: float) -> Strokes:
    if len(strokes) == 1:
        return strokes
    shift = rng.normal(0, amount, (len(strokes) + 1, 2))
    result = []
    for i, line in enumerate(strokes):
        u = np.linspace(0, 1, len(line))[:, None]
        result.append(line + shift[i] * (1 - u) + shift[i + 1] * u)
    return result


def _timing(strokes: Strokes, rng: Rng, idle: float) -> Points:
    """Longer strokes take longer, though not in proportion; most clips are cut close to the gesture."""
    before, after = (rng.uniform(0, idle) if rng.random() < 0.5 else 0.0 for _ in range(2))
    length = np.array([np.linalg.norm(np.diff(s, axis=0), axis=1).sum() for s in strokes])
    share = length ** rng.uniform(0.5, 1) * np.exp(rng.normal(0, 0.15, len(strokes)))
    return before + (1 - before - after) * np.concatenate([[0], np.cumsum(share) / share.sum()])
