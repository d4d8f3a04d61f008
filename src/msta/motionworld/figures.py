"""People seen from the side: a skeleton posed by where its hands and feet are (two-bone inverse kinematics)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msta.motionworld.paths import Rng
from msta.motionworld.raster import NOBODY, Array, Capsule, Layer, Numbers, Texture, Vectors, f32, limb
from msta.motionworld.things import any_colour, any_skin, near

# Shares of the body's height
LEG, TORSO, ARM, HEAD = 0.48, 0.31, 0.42, 0.075


@dataclass(frozen=True)
class Outfit:
    """A person's looks. ``height`` in frames, ``width`` 1 is slim, colours 0..1."""

    height: float
    width: float
    skin: Array
    hair: Array
    long_hair: bool
    shirt: Array
    stripes: Texture | None
    trousers: Array
    shoes: Array
    long_sleeves: bool
    coat: float


def choose_outfit(rng: Rng, height: float) -> Outfit:
    """Random clothes; trousers are mostly blue, grey, black or brown."""
    usual = f32([(0.25, 0.33, 0.5), (0.15, 0.17, 0.25), (0.1, 0.1, 0.1), (0.45, 0.42, 0.33), (0.4, 0.4, 0.42)])
    striped = Texture(
        "stripes", any_colour(rng), 0.045 * rng.uniform(0.7, 1.6) * height / 0.7, f32([[0, 0]]), f32([np.pi / 2])
    )
    hair = f32([(0.07, 0.06, 0.06), (0.2, 0.13, 0.08), (0.5, 0.37, 0.2), (0.55, 0.53, 0.5)])
    return Outfit(
        height=height * rng.uniform(0.93, 1.07),
        width=rng.uniform(1.0, 1.6),
        skin=any_skin(rng),
        hair=near(hair[rng.choice(4, p=[0.5, 0.25, 0.15, 0.1])], rng, 0.03),
        long_hair=rng.random() < 0.25,
        shirt=any_colour(rng) if rng.random() < 0.75 else near([0.9, 0.9, 0.9], rng),
        stripes=striped if rng.random() < 0.3 else None,
        trousers=near(usual[rng.integers(len(usual))], rng) if rng.random() < 0.8 else any_colour(rng),
        shoes=near([0.1, 0.1, 0.1] if rng.random() < 0.6 else [0.85, 0.85, 0.85], rng),
        long_sleeves=rng.random() < 0.55,
        coat=rng.uniform(0.05, 0.14) if rng.random() < 0.35 else 0.0,
    )


@dataclass
class Pose:
    """What a person does over time; everything is an array over T frames, places in frames.

    Attributes:
        x: between the feet when standing.
        ground: y of the feet.
        facing: 1 looks right, -1 left.
        lean: of the torso towards ``facing``, radians.
        hands: where the far and the near hand want to be [T, 2], and how much (0 hangs down, 1 there) [T].
        foot: where the near foot wants to be [T, 2], and how much [T].
    """

    x: Numbers
    ground: Numbers
    facing: int
    lean: Numbers
    hands: list[tuple[Vectors, Numbers]]
    foot: tuple[Vectors, Numbers] | None = None


@dataclass
class Body:
    """A posed person: layers to paint, and where the chest, the near hand and the near foot are, [T, 2] each."""

    layers: list[Layer]
    chest: Vectors
    hand: Vectors
    foot: Vectors


def shoulder_of(outfit: Outfit, pose: Pose) -> Vectors:
    """Where the shoulders are, [T, 2]: what reaching for someone's chest aims at."""
    h = outfit.height
    tilt = np.stack([pose.facing * np.sin(pose.lean), -np.cos(pose.lean)], 1)
    hips = np.stack([pose.x, pose.ground - LEG * h * 0.97], 1)
    return np.asarray(hips + tilt * TORSO * h)


