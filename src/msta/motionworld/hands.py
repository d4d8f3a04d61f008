"""A hand on a forearm that reaches in from an edge of the frame, as a camera on a head or a chest sees one's own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from msta.motionworld.paths import Rng
from msta.motionworld.raster import MAIN, NOBODY, Array, Layer, Texture, Vectors, f32, limb
from msta.motionworld.things import TEXTURES, any_colour, any_skin

# Where the elbow lies, (x from..to, y from..to) in frames, and how often: mostly below, the right hand more often.
_ELBOWS = {
    "bottom right": ((0.75, 1.45), (1.15, 1.6), 0.45),
    "bottom": ((0.3, 0.7), (1.3, 1.6), 0.12),
    "bottom left": ((-0.45, 0.25), (1.15, 1.6), 0.2),
    "right": ((1.3, 1.6), (0.3, 0.9), 0.1),
    "left": ((-0.6, -0.3), (0.3, 0.9), 0.08),
    "top": ((0.2, 0.8), (-0.6, -0.3), 0.05),
}
POSES = ("pointing", "pointing", "pointing", "pointing", "two fingers", "fist", "open")


@dataclass(frozen=True)
class Hand:
    """A hand's looks and bearing, fixed over a clip. Lengths are in frames.

    Attributes:
        pose: pointing, two fingers, fist or open.
        elbow: where the forearm comes from, off the frame.
        follow: how much of the tip's way the elbow goes too, 0..1.
        scale: 1 is a finger of 0.15.
        upright: 0 points along the forearm, 1 points up (away from the elbow's edge).
        tilt: of the upright direction, in radians.
        thumb: side of the thumb, -1 or 1.
    """

    pose: str
    elbow: Vectors
    edge: str
    follow: float
    scale: float
    upright: float
    tilt: float
    thumb: int
    skin: Array
    sleeve: float
    sleeve_colour: Array
    sleeve_texture: str
    sleeve_second: Array
    glove: bool
    shade: float
    shadow: Vectors | None

    def entry(self, tip: Vectors) -> Vectors:
        """A place just off the frame from which the tip would come to ``tip``."""
        way = self.elbow - tip
        return tip + way * (0.75 + 0.15 * abs(way[0]))


def choose_hand(rng: Rng, busy: float, pose: str | None = None) -> Hand:
    """A random hand."""
    edges = list(_ELBOWS)
    edge = edges[rng.choice(len(edges), p=[row[2] for row in _ELBOWS.values()])]
    (left, right), (top, bottom), _ = _ELBOWS[edge]
    glove = rng.random() < 0.08
    skin = any_skin(rng)
    light = rng.uniform(0.7, 1.15)  # against a window a hand is dark
    return Hand(
        pose=pose or POSES[rng.integers(len(POSES))],
        elbow=np.array([rng.uniform(left, right), rng.uniform(top, bottom)]),
        edge=edge,
        follow=rng.uniform(0.05, 0.75),
        scale=rng.uniform(0.85, 2.0),
        upright=rng.uniform(0.35, 0.95),
        tilt=rng.normal(0, 0.2),
        thumb=1 if "left" in edge else -1,
        skin=f32(np.clip((any_colour(rng) if glove else skin) * light, 0.02, 0.98)),
        sleeve=rng.uniform(0.12, 0.8) if rng.random() < 0.6 else 2.0,
        sleeve_colour=any_colour(rng),
        sleeve_texture=list(TEXTURES.values())[rng.integers(len(TEXTURES))] if rng.random() < 0.35 else "",
        sleeve_second=any_colour(rng),
        glove=glove,
        shade=rng.uniform(0, 0.45),
        shadow=rng.normal(0, 0.06, 2) + np.array([0.05, 0.04]) if rng.random() < 0.35 * busy else None,
    )


def hand_layers(
    hand: Hand, tip: Array, swing: Array | None = None, blur: Array | None = None
) -> tuple[list[Layer], Array]:
    """The layers of a hand, and where its fingertip is: at ``tip`` [T, 2], or beside it where ``swing`` [T] (radians)
    turns the hand about its wrist.
    """
    s = hand.scale
    elbow = hand.elbow + hand.follow * (tip - tip.mean(0))
    arm = _unit(tip - elbow)
    up = np.array([np.sin(hand.tilt), -np.cos(hand.tilt)])
    if hand.edge == "top":
        up = -up
    elif hand.edge in ("left", "right"):
        up = np.array([0.6 if hand.edge == "left" else -0.6, -0.8])
    pointing = _unit((1 - hand.upright) * arm + hand.upright * up)
    palm_up = _unit(pointing + 0.8 * arm)
    fingers = {"pointing": 0.15, "two fingers": 0.15, "fist": 0.0, "open": 0.12}[hand.pose] * s
    knuckle = tip - pointing * fingers
    wrist = knuckle - palm_up * 0.15 * s
    if swing is not None:
        knuckle, palm_up = wrist + _turned(knuckle - wrist, swing), _turned(palm_up, swing)
        tip, pointing = f32(wrist + _turned(tip - wrist, swing)), _turned(pointing, swing)
    side = _across(palm_up) * hand.thumb

    forearm = [limb(wrist, elbow, 0.055 * s, 0.115 * s)]
    fist = [
        limb(wrist + palm_up * 0.02 * s, knuckle - palm_up * 0.045 * s, 0.052 * s, 0.062 * s),
        limb(
            knuckle - palm_up * 0.05 * s - side * 0.03 * s,
            knuckle - palm_up * 0.02 * s + side * 0.02 * s,
            0.045 * s,
            0.04 * s,
        ),
    ]
    if hand.pose in ("pointing", "two fingers"):
        base = knuckle + side * 0.025 * s
        fist.append(limb(base - palm_up * 0.03 * s, tip, 0.028 * s, 0.017 * s))
        if hand.pose == "two fingers":
            other = tip - side * 0.045 * s - pointing * 0.01 * s
            fist.append(limb(knuckle - side * 0.015 * s, other, 0.027 * s, 0.018 * s))
    elif hand.pose == "open":
        for k, spread in enumerate((-0.32, -0.1, 0.1, 0.32)):
            reach = fingers * (1.0, 1.12, 1.05, 0.85)[k] * 1.15
            root = knuckle + side * (0.04 - 0.027 * k) * s
            fist.append(limb(root, root + _turned(pointing, -spread * hand.thumb) * reach, 0.023 * s, 0.016 * s))
    thumb_tip = wrist + palm_up * 0.1 * s + side * (0.11 if hand.pose == "open" else 0.07) * s
    fist.append(limb(wrist + palm_up * 0.03 * s + side * 0.02 * s, thumb_tip, 0.035 * s, 0.022 * s))

    layers = []
    if hand.shadow is not None:
        cast = [part.moved(np.ones(len(tip), np.float32), f32(hand.shadow)) for part in forearm + fist]
        soft = np.full(len(tip), 0.05, np.float32)
        layers.append(Layer(cast, f32([0.08, 0.08, 0.1]), opacity=np.full(len(tip), 0.35, np.float32), blur=soft))
    layers.append(Layer(forearm, hand.skin, shade=hand.shade, blur=blur, owner=NOBODY))
    if hand.sleeve < 1:
        cuff = wrist + (elbow - wrist) * hand.sleeve
        texture = None
        if hand.sleeve_texture:
            angle = f32(np.arctan2(arm[:, 1], arm[:, 0]))
            texture = Texture(hand.sleeve_texture, hand.sleeve_second, 0.09 * s, f32(cuff), angle)
        radius = 0.062 + 0.06 * hand.sleeve
        layers.append(Layer([limb(cuff, elbow, radius * s, 0.135 * s)], hand.sleeve_colour, texture=texture, blur=blur))
    layers.append(Layer(fist, hand.skin, shade=hand.shade, blur=blur, owner=MAIN))
    if hand.pose != "open":  # the folded fingers
        folds = []
        for k in range(3):
            middle = knuckle - palm_up * 0.055 * s + side * (0.0 - 0.026 * k) * s
            folds.append(limb(middle, middle + palm_up * 0.035 * s, 0.012 * s, 0.011 * s))
        layers.append(Layer(folds, f32(hand.skin * 0.78), blur=blur, owner=MAIN))
    return layers, tip


def _unit(vectors: Vectors | Array) -> Vectors:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-6), np.float64)


def _across(vectors: Vectors) -> Vectors:
    return np.stack([-vectors[:, 1], vectors[:, 0]], 1)


def _turned(vectors: Vectors, angle: Array | float) -> Vectors:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.stack([vectors[:, 0] * cos - vectors[:, 1] * sin, vectors[:, 0] * sin + vectors[:, 1] * cos], 1)
