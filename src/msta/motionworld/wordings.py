"""What each motion is called: nouns for what is traced, verbs for what is done, and what is seen step by step.

{a} and {b} stand for the main and the second thing. A verb phrase like "move/moves/moving to the left" gives the
infinitive, the third person and the participle; :func:`forms` takes it apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from msta.motionworld.paths import DIRECTIONS, LEGS, OPPOSITE, composition_name


@dataclass(frozen=True)
class Wording:
    """How to speak of one motion.

    Attributes:
        nouns: of a traced shape, with article ("a circle"); empty for other motions.
        verbs: as for :func:`forms`, without the agent; of two things, whole sentences with {a} and {b}.
        names: the bare names ("swipe left", "a handshake").
        steps: what happens, in order, as sentences about {a} and {b}.
        sights: what is visible at some moment, after "A video about".
    """

    names: tuple[str, ...]
    steps: tuple[tuple[str, ...], ...]
    sights: tuple[str, ...]
    nouns: tuple[str, ...] = ()
    verbs: tuple[str, ...] = ()


_TRACES: dict[str, tuple[tuple[str, ...], tuple[tuple[str, ...], ...]]] = {
    "circle": (
        ("a circle", "a ring", "a round shape", "the letter O", "a loop", "a round loop", "a zero", "an O"),
        (
            ("{a} follows a round curve", "it comes back to where it began"),
            ("{a} goes all the way round", "the circle closes at its starting point"),
        ),
    ),
    "circle clockwise": (
        ("a circle clockwise", "a clockwise circle", "a ring in the clockwise direction", "a clockwise loop"),
        (("{a} goes round the way the hands of a clock do", "it comes back to where it began"),),
    ),
    "circle counterclockwise": (
        (
            "a circle counterclockwise",
            "a counterclockwise circle",
            "an anticlockwise circle",
            "a ring against the clock",
            "a counter-clockwise loop",
        ),
        (("{a} goes round against the hands of a clock", "it comes back to where it began"),),
    ),
    "spiral": (
        ("a spiral", "a swirl", "a coil", "a snail shell", "a whirl"),
        (("{a} goes round several times", "each turn is larger or smaller than the one before"),),
    ),
    "square": (
        ("a square", "a rectangle", "a four-sided shape", "a shape with four corners", "a quadrilateral"),
        (
            (
                "{a} goes along a straight side and turns a right corner",
                "it draws the other three sides and closes the square",
            ),
            ("four straight strokes with four corners", "the last side ends where the first began"),
        ),
    ),
    "triangle": (
        ("a triangle", "a three-sided shape", "a shape with three corners", "a closed triangle"),
        (("{a} draws one slanted side", "two more sides close the triangle"),),
    ),
    "star": (
        ("a star", "a five-pointed star", "a pentagram", "a star with five points", "a star shape"),
        (
            ("{a} goes up to the top point and down again", "further strokes cross and close the star"),
            ("five straight strokes cross each other", "they end where they began and form a star"),
        ),
    ),
    "check mark": (
        ("a check mark", "a tick", "a checkmark", "a tick mark", "a check", "a correct sign"),
        (
            ("{a} makes a short stroke down", "then a longer stroke goes up to the right"),
            ("a short line downwards first", "then a long line upwards to the right"),
        ),
    ),
    "caret": (
        (
            "a caret",
            "an upside-down V",
            "an inverted V",
            "an arrowhead pointing up",
            "a hat",
            "a roof",
            "a peak",
            "the top of an arrow",
        ),
        (
            ("{a} goes up to a peak", "then it comes back down on the other side"),
            ("{a} goes up to the right", "then it comes back down on the right"),
        ),
    ),
    "delete mark": (
        (
            "a delete mark",
            "a cross",
            "an X",
            "the letter X",
            "a cross mark",
            "an X mark",
            "two crossing lines",
            "a delete sign",
        ),
        (
            ("{a} makes a slanted stroke", "a second slanted stroke crosses the first"),
            ("one diagonal line from corner to corner", "then another diagonal line across it"),
        ),
    ),
    "zigzag": (
        ("a zigzag", "a zigzag line", "a lightning bolt", "a jagged line", "a saw-tooth line"),
        (("{a} goes back and forth in short slanted strokes", "the strokes move on to one side"),),
    ),
    "figure eight": (
        ("a figure eight", "an infinity sign", "the number 8", "an eight", "an infinity symbol", "two connected loops"),
        (("{a} makes one loop", "it crosses its own path and makes a second loop"),),
    ),
    "letter V": (
        ("the letter V", "a V", "a V shape", "a valley", "a capital V"),
        (("{a} goes down to a point", "then it goes back up on the right"),),
    ),
    "letter L": (
        ("the letter L", "an L", "an L shape", "a capital L"),
        (("{a} makes a straight stroke down", "then a straight stroke along the bottom"),),
    ),
    "letter S": (
        ("the letter S", "an S", "an S shape", "a snake", "a capital S"),
        (("{a} curves one way at the top", "then it curves the other way at the bottom"),),
    ),
    "letter Z": (
        ("the letter Z", "a Z", "a Z shape", "a capital Z"),
        (("{a} makes a stroke along the top", "a slanted stroke down and a stroke along the bottom follow"),),
    ),
    "letter W": (
        ("the letter W", "a W", "a W shape", "a double V"),
        (("{a} goes down, up, down and up again", "the strokes form a W"),),
    ),
    "letter M": (
        ("the letter M", "an M", "an M shape", "two peaks"),
        (("{a} goes up, down, up and down again", "the strokes form an M"),),
    ),
    "letter N": (
        ("the letter N", "an N", "an N shape", "a capital N"),
        (("{a} goes straight up", "a slanted stroke down and a straight stroke up follow"),),
    ),
    "letter C": (
        ("the letter C", "a C", "a C shape", "an open curve", "an arc"),
        (("{a} curves round from the top", "it stops before the circle would close"),),
    ),
    "letter U": (
        ("the letter U", "a U", "a U shape", "a horseshoe"),
        (("{a} goes down and round the bottom", "it goes back up on the other side"),),
    ),
}

_ADVERBS = {
    "left": (
        "left",
        "to the left",
        "leftwards",
        "towards the left",
        "to the left side",
        "from right to left",
        "leftward",
    ),
    "right": (
        "right",
        "to the right",
        "rightwards",
        "towards the right",
        "to the right side",
        "from left to right",
        "rightward",
    ),
    "up": ("up", "upwards", "upward", "to the top", "from bottom to top", "towards the top"),
    "down": ("down", "downwards", "downward", "to the bottom", "from top to bottom", "towards the bottom"),
    "up left": (
        "diagonally up and to the left",
        "up left",
        "to the upper left",
        "to the top left corner",
        "up and left",
    ),
    "up right": (
        "diagonally up and to the right",
        "up right",
        "to the upper right",
        "to the top right corner",
        "up and right",
    ),
    "down left": (
        "diagonally down and to the left",
        "down left",
        "to the lower left",
        "to the bottom left corner",
        "down and left",
    ),
    "down right": (
        "diagonally down and to the right",
        "down right",
        "to the lower right",
        "to the bottom right corner",
        "down and right",
    ),
}
_GOING = (
    "swipe/swipes/swiping",
    "slide/slides/sliding",
    "move/moves/moving",
    "go/goes/going",
    "sweep/sweeps/sweeping",
    "travel/travels/travelling",
    "glide/glides/gliding",
    "drift/drifts/drifting",
)
_FROM = {"left": "right", "right": "left", "up": "lower", "down": "upper"}


def forms(verb: str) -> tuple[str, ...]:
    """A verb phrase's three forms: "go/goes/going left" -> ("go left", "goes left", "going left")."""
    stems, _, rest = verb.partition(" ")
    return tuple(f"{stem} {rest}".strip() for stem in stems.split("/"))


