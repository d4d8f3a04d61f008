"""What people do, alone and to each other: the choreography of walks, handshakes, hugs, kicks, punches, …

Everything is set up as if the one who acts stood on the left and looked right; half of the clips are mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msta.motionworld.figures import (
    ARM,
    LEG,
    TORSO,
    Body,
    Outfit,
    Pose,
    choose_outfit,
    ground_shadow,
    pose_body,
    shoulder_of,
)
from msta.motionworld.paths import Rng, smooth
from msta.motionworld.raster import MAIN, OTHER, Layer, Numbers, Vectors


@dataclass
class Encounter:
    """Layers back to front; the acting point (hand, foot, or body when walking) and the other person, [T, 2]."""

    layers: list[Layer]
    point: Vectors
    other: Vectors | None
    people: int


def _pulse(times: Numbers, start: float, rise: float, hold: float, fall: float) -> Numbers:
    return smooth(times, start, start + rise) * (1 - smooth(times, start + rise + hold, start + rise + hold + fall))


def _no_hands(count: int) -> list[tuple[Vectors, Numbers]]:
    return [(np.zeros((count, 2)), np.zeros(count)) for _ in range(2)]


def _mirror(pose: Pose) -> Pose:
    def flip(points: Vectors) -> Vectors:
        return np.stack([1 - points[:, 0], points[:, 1]], 1)

    foot = None if pose.foot is None else (flip(pose.foot[0]), pose.foot[1])
    return Pose(1 - pose.x, pose.ground, -pose.facing, pose.lean, [(flip(p), w) for p, w in pose.hands], foot)


def stage(motion: str, times: Numbers, rng: Rng) -> Encounter:
    """One or two people doing ``motion`` at ``times`` [T] in 0..1."""
    height = rng.choice([rng.uniform(0.45, 0.65), rng.uniform(0.65, 0.88), rng.uniform(0.88, 1.2)], p=[0.25, 0.55, 0.2])
    ground = min(rng.uniform(0.5, 0.62) + height / 2, 0.97) if height < 0.9 else 0.45 + height / 2
    if motion in ("walk left", "walk right", "wave") or (motion == "point" and rng.random() < 0.5):
        return _alone(motion, times, rng, height, ground)
    return _together(motion, times, rng, height, ground)


def _alone(motion: str, times: Numbers, rng: Rng, height: float, ground: float) -> Encounter:
    outfit, count = choose_outfit(rng, height), len(times)
    x = np.full(count, rng.uniform(0.35, 0.65))
    if motion.startswith("walk"):
        way = rng.uniform(0.45, 1.1)
        x = (
            0.5
            - way / 2
            + way * np.clip((times - rng.uniform(0, 0.1)) / rng.uniform(0.85, 1), 0, 1)
            + rng.normal(0, 0.06)
        )
    pose = Pose(x, np.full(count, ground), 1, np.full(count, rng.normal(0.03, 0.03)), _no_hands(count))
    shoulder = shoulder_of(outfit, pose)
    if motion == "wave":
        arm = _pulse(times, rng.uniform(0, 0.15), 0.15, rng.uniform(0.45, 0.7), 0.15)
        beat = np.sin(2 * np.pi * rng.uniform(2, 3.2) * times + rng.uniform(0, 6))
        side = rng.uniform(0.05, 0.2)
        target = shoulder + outfit.height * np.stack(
            [side + 0.13 * beat, np.full(count, -0.32) + 0.03 * np.abs(beat)], 1
        )
        pose.hands[1] = (target, arm)
    elif motion == "point":
        pose.hands[1] = _pointing(outfit, shoulder, times, rng)
    mirrored = motion == "walk left" or (motion != "walk right" and rng.random() < 0.5)
    if mirrored:
        pose = _mirror(pose)
    body = pose_body(outfit, pose, times, rng.uniform(0, 6.28), MAIN)
    point = body.chest if motion.startswith("walk") else body.hand
    return Encounter([ground_shadow(outfit, pose), *body.layers], point, None, 1)


def passers_by(rng: Rng, times: Numbers) -> list[Layer]:
    """One or two people behind who stand, or walk by."""
    layers: list[Layer] = []
    for _ in range(rng.integers(1, 3)):
        height, count = rng.uniform(0.35, 0.7), len(times)
        x = rng.uniform(0, 1) + (rng.normal(0, 0.4) * (times - 0.5) if rng.random() < 0.6 else np.zeros(count))
        ground = np.full(count, rng.uniform(0.3, 0.75))
        facing = 1 if count < 2 or x[-1] >= x[0] else -1
        pose = Pose(x, ground, facing, np.full(count, 0.03), _no_hands(count))
        layers += pose_body(choose_outfit(rng, height), pose, times, rng.uniform(0, 6.28)).layers
    return layers


def _pointing(outfit: Outfit, shoulder: Vectors, times: Numbers, rng: Rng) -> tuple[Vectors, Numbers]:
    angle = rng.normal(0.05, 0.15)
    aim = ARM * outfit.height * 1.0 * np.array([np.cos(angle), -np.sin(angle)])
    return shoulder + aim, _pulse(times, rng.uniform(0.08, 0.35), rng.uniform(0.06, 0.15), rng.uniform(0.25, 0.5), 0.12)


def _together(motion: str, times: Numbers, rng: Rng, height: float, ground: float) -> Encounter:
    count = len(times)
    outfits = choose_outfit(rng, height), choose_outfit(rng, height)
    walk = _Walk(motion, times, rng, height)
    level = ground + rng.normal(0, 0.012)
    a = Pose(walk.left, np.full(count, ground), 1, rng.normal(0.02, 0.03) + walk.lean_left, _no_hands(count))
    b = Pose(walk.right, np.full(count, level), -1, rng.normal(0.02, 0.03) + walk.lean_right, _no_hands(count))
    if motion == "move apart":
        a.facing, b.facing = -1, 1
    elif motion == "follow":
        b.facing = 1
    _act(motion, times, rng, walk, outfits, a, b)
    if rng.random() < 0.5:
        a, b = _mirror(a), _mirror(b)
    first = pose_body(outfits[0], a, times, rng.uniform(0, 6.28), MAIN)
    second = pose_body(outfits[1], b, times, rng.uniform(0, 6.28), OTHER)
    bodies = [second.layers, first.layers] if rng.random() < 0.75 else [first.layers, second.layers]
    layers = [ground_shadow(outfits[0], a), ground_shadow(outfits[1], b), *bodies[0], *bodies[1]]
    return Encounter(layers, _acting_point(motion, first), second.chest, 2)


def _acting_point(motion: str, body: Body) -> Vectors:
    if motion in ("approach", "move apart", "follow"):
        return body.chest
    return body.foot if motion == "kick" else body.hand


class _Walk:
    """Where two people stand over time, and how they lean: they come together, something happens, they may part.

    ``meet`` is the moment they stand at the right distance; ``hits`` the moments of contact; ``over`` when it ends.
    """

    def __init__(self, motion: str, times: Numbers, rng: Rng, height: float) -> None:
        far = rng.uniform(0.7, 1.6) * max(height, 0.6)
        close = (
            height
            * {
                "handshake": rng.uniform(0.5, 0.68),
                "hug": rng.uniform(0.1, 0.19),
                "punch": rng.uniform(0.42, 0.55),
                "kick": rng.uniform(0.5, 0.66),
                "push": rng.uniform(0.4, 0.52),
                "point": rng.uniform(0.7, 1.1),
                "approach": rng.uniform(0.25, 0.5),
                "move apart": rng.uniform(0.2, 0.4),
                "follow": rng.uniform(0.45, 0.8),
            }[motion]
        )
        at_once = motion in ("punch", "kick", "push", "point") and rng.random() < 0.35
        start = rng.uniform(0, 0.18)
        self.meet = start + rng.uniform(0.05, 0.12) if at_once else start + rng.uniform(0.16, 0.35)
        self.lean_left, self.lean_right = np.zeros(len(times)), np.zeros(len(times))
        distance = far + (close - far) * smooth(times, start, self.meet)
        if at_once:
            distance = np.full(len(times), close)
        length = {"handshake": (0.2, 0.4), "hug": (0.25, 0.5), "point": (0.3, 0.5)}.get(motion, (0.16, 0.28))
        self.over = self.meet + rng.uniform(*length)
        share = rng.choice([0.5, 1.0, 0.0, rng.random()], p=[0.35, 0.35, 0.1, 0.2])  # who walks: both, one, the other
        centre = rng.normal(0.5, 0.05)
        knocked = np.zeros(len(times))
        hit = self.meet + 0.07
        if motion == "push":
            knocked = height * rng.uniform(0.2, 0.5) * smooth(times, hit, hit + rng.uniform(0.15, 0.3))
            self.lean_left = 0.4 * rng.uniform(0.5, 1) * _pulse(times, self.meet - 0.03, 0.1, 0.1, 0.15)
            self.lean_right = -rng.uniform(0.15, 0.45) * _pulse(times, hit, 0.06, 0.05, 0.2)
        elif motion in ("punch", "kick"):
            knocked = height * rng.uniform(0.0, 0.22) * smooth(times, hit + 0.02, hit + 0.2)
            self.lean_right = -rng.uniform(0.05, 0.5) * _pulse(times, hit + 0.02, 0.06, 0.05, 0.2)
            lean = 0.2 if motion == "punch" else -0.4
            self.lean_left = lean * rng.uniform(0.4, 1) * _pulse(times, self.meet, 0.08, 0.08, 0.15)
            stoop = rng.uniform(0, 0.5) if rng.random() < 0.4 else 0.0  # out of breath, or carried on by the swing
            self.lean_left = self.lean_left + stoop * smooth(times, self.meet + 0.2, self.meet + 0.4)
        if motion in ("handshake", "hug") and rng.random() < 0.65:
            distance = distance + (far * rng.uniform(0.5, 1) - close) * smooth(times, self.over + 0.05, 1.05)
        if motion == "hug":
            self.lean_left = self.lean_right = 0.12 * _pulse(times, self.meet - 0.05, 0.1, self.over - self.meet, 0.1)
        self.left = centre - distance * share
        self.right = centre + distance * (1 - share) + knocked
        if motion == "approach":
            self._pass(times, far, close, share, centre, smooth(times, start, rng.uniform(0.75, 1)))
        elif motion == "move apart":
            self._pass(times, close, far, share, centre, smooth(times, start, rng.uniform(0.8, 1)))
        elif motion == "follow":
            way = rng.uniform(0.5, 0.9)
            self.left = centre - way / 2 - close / 2 + way * times
            self.right = self.left + close + 0.05 * np.sin(times * 5 + rng.uniform(0, 6))
        else:  # the middle of what happens in the middle of the frame
            middle = (self.left + self.right)[np.argmin(np.abs(times - self.meet))] / 2
            self.left, self.right = self.left + centre - middle, self.right + centre - middle

    def _pass(self, times: Numbers, start: float, end: float, share: float, centre: float, u: Numbers) -> None:
        distance = start + (end - start) * u
        self.left = centre - distance * share + (share - 0.5) * max(start, end)
        self.right = self.left + distance


def _act(motion: str, times: Numbers, rng: Rng, walk: _Walk, outfits: tuple[Outfit, Outfit], a: Pose, b: Pose) -> None:
    """Give both poses the hands and feet of the motion."""
    h = outfits[0].height
    chest_a, chest_b = shoulder_of(outfits[0], a), shoulder_of(outfits[1], b)
    lasting = _pulse(times, walk.meet - 0.06, 0.1, walk.over - walk.meet, 0.1)
    down = np.array([0.0, 1.0])
    if motion == "handshake":
        shake = 0.025 * h * np.sin(2 * np.pi * times / rng.uniform(0.07, 0.2)) * lasting
        middle = (chest_a + chest_b) / 2 + down * TORSO * h * rng.uniform(0.35, 0.75)
        middle = middle + shake[:, None] * down
        a.hands[1], b.hands[1] = (middle, lasting), (middle, lasting)
    elif motion == "hug":
        low = rng.uniform(0.05, 0.2, 4) * h
        a.hands = [(chest_b + down * low[k] + np.array([0.05 * h, 0]), lasting) for k in range(2)]
        b.hands = [(chest_a + down * low[2 + k] - np.array([0.05 * h, 0]), lasting) for k in range(2)]
        if rng.random() < 0.3:
            b.hands[0] = (b.hands[0][0], b.hands[0][1] * 0)
    elif motion == "punch":
        blows: Numbers = np.zeros(len(times))
        for k in range(int(rng.choice([1, 2], p=[0.75, 0.25]))):
            blows = np.maximum(blows, _pulse(times, walk.meet + 0.2 * k, 0.07, rng.uniform(0.03, 0.08), 0.09))
        target = chest_b + down * rng.uniform(-0.14, 0.06) * h  # at the face, or at the chest
        guard = chest_a + np.array([0.1 * h, 0.08 * h])
        ready = _pulse(times, walk.meet - 0.1, 0.1, walk.over - walk.meet, 0.15)
        a.hands[1] = (guard + blows[:, None] * (target - guard), np.maximum(ready, blows))
        a.hands[0] = (guard, ready * rng.uniform(0, 1))
        if rng.random() < 0.4:
            b.hands[1] = (chest_b + np.array([-0.06 * h, -0.1 * h]), _pulse(times, walk.meet + 0.06, 0.08, 0.1, 0.2))
    elif motion == "kick":
        blow = _pulse(times, walk.meet, rng.uniform(0.08, 0.13), rng.uniform(0.03, 0.08), rng.uniform(0.1, 0.16))
        hips = np.stack([b.x, b.ground - LEG * outfits[1].height * rng.uniform(0.75, 1.35)], 1)
        a.foot = (hips - np.array([0.06 * h, 0]), blow)
        a.hands = [(chest_a + np.array([x * h, 0.14 * h]), blow * 0.8) for x in (0.15, -0.2)]
        if rng.random() < 0.4:
            b.hands[1] = (hips, blow)
    elif motion == "push":
        shove = _pulse(times, walk.meet - 0.05, 0.09, rng.uniform(0.08, 0.16), 0.12)
        height = rng.uniform(0.0, 0.1) * h
        # held out straight once the other has gone
        reach = np.minimum(chest_b[:, 0] - chest_a[:, 0] - 0.04 * h, ARM * h)
        target = chest_a + np.stack([reach, np.full(len(times), height)], 1)
        a.hands = [(target + np.array([0, -0.02 * h]), shove), (target + np.array([0, 0.02 * h]), shove)]
        if rng.random() < 0.5:
            b.hands = [(chest_b + np.array([-0.2 * h, -0.02 * h]), _pulse(times, walk.meet + 0.08, 0.1, 0.05, 0.2))] * 2
    elif motion == "point":
        a.hands[1] = _pointing(outfits[0], chest_a, times, rng)
