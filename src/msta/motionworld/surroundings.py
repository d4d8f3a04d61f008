"""What is around the thing that moves: background, camera, light, sensor and codec, by degrees of ``busy`` 0..1."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from msta.motionworld import nature
from msta.motionworld.paths import Rng
from msta.motionworld.raster import Array, f32
from msta.motionworld.things import any_colour

MARGIN = 0.2
"""How far a background reaches beyond the frame on each side, for cameras that shake and pan."""

PATTERNS = {
    "plain": ("a plain background", "a blank wall"),
    "gradient": ("a smooth background", "a soft backdrop"),
    "noise": ("a blotchy background", "a rough wall"),
    "stripes": ("a striped background", "stripes"),
    "curtain": ("a curtain", "curtains"),
    "checker": ("a checkered background", "tiles"),
    "blobs": ("a blurry background", "blurred shapes"),
    "ground": ("the ground", "a paved floor", "the street"),
    "horizon": ("a horizon", "an open field"),
    "room": ("a room", "a wall and a table", "a table"),
}
HELD_OUT_PATTERNS = {"bricks": ("a brick wall", "bricks"), "ripples": ("water", "ripples")}
KINDS = PATTERNS | {name: words for name, (_, words) in nature.KINDS.items()}
"""What captions call each background of the train and held-out domains."""
HELD_OUT_KINDS = HELD_OUT_PATTERNS | {name: words for name, (_, words) in nature.HELD_OUT_KINDS.items()}
WORDS = KINDS | HELD_OUT_KINDS


def choose_kind(rng: Rng, busy: float, shifted: bool, outdoors: bool) -> str:
    """A background of the domain: plain, a pattern, or one like a photograph; the ground if ``outdoors``, often."""
    if not busy or rng.random() > 0.3 + 0.7 * busy:
        return "plain"
    natural = nature.HELD_OUT_KINDS if shifted else nature.KINDS
    patterns = HELD_OUT_PATTERNS if shifted else PATTERNS
    names = list(natural if rng.random() < 0.6 * busy else patterns)
    if outdoors and not shifted:  # people are mostly seen a little from above
        names += ["ground", "lawn"] * 3
    return names[rng.integers(len(names))]


def _grid(size: int) -> tuple[Array, Array]:
    span = f32((np.arange(size) + 0.5) / size * (1 + 2 * MARGIN) - MARGIN)
    return span[None, :], span[:, None]


def _noise(rng: Rng, size: int, cells: int) -> Array:
    """Smooth noise of standard deviation about 0.5, [size, size]: random numbers on a grid, interpolated."""
    grid = f32(rng.standard_normal((cells + 1, cells + 1)))
    at = np.linspace(0, cells - 1e-3, size, dtype=np.float32)
    low = at.astype(np.int64)
    share = at - low
    share = share * share * (3 - 2 * share)
    rows = grid[low] * (1 - share)[:, None] + grid[low + 1] * share[:, None]
    return f32(rows[:, low] * (1 - share) + rows[:, low + 1] * share)


def _wall_colour(rng: Rng, avoid: Array) -> Array:
    """Mostly muted, as walls and floors are, and never the colour of what moves before it."""
    for _ in range(6):
        colour = any_colour(rng)
        if rng.random() < 0.2:  # many a wall is white
            colour = f32(0.7 + 0.3 * colour)
        if rng.random() < 0.8:
            colour = f32(colour.mean() + (colour - colour.mean()) * 0.25)
        if _contrast(colour, avoid) > 0.2:
            break
    return colour


def _contrast(a: Array, b: Array) -> float:
    return float(np.abs(a - b).mean())


def background(rng: Rng, size: int, busy: float, kind: str, avoid: Array) -> Array:
    """A picture [3, S, S] in 0..1 that is MARGIN larger than the frame on each side, at the frame's scale.

    ``avoid`` [3] is the colour of the main thing, which must stay visible.
    """
    side = round(size * (1 + 2 * MARGIN))
    if kind in nature.KINDS or kind in nature.HELD_OUT_KINDS:
        return nature.photograph(kind, rng, side, avoid)
    x, y = _grid(side)
    first = _wall_colour(rng, avoid)
    other = rng.normal(0, 0.05 + 0.25 * busy) + rng.normal(0, 0.03 + 0.12 * busy, 3)  # light differs more than hue
    second = f32(np.clip(first + other, 0.02, 0.98))
    if _contrast(second, avoid) < 0.15:
        second = f32(np.clip(2 * first - second, 0.02, 0.98))  # the other way
    share = _pattern(kind, rng, side)
    picture = f32(first[:, None, None] + share * (second - first)[:, None, None])
    if kind == "blobs":
        _add_blobs(picture, rng, avoid)
    elif kind in ("horizon", "room"):
        level = rng.uniform(0.35, 0.95)
        if kind == "room":
            _add_furniture(picture, rng, level)
        below = np.clip((y - level - rng.normal(0, 0.06) * (x - 0.5)) * rng.uniform(20, 200), 0, 1)
        floor = _wall_colour(rng, avoid)[:, None, None] * (1 + 0.3 * busy * _noise(rng, side, 7))
        picture += below * (floor - picture)
    if kind != "plain" or busy > 0.3:
        picture += 0.1 * busy * rng.random() * _noise(rng, side, int(rng.integers(3, 24)))
        picture *= 1 + rng.normal(0, 0.3) * busy * (x - 0.5) + rng.normal(0, 0.3) * busy * (y - 0.5)
    return np.clip(picture, 0, 1, out=picture)


def _pattern(kind: str, rng: Rng, side: int) -> Array:
    """How much of a background's second colour each pixel has, [side, side]."""
    x, y = _grid(side)
    period, angle = rng.uniform(0.06, 0.5), rng.uniform(0, math.pi)
    u, v = x * math.cos(angle) + y * math.sin(angle), y * math.cos(angle) - x * math.sin(angle)
    if kind == "gradient":
        return f32(u * rng.uniform(0.3, 1))
    if kind == "noise":
        return f32(0.5 + 0.5 * _noise(rng, side, int(rng.integers(2, 16))))
    if kind == "stripes":
        return f32(np.clip(np.sin(u * (2 * math.pi / period)) * rng.uniform(1, 4) + 0.5, 0, 1))
    if kind == "curtain":
        folds = np.sin(x * (2 * math.pi / rng.uniform(0.06, 0.2)) + 2 * _noise(rng, side, 3)[:1] + rng.uniform(0, 6))
        return f32(0.5 + 0.35 * folds + 0.3 * _noise(rng, side, 4)[:1] + 0.1 * np.sin(y * 4 + rng.uniform(0, 6)))
    if kind == "checker":
        return f32(np.clip(np.sin(u * (math.pi / period)) * np.sin(v * (math.pi / period)) * 4 + 0.5, 0, 1))
    if kind == "bricks":
        shift = 0.5 * (np.floor(y / 0.12) % 2)
        return f32((np.abs((y / 0.12) % 1 - 0.5) > 0.42) | (np.abs((x / 0.25 + shift) % 1 - 0.5) > 0.45))
    if kind == "ripples":
        return f32(0.5 + 0.5 * np.sin((y + 0.03 * np.sin(x * 9 + rng.uniform(0, 6))) * 60) * np.sin(y * 11 + 4 * x))
    if kind == "ground":
        share = 0.25 * _noise(rng, side, 4) + 0.2 * _noise(rng, side, 20)
        for _ in range(rng.integers(0, 3)):  # joints between slabs, or painted lines
            slope, level, width = rng.normal(0, 0.3), rng.uniform(0, 1), rng.uniform(0.004, 0.015)
            share = share + rng.choice([-1, 1]) * (np.abs(y - level - slope * (x - 0.5)) < width)
        return f32(share)
    return np.zeros((side, side), np.float32)