def pose_body(outfit: Outfit, pose: Pose, times: Numbers, stride: float, owner: int = NOBODY) -> Body:
    """Joints and layers of a person. ``stride`` is the phase of the gait at the start, in radians."""
    h, facing = outfit.height, pose.facing
    count = len(times)
    tilt = np.stack([facing * np.sin(pose.lean), -np.cos(pose.lean)], 1)
    ahead = np.array([facing, 0.0])
    speed = np.gradient(pose.x, times) if count > 1 else np.zeros(1)
    walking = np.clip(np.abs(speed) / (0.6 * h), 0, 1)
    # a step for every 0.45 body heights, the feet under the body when standing
    phase = stride + pose.x * facing / (0.45 * h) * np.pi
    bob = 0.012 * h * walking * np.abs(np.sin(phase))
    hips = np.stack([pose.x, pose.ground - LEG * h * 0.97 + bob], 1)
    neck = hips + tilt * TORSO * h
    shoulder = hips + tilt * (TORSO - 0.035) * h

    feet = []
    for turn in (0.0, np.pi):
        swing = np.sin(phase + turn) * walking * 0.2 * h + np.cos(turn) * 0.03 * h * (1 - walking)
        lift = np.maximum(0, np.cos(phase + turn)) * walking * 0.06 * h
        feet.append(np.stack([pose.x + facing * swing, pose.ground - lift], 1))
    if pose.foot is not None:
        target, wish = pose.foot
        feet[1] = feet[1] + wish[:, None] * (target - feet[1])
    legs = [_reach(hips, foot, LEG * h * 0.5, LEG * h * 0.5, facing) for foot in feet]

    arms = []
    for k, turn in enumerate((np.pi, 0.0)):
        swing = np.sin(phase + turn) * walking * 0.13 * h + 0.02 * h * (1 - 2 * k) + 0.03 * h
        rest = shoulder + np.stack([facing * swing, np.full(count, ARM * h * 0.94)], 1)
        target, wish = pose.hands[k]
        arms.append(_reach(shoulder, rest + wish[:, None] * (target - rest), ARM * h * 0.5, ARM * h * 0.5, -facing))

    w = outfit.width * h
    layers: list[Layer] = []

    def add(colour: Array, *parts: Capsule, texture: Texture | None = None, shade: float = 0.25) -> None:
        layers.append(Layer(list(parts), colour, texture=texture, shade=shade, owner=owner))

    stripes = None
    if outfit.stripes is not None:
        s = outfit.stripes
        stripes = Texture(s.kind, s.colour, s.period, f32(hips), f32(np.pi / 2 + pose.lean * facing))

    def arm(k: int, dim: float) -> None:
        elbow, hand = arms[k]
        fist = hand + (hand - elbow) * 0.12
        lower = outfit.shirt if outfit.long_sleeves else outfit.skin
        add(f32(outfit.skin * dim), limb(elbow, fist, 0.02 * w, 0.024 * w))
        add(f32(lower * dim), limb(elbow, hand, 0.026 * w, 0.022 * w))
        add(f32(outfit.shirt * dim), limb(shoulder, elbow, 0.034 * w, 0.028 * w), texture=stripes)

    def leg(k: int, dim: float) -> None:
        knee, foot = legs[k]
        ankle = foot - (foot - knee) * 0.06
        toes = foot + ahead * 0.07 * h
        if k == 1 and pose.foot is not None:  # a kicking foot points on along the shin
            wish = pose.foot[1][:, None]
            shin = (foot - knee) / np.maximum(np.linalg.norm(foot - knee, axis=1, keepdims=True), 1e-6)
            up = np.stack([-shin[:, 1], shin[:, 0]], 1) * -facing
            toes = toes + wish * (foot + up * 0.07 * h - toes)
        add(f32(outfit.shoes * dim), limb(ankle, toes, 0.022 * w, 0.018 * w))
        add(f32(outfit.trousers * dim), limb(hips, knee, 0.05 * w, 0.038 * w), limb(knee, ankle, 0.038 * w, 0.028 * w))

    head = neck + tilt * (HEAD + 0.035) * h
    arm(0, 0.75)
    leg(0, 0.78)
    leg(1, 1.0)
    low = hips - tilt * outfit.coat * h
    add(outfit.shirt, limb(shoulder + tilt * 0.005 * h, low, 0.062 * w, 0.055 * w), texture=stripes)
    add(
        outfit.skin,
        limb(neck - tilt * 0.01 * h, head, 0.03 * h, 0.055 * h),
        limb(head, head + ahead * 0.02 * h, 0.055 * h, 0.045 * h),
    )
    back = head - ahead * 0.022 * h + tilt * 0.025 * h
    hair = [limb(back, back + ahead * 0.03 * h + tilt * 0.012 * h, 0.06 * h, 0.045 * h)]
    if outfit.long_hair:
        hair.append(limb(back, back - tilt * 0.13 * h, 0.045 * h, 0.035 * h))
    add(outfit.hair, *hair)
    arm(1, 1.0)
    return Body(layers, (hips + neck) / 2, arms[1][1], legs[1][1])


def ground_shadow(outfit: Outfit, pose: Pose) -> Layer:
    """The dark patch under a person's feet."""
    h = outfit.height
    middle = np.stack([pose.x, pose.ground], 1)
    part = limb(middle - np.array([0.09 * h, 0]), middle + np.array([0.12 * h, 0.0]), 0.025 * h, 0.02 * h)
    count = len(pose.x)
    return Layer(
        [part], f32([0.1, 0.1, 0.1]), opacity=np.full(count, 0.35, np.float32), blur=np.full(count, 0.03, np.float32)
    )


def _reach(root: Vectors, target: Vectors, upper: float, lower: float, bend: int) -> tuple[Vectors, Vectors]:
    """Two bones from ``root`` towards ``target``: the joint between and the end. ``bend`` 1: it points to the right."""
    way = target - root
    length = np.linalg.norm(way, axis=1)
    reach = np.clip(length, abs(upper - lower) + 1e-4, upper + lower - 1e-4)
    way = way / np.maximum(length, 1e-6)[:, None]
    cos = np.clip((upper**2 + reach**2 - lower**2) / (2 * upper * reach), -1, 1)
    sin = np.sqrt(1 - cos**2) * bend
    # for a limb that hangs down (0, 1), turning it this way takes the joint to the right
    joint = root + upper * np.stack([way[:, 0] * cos + way[:, 1] * sin, way[:, 1] * cos - way[:, 0] * sin], 1)
    return joint, root + way * reach[:, None]