def _direction(name: str) -> Wording:
    adverbs = _ADVERBS[name]
    verbs = tuple(f"{verb} {adverb}" for adverb in adverbs for verb in _GOING)
    stem = "swipe" if " " not in name else "move"
    names = (
        f"{stem} {name}",
        f"swipe {adverbs[1]}",
        f"move {adverbs[0]}",
        f"a swipe {adverbs[1]}",
        f"slide {adverbs[2]}",
    )
    steps: tuple[tuple[str, ...], ...]
    if " " not in name:
        steps = (
            (f"{{a}} starts on the {_FROM[name]} side", f"it moves {adverbs[1]}"),
            ("{a} starts at one side", f"it goes {adverbs[0]} in one stroke"),
        )
    else:
        steps = (("{a} starts in one corner", f"it moves {adverbs[0]} to the opposite corner"),)
    return Wording(names, steps, (f"a movement {adverbs[1]}", f"one straight stroke {adverbs[0]}"), verbs=verbs)


def _composition(first: str, second: str) -> Wording:
    a, b = _ADVERBS[first], _ADVERBS[second]
    rests: tuple[str, ...]
    name = composition_name(first, second)
    if OPPOSITE[first] == second:
        rests = (
            f"{a[0]} and back",
            f"{a[1]} and back again",
            f"{a[0]}, then back to the start",
            f"{a[2]} and {b[0]} again",
        )
        verbs = tuple(f"{verb} {rest}" for rest in rests for verb in _GOING[:5])
        names = (name, f"swipe {a[0]} and back", f"move {a[0]} and return", f"a stroke {a[1]} and back again")
        steps = ((f"{{a}} moves {a[1]}", "then it comes back to where it began"),)
    else:
        rests = (f"first {a[0]} and then {b[0]}", *(f"{x}, then {y}" for x, y in zip(a[:3], b[:3], strict=True)))
        verbs = tuple(f"{verb} {rest}" for rest in rests for verb in _GOING[:5])
        names = (
            name,
            f"swipe {a[0]} then {b[0]}",
            f"move {a[0]} and then {b[0]}",
            f"a stroke {a[1]}, then a stroke {b[1]}",
        )
        steps = ((f"{{a}} moves {a[1]}", f"then it turns and moves {b[1]}"),)
    return Wording(names, steps, (f"a stroke {a[0]} followed by a stroke {b[0]}",), verbs=verbs)