def _add_blobs(picture: Array, rng: Rng, avoid: Array) -> None:
    """Discs out of focus."""
    x, y = _grid(picture.shape[-1])
    for _ in range(rng.integers(3, 9)):
        (cx, cy), radius, soft = rng.uniform(-0.1, 1.1, 2), rng.uniform(0.05, 0.35), rng.uniform(0.03, 0.3)
        inside = f32(np.clip(0.5 + (radius - np.sqrt((x - cx) ** 2 + (y - cy) ** 2)) / soft, 0, 1))
        picture += inside * (_wall_colour(rng, avoid)[:, None, None] - picture)


def _add_furniture(picture: Array, rng: Rng, floor: float) -> None:
    """Doors, pictures, cupboards: upright boxes that stand on the floor or hang above it."""
    x, y = _grid(picture.shape[-1])
    for _ in range(rng.integers(0, 3)):
        left, top = rng.uniform(-0.2, 1), rng.uniform(-0.3, 0.5)
        right, bottom = left + rng.uniform(0.1, 0.5), min(top + rng.uniform(0.1, 0.8), floor)
        inside = f32((x > left) & (x < right) & (y > top) & (y < bottom))
        picture += inside * (any_colour(rng)[:, None, None] - picture) * np.float32(rng.uniform(0.1, 0.5))


