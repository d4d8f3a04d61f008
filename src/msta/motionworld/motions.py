"""The vocabulary of motions: names, which ones mean the same, and what is kept back from pretraining."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from msta.errors import ConfigError
from msta.motionworld.paths import LEGS, MOVES, OPPOSITE, SHAPES, composition_name

CHANGES = ("grow", "shrink", "rotate clockwise", "rotate counterclockwise", "appear", "vanish", "stay still")
"""What one thing does without going anywhere."""
PAIRS = ("approach", "move apart", "follow", "collide", "orbit")
"""What two things do."""
PEOPLE = ("handshake", "hug", "kick", "point", "punch", "push", "wave", "walk left", "walk right")

_HELD_OUT_COMPOSED = ("left then down", "right then up", "up then left", "right and back", "down and back")
_SAME_AS_LETTER_L = ("down then right",)
THREE_STROKES = tuple(name for name, legs in LEGS.items() if len(legs) == 3)
HELD_OUT_MOTIONS = (*_HELD_OUT_COMPOSED, "grow then shrink", "shrink then grow", *THREE_STROKES)
"""Compositions that only the shifted domain shows: their parts are known, their order is not."""
TRAIN_COMPOSED = tuple(name for name in LEGS if name not in (*HELD_OUT_MOTIONS, *_SAME_AS_LETTER_L))

MOTIONS = (*MOVES, *SHAPES, *TRAIN_COMPOSED, *CHANGES, *PAIRS, *PEOPLE)
"""What the train and held-out domains show. A motion's place in ALL_MOTIONS is its meaning."""
ALL_MOTIONS = (*MOTIONS, *HELD_OUT_MOTIONS)
MEANING = {name: i for i, name in enumerate(ALL_MOTIONS)}

DEMO_MOTIONS = (
    "swipe left", "swipe right", "swipe up", "swipe down", "circle", "square", "star", "delete mark", "grow", "shrink",
)  # fmt: skip
"""What is written when nobody says which."""

OVERLAPS = (
    ("circle", "circle clockwise"),
    ("circle", "circle counterclockwise"),
    ("check mark", "letter V"),
    ("zigzag", "letter Z"),
    ("zigzag", "letter W"),
    ("zigzag", "letter M"),
    ("zigzag", "letter N"),
    ("letter W", "letter M"),
    ("caret", "up and down"),
    ("bounce", "up and down"),
    ("wave", "side to side"),
    ("side to side", "left and back"),
    ("side to side", "right and back"),
    ("up and down", "up and back"),
    ("up and down", "down and back"),
    ("side to side", "left then right then left"),
    ("side to side", "right then left then right"),
    ("up and down", "up then down then up"),
    ("up and down", "down then up then down"),
    ("letter U", "down then right then up"),
    ("letter C", "left then down then right"),
    ("walk left", "swipe left"),
    ("walk right", "swipe right"),
)
"""Motions of which one could be called the other, so neither is used as a negative of the other."""

REVERSED = {
    "swipe left": "swipe right",
    "swipe up": "swipe down",
    "move up left": "move down right",
    "move up right": "move down left",
    "circle clockwise": "circle counterclockwise",
    "grow": "shrink",
    "rotate clockwise": "rotate counterclockwise",
    "appear": "vanish",
    "approach": "move apart",
}
"""Pairs that only the order of the frames tells apart."""


def backwards(motion: str) -> str | None:
    """What the same frames show in the opposite order, if it is another motion with a name."""
    if motion in LEGS:
        name = composition_name(*(OPPOSITE[leg] for leg in reversed(LEGS[motion])))
        return name if name != motion and name in MEANING else None
    return {**REVERSED, **{b: a for a, b in REVERSED.items()}}.get(motion)


def check_motions(names: Iterable[str], *, shifted: bool = True) -> tuple[str, ...]:
    """The names, if all are known, and shown by the domain.

    Raises:
        ConfigError: an unknown one, with the nearest that is known; none at all; one twice; a held-out one without
            ``shifted``.
    """
    names = tuple(names)
    if not names:
        raise ConfigError("motions: expected at least one name, got none")
    for name in names:
        if name not in MEANING:
            near = difflib.get_close_matches(name.replace("_", " "), ALL_MOTIONS, 1, 0.0)
            raise ConfigError(f"motions: unknown motion {name!r}; the nearest known one is {near[0]!r}")
        if name in HELD_OUT_MOTIONS and not shifted:
            raise ConfigError(f"motions: {name!r} is held out; only the shifted domain has it")
        if names.count(name) > 1:
            raise ConfigError(f"motions: {name!r} is there twice")
    return names
