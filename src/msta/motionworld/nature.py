"""Backgrounds with the statistics of photographs: spectra that fall as 1/f, and things of all sizes that hide others.

Natural images have a power spectrum near 1/f^2 (Field, 1987) and hard edges at all scales, which the dead leaves model
reproduces: shapes whose sizes follow a power law, each hiding what lies behind it (Lee, Mumford & Huang, 2001). Images
of both kinds are enough to learn features from (Baradad et al., 2021). Each function draws one picture [3, S, S] in
0..1; places and sizes are shares of its side.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from msta.motionworld.paths import Rng
from msta.motionworld.raster import Array, f32
from msta.motionworld.things import any_colour, near

Colour = Callable[[Rng], Array]

_GREENS = ((0.2, 0.35, 0.12), (0.35, 0.5, 0.2), (0.12, 0.2, 0.08), (0.5, 0.55, 0.25), (0.4, 0.32, 0.2))
_STONES = ((0.55, 0.53, 0.5), (0.4, 0.38, 0.36), (0.65, 0.6, 0.52), (0.5, 0.42, 0.36), (0.3, 0.3, 0.32))
_WALLS = ((0.75, 0.7, 0.62), (0.6, 0.35, 0.28), (0.85, 0.83, 0.8), (0.5, 0.5, 0.52), (0.72, 0.6, 0.45))
_SKIES = ((0.75, 0.85, 0.97), (0.92, 0.94, 0.96), (0.5, 0.68, 0.92), (0.85, 0.82, 0.8), (0.98, 0.98, 0.98))
_WOODS = ((0.65, 0.45, 0.28), (0.45, 0.3, 0.2), (0.8, 0.65, 0.48), (0.3, 0.2, 0.15), (0.85, 0.82, 0.78))


def _one_of(colours: Sequence[tuple[float, float, float]], spread: float = 0.06) -> Colour:
    return lambda rng: near(colours[int(rng.integers(len(colours)))], rng, spread)


_green, _stone, _wall, _sky, _wood = map(_one_of, (_GREENS, _STONES, _WALLS, _SKIES, _WOODS))


def spectral(rng: Rng, side: int, exponent: float) -> Array:
    """Noise [side, side] of mean 0 and standard deviation 1 whose amplitude falls as 1 / frequency^exponent."""
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None])
    frequency[0, 0] = 1.0
    spectrum = rng.standard_normal(frequency.shape) + 1j * rng.standard_normal(frequency.shape)
    spectrum *= frequency**-exponent
    spectrum[0, 0] = 0.0
    noise = np.fft.irfft2(spectrum, (side, side))
    return f32(noise / max(noise.std(), 1e-9))


def _flat(colour: Array, side: int) -> Array:
    return np.broadcast_to(colour[:, None, None], (3, side, side)).astype(np.float32)


def _axis(side: int) -> Array:
    return f32((np.arange(side) + 0.5) / side)


def _mix(picture: Array, colour: Array, share: Array) -> None:
    picture += share * (colour[:, None, None] - picture)


def _textured(rng: Rng, side: int, colour: Colour, amount: float, exponent: float) -> Array:
    """Two colours of a kind, mixed by 1/f noise, with light of the same kind on them."""
    picture = _flat(colour(rng), side)
    steep = rng.uniform(0.5, 3)
    _mix(picture, colour(rng), np.clip(0.5 + steep * spectral(rng, side, exponent), 0, 1))
    picture *= 1 + np.float32(amount) * spectral(rng, side, rng.uniform(0.5, 1.3))
    return picture


def _even(rng: Rng, side: int, colour: Colour) -> Array:
    """One colour with a little 1/f noise, lighter on one side."""
    light = 1 + rng.uniform(0, 0.08) * spectral(rng, side, rng.uniform(0.5, 1.5))
    light = light + rng.normal(0, 0.25) * (_axis(side)[None] - 0.5) + rng.normal(0, 0.25) * (_axis(side)[:, None] - 0.5)
    return f32(_flat(colour(rng), side) * light)


def _leaves(picture: Array, rng: Rng, count: int, sizes: tuple[float, float], colour: Colour, boxes: float) -> None:
    """The dead leaves model: ``count`` shapes with radii of a power law in ``sizes``, ``boxes`` of them upright boxes.

    The density of radii is proportional to 1 / r^3 (Lee, Mumford & Huang), which makes the picture scale invariant.
    """
    side = picture.shape[-1]
    small, large = sizes
    radii = (large**-2 + rng.random(count) * (small**-2 - large**-2)) ** -0.5
    radii = np.maximum(rng.permutation(radii), 0.6 / side)
    places = rng.uniform(-0.05, 1.05, (count, 2))
    long = np.exp(rng.uniform(0, 0.9, count))
    angles = rng.uniform(0, math.pi, count)
    square = rng.random(count) < boxes
    lights = rng.uniform(0.55, 1.35, count)
    palette = [colour(rng) for _ in range(min(count, 12))]
    axis = _axis(side)
    for i in range(count):
        reach = radii[i] * long[i] * (1.5 if square[i] else 1)
        (left, top), (right, bottom) = ((places[i] + d * reach) * side for d in (-1, 1))
        columns = slice(max(0, int(left)), min(side, int(right) + 1))
        rows = slice(max(0, int(top)), min(side, int(bottom) + 1))
        x, y = axis[columns] - places[i, 0], axis[rows] - places[i, 1]
        if not len(x) or not len(y):
            continue
        tone = palette[i % len(palette)] * np.float32(lights[i])
        if square[i]:
            inside = (np.abs(x) < radii[i] * long[i])[None] & (np.abs(y) < radii[i])[:, None]
        else:
            cos, sin = math.cos(angles[i]), math.sin(angles[i])
            u = (x * cos)[None] + (y * sin)[:, None]
            v = (y * cos)[:, None] - (x * sin)[None]
            inside = (u / (radii[i] * long[i])) ** 2 + (v / radii[i]) ** 2 < 1
        picture[:, rows, columns][:, inside] = tone[:, None]


# ---------------------------------------------------------------- what pretraining shows


def _mottled(rng: Rng, side: int) -> Array:
    colour = _one_of((tuple(any_colour(rng).tolist()),), 0.1) if rng.random() < 0.5 else _stone
    return _textured(rng, side, colour, rng.uniform(0, 0.3), rng.uniform(0.6, 1.7))


def _foliage(rng: Rng, side: int) -> Array:
    picture = _textured(rng, side, _green, 0.3, 1.0)
    if rng.random() < 0.4:  # a white wall or the sky shows through
        picture = _flat(_wall(rng) if rng.random() < 0.5 else _sky(rng), side)
    for _ in range(rng.integers(1, 3)):
        _leaves(picture, rng, int(rng.integers(40, 220)), (0.012, rng.uniform(0.05, 0.2)), _green, 0.05)
    return picture


def _clutter(rng: Rng, side: int) -> Array:
    picture = _textured(rng, side, any_colour, 0.1, 1.4)
    colour = any_colour if rng.random() < 0.6 else (_wood if rng.random() < 0.5 else _stone)
    _leaves(picture, rng, int(rng.integers(20, 140)), (0.015, rng.uniform(0.15, 0.5)), colour, rng.uniform(0, 1))
    return picture


def _facade(rng: Rng, side: int) -> Array:
    """Windows in rows on a wall, seen at a slant, perhaps with the sky above."""
    picture = _even(rng, side, _wall)
    x, y = _axis(side)[None], _axis(side)[:, None]
    slant = rng.normal(0, 0.25)
    level = y + slant * (x - 0.5)
    across, down = rng.uniform(0.08, 0.4, 2)
    wide, high = rng.uniform(0.3, 0.75, 2)
    u, v = (x / across + rng.random()) % 1, (level / down + rng.random()) % 1
    windows = (np.abs(u - 0.5) < wide / 2) & (np.abs(v - 0.5) < high / 2)
    frames = (np.abs(u - 0.5) < wide / 2 + 0.08) & (np.abs(v - 0.5) < high / 2 + 0.08) & ~windows
    _mix(picture, near([0.9, 0.9, 0.88] if rng.random() < 0.5 else [0.2, 0.18, 0.16], rng), f32(frames))
    glass = rng.uniform(0.05, 0.5) * (1 + 0.5 * spectral(rng, side, 1.2))
    picture += windows * (f32(glass) * near([1, 1.05, 1.1], rng)[:, None, None] - picture)
    if rng.random() < 0.4:
        _mix(picture, _sky(rng), f32(level < rng.uniform(0, 0.5)))
    return picture


def _landscape(rng: Rng, side: int) -> Array:
    """Sky, hills or trees before it in one to four lines, and the ground."""
    sky = _sky(rng)
    picture = _flat(sky, side) + f32(_axis(side)[:, None] * rng.normal(0.1, 0.15))
    picture += rng.uniform(0, 0.1) * spectral(rng, side, 1.6)
    horizon = rng.uniform(0.1, 0.6)
    y = _axis(side)[:, None]
    for k in range(rng.integers(1, 5)):
        rough = rng.uniform(0.01, 0.08)
        edge = horizon + rng.uniform(0.05, 0.25) * k + rough * spectral(rng, side, rng.uniform(0.8, 1.6))[:1]
        layer = _textured(rng, side, _green if rng.random() < 0.8 else _stone, 0.35, rng.uniform(0.6, 1.2))
        haze = 0.7 * math.exp(-k - rng.random())
        layer += np.float32(haze) * (sky[:, None, None] - layer)
        picture += f32(y > edge) * (layer - picture)
    return picture


def _lawn(rng: Rng, side: int) -> Array:
    picture = _textured(rng, side, _green, rng.uniform(0.05, 0.25), rng.uniform(0.3, 1.2))
    if rng.random() < 0.5:  # a path, or the edge of a bed
        x, y = _axis(side)[None], _axis(side)[:, None]
        off = y - rng.uniform(0, 1) - rng.normal(0, 0.4) * (x - 0.5)
        path = _textured(rng, side, _stone, 0.1, 0.8)
        picture += f32(np.abs(off) < rng.uniform(0.02, 0.3)) * (path - picture)
    return picture


def _fabric(rng: Rng, side: int) -> Array:
    """Chevrons, plaid or bands in a few colours, with folds."""
    colours = [any_colour(rng) if rng.random() < 0.7 else near([0.92, 0.92, 0.92], rng) for _ in range(4)]
    x, y = _axis(side)[None], _axis(side)[:, None]
    x = x + rng.uniform(0, 0.04) * spectral(rng, side, 1.8)
    turn = rng.uniform(0, math.pi)
    u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
    period = rng.uniform(0.08, 0.3)
    kind = rng.integers(3)
    if kind == 0:  # chevrons
        u = u + rng.uniform(0.5, 1.2) * np.abs((v / (2 * period)) % 1 - 0.5) * 2 * period
    which = np.floor(u / period * 4).astype(np.int64) % 4
    picture = f32(np.stack(colours, 1))[:, which]
    if kind == 1:  # plaid
        picture = 0.5 * picture + 0.5 * f32(np.stack(colours, 1))[:, np.floor(v / period * 4).astype(np.int64) % 4]
    return f32(picture * (1 + rng.uniform(0, 0.25) * spectral(rng, side, 1.4)))


def _desk(rng: Rng, side: int) -> Array:
    """A wall, a table before it, bright or dark screens, and things on both."""
    picture = _even(rng, side, _wall)
    x, y = _axis(side)[None], _axis(side)[:, None]
    edge = rng.uniform(0.35, 0.75)
    table = _even(rng, side, _wood)
    picture += f32(y > edge + rng.normal(0, 0.1) * (x - 0.5)) * (table - picture)
    for _ in range(rng.integers(1, 4)):
        left, top = rng.uniform(-0.2, 0.8), rng.uniform(-0.2, edge)
        wide, high = rng.uniform(0.15, 0.6, 2)
        rim = rng.uniform(0, 0.04)
        border = (x > left) & (x < left + wide) & (y > top) & (y < top + high)
        inside = (x > left + rim) & (x < left + wide - rim) & (y > top + rim) & (y < top + high - rim)
        _mix(picture, near([0.08, 0.08, 0.09], rng, 0.03) if rng.random() < 0.6 else _wood(rng), f32(border))
        _mix(picture, near([0.97, 0.97, 0.97] if rng.random() < 0.5 else [0.1, 0.1, 0.12], rng), f32(inside))
    colour = _one_of(((0.1, 0.1, 0.1), (0.9, 0.9, 0.9), (0.5, 0.5, 0.5), tuple(any_colour(rng).tolist())))
    _leaves(picture, rng, int(rng.integers(3, 30)), (0.02, 0.15), colour, 0.7)
    return picture


# ---------------------------------------------------------------- what only the shifted domain shows


def _skyline(rng: Rng, side: int) -> Array:
    """Towers of many heights before the sky, with small windows."""
    picture = _flat(_sky(rng), side) + f32(_axis(side)[:, None] * rng.normal(0, 0.2))
    x, y = _axis(side)[None], _axis(side)[:, None]
    for _ in range(rng.integers(6, 20)):
        left, wide, top = rng.uniform(-0.1, 1), rng.uniform(0.05, 0.3), rng.uniform(0.05, 0.9)
        tower = f32((x > left) & (x < left + wide) & (y > top))
        _mix(picture, _wall(rng) * np.float32(rng.uniform(0.3, 1)), tower)
        across, down = rng.uniform(0.025, 0.07, 2)
        lit = ((x - left) / across % 1 > 0.45) & ((y - top) / down % 1 > 0.5)
        _mix(picture, near([0.2, 0.22, 0.25] if rng.random() < 0.7 else [0.95, 0.9, 0.6], rng), tower * f32(lit))
    return picture


def _shelves(rng: Rng, side: int) -> Array:
    """Books of all colours, upright, in rows."""
    picture = _flat(_wood(rng), side)
    axis = _axis(side)
    height = rng.uniform(0.15, 0.4)
    top = rng.uniform(-height, 0)
    while top < 1:
        left = 0.0
        while left < 1:
            wide, high = rng.uniform(0.02, 0.08), height * rng.uniform(0.6, 0.92)
            columns = (axis > left) & (axis < left + wide * 0.95)
            rows = (axis > top + height * 0.95 - high) & (axis < top + height * 0.95)
            picture[:, rows[:, None] & columns[None]] = any_colour(rng)[:, None]
            left += wide
        top += height
    return picture


def _pebbles(rng: Rng, side: int) -> Array:
    picture = _textured(rng, side, _stone, 0.2, 0.8)
    _leaves(picture, rng, int(rng.integers(150, 400)), (0.02, rng.uniform(0.04, 0.1)), _stone, 0)
    return picture


Kind = tuple[Callable[[Rng, int], Array], tuple[str, ...]]
"""How a background is drawn, and what captions call it."""
KINDS: dict[str, Kind] = {
    "mottled": (_mottled, ("a mottled background", "stone")),
    "foliage": (_foliage, ("leaves", "plants", "bushes", "trees")),
    "clutter": (_clutter, ("a cluttered room", "clutter")),
    "facade": (_facade, ("a building", "windows")),
    "landscape": (_landscape, ("a landscape", "trees and fields")),
    "lawn": (_lawn, ("grass", "a lawn")),
    "fabric": (_fabric, ("a patterned curtain", "patterned cloth")),
    "desk": (_desk, ("a desk", "a screen and a table")),
}
HELD_OUT_KINDS: dict[str, Kind] = {
    "skyline": (_skyline, ("a skyline", "a city")),
    "shelves": (_shelves, ("a bookshelf", "books")),
    "pebbles": (_pebbles, ("pebbles", "gravel")),
}


def photograph(kind: str, rng: Rng, side: int, avoid: Array) -> Array:
    """A picture [3, side, side] in 0..1 of a kind in KINDS or HELD_OUT_KINDS, more or less colourful.

    If its mean is near to that of ``avoid`` [3], the colour of what moves before it, it is mostly made lighter or
    darker. What moves stays hard to see in some clips, as in life.
    """
    draw, _ = KINDS[kind] if kind in KINDS else HELD_OUT_KINDS[kind]
    picture = draw(rng, side)
    off = float(picture.mean() - avoid.mean())
    if abs(off) < 0.12 and rng.random() < 0.7:
        picture = picture * np.float32(rng.uniform(1.3, 1.7) if off > 0 else rng.uniform(0.45, 0.75))
    grey = picture.mean(0)
    picture = grey + np.float32(rng.uniform(0.3, 1.1)) * (picture - grey)
    return np.clip(picture, 0, 1, out=picture)
