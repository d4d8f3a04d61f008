"""Class names: from any spelling to the words that a text tower reads. Also names of the field's data sets."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable

from msta.notices import notice

_SIDES = re.compile(
    r"\b(left|right)|clockwise|uhrzeigersinn"  # also "leftward", "right-handed", "rotateclockwise"
    r"|(?<![a-z0-9])(c?cw|acw|l2r|r2l|ltr|rtl|[lr] ?[/>|] ?[lr]|[lr] ?to ?[lr])(?![a-z0-9])"
    r"|\b(links|linke[mnrs]?|rechts|rechte[mnrs]?|gauche|droite?|izquierd[ao]|derech[ao]|esquerd[ao]|direit[ao]|sinistr[ao]"
    r"|destr[ao]|lew[aoy]|praw[aoy]|vänster|höger|venstre|høyre|højre|kiri|kanan|trái|phải)\b"
    r"|\b(влево|вправо|слева|справа|лев(ая|ой|ую|ый)|прав(ая|ой|ую|ый))\b"
    r"|[左右]|왼|오른|ซ้าย|ขวา|يسار|يمين|[←→↔⇐⇒⇦⇨⬅➡↖-↙↩↪↶↷↺↻⟲⟳]"
)
_OTHER_SIDE = (("left", "right"), ("(?<![a-z])l(?![a-z])", "r"))
"""A name is told by side, too, if what replaces the one by the other makes another class: swipeleft, swipe l."""


def class_words(name: str) -> str:
    """A name as words: ``swipe_left`` -> "swipe left", ``ApplyEyeMakeup`` -> "Apply Eye Makeup".

    A hyphen separates words if the name has no spaces (``draw-a-circle``), and stays if it has ("high-five a friend").
    Accents that are separate characters, as in archives made on a Mac, are joined to their letters (Unicode NFC).
    A number keeps its sign.
    """
    if is_number(name):
        return name.strip()
    name = unicodedata.normalize("NFC", name)
    joined = r"[_\s]+" if re.search(r"\S\s+\S", name) else r"[_\-\s]+"
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(joined, " ", name))
    return words.strip() or name


def read_as_words(names: Iterable[str], source: str, remedy: str = "") -> tuple[str, ...]:
    """Names as words, with a notice if that changes one of them.

    Args:
        names: as they are written.
        source: where the names are from, for the notice.
        remedy: how to keep the spelling, for the notice.
    """
    written = tuple(names)
    words = tuple(map(class_words, written))
    if words != written:
        name, word = next(pair for pair in zip(written, words, strict=True) if pair[0] != pair[1])
        notice(f"{source}: class names are read as words, {name!r} as {word!r}{'; ' + remedy if remedy else ''}.")
    return words


def told_by_side(names: Iterable[str]) -> list[str]:
    """The names that would be wrong for a flipped video: left, right, clockwise, cw, ccw, L2R, l/r and the like, also
    in other languages.
    """
    words = {name: class_words(name).lower() for name in names}
    every, sided = set(words.values()), set()
    for text in every:
        for one, other in _OTHER_SIDE:
            flipped = re.sub(one, other, text)
            if flipped != text and flipped in every:
                sided |= {text, flipped}
    return [name for name, text in words.items() if text in sided or _SIDES.search(text)]


def letters(text: str) -> str:
    """The letters and digits of a text, with the marks on them (accents, vowel signs), and a space between words."""
    kept: list[str] = []
    for c in unicodedata.normalize("NFC", text):
        on_a_letter = unicodedata.category(c).startswith("M") and kept and kept[-1] != " "
        kept.append(c if c.isalnum() or on_a_letter else " ")
    return " ".join("".join(kept).split())


def words_in(text: str) -> list[re.Match[str]]:
    """The words of a text, with the marks on their letters, hyphens and apostrophes within them."""
    joined = "".join("\\" + c for c in sorted(set(text)) if unicodedata.category(c).startswith("M"))
    return list(re.finditer(rf"\w[\w'’{joined}-]*", text))


def is_number(name: str) -> bool:
    """Whether a name is a number, such as 3, 03, -1 or 0.0."""
    try:
        return math.isfinite(float(name)) and not re.search(r"[a-zA-Z_]", name)
    except ValueError:
        return False


def notice_numbers(source: str, names: Iterable[str], remedy: str) -> None:
    """Give a notice if all names are numbers, which mean nothing to a text tower."""
    every = list(names)
    if every and all(map(is_number, every)):
        notice(f"{source}: the class names are numbers, which say nothing to the model; {remedy}")


_ALIASES = {
    "k400": "kinetics400",
    "k600": "kinetics600",
    "k700": "kinetics700",
    "somethingsomethingv2": "ssv2",
    "hmdb": "hmdb51",
    "ucf": "ucf101",
}


def canonical(name: str) -> str:
    """One name for each of the field's data sets, however a folder or a table spells it.

    ``"UCF-101"`` -> ``"ucf101"``, ``"K400"`` -> ``"kinetics400"``; else the letters and digits, in lower case.
    """
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _ALIASES.get(plain, plain)