@dataclass(frozen=True)
class Camera:
    """``zoom`` [T] about the frame's centre, then ``shift`` [T, 2] in frames: what it does to what is filmed."""

    zoom: Array
    shift: Array

    @property
    def still(self) -> bool:
        """Whether every frame shows the same view."""
        return bool((self.zoom == self.zoom[0]).all() and (self.shift == self.shift[0]).all())

    def film(self, picture: Array, size: int) -> Array:
        """A picture as of :func:`background` -> frames [3, T, size, size], by bilinear sampling."""
        side = picture.shape[-1]
        count = 1 if self.still else len(self.zoom)
        frame = (np.arange(size) + 0.5) / size
        axes = []
        for axis in range(2):
            at = (frame[None] - 0.5 - self.shift[:count, axis, None]) / self.zoom[:count, None] + 0.5
            at = np.clip((at + MARGIN) / (1 + 2 * MARGIN) * side - 0.5, 0, side - 1.001)
            low = at.astype(np.int64)
            axes.append((low, f32(at - low)))
        (x, x_share), (y, y_share) = axes
        frames = np.empty((3, len(self.zoom), size, size), np.float32)
        for t in range(count):
            rows = picture[:, y[t]]
            rows += (picture[:, y[t] + 1] - rows) * y_share[t][:, None]
            left = np.take(rows, x[t], axis=2)
            left += (np.take(rows, x[t] + 1, axis=2) - left) * x_share[t]
            frames[:, t] = left
        if count == 1:
            frames[:, 1:] = frames[:, :1]
        return frames


def choose_camera(rng: Rng, times: np.ndarray, busy: float) -> Camera:
    """Held still, shaking smoothly as on a head or jerkily as in a hand, panning, or zooming slowly."""
    count = len(times)
    zoom, shift = np.ones(count), np.zeros((count, 2))
    if rng.random() < 0.65 * busy:  # a head is never still
        strength = busy * (0.012 if rng.random() < 0.7 else 0.03)
        for _ in range(3):
            size, speed, phase = rng.normal(0, strength, 2), rng.uniform(3, 22), rng.uniform(0, 6.3, 2)
            shift += size * np.sin(speed * times[:, None] + phase)
    if rng.random() < 0.15 * busy:
        shift += _wander(rng, times, 0.012, 24)
    if rng.random() < 0.25 * busy:
        shift += rng.normal(0, 0.08, 2) * (times[:, None] - 0.5)
    if rng.random() < 0.2 * busy:
        zoom *= np.exp(rng.normal(0, 0.08) * (times - 0.5))
    return Camera(f32(zoom), f32(np.clip(shift, -0.15, 0.15)))


def _wander(rng: Rng, times: np.ndarray, spread: float, knots: int) -> Array:
    """Random numbers of a standard deviation at evenly spread moments, two of them, and straight lines between."""
    values = rng.normal(0, spread, (knots, 2))
    moments = np.linspace(0, 1, knots)
    return f32(np.stack([np.interp(times, moments, values[:, i]) for i in range(2)], 1))


@functools.cache
def _grain() -> Array:
    """Sensor noise to cut pieces from: drawing it anew for every clip would cost more than all the shapes."""
    return f32(np.random.default_rng(0).standard_normal(1 << 20))


