"""Class names of any script in pictures."""

from __future__ import annotations

import os

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw, ImageFont

from msta.evaluation import figures, fonts
from msta.inference.overlay import draw_text

NAMES = ["手を振る", "हाथ हिलाना", "손을 흔들다", "dance \N{DANCER}", "𐌰𐌱 𐌲"]
"""In scripts that the font which comes with matplotlib lacks."""


@pytest.fixture(autouse=True)
def forget():
    for one in (fonts._others, fonts._characters):
        one.cache_clear()
    fonts._told.clear()


def font(path, characters: str) -> str:
    """A font whose every character is a black square, which no box of a missing glyph is."""
    pen = TTGlyphPen(None)
    for i, point in enumerate([(50, 0), (50, 800), (950, 800), (950, 0)]):
        (pen.lineTo if i else pen.moveTo)(point)
    pen.closePath()
    square, order = pen.glyph(), [".notdef", *(f"g{i}" for i in range(len(characters)))]
    builder = FontBuilder(1000)
    builder.setupGlyphOrder(order)
    builder.setupCharacterMap({ord(c): name for c, name in zip(characters, order[1:], strict=True)})
    builder.setupGlyf({name: square if name != ".notdef" else TTGlyphPen(None).glyph() for name in order})
    builder.setupHorizontalMetrics(dict.fromkeys(order, (1000, 0)))
    builder.setupHorizontalHeader(ascent=900, descent=-100)
    builder.setupNameTable({"familyName": path.stem, "styleName": "Regular"})
    builder.setupOS2(sTypoAscender=900, usWinAscent=900, usWinDescent=100)
    builder.setupPost()
    builder.save(path)
    return os.fspath(path)


def system(monkeypatch, *files: str) -> None:
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: list(files))


@pytest.mark.parametrize("name", NAMES)
def test_a_frame_shows_a_name_in_the_fonts_that_have_it(name, tmp_path, monkeypatch, caplog):
    foreign = "".join(sorted({c for c in name if ord(c) > 0x2FF}))
    half = len(foreign) // 2
    system(monkeypatch, font(tmp_path / "one.ttf", foreign[:half]), font(tmp_path / "two.ttf", foreign[half:]))
    frame = np.zeros((320, 640, 3), np.uint8)
    drawn = draw_text(frame, [name])
    runs = fonts.font_runs(name)
    assert "".join(piece for _, piece in runs) == name
    assert all(ord(c) in fonts._characters(file) or c == " " for file, piece in runs for c in piece)
    white = (drawn == 255).all(2).sum()
    assert white > 0.6 * 0.9 * 0.8 * 20 * 20 * sum(ord(c) > 0x2FF for c in name), "its squares are not there"
    assert not caplog.records


@pytest.mark.parametrize("name", NAMES)
def test_characters_without_a_font_are_named_once_with_what_to_install(name, monkeypatch, caplog):
    system(monkeypatch)
    for _ in range(2):
        draw_text(np.zeros((320, 640, 3), np.uint8), [name, f"{name} 12 %"])
        figures.confusion_matrix(np.eye(2, dtype=int), [name, "push"])
    (record,) = caplog.records
    assert all(c in record.message for c in name if ord(c) > 0x2FF)
    assert "fonts-" in record.message


def test_latin_names_are_drawn_as_one_text_in_one_font():
    frame = np.full((160, 200, 3), 90, np.uint8)
    picture = Image.fromarray(frame)
    draw = ImageDraw.Draw(picture, "RGBA")
    draw.rectangle((0, 145, 200, 160), fill=(0, 0, 0, 170))
    plain = ImageFont.truetype(fonts.own_font(), 10)
    draw.text((5, 146), "Öffne die Tür  97 %", font=plain, fill=(255, 255, 255))
    assert (draw_text(frame, ["Öffne die Tür  97 %"]) == np.asarray(picture)).all()


@pytest.mark.parametrize("names", [["手を振る", "押す"], ["हाथ", "पैर"], ["$a_b$", "pay $5 or $6", "100 %"]])
def test_figures_show_names_in_the_fonts_that_have_them(names, tmp_path, monkeypatch, recwarn):
    foreign = "".join(sorted({c for name in names for c in name if ord(c) > 0x2FF}))
    counts = np.eye(len(names), dtype=int)
    system(monkeypatch)
    without = figures.confusion_matrix(counts, names)
    system(monkeypatch, *([font(tmp_path / f"squares{len(names[0])}.ttf", foreign)] if foreign else []))
    fonts._others.cache_clear()
    assert bool(foreign) == (figures.confusion_matrix(counts, names) != without)
    assert not [w for w in recwarn if "missing from" in str(w.message)]


def test_fonts_that_draw_no_character_are_not_chosen(tmp_path, monkeypatch, caplog):
    (tmp_path / "damaged.ttf").write_bytes(b"\0\1\0\0 no font")
    blank = font(tmp_path / "LastResort.ttf", "手")
    system(monkeypatch, os.fspath(tmp_path / "damaged.ttf"), blank, os.fspath(tmp_path / "absent.ttf"))
    assert fonts.font_files("手") == (fonts.own_font(),)
    assert len(caplog.records) == 1
