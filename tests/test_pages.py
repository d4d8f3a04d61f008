"""Pages on a telephone, 390 px wide: nothing is cut off, and what is found plays."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import tiny
from PIL import Image
from video_files import write_video

import msta
from msta.evaluation.figures import prediction
from msta.evaluation.report import write_page
from msta.evaluation.tables import Column, Table
from msta.inference.search import query_embedding, update_index, write_found
from msta.inference.windows import Windows


@pytest.fixture
def phone(browser):
    page = browser.new_page(viewport={"width": 390, "height": 844})
    page.set_default_timeout(300_000)  # ends what hangs; a busy machine is no failure
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.close()


def test_a_wide_table_is_not_cut_off(phone, tmp_path):
    columns = [Column(f"a title of {i}", str(i), ".1f" if i else "") for i in range(8)]
    table = Table(columns, [{str(i): i * 10.0 if i else "a method with a long name" for i in range(8)}] * 2, "T")
    content = {"rows": [], "query": table.html(), "windows": 1, "files": 1, "folder": "f"}
    write_page(tmp_path / "p.html", "search.html", {}, **content)
    phone.goto((tmp_path / "p.html").as_uri())
    widths = "[...document.querySelectorAll('.scroll')].map((one) => [one.scrollWidth, one.clientWidth])"
    assert all(inside <= outside for inside, outside in phone.evaluate(widths))
    shown = phone.locator("table").inner_text()
    assert all(f"{i * 10.0:.1f}" in shown for i in range(1, 8))
    assert (
        phone.evaluate("getComputedStyle(document.querySelectorAll('td')[3], '::before').content") == '"a title of 3"'
    )


def test_pictures_with_text_are_made_as_wide_as_a_telephone_shows(tmp_path):
    frames = np.zeros((8, 64, 64, 3), np.uint8)
    (tmp_path / "p.png").write_bytes(
        prediction(frames, "a", {"a": 0.2, "b": 0.8}, {"a": 0.9, "b": 0.1}, names=("x", "y"))
    )
    assert Image.open(tmp_path / "p.png").width <= 700  # of 9 pt at 150 dpi; half as large on a telephone


def test_a_moment_that_was_found_plays(phone, tmp_path):
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "a b#1.mp4", 50)
    write_video(tmp_path / "videos" / "old.avi", 50)
    model = msta.attach(msta.random_backbone(tiny()), "zero-shot").eval()
    index = update_index(model, tmp_path / "videos", tmp_path / "i.parquet", Windows(1.0, 1.0))
    found = index.nearest(query_embedding(model, "x"), 4)
    (tmp_path / "pages").mkdir()
    write_found("x", tmp_path / "videos", found, index, tmp_path / "pages" / "found.html")
    phone.goto((tmp_path / "pages" / "found.html").as_uri())
    late = next(i for i, m in enumerate(found) if m.path.endswith("mp4") and m.start == 1.0)
    avi = next(i for i, m in enumerate(found) if m.path.endswith("avi"))
    figures = phone.locator("figure")
    figures.nth(late).locator("a.play").click()
    phone.wait_for_function("(document.querySelector('video')?.currentTime ?? 0) > 0")
    assert phone.evaluate("document.querySelector('video').currentTime") >= 1.0
    figures.nth(avi).locator("a.play").click()
    figures.nth(avi).get_by_text("Not to be played here").wait_for()
