"""One clip, put together: who does the motion, where, before what, filmed how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from msta.motionworld import encounters, surroundings
from msta.motionworld.hands import choose_hand, hand_layers
from msta.motionworld.motions import PAIRS, PEOPLE
from msta.motionworld.paths import COMPOSED, MOVES, SHAPES, Path, Points, Rng, draw, smooth
from msta.motionworld.raster import MAIN, OTHER, Array, Canvas, Layer, Numbers, f32, move
from msta.motionworld.surroundings import Camera
from msta.motionworld.things import Looks, choose_looks, sprite


@dataclass
class Cast:
    """What a caption may speak of.

    Attributes:
        kind: hand, thing, person, or people (two).
        looks: of the main thing and of the second, for kind "thing".
        pose: of a hand.
        scenery: phrases for the background.
    """

    kind: str
    looks: list[Looks] = field(default_factory=list)
    pose: str = ""
    scenery: tuple[str, ...] = ()


@dataclass
class Scene:
    """Layers back to front, and where the main and the other thing are, [T, 2] in frames; NaN where there is none."""

    cast: Cast
    layers: list[Layer]
    main: Array
    other: Array
    shown: Array

    def filmed(self, camera: Camera) -> Scene:
        """As the camera sees it."""
        layers = [layer.moved(camera.zoom, camera.shift) for layer in self.layers]
        main, other = (move(p, camera.zoom, camera.shift) for p in (self.main, self.other))
        return replace(self, layers=layers, main=main, other=other)


def compose(motion: str, rng: Rng, times: Numbers, busy: float, shifted: bool) -> Scene:
    """A random scene of ``motion``, at ``times`` [T] in 0..1."""
    if motion in PEOPLE or (motion in ("approach", "move apart", "follow") and rng.random() < 0.5):
        if motion == "wave" and rng.random() < 0.5:
            return _waving_hand(rng, times, busy)
        if motion == "push" and rng.random() < 0.2:
            return _things(motion, rng, times, busy, shifted)
        return _people(motion, rng, times)
    if motion in {**SHAPES, **MOVES, **COMPOSED}:
        by_hand = motion != "bounce" and rng.random() < (0.3 if shifted else 0.6)
        return _hand(motion, rng, times, busy) if by_hand else _traced(motion, rng, times, busy, shifted)
    if motion in PAIRS:
        return _things(motion, rng, times, busy, shifted)
    return _change(motion, rng, times, busy, shifted)


def _blur(points: Array, times: Numbers, rng: Rng, busy: float) -> Array | None:
    """Width of the soft edges that speed leaves at a random exposure time."""
    if len(times) < 2 or rng.random() > 0.6 * busy:
        return None
    speed = np.linalg.norm(np.gradient(points.astype(np.float64), times, axis=0), axis=1)
    return f32(np.clip(speed * rng.uniform(0, 0.025), 0, 0.1))


def _jitter(rng: Rng, times: Numbers, amount: float) -> Numbers:
    speed, phase = rng.uniform(8, 40, 2), rng.uniform(0, 6.3, (2, 2))
    return np.asarray(
        amount * (np.sin(speed[0] * times[:, None] + phase[0]) + np.sin(speed[1] * times[:, None] + phase[1]))
    )


def _nothing(count: int) -> Array:
    return np.full((count, 2), np.nan, np.float32)


# ---------------------------------------------------------------- hands


def _hand(motion: str, rng: Rng, times: Numbers, busy: float) -> Scene:
    hand = choose_hand(rng, busy)
    far = rng.random() < 0.25 * busy  # small in a wide scene
    if far:
        hand = replace(hand, scale=rng.uniform(0.45, 0.9))
    # not quite inside: square crops of wide frames cut gestures off; and room for the hand behind its fingertip
    left, right = rng.uniform(-0.12, 0.12), 1 - rng.uniform(-0.12, 0.12)
    top, bottom = rng.uniform(-0.02, 0.12), 1 - rng.uniform(-0.02, 0.12)
    behind = rng.uniform(0.05, 0.22) * hand.scale
    if hand.edge in ("left", "right"):
        left, right = (left + behind, right) if hand.edge == "left" else (left, right - behind)
    else:
        top, bottom = (top + behind, bottom) if hand.edge == "top" else (top, bottom - behind)
    size = (0.15, 0.5) if far else (0.3, 0.95)
    path = draw(motion, rng, size=size, inside=(left, top, right, bottom), idle=0.18, cut=0.15 * busy)
    comes, goes = (rng.random() < 0.28 * busy and motion not in COMPOSED for _ in range(2))
    path = _from_the_edge(path, hand.entry, comes, goes, rng)
    tip = f32(path.at(times) + _jitter(rng, times, rng.uniform(0, 0.005)))
    layers, _ = hand_layers(hand, tip, blur=_blur(tip, times, rng, busy))
    return Scene(Cast("hand", pose=hand.pose), layers, tip, _nothing(len(tip)), np.ones(len(tip), np.float32))


def _from_the_edge(path: Path, entry: Callable[[Points], Points], comes: bool, goes: bool, rng: Rng) -> Path:
    """Add the way into the frame, and out of it, at the cost of the time the path has."""
    strokes, moments = list(path.strokes), path.moments
    before, after = (rng.uniform(0.08, 0.16) if there else 0.0 for there in (comes, goes))
    moments = before + moments * (1 - before - after)
    if comes:
        start = strokes[0][0]
        strokes.insert(0, np.stack([entry(start), start]))
        moments = np.concatenate([[0.0], moments])
    if goes:
        end = strokes[-1][-1]
        strokes.append(np.stack([end, entry(end)]))
        moments = np.concatenate([moments, [1.0]])
    return Path(strokes, moments, path.ease)


def _waving_hand(rng: Rng, times: Numbers, busy: float) -> Scene:
    hand = replace(choose_hand(rng, busy, "open"), scale=rng.uniform(1.0, 1.9))
    count = len(times)
    place = np.array([rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.45)])
    swing = rng.uniform(0.35, 0.7) * np.sin(2 * np.pi * rng.uniform(1.8, 3) * times + rng.uniform(0, 6.3))
    tip = f32(place + rng.uniform(0, 0.08) * np.sin(swing)[:, None] * (1, 0) + np.zeros((count, 2)))
    layers, tip = hand_layers(hand, tip, swing=f32(swing))
    return Scene(Cast("hand", pose="open"), layers, tip, _nothing(count), np.ones(count, np.float32))


# ---------------------------------------------------------------- things


def _traced(motion: str, rng: Rng, times: Numbers, busy: float, shifted: bool) -> Scene:
    looks = choose_looks(rng, shifted)
    radius = rng.uniform(0.08, 0.19)
    inside = (radius * 0.7, radius * 0.7, 1 - radius * 0.7, 1 - radius * 0.7)
    path = draw(motion, rng, size=(0.3, 0.8), inside=inside, idle=0.18, cut=0.1 * busy)
    centre = f32(path.at(times) + _jitter(rng, times, rng.uniform(0, 0.003)))
    # cars and animals face where they go
    mirrored = rng.random() < 0.5
    angle = np.full(len(times), rng.normal(0, 0.15))
    if looks.silhouette.turns is False and rng.random() < 0.3 and motion in MOVES:
        angle = angle + rng.normal(0, 3) * times  # rolling
    layer = sprite(
        looks,
        centre,
        np.full(len(times), radius, np.float32),
        f32(angle),
        mirrored=mirrored,
        blur=_blur(centre, times, rng, busy),
    )
    return Scene(Cast("thing", [looks]), [layer], centre, _nothing(len(times)), np.ones(len(times), np.float32))


def _change(motion: str, rng: Rng, times: Numbers, busy: float, shifted: bool) -> Scene:
    count = len(times)
    looks = choose_looks(rng, shifted, turning=motion.startswith("rotate"))
    drift = rng.normal(0, 0.04, 2) * busy * (times[:, None] - 0.5)
    centre = f32(rng.uniform(0.3, 0.7, 2) + drift)
    radius, angle = np.full(count, rng.uniform(0.12, 0.3)), np.full(count, rng.uniform(-0.3, 0.3))
    opacity: Array | None = None
    start, end = rng.uniform(0, 0.2), rng.uniform(0.8, 1)
    course = smooth(times, start, end) if rng.random() < 0.5 else np.clip((times - start) / (end - start), 0, 1)
    if motion in ("grow", "shrink", "grow then shrink", "shrink then grow"):
        small, large = rng.uniform(0.04, 0.13), rng.uniform(0.25, 0.48)
        there_and_back = np.minimum(course, 1 - course) * 2
        share = {"grow": course, "shrink": 1 - course, "grow then shrink": there_and_back}.get(
            motion, 1 - there_and_back
        )
        radius = small + (large - small) * share
    elif motion.startswith("rotate"):
        way = 1 if motion == "rotate clockwise" else -1  # y points down: a growing angle turns clockwise
        radius = np.full(count, rng.uniform(0.16, 0.34))
        angle = rng.uniform(0, 6.3) + way * rng.uniform(1.6, 6.0) * course
    elif motion in ("appear", "vanish"):
        moment, length = rng.uniform(0.3, 0.6), rng.choice([0.02, 0.25])
        there = smooth(times, moment, moment + length)
        opacity = f32(there if motion == "appear" else 1 - there)
    elif rng.random() < 0.25:
        # a hand that just stays there
        hand = choose_hand(rng, busy)
        tip = f32(np.array([rng.uniform(0.2, 0.8), rng.uniform(0.1, 0.6)]) + _jitter(rng, times, 0.003))
        layers, _ = hand_layers(hand, tip)
        return Scene(Cast("hand", pose=hand.pose), layers, tip, _nothing(count), np.ones(count, np.float32))
    layer = sprite(looks, centre, f32(radius), f32(angle), mirrored=rng.random() < 0.5, opacity=opacity)
    shown = np.ones(count, np.float32) if opacity is None else opacity
    return Scene(Cast("thing", [looks]), [layer], centre, _nothing(count), shown)


def _things(motion: str, rng: Rng, times: Numbers, busy: float, shifted: bool) -> Scene:
    """Two things; laid out along a line, which is then turned and placed."""
    count = len(times)
    looks = [choose_looks(rng, shifted), choose_looks(rng, shifted)]
    radii = rng.uniform(0.07, 0.14, 2)
    touch = float(radii.sum()) * 0.95
    zero = np.zeros(count)
    far = rng.uniform(0.5, 0.8)
    start, end = rng.uniform(0, 0.15), rng.uniform(0.8, 1)
    course = np.clip((times - start) / (end - start), 0, 1)
    both = rng.choice([0.5, 1.0, rng.random()], p=[0.6, 0.2, 0.2])
    turn = rng.normal(0, 0.25) + rng.choice([0, np.pi]) if rng.random() < 0.7 else rng.uniform(0, 2 * np.pi)
    a: Numbers = np.zeros((count, 2))
    b: Numbers = np.zeros((count, 2))
    if motion in ("approach", "move apart"):
        near_by = touch + rng.uniform(0, 0.06)
        gap = far + (near_by - far) * (course if motion == "approach" else 1 - course)
        lost = far - gap
        a, b = np.stack([-far / 2 + lost * both, zero], 1), np.stack([far / 2 - lost * (1 - both), zero], 1)
    elif motion == "collide":
        hit = rng.uniform(0.35, 0.55)
        before, after = np.clip(course / hit, 0, 1), np.clip((course - hit) / (1 - hit), 0, 1)
        gap = far + (touch - far) * before + (far - touch) * rng.uniform(0.5, 0.9) * after
        a, b = np.stack([-gap / 2, zero], 1), np.stack([gap / 2, zero], 1)
    elif motion == "push":
        hit = rng.uniform(0.3, 0.5)
        before, after = np.clip(course / hit, 0, 1), np.clip((course - hit) / (1 - hit), 0, 1)
        from_, shove = rng.uniform(-0.45, -0.35), rng.uniform(0.25, 0.45)
        rest = rng.uniform(-0.05, 0.1)
        follow = rng.choice([1.0, 0.3])
        b = np.stack([rest + shove * after, zero], 1)
        a = np.stack([from_ + (rest - touch - from_) * before + follow * shove * after, zero], 1)
    elif motion == "orbit":
        reach = max(touch * 1.1, rng.uniform(0.2, 0.34))
        angle = rng.choice([-1, 1]) * rng.uniform(4.5, 9) * course
        a = reach * np.stack([np.cos(angle), np.sin(angle)], 1)
    elif motion == "follow":
        line = draw(
            rng.choice(["swipe right", "figure eight", "circle", "swipe right"]),
            rng,
            size=(0.6, 0.75),
            inside=(0, 0, 1, 1),
            idle=0,
            cut=0,
        )
        lag = rng.uniform(0.2, 0.3)
        u = lag + times * (1 - lag)
        a, b = line.at(u - lag).astype(np.float64), line.at(u).astype(np.float64)
        a, b = a - b.mean(0), b - b.mean(0)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    place = rng.uniform(0.45, 0.55, 2)
    places = [f32(p @ matrix.T + place) for p in (a, b)]
    layers = [
        sprite(
            looks[k],
            places[k],
            np.full(count, radii[k], np.float32),
            np.zeros(count, np.float32),
            owner=(MAIN, OTHER)[k],
        )
        for k in (1, 0)
    ]
    return Scene(Cast("thing", looks), layers, places[0], places[1], np.ones(count, np.float32))


# ---------------------------------------------------------------- people


def _people(motion: str, rng: Rng, times: Numbers) -> Scene:
    staged = encounters.stage(motion, times, rng)
    other = _nothing(len(times)) if staged.other is None else f32(staged.other)
    cast = Cast("person" if staged.people == 1 else "people")
    return Scene(cast, staged.layers, f32(staged.point), other, np.ones(len(times), np.float32))


# ---------------------------------------------------------------- everything else


def render(
    scene: Scene, rng: Rng, times: Numbers, size: int, busy: float, shifted: bool
) -> tuple[NDArray[np.uint8], Scene, Canvas]:
    """Pixels uint8 [T, 3, size, size], the scene as filmed, and the canvas with its coverage."""
    outdoors = scene.cast.kind in ("person", "people")
    kind = surroundings.choose_kind(rng, busy, shifted, outdoors)
    picture = surroundings.background(rng, size, busy, kind, _colour_of_interest(scene))
    scene.cast.scenery = surroundings.WORDS[kind]
    camera = surroundings.choose_camera(rng, times, busy)
    behind = [
        layer.moved(camera.zoom, camera.shift)
        for _ in range(rng.poisson(0.8 * busy) if rng.random() < 0.5 * busy else 0)
        for layer in [_distractor(rng, times, shifted)]
    ]
    if outdoors and rng.random() < 0.25 * busy:
        behind += [layer.moved(camera.zoom, camera.shift) for layer in encounters.passers_by(rng, times)]
    filmed = scene.filmed(camera)
    canvas = Canvas(camera.film(picture, size))
    for layer in [*behind, *filmed.layers]:
        canvas.paint(layer)
    return surroundings.develop(canvas.pixels, rng, busy, times), filmed, canvas


def _colour_of_interest(scene: Scene) -> Array:
    return next((layer.colour for layer in scene.layers if layer.owner == MAIN), f32([0.5, 0.5, 0.5]))


def _distractor(rng: Rng, times: Numbers, shifted: bool) -> Layer:
    """A thing nobody speaks of: it stands still, or drifts a little."""
    count = len(times)
    drift = rng.normal(0, 0.06, 2) * (times[:, None] - 0.5) if rng.random() < 0.4 else np.zeros((count, 2))
    centre = f32(rng.uniform(0, 1, 2) + drift)
    size = np.full(count, rng.uniform(0.04, 0.12), np.float32)
    looks = choose_looks(rng, shifted)
    return sprite(looks, centre, size, np.full(count, rng.uniform(0, 6), np.float32), owner=0)
