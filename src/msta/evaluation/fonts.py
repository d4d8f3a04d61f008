"""Class names of any script in pictures: each character in a font that has it, or a notice if no font has it."""

from __future__ import annotations

import io
import os
import re
import unicodedata
import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

from msta.notices import notice

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WITHOUT_GLYPHS = re.compile(r"lastresort|adobeblank|noto-?coloremoji", re.IGNORECASE)  # fonts that draw no character
_PACKAGES = {"CJK": "fonts-noto-cjk", "HIRAGANA": "fonts-noto-cjk", "KATAKANA": "fonts-noto-cjk",
             "HANGUL": "fonts-noto-cjk"}  # fmt: skip
_told: set[str] = set()


def png(figure: Figure) -> bytes:
    """A figure as PNG. Each text gets fonts that have its characters; a dollar sign is not mathematics."""
    from matplotlib.text import Text

    for axes in figure.axes:
        axes.get_xticklabels(), axes.get_yticklabels()  # which are made when they are asked for
    texts = [text for text in figure.findobj(Text) if isinstance(text, Text)]
    families = _families(font_files("".join(text.get_text() for text in texts)))
    for text in texts:
        text.set_fontfamily(families)
        text.set_parse_math(r"\mathdefault" in text.get_text())  # as the labels of a logarithmic axis
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph \d+ .*missing from")  # the notice has said it
        figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def font_files(text: str) -> tuple[str, ...]:
    """Files of fonts that together have the characters of a text: matplotlib's own, then those of the system it needs.

    A notice names characters that no font has, each once per process.
    """
    return (own_font(), *_others(frozenset(c for c in text if not _has(own_font(), c))))


def font_runs(text: str) -> list[tuple[str, str]]:
    """A line as (font's file, piece of the line) from left to right; as one piece if one font has all of it."""
    files = font_files(text)
    if (whole := next((file for file in files if all(_has(file, c) for c in text)), None)) is not None:
        return [(whole, text)]
    runs: list[tuple[str, str]] = []
    for c in text:
        if not runs or not _has(runs[-1][0], c):
            runs.append((next((file for file in files if _has(file, c)), own_font()), ""))
        runs[-1] = (runs[-1][0], runs[-1][1] + c)
    return runs


def own_font() -> str:
    """The font that comes with matplotlib. It has most alphabets, but no East Asian characters."""
    import matplotlib

    return os.path.join(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@lru_cache(256)
def _others(lacking: frozenset[str]) -> tuple[str, ...]:
    """As few of the system's fonts as have the characters."""
    from matplotlib.font_manager import findSystemFonts

    if not lacking:
        return ()
    has = {file: found for file in sorted(findSystemFonts()) if (found := _found(file, lacking))}
    chosen, left = [], set(lacking)
    while best := max(has, key=lambda file: (len(has[file] & left), _is_plain(file)), default=None):
        if not has[best] & left:
            break
        chosen.append(best)
        left -= has[best]
    if new := sorted(left - _told):
        _told.update(new)
        packages = sorted({_package(c) for c in new})
        notice(
            f"Pictures show boxes in place of {' '.join(new)}: no font of this system has "
            f"{'these characters' if len(new) > 1 else 'this character'}; install one, such as Noto "
            f"(on Debian and Ubuntu {', '.join(packages)}), and draw them again."
        )
    return tuple(chosen)


def _package(c: str) -> str:
    if unicodedata.category(c) == "So":  # emoji
        return "fonts-symbola"
    return _PACKAGES.get(unicodedata.name(c, "?").split()[0], "fonts-noto-core")


def _is_plain(file: str) -> tuple[bool, bool]:
    name = os.path.basename(file).lower()
    return "sans" in name, not re.search("bold|italic|oblique|thin|light|black|condensed", name)


def _found(file: str, characters: frozenset[str]) -> frozenset[str]:
    """Which of the characters a font has; none if its glyphs cannot be drawn at any size, as in bitmap fonts."""
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    if _WITHOUT_GLYPHS.search(os.path.basename(file)):
        return frozenset()
    try:
        font = FT2Font(file)
        found = frozenset(c for c in characters if font.get_char_index(ord(c)))
        if found:
            ImageFont.truetype(file, 20)
    except (OSError, RuntimeError, ValueError):
        return frozenset()
    return found


def _has(file: str, c: str) -> bool:
    """Whether a font has a character, or the character has no glyph: spaces, joiners, variation selectors."""
    return ord(c) in _characters(file) or unicodedata.category(c) in ("Zs", "Cc", "Cf") or 0xFE00 <= ord(c) <= 0xFE0F


@lru_cache(8)
def _characters(file: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(file).get_charmap())


def _families(files: tuple[str, ...]) -> list[str]:
    """The names by which matplotlib knows fonts."""
    from matplotlib.font_manager import fontManager
    from matplotlib.ft2font import FT2Font

    names = [FT2Font(file).family_name for file in files]
    known = {font.fname for font in fontManager.ttflist}
    for file in files[1:]:
        if file not in known:
            fontManager.addfont(file)
    return names