def _three(first: str, second: str, third: str) -> Wording:
    a, b, c = (_ADVERBS[leg] for leg in (first, second, third))
    rests = (
        f"{a[0]}, then {b[0]} and then {c[0]}",
        *(f"{x}, then {y}, then {z}" for x, y, z in zip(a[:3], b[:3], c[:3], strict=True)),
    )
    names = (
        composition_name(first, second, third),
        f"swipe {a[0]} then {b[0]} then {c[0]}",
        f"move {a[0]}, then {b[0]} and then {c[0]}",
        f"a stroke {a[1]}, then one {b[1]}, then one {c[1]}",
    )
    steps = ((f"{{a}} moves {a[1]} and then {b[1]}", f"then it turns and moves {c[1]}"),)
    verbs = tuple(f"{verb} {rest}" for rest in rests for verb in _GOING[:5])
    return Wording(names, steps, (f"strokes {a[0]}, {b[0]} and {c[0]}, one after the other",), verbs=verbs)


def _traced(nouns: tuple[str, ...], steps: tuple[tuple[str, ...], ...]) -> Wording:
    names = (*nouns, *(f"draw {noun}" for noun in nouns[:4]))
    sights = (f"the outline of {nouns[0]}", f"a path in the shape of {nouns[-1]}", f"the form of {nouns[1]}")
    return Wording(names, steps, sights, nouns=nouns)


