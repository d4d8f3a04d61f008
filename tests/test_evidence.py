"""The docs state what the results files hold: tables to the letter, figures in the text to the digit.

A figure is a number with decimals, or before a percent sign, outside code. Where the text has one that no result holds
(a setting, an equation, what others published), it stands in FACTS, with where it is from.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import evidence
import pytest

import msta

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
FIGURE = re.compile(r"(?<![\w.,/:-])\d[\d,]*\.\d+(?![\w]|\.\d)|(?<![\w.,/:-])\d[\d,]*(?= ?%)")
GENERATED = ("claims", "presets", "toy")
"""Results whose JSON has so many numbers that nearly every figure would be among them."""
SPEED = "attention step peers loader cache against"
SOURCES = {
    "README.md": "toy",
    "claims.md": "claims",
    "export.md": "export",
    "gpu.md": "plan",
    "predict.md": "explain timeline",
    "serve.md": "service service_soak",
    "shards.md": "large_catalog",
    "speed.md": SPEED,
    "toy.md": "toy presets",
    "training.md": "scaling chaos",
}
"""Page -> the results that its figures are from."""
FACTS = {
    "README.md": "2411.11223 the paper's number; 3.11 3.10 of Python; 0.6 1.7 GB; 0.1 the scale",
    "app.md": "9.4 megapixels, a setting",
    "backbones.md": "4.0 of a licence; 3.3 2.0 of open_clip and torch",
    "claims.md": "50 chance",
    "data.md": "1.1 15 9 from sets' own papers and pages",
    "decisions.md": "8.7 the paper's count; 3.13 of Python; 1.2 2 0.98 1.05 100 1.8 95 of former code and 79 0.1 45 40 of trials,"
    " as told there",
    "descriptions.md": "0.05 0.1 thresholds",
    "design.md": "1.744 8.7 counts of the paper",
    "export.md": "0.1 the scale",
    "gpu.md": "0.83 0.12 2.19 3.18 0.47 7.51 8.66 2.56 0.27 3.20 4.17 9.84 1.02 12.60 16.41 5.1 3.8 4.9 4.1 99 0.9 0.7 95 22 35"
    " counted by msta info --plan, and of data sheets",
    "guide.md": "95 of the interval",
    "methods.md": "3.55 7.2 8.7 counts of papers; 2.5 0.005 1 settings; 1.3 1.9 2.4 5.2 of random weights, by tests/test_msta.py",
    "predict.md": "95 0.1 settings",
    "protocols.md": "95 of the interval",
    "serve.md": "9.4 a setting; 1.67 1.85 0.25 0.4 46.6 1.3 of former code, as told there",
    "speed.md": "1.702 of QuickGELU; 81 59 40 31 11 4.3 0.56 0.27 ratios of the tables'",
    "toy.md": "0.2 chance; 0.1 the scale; 0.02 the rate; 0.6 seconds per step, and 29 20 of toy-frames, by log.jsonl",
    "training.md": "40 a setting",
}


def rounded(names: str, digits: int) -> set[str]:
    """Every number that stands in these results, with so many digits; of GENERATED, in their tables alone."""
    found: list[float] = []
    for name in names.split():
        if (table := RESULTS / f"{name}.md").exists():
            found += [float(n.replace(",", "")) for n in re.findall(r"\d[\d,]*(?:\.\d+)?", table.read_text("utf-8"))]
        if name not in GENERATED and (file := RESULTS / f"{name}.json").exists():
            found += numbers(json.loads(file.read_text("utf-8")))
    return {f"{number:,.{digits}f}" for number in found}


def numbers(content: object) -> list[float]:
    """All of a JSON document, those that are not text."""
    if isinstance(content, dict):
        return [number for value in content.values() for number in numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in numbers(value)]
    return [abs(float(content))] if isinstance(content, (int, float)) else []


def stated(text: str) -> list[str]:
    """The figures of a page, without those of tables that are checked as a whole."""
    text = evidence.PLACE.sub("", text)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    return FIGURE.findall(re.sub(r"\]\([^)]*\)", "]", text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_results(page):
    facts = FIGURE.findall(FACTS.get(page.name, "")) + re.findall(r"(?<![\w.])\d+(?![\w.])", FACTS.get(page.name, ""))
    names = SOURCES.get(page.name, "")
    for figure in stated(page.read_text(encoding="utf-8")):
        digits = len(figure.partition(".")[2])
        assert figure in facts or figure in rounded(names, digits), f"{page.name}: {figure} is in none of: {names}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page):
    for place in evidence.PLACE.finditer(page.read_text(encoding="utf-8")):
        assert place[3].strip() == evidence.table(place[2]), f"{page.name}: {place[2]} was measured again"


def test_a_figure_that_no_result_holds_is_found():
    assert stated("It gains 12.3 points, `9.9`, [a page](2.2) and 40 %.") == ["12.3", "40"]
    assert "12.3" not in rounded("chaos", 1)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.name)
def test_accuracy_is_of_todays_weights(file):
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return
    if isinstance(weights := content.get("backbone"), str) and re.fullmatch("[0-9a-f]{64}", weights):
        assert weights == msta.load_backbone("toy").fingerprint()
    for run in content.get("runs", []):
        if isinstance(run, dict) and "weights" in run:
            assert run["weights"] == msta.load_backbone(run["backbone"]).fingerprint()
