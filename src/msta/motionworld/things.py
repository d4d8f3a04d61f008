"""Things that move: balls, boxes, animals and tools as silhouettes; and colours, patterns and skins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from msta.motionworld.paths import Rng
from msta.motionworld.raster import MAIN, Array, Capsule, Layer, Part, Polygon, Texture, f32

# A silhouette is a union of capsules (x1, y1, r1, x2, y2, r2) and convex polygons ((x, y), …), some 2 x 2 in size.
_Capsule = tuple[float, float, float, float, float, float]
_Piece = _Capsule | tuple[tuple[float, float], ...]


def _ngon(n: int, radius: float = 1.0) -> tuple[tuple[float, float], ...]:
    angles = -np.pi / 2 + np.arange(n) * 2 * np.pi / n
    return tuple((float(radius * np.cos(a)), float(radius * np.sin(a))) for a in angles)


def _rays(n: int, inner: float) -> tuple[_Piece, ...]:
    return tuple((0.0, 0.0, inner, float(x) * 0.95, float(y) * 0.95, 0.04) for x, y in _ngon(n))


@dataclass(frozen=True)
class Silhouette:
    """A thing's form. ``turns``: whether a rotation of it can be seen.

    ``words`` are what it is called, none of them the name of a shape that a path can have: "a triangle" is a motion.
    """

    words: tuple[str, ...]
    pieces: tuple[_Piece, ...]
    turns: bool = True
    hollow: float = 0.0
    holes: tuple[_Piece, ...] = ()


_SQUARE = ((-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8))
SILHOUETTES = {
    "ball": Silhouette(("ball", "disc", "dot"), ((0, 0, 0.85, 0, 0, 0.85),), turns=False),
    "box": Silhouette(("box", "cube", "block"), (_SQUARE,), turns=False),
    "bar": Silhouette(("bar", "stick", "rod"), (((-1, -0.25), (1, -0.25), (1, 0.25), (-1, 0.25)),)),
    "ring": Silhouette(("hoop", "donut", "tyre"), ((0, 0, 0.75, 0, 0, 0.75),), turns=False, hollow=0.2),
    "triangle": Silhouette(("wedge", "pyramid"), (((0, -1), (0.8, 0.7), (-0.8, 0.7)),)),
    "star": Silhouette(("starfish", "sea star"), _rays(5, 0.36), turns=False),
    "hexagon": Silhouette(("hexagon", "tile"), (_ngon(6, 0.9),), turns=False),
    "diamond": Silhouette(("diamond", "kite"), (((0, -1), (0.6, 0), (0, 1), (-0.6, 0)),)),
    "fish": Silhouette(
        ("fish",), ((-0.5, 0, 0.42, 0.3, 0, 0.3), (0.4, 0, 0.1, 0.95, -0.4, 0.13), (0.4, 0, 0.1, 0.95, 0.4, 0.13))
    ),
    "cat": Silhouette(
        ("cat", "animal", "kitten"),
        (
            (-0.4, 0.1, 0.33, 0.45, 0.1, 0.3),
            (-0.65, -0.35, 0.3, -0.65, -0.35, 0.3),
            (-0.8, -0.5, 0.12, -0.88, -0.82, 0.03),
            (-0.5, -0.5, 0.12, -0.45, -0.82, 0.03),
            (-0.45, 0.3, 0.12, -0.45, 0.9, 0.1),
            (0.45, 0.3, 0.12, 0.5, 0.9, 0.1),
            (0.7, 0, 0.09, 1, -0.7, 0.07),
        ),
    ),
    "dog": Silhouette(
        ("dog", "animal", "puppy"),
        (
            (-0.4, 0, 0.28, 0.5, 0, 0.26),
            (-0.7, -0.4, 0.24, -1, -0.3, 0.14),
            (-0.55, -0.6, 0.12, -0.42, -0.25, 0.1),
            (-0.5, 0.2, 0.12, -0.5, 0.95, 0.1),
            (-0.2, 0.2, 0.1, -0.2, 0.9, 0.09),
            (0.5, 0.2, 0.13, 0.55, 0.95, 0.1),
            (0.7, -0.1, 0.1, 1, -0.45, 0.06),
        ),
    ),
    "bird": Silhouette(
        ("bird",),
        (
            (-0.3, 0, 0.3, 0.5, 0.1, 0.15),
            (-0.65, -0.25, 0.22, -0.65, -0.25, 0.22),
            (-0.85, -0.25, 0.08, -1.05, -0.2, 0.02),
            (0, 0, 0.18, 0.3, -0.8, 0.06),
            (0.5, 0.1, 0.1, 0.95, 0.2, 0.1),
        ),
    ),
    "hammer": Silhouette(("hammer", "tool"), ((0, -0.5, 0.1, 0, 1, 0.12), (-0.5, -0.7, 0.25, 0.4, -0.7, 0.25))),
    "spoon": Silhouette(("spoon",), ((0, -0.2, 0.08, 0, 1, 0.1), (0, -0.75, 0.26, 0, -0.5, 0.26))),
    "wrench": Silhouette(
        ("wrench", "spanner", "tool"),
        ((0, -0.3, 0.13, 0, 1, 0.15), (0, -0.4, 0.15, -0.3, -0.9, 0.11), (0, -0.4, 0.15, 0.3, -0.9, 0.11)),
    ),
    "car": Silhouette(
        ("car", "toy car", "vehicle"),
        (
            (-0.75, 0.15, 0.24, 0.75, 0.15, 0.24),
            (-0.3, -0.2, 0.25, 0.25, -0.2, 0.25),
            (-0.5, 0.4, 0.22, -0.5, 0.4, 0.22),
            (0.5, 0.4, 0.22, 0.5, 0.4, 0.22),
        ),
    ),
    "pen": Silhouette(("pen", "pencil", "brush"), ((0, -1, 0.03, 0, -0.7, 0.13), (0, -0.7, 0.13, 0, 1, 0.13))),
    "bottle": Silhouette(("bottle",), ((0, -0.9, 0.13, 0, -0.5, 0.13), (0, -0.1, 0.34, 0, 0.7, 0.34))),
    "leaf": Silhouette(("leaf", "drop"), ((0, 0.35, 0.55, 0, -0.95, 0.03),)),
}
HELD_OUT_SILHOUETTES = {
    "heart": Silhouette(("heart",), ((-0.4, -0.35, 0.45, 0, 0.75, 0.05), (0.4, -0.35, 0.45, 0, 0.75, 0.05))),
    "moon": Silhouette(("moon", "crescent"), ((0, 0, 0.9, 0, 0, 0.9),), holes=((0.5, -0.1, 0.75, 0.5, -0.1, 0.75),)),
    "arrow": Silhouette(
        ("dart",), ((0.1, 0, 0.14, -0.9, 0, 0.14), (0.8, 0, 0.12, 0.1, -0.6, 0.12), (0.8, 0, 0.12, 0.1, 0.6, 0.12))
    ),
    "plus": Silhouette(
        ("plus shape",), ((0, -0.75, 0.25, 0, 0.75, 0.25), (-0.75, 0, 0.25, 0.75, 0, 0.25)), turns=False
    ),
    "snowman": Silhouette(
        ("snowman",), ((0, 0.45, 0.5, 0, 0.45, 0.5), (0, -0.25, 0.36, 0, -0.25, 0.36), (0, -0.8, 0.24, 0, -0.8, 0.24))
    ),
    "mushroom": Silhouette(("mushroom",), ((0, 0, 0.25, 0, 0.8, 0.28), (-0.5, -0.3, 0.4, 0.5, -0.3, 0.4))),
    "key": Silhouette(
        ("key",),
        (
            (0, -0.6, 0.4, 0, -0.6, 0.4),
            (0, -0.3, 0.1, 0, 1, 0.1),
            (0, 0.9, 0.09, 0.35, 0.9, 0.09),
            (0, 0.6, 0.09, 0.3, 0.6, 0.09),
        ),
        holes=((0, -0.6, 0.18, 0, -0.6, 0.18),),
    ),
}

COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "green": (0.15, 0.65, 0.2),
    "blue": (0.15, 0.3, 0.85),
    "yellow": (0.95, 0.85, 0.15),
    "orange": (0.95, 0.55, 0.1),
    "purple": (0.55, 0.2, 0.7),
    "pink": (0.95, 0.55, 0.7),
    "brown": (0.45, 0.28, 0.15),
    "black": (0.07, 0.07, 0.08),
    "white": (0.95, 0.95, 0.93),
    "grey": (0.5, 0.5, 0.52),
}
HELD_OUT_COLOURS = {
    "turquoise": (0.1, 0.75, 0.75),
    "olive": (0.45, 0.47, 0.1),
    "maroon": (0.45, 0.03, 0.15),
    "lime": (0.65, 0.95, 0.15),
}
TEXTURES = {"striped": "stripes", "checked": "checks", "dotted": "dots"}
HELD_OUT_TEXTURES = {"ringed": "rings", "wavy": "waves"}

_SKINS = f32(
    [
        (0.96, 0.8, 0.69),
        (0.9, 0.7, 0.55),
        (0.82, 0.58, 0.42),
        (0.7, 0.46, 0.32),
        (0.52, 0.33, 0.22),
        (0.33, 0.2, 0.14),
        (0.22, 0.13, 0.1),
    ]
)


def near(colour: Sequence[float] | Array, rng: Rng, spread: float = 0.05) -> Array:
    """A colour much like this one, in 0..1."""
    return f32(np.clip(np.asarray(colour) + rng.normal(0, spread, 3), 0.02, 0.98))


def any_colour(rng: Rng) -> Array:
    """Clothes, distractors: anything, greyish ones more often."""
    colour = rng.random(3)
    return f32(colour.mean() + (colour - colour.mean()) * rng.uniform(0.1, 1.3)).clip(0.03, 0.97)


def any_skin(rng: Rng) -> Array:
    """A skin tone."""
    return near(_SKINS[rng.choice(len(_SKINS), p=[0.17, 0.2, 0.2, 0.16, 0.12, 0.09, 0.06])], rng, 0.03)


@dataclass(frozen=True)
class Looks:
    """What a thing looks like: ``words`` (thing), its colour and pattern as words ("" for none), and as numbers."""

    silhouette: Silhouette
    colour: str
    pattern: str
    rgb: Array
    second: Array
    shade: float


def choose_looks(rng: Rng, shifted: bool, turning: bool = False) -> Looks:
    """A random thing of the domain; with ``turning`` one whose rotation shows."""
    forms = HELD_OUT_SILHOUETTES if shifted else SILHOUETTES
    names = [name for name, form in forms.items() if form.turns or not turning]
    colours = HELD_OUT_COLOURS if shifted else COLOURS
    textures = HELD_OUT_TEXTURES if shifted else TEXTURES
    form = forms[names[rng.integers(len(names))]]
    colour = list(colours)[rng.integers(len(colours))]
    pattern = list(textures)[rng.integers(len(textures))] if rng.random() < 0.35 else ""
    rgb = near(colours[colour], rng)
    second = f32(np.clip(rgb * 0.4 if rgb.mean() > 0.5 else rgb * 0.5 + 0.5, 0, 1))
    return Looks(form, colour, pattern, rgb, second, rng.uniform(0, 0.5) if rng.random() < 0.6 else 0.0)


def sprite(
    looks: Looks,
    centre: Array,
    radius: Array,
    angle: Array,
    *,
    mirrored: bool = False,
    opacity: Array | None = None,
    blur: Array | None = None,
    owner: int = MAIN,
) -> Layer:
    """A thing at ``centre`` [T, 2], of ``radius`` [T] (half its extent), turned clockwise by ``angle`` [T] radians."""
    cos, sin = np.cos(angle) * radius, np.sin(angle) * radius

    def place(x: float, y: float) -> Array:
        x = -x if mirrored else x
        return f32(np.stack([centre[:, 0] + x * cos - y * sin, centre[:, 1] + x * sin + y * cos], 1))

    def part(piece: _Piece) -> Part:
        if isinstance(piece[0], tuple):
            return Polygon(np.stack([place(*corner) for corner in piece], 1))  # type: ignore[misc]
        x1, y1, r1, x2, y2, r2 = piece  # type: ignore[misc]
        return Capsule(place(x1, y1), place(x2, y2), f32(r1 * radius), f32(r2 * radius))

    form, mean = looks.silhouette, float(radius.mean())
    texture = None
    if looks.pattern:
        kind = {**TEXTURES, **HELD_OUT_TEXTURES}[looks.pattern]
        texture = Texture(kind, looks.second, max(mean * 0.8, 0.06), centre, f32(angle + 0.6))
    return Layer(
        parts=[part(piece) for piece in form.pieces],
        colour=looks.rgb,
        holes=[part(piece) for piece in form.holes],
        hollow=form.hollow * mean,
        texture=texture,
        opacity=opacity,
        blur=blur,
        shade=looks.shade,
        owner=owner,
    )