def develop(frames: Array, rng: Rng, busy: float, times: np.ndarray) -> np.ndarray:
    """Light, lens, sensor and codec: frames [3, T, H, W] in 0..1 -> uint8 [T, 3, H, W]."""
    size = frames.shape[2]
    if rng.random() < 0.5 * busy:
        light = np.exp(
            rng.normal(-0.08, 0.3) + rng.normal(0, 0.15) * (times - 0.5) + rng.normal(0, 0.03) * np.sin(9 * times)
        )
        frames *= f32(np.maximum(light, 0.45))[None, :, None, None]
    if rng.random() < 0.3 * busy:
        frames *= _exposure(frames, rng, times)[None, :, None, None]
    if rng.random() < 0.4 * busy:  # white balance, which may drift
        drift = rng.normal(0, 0.08, (3, 1)) * (times - 0.5) if rng.random() < 0.3 else 0.0
        frames *= f32(1 + rng.normal(0, 0.08, (3, 1)) + drift + np.zeros((3, len(times))))[:, :, None, None]
    if rng.random() < 0.3 * busy:  # the curve of the sensor
        np.power(np.maximum(frames, 0, out=frames), np.float32(np.exp(rng.normal(0, 0.3))), out=frames)
    if rng.random() < 0.06 * busy:  # hardly any light
        frames *= np.float32(rng.uniform(0.15, 0.45))
    if rng.random() < 0.3 * busy:  # contrast
        frames = (frames - np.float32(0.5)) * np.float32(rng.uniform(0.6, 1.3)) + np.float32(0.5 + rng.normal(0, 0.05))
    if rng.random() < 0.45 * busy:
        _soften(frames, np.float32(rng.uniform(0.1, 0.9)) * np.float32(0.5))
    if rng.random() < 0.35 * busy and size % 8 == 0:
        _blocks(frames, 4 if rng.random() < 0.5 else 8, np.float32(rng.uniform(0.1, 0.5)))
    if rng.random() < 0.6 * busy:
        amount = np.float32(abs(rng.normal(0, 0.03)))
        total = frames.size
        if total <= 1 << 19:
            start = int(rng.integers(0, (1 << 20) - total))
            frames += amount * _grain()[start : start + total].reshape(frames.shape)
        else:
            frames += amount * rng.standard_normal(frames.shape, np.float32)
    frames = frames * np.float32(255) + np.float32(0.5)
    np.clip(frames, 0, 255, out=frames)
    return np.ascontiguousarray(frames.astype(np.uint8).transpose(1, 0, 2, 3))


def _exposure(frames: Array, rng: Rng, times: np.ndarray) -> Array:
    """Gains [T] of a camera that drifts, or that follows the mean light of [3, T, H, W] late and in part."""
    if rng.random() < 0.5:
        return f32(np.exp(_wander(rng, times, 0.25, int(rng.integers(2, 6)))[:, 0]))
    mean = frames.mean((0, 2, 3)) + np.float32(0.05)
    if rng.random() < 0.5 and len(mean) > 1:  # it reacts to the frame before
        mean = np.concatenate([mean[:1], mean[:-1]])
    return np.clip((mean.mean() / mean) ** np.float32(rng.uniform(0.3, 1.5)), 0.4, 2.5)


def _soften(frames: Array, amount: np.float32) -> None:
    """Each pixel gives ``amount`` of itself to its neighbours, along both axes."""
    for turned in (frames, frames.swapaxes(2, 3)):
        middle = turned[..., 1:-1]
        change = turned[..., :-2] + turned[..., 2:]
        change *= np.float32(0.5)
        change -= middle
        change *= amount
        middle += change


def _blocks(frames: Array, side: int, share: np.float32) -> None:
    """Mix in the mean of each block, as codecs do when bits are short."""
    channels, count, size, _ = frames.shape
    blocks = frames.reshape(channels, count, size // side, side, size // side, side)
    rows = blocks.sum(5)
    mean = rows.sum(3) / np.float32(side * side)
    blocks += (mean[:, :, :, None, :, None] - blocks) * share
