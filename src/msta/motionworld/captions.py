"""Captions: many wordings of one meaning, from bare names to sentences to step-by-step descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msta.motionworld.motions import PEOPLE
from msta.motionworld.paths import Rng
from msta.motionworld.wordings import WORDINGS, Wording, forms

if TYPE_CHECKING:
    from msta.motionworld.scenes import Cast
    from msta.motionworld.things import Looks

_HANDS = (
    "a hand",
    "the hand",
    "a finger",
    "the finger",
    "someone",
    "a person",
    "somebody's hand",
    "an index finger",
    "a fingertip",
    "an arm",
    "the person",
)
_OPEN_HANDS = ("a hand", "the hand", "an open hand", "someone", "a person", "a palm", "an arm")
_FISTS = ("a hand", "the hand", "a fist", "someone", "a person", "an arm")
_PEOPLE = ("a person", "someone", "a man", "a woman", "one person", "a human", "the person", "somebody")
_OTHER_PEOPLE = ("another person", "the other", "someone else", "the other person", "somebody")
_BOTH = ("two people", "two persons", "two friends", "they", "two men", "people")
_DRAW = (
    "draw/draws/drawing",
    "trace/traces/tracing",
    "make/makes/making",
    "sketch/sketches/sketching",
    "write/writes/writing",
    "outline/outlines/outlining",
)
_WHERE = (
    "",
    "",
    "",
    " in the air",
    " in the air",
    " with a finger",
    " with one hand",
    " in front of the camera",
    " with the index finger",
)
_FRAMES = (
    "{}",
    "{}",
    "{}",
    "{}",
    "a video of {}.",
    "a video of {}.",
    "a video about {}.",
    "A video about {}.",
    "a clip of {}",
    "footage of {}",
    "a short video of {}",
    "this is a video of {}",
)


def captions(motion: str, cast: Cast, rng: Rng, count: int) -> list[str]:
    """``count`` wordings of what a clip shows, of mixed kinds; some name the thing, its colour or the background."""
    wording = WORDINGS[motion]
    return [_one(motion, wording, cast, rng) for _ in range(count)]


def _one(motion: str, wording: Wording, cast: Cast, rng: Rng) -> str:
    kind = rng.random()
    if kind < 0.22:
        text = _pick(rng, wording.names)
        return _pick(rng, _FRAMES).format(text) if rng.random() < 0.7 else text
    if kind < 0.36:
        return _described(wording, cast, rng)
    if kind < 0.42:
        return f"A video about {_pick(rng, wording.sights)}."
    return _sentence(motion, wording, cast, rng)


def _sentence(motion: str, wording: Wording, cast: Cast, rng: Rng) -> str:
    """An agent doing it: "a hand draws a circle", or "drawing a circle" without the agent."""
    a, b = _agents(cast, rng)
    if wording.verbs and "{a}" in wording.verbs[0]:
        text = _pick(rng, wording.verbs).format(a=a, b=b)
        if cast.kind == "people" and motion in PEOPLE and rng.random() < 0.3:
            text = f"{_pick(rng, _BOTH)}: {_pick(rng, wording.names)}"
        return _framed(text, cast, rng)
    if wording.nouns:
        infinitive, third, participle = _trace(wording, cast, rng)
    else:
        infinitive, third, participle = forms(_pick(rng, wording.verbs))
    form = rng.random()
    if form < 0.5:
        text = f"{a} {third}"
    elif form < 0.65:
        text = f"{a} {participle}"
    elif form < 0.88 or "the thing" in a:
        text = participle
    else:
        text = infinitive
    return _framed(text, cast, rng)


def _trace(wording: Wording, cast: Cast, rng: Rng) -> tuple[str, ...]:
    noun = _pick(rng, wording.nouns)
    if cast.kind == "hand" and rng.random() < 0.75:
        verb, rest = _pick(rng, _DRAW), f" {noun}{_pick(rng, _WHERE)}"
    else:
        verb, rest = [
            ("move/moves/moving", f" in the shape of {noun}"),
            ("follow/follows/following", f" the outline of {noun}"),
            ("trace/traces/tracing", f" {noun}"),
            ("describe/describes/describing", f" {noun}"),
            ("draw/draws/drawing", f" {noun}"),
            ("travel/travels/travelling", f" along {noun}"),
        ][rng.integers(6)]
    return forms(verb + rest)


def _described(wording: Wording, cast: Cast, rng: Rng) -> str:
    """Ordered steps, as language models write them."""
    a, b = _agents(cast, rng)
    steps = [step.format(a=a, b=b) for step in wording.steps[rng.integers(len(wording.steps))]]
    name = _pick(rng, wording.names)
    return [
        f"{steps[0]}, {steps[1] if steps[1].startswith('then ') else 'then ' + steps[1]}",
        f"{steps[0] if 'first' in steps[0] else 'first ' + steps[0]}. {_capital(steps[1])}.",
        f"A video of {name} generally involves the following step: {_pick(rng, steps)}, which is a sub-step.",
        f"A video of {name}: {steps[0]}; {steps[1]}.",
        f"{steps[0]}; {steps[1]}",
    ][rng.integers(5)]


def _agents(cast: Cast, rng: Rng) -> tuple[str, str]:
    """Who does it, and to whom."""
    if cast.kind == "hand":
        return _pick(rng, {"open": _OPEN_HANDS, "fist": _FISTS}.get(cast.pose, _HANDS)), "something"
    if cast.kind in ("person", "people"):
        return _pick(rng, _PEOPLE), _pick(rng, _OTHER_PEOPLE)
    first = _thing(cast.looks[0], rng)
    second = _thing(cast.looks[1], rng) if len(cast.looks) > 1 else "something"
    return first, "something else" if second == first else second


def _thing(looks: Looks, rng: Rng) -> str:
    if rng.random() < 0.12:
        return _pick(rng, ("the thing", "an object", "something"))
    words = [_pick(rng, looks.silhouette.words)]
    if looks.pattern and rng.random() < 0.4:
        words.insert(0, looks.pattern)
    if rng.random() < 0.6:
        words.insert(0, looks.colour)
    text = " ".join(words)
    if rng.random() < 0.35:
        return f"the {text}"
    return f"{'an' if text[0] in 'aeiou' else 'a'} {text}"


def _framed(text: str, cast: Cast, rng: Rng) -> str:
    if cast.scenery and rng.random() < 0.12:
        text = (
            f"{text}{_pick(rng, (', in front of ', ' before ', ' with ', ', background: '))}{_pick(rng, cast.scenery)}"
        )
    if rng.random() < 0.3:
        return _pick(rng, _FRAMES[4:]).format(text)
    return _capital(text) + "." if rng.random() < 0.15 else text


def class_name(motion: str) -> str:
    """The motion as a user would name a class: "draw a circle", "swipe left", "handshake"."""
    wording = WORDINGS[motion]
    return f"draw {wording.nouns[0]}" if wording.nouns else wording.names[0]


def naming(motion: str) -> tuple[str, ...]:
    """Every way to name a motion without saying who does it, bare and as a sentence."""
    wording = WORDINGS[motion]
    names = dict.fromkeys((class_name(motion), *wording.names))
    return tuple(form.format(name) for name in names for form in ("{}", "a video of {}."))


def descriptions(motion: str, count: int = 4) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Sentences in the authors' manner: up to ``count`` on what is visible, and as many on sub-steps."""
    wording = WORDINGS[motion]
    filled = {"a": "the moving thing", "b": "the other"}
    if motion in PEOPLE:
        filled = {"a": "one person", "b": "the other person"}
    spatial = [f"A video about {sight}." for sight in (*wording.sights, *wording.names)]
    steps = [step.format(**filled) for way in wording.steps for step in way]
    order = ("first", "second")
    temporal = [
        *(
            f"A video of {class_name(motion)} generally involves the following step: {step}, which is a sub-step."
            for step in steps
        ),
        *(f"The {order[i % 2]} sub-step of {class_name(motion)}: {step}." for i, step in enumerate(steps)),
    ]
    return tuple(spatial[:count]), tuple(temporal[:count])


def _pick(rng: Rng, options: Sequence[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