_OTHERS: dict[str, Wording] = {
    "up and down": Wording(
        ("up and down", "moving up and down", "bobbing", "back and forth vertically", "a vertical back-and-forth"),
        (("{a} goes up", "it comes down again, several times"),),
        ("a repeated vertical movement",),
        verbs=(
            "move/moves/moving up and down",
            "bob/bobs/bobbing up and down",
            "go/goes/going up and down again and again",
            "swing/swings/swinging vertically",
            "travel/travels/travelling up, down and up again",
        ),
    ),
    "side to side": Wording(
        ("side to side", "moving from side to side", "back and forth", "left and right repeatedly", "shaking sideways"),
        (("{a} goes to one side", "it goes back to the other side, several times"),),
        ("a repeated sideways movement",),
        verbs=(
            "move/moves/moving from side to side",
            "swing/swings/swinging from side to side",
            "go/goes/going back and forth",
            "slide/slides/sliding left and right again and again",
            "shake/shakes/shaking sideways",
        ),
    ),
    "bounce": Wording(
        ("bounce", "bouncing", "dribbling", "hopping", "jumping"),
        (("{a} falls to the ground", "it bounces up again and again"),),
        ("something hopping on the ground",),
        verbs=(
            "bounce/bounces/bouncing",
            "hop/hops/hopping along",
            "jump/jumps/jumping up and down on the ground",
            "bounce/bounces/bouncing off the floor",
            "fall/falls/falling, with a bounce back",
        ),
    ),
    "grow": Wording(
        ("grow", "growing", "getting bigger", "becoming larger", "coming closer", "zoom in"),
        (("{a} is small at first", "it gets bigger and bigger"),),
        ("something that becomes large",),
        verbs=(
            "grow/grows/growing",
            "get/gets/getting bigger",
            "become/becomes/becoming larger",
            "expand/expands/expanding",
            "come/comes/coming closer to the camera",
            "increase/increases/increasing in size",
        ),
    ),
    "shrink": Wording(
        ("shrink", "shrinking", "getting smaller", "becoming smaller", "going away", "zoom out"),
        (("{a} is big at first", "it gets smaller and smaller"),),
        ("something that becomes tiny",),
        verbs=(
            "shrink/shrinks/shrinking",
            "get/gets/getting smaller",
            "become/becomes/becoming tiny",
            "contract/contracts/contracting",
            "move/moves/moving away from the camera",
            "decrease/decreases/decreasing in size",
        ),
    ),
    "grow then shrink": Wording(
        ("grow then shrink", "growing and shrinking", "getting bigger and then smaller", "swelling and contracting"),
        (("{a} gets bigger", "then it gets smaller again"),),
        ("something large in the middle of the clip",),
        verbs=(
            "become/becomes/becoming large, then small again",
            "get/gets/getting bigger and then smaller",
            "expand/expands/expanding at first, with a contraction after",
            "swell/swells/swelling to a large size and back",
        ),
    ),
    "shrink then grow": Wording(
        ("shrink then grow", "shrinking and growing", "getting smaller and then bigger", "contracting and expanding"),
        (("{a} gets smaller", "then it gets bigger again"),),
        ("something small in the middle of the clip",),
        verbs=(
            "become/becomes/becoming small, then large again",
            "get/gets/getting smaller and then bigger",
            "contract/contracts/contracting at first, with an expansion after",
            "dwindle/dwindles/dwindling to a small size and back",
        ),
    ),
    "rotate clockwise": Wording(
        ("rotate clockwise", "turning clockwise", "a clockwise rotation", "spin clockwise", "a clockwise turn"),
        (("{a} stays in its place", "it turns the way the hands of a clock do"),),
        ("something turning clockwise on the spot",),
        verbs=(
            "rotate/rotates/rotating clockwise",
            "turn/turns/turning clockwise",
            "spin/spins/spinning in the clockwise direction",
            "revolve/revolves/revolving clockwise on the spot",
        ),
    ),
    "rotate counterclockwise": Wording(
        ("rotate counterclockwise", "turning counterclockwise", "an anticlockwise rotation", "spin counter-clockwise"),
        (("{a} stays in its place", "it turns against the hands of a clock"),),
        ("something turning counterclockwise on the spot",),
        verbs=(
            "rotate/rotates/rotating counterclockwise",
            "turn/turns/turning anticlockwise",
            "spin/spins/spinning in the counterclockwise direction",
            "revolve/revolves/revolving counter-clockwise on the spot",
        ),
    ),
    "appear": Wording(
        ("appear", "appearing", "showing up", "becoming visible", "fade in"),
        (("at first nothing is there", "then {a} becomes visible"),),
        ("something that was not there before",),
        verbs=(
            "appear/appears/appearing",
            "show/shows/showing up",
            "become/becomes/becoming visible",
            "pop/pops/popping up out of nowhere",
            "fade/fades/fading in",
        ),
    ),
    "vanish": Wording(
        ("vanish", "disappear", "vanishing", "disappearing", "fade out"),
        (("at first {a} is there", "then it is gone"),),
        ("an empty place at the end",),
        verbs=(
            "vanish/vanishes/vanishing",
            "disappear/disappears/disappearing",
            "become/becomes/becoming invisible",
            "fade/fades/fading out",
            "go/goes/going out of sight on the spot",
        ),
    ),
    "stay still": Wording(
        ("stay still", "no movement", "standing still", "nothing happens", "a still picture"),
        (("{a} is there", "it does not move at all"),),
        ("something motionless",),
        verbs=(
            "stay/stays/staying still",
            "stay/stays/staying where it is",
            "remain/remains/remaining motionless",
            "rest/rests/resting in one place",
            "keep/keeps/keeping still",
        ),
    ),
    "approach": Wording(
        ("approach", "approaching", "coming together", "moving towards each other", "getting closer to each other"),
        (("{a} and {b} are far apart", "the distance between them becomes small"),),
        ("two things closer and closer together",),
        verbs=(
            "{a} approaches {b}",
            "{a} and {b} approach each other",
            "{a} and {b} move towards each other",
            "{a} comes closer to {b}",
            "{a} and {b} come together",
            "{a} and {b} get nearer to each other",
        ),
    ),
    "move apart": Wording(
        ("move apart", "moving apart", "separating", "moving away from each other", "parting"),
        (("{a} and {b} are close together", "the distance between them becomes large"),),
        ("two things further and further apart",),
        verbs=(
            "{a} moves away from {b}",
            "{a} and {b} move apart",
            "{a} and {b} move away from each other",
            "{a} and {b} part",
            "{a} and {b} separate",
            "{a} leaves {b}",
        ),
    ),
    "follow": Wording(
        ("follow", "following", "chasing", "going after another", "one behind the other"),
        (("{b} goes ahead", "{a} goes the same way behind it"),),
        ("two things moving one behind the other",),
        verbs=(
            "{a} follows {b}",
            "{a} goes after {b}",
            "{a} chases {b}",
            "{b} leads and {a} follows",
            "{a} moves behind {b} the same way",
        ),
    ),
    "collide": Wording(
        ("collide", "collision", "colliding", "bumping into each other", "crashing and bouncing off"),
        (("{a} and {b} move towards each other", "they hit each other and bounce back"),),
        ("two things hitting each other",),
        verbs=(
            "{a} and {b} collide",
            "{a} bumps into {b} and both bounce back",
            "{a} and {b} crash and bounce off",
            "{a} and {b} hit each other and move back",
            "{a} runs into {b} and they rebound",
        ),
    ),
    "orbit": Wording(
        ("orbit", "orbiting", "circling around another", "going round something", "revolving around another"),
        (("{b} stays in the middle", "{a} goes round it"),),
        ("one thing going round another",),
        verbs=(
            "{a} circles around {b}",
            "{a} orbits {b}",
            "{a} goes round {b}",
            "{a} revolves around {b}",
            "{a} moves in a ring around {b}",
        ),
    ),
    "handshake": Wording(
        ("handshake", "shake hands", "shaking hands", "a handshake", "hand shaking", "greeting with a handshake"),
        (
            ("{a} and {b} walk up to each other", "they reach out, hold hands and shake them"),
            ("two people each stretch out one arm", "their hands meet in the middle and go up and down"),
        ),
        (
            "two hands meeting between two people",
            "two people holding hands at waist height",
            "people greeting each other",
        ),
        verbs=(
            "{a} and {b} shake hands",
            "{a} shakes the hand of {b}",
            "{a} gives {b} a handshake",
            "{a} and {b} greet each other with a handshake",
            "{a} and {b} hold out their hands and shake them",
        ),
    ),
    "hug": Wording(
        ("hug", "hugging", "a hug", "an embrace", "embracing", "hug a person", "people hugging"),
        (
            ("{a} and {b} walk up to each other", "they put their arms around each other and hold on"),
            ("two people come very close", "they wrap their arms around each other"),
        ),
        ("two people with their arms around each other", "two bodies close together"),
        verbs=(
            "{a} hugs {b}",
            "{a} and {b} hug",
            "{a} and {b} hug each other",
            "{a} embraces {b}",
            "{a} puts both arms around {b}",
            "{a} and {b} embrace",
        ),
    ),
    "kick": Wording(
        ("kick", "kicking", "a kick", "kick a person", "kicking someone", "a kick with the leg"),
        (
            ("two people walk towards each other", "then one kicks the other"),
            ("{a} lifts a leg", "the foot swings out and hits {b}"),
        ),
        ("a leg raised high towards another person", "a stretched-out leg", "a foot hitting someone"),
        verbs=(
            "{a} kicks {b}",
            "{a} gives {b} a kick",
            "{a} raises a leg and kicks {b}",
            "{a} hits {b} with a foot",
            "{a} swings a leg at {b}",
        ),
    ),
    "punch": Wording(
        ("punch", "punching", "a punch", "hit", "hitting someone", "boxing", "a blow with the fist"),
        (
            ("two people stand close", "one of them strikes the other with a fist"),
            ("{a} pulls an arm back", "the fist shoots forward and hits {b}"),
        ),
        ("a fist hitting someone", "one stretched arm at the height of the face", "a person struck by another"),
        verbs=(
            "{a} punches {b}",
            "{a} hits {b}",
            "{a} strikes {b} with a fist",
            "{a} throws a punch at {b}",
            "{a} boxes {b}",
            "{a} gives {b} a blow",
        ),
    ),
    "push": Wording(
        ("push", "pushing", "a push", "a shove", "shoving", "push away", "pushing someone away"),
        (
            ("{a} comes up to {b}", "it pushes {b} away"),
            ("{a} touches {b}", "{b} is shoved back"),
        ),
        ("someone shoved backwards", "one thrusting another away"),
        verbs=(
            "{a} pushes {b}",
            "{a} pushes {b} away",
            "{a} shoves {b}",
            "{a} gives {b} a push",
            "{a} thrusts {b} back",
            "{b} is pushed away by {a}",
        ),
    ),
    "point": Wording(
        (
            "point",
            "pointing",
            "point at something",
            "pointing with the arm",
            "pointing a finger",
            "pointing at someone",
        ),
        (
            ("{a} stands still", "one arm is raised straight ahead and then lowered"),
            ("{a} raises an arm", "the arm stays stretched out, pointing at something"),
        ),
        ("a straight arm held out at the height of the shoulder", "an arm pointing ahead"),
        verbs=(
            "point/points/pointing",
            "point/points/pointing at something",
            "point/points/pointing with one arm",
            "stretch/stretches/stretching out an arm to point",
            "point/points/pointing ahead",
        ),
    ),
    "wave": Wording(
        ("wave", "waving", "wave a hand", "waving hello", "waving goodbye", "a wave of the hand"),
        (("a hand is raised", "it swings from side to side"),),
        ("a raised hand swinging", "a greeting with an open hand"),
        verbs=(
            "wave/waves/waving",
            "wave/waves/waving hello",
            "wave/waves/waving goodbye",
            "wave/waves/waving to the camera",
            "greet/greets/greeting by waving",
        ),
    ),
    "walk left": Wording(
        ("walk left", "walking to the left", "walking left", "a walk to the left"),
        (("{a} takes steps", "the steps lead to the left"),),
        ("a person walking to the left", "legs in motion, going left"),
        verbs=(
            "walk/walks/walking to the left",
            "walk/walks/walking left",
            "go/goes/going left on foot",
            "stroll/strolls/strolling from right to left",
            "step/steps/stepping towards the left",
        ),
    ),
    "walk right": Wording(
        ("walk right", "walking to the right", "walking right", "a walk to the right"),
        (("{a} takes steps", "the steps lead to the right"),),
        ("a person walking to the right", "legs in motion, going right"),
        verbs=(
            "walk/walks/walking to the right",
            "walk/walks/walking right",
            "go/goes/going right on foot",
            "stroll/strolls/strolling from left to right",
            "step/steps/stepping towards the right",
        ),
    ),
}

WORDINGS: dict[str, Wording] = {
    **{("swipe " if " " not in name else "move ") + name: _direction(name) for name in DIRECTIONS},
    **{name: _traced(*row) for name, row in _TRACES.items()},
    **{name: _composition(*legs) if len(legs) == 2 else _three(*legs) for name, legs in LEGS.items()},
    **_OTHERS,
}
assert set(LEGS) <= set(WORDINGS)
