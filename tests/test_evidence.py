"""The docs state what the results files hold: tables to the letter, figures in the text to the digit.

A figure is a number with decimals, or before a percent sign, outside code. CITED says which cell of the results each is.
A figure that was not measured (a setting, an equation, what others published) stands in FACTS, with where it is from.
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
CITED = {
    "claims.md": """
74.2 = claims#Comparisons | 3 temporal, frame-wise, 128 shots | one, %
26.6 = claims#Comparisons | 3 temporal, frame-wise, 128 shots | other, %
7.8 = claims#Comparisons | 6 few shots: upper blocks, not all | difference
12.9 = claims#Comparisons | 7 ahead of a linear probe, few shots | difference
5.1 = claims#Comparisons | 7 ahead of a linear probe, 30 epochs | difference
2.2 = claims#Comparisons | 7 ahead of LoRA | difference
4.2 = claims#Comparisons | 7 ahead of full fine-tuning | difference
3.0 = claims#Comparisons | 7 ahead of AdaptFormer, video alone | difference
3.2 = claims#Comparisons | 5 scale 0.001, not 0.1 | difference
1.8 = claims#Comparisons | 4 sentences, not templates | difference
53.3 = claims#Every variant, % | msta | 95 % of it
55.7 = claims#Every variant, % | msta | 95 % of it
""",
    "export.md": """
0.67 = export | onnx fp32 | of torch's
0.85 = export | onnx fp32 | of torch's
0.50 = export | onnx int8 | of torch's
0.64 = export | onnx int8 | of torch's
""",
    "gpu.md": """
1.89 = plan | ours, with its shortcuts | TFLOP
0.17 = plan | the authors' logs | seconds, fp32
10.7 = plan | the authors' logs | GB
12.0 = plan | the authors' logs | GB
2.3 = plan | gradients in blocks 8..12, attention fused | GB
10.2 = plan | gradients through all blocks, attention written out | GB
0.23 = plan | gradients through all blocks, attention written out | seconds, fp32
0.07 = plan | gradients through all blocks, attention written out | seconds, TF32
1.5 = plan | ours, with its shortcuts | GB
""",
    "serve.md": "0.88 = service#Eight adapters | one process per adapter | of the shared service's",
    "speed.md": """
1.19 = step#blocks 1..12, r 256, 51 classes | fast path | times faster
94 = step#The prefix | fp32 | share
66 = step#The prefix | bf16 | share
2.86 = step#bf16 | A step of the fast path |
4.3 = step#The prefix | bf16 | a matrix product of 2,048 : step#The prefix | fp32 | a matrix product of 2,048
72 = step#51 classes | fast path | of plain
49 = step#400 classes | fast path | of plain
81 = step#51 classes | fast path | TFLOP : step#51 classes | plain | TFLOP
59 = step#400 classes | fast path | TFLOP : step#400 classes | plain | TFLOP
31 = step#400 classes | fast path, prefix cache | TFLOP : step#400 classes | plain | TFLOP
0.56 = cache | 10 views, an empty cache | s, mean : cache | no cache | s, mean
0.27 = cache | the same, a full one | s, mean : cache | no cache | s, mean
""",
    "toy.md": """
2.4 = toy#In short | egogestar, 10 gestures | difference, 95 %
7.2 = toy#In short | ut_interaction, 5 interactions | difference, 95 %
72.8 = toy#Every figure | ut_interaction: MSTA, 5 shots | mean
63.2 = toy#Every figure | ut_interaction: linear probe, 5 shots | mean
""",
}
"""Page -> its measured figures in text, and the cell of results/ that each is: file#heading | how its row begins | column,
or one cell : divided by another.
"""
FACTS = {
    "README.md": "2411.11223 the paper's number; 3.11 3.10 of Python; 0.6 1.7 GB; 0.1 the scale",
    "app.md": "9.4 megapixels, a setting",
    "backbones.md": "4.0 of a licence; 3.3 2.0 of open_clip and torch",
    "claims.md": "50 chance; 0.05 of p; 0.001 0.1 0.005 0.02 scales; 2 the share of the weights",
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
    "predict.md": "95 0.1 settings; 370.9 372.0 374.0 376.8 381.5 382.5 of timeline.json, by the test below",
    "protocols.md": "95 of the interval",
    "serve.md": "9.4 a setting; 1.67 1.85 0.25 0.4 46.6 1.3 of former code, as told there",
    "speed.md": "1.702 of QuickGELU; 1.6 a goal; 11 what 3.39 leaves out of 3.82",
    "toy.md": "0.2 chance; 0.1 the scale; 0.02 the rate; 0.6 0.7 seconds per step, and 29 20 of toy-frames, by log.jsonl",
    "training.md": "40 a setting",
}


def cells(source: str) -> list[float]:
    """The numbers of a cell that CITED names, in the first row that begins so; without a column, those of the line."""
    file, start, column = (part.strip() for part in source.split("|"))
    name, _, heading = file.partition("#")
    lines = evidence.table(f"{name}.md{heading and '#'}{heading}").splitlines()
    at = next(i for i, line in enumerate(lines) if line.strip("| ").startswith(start))
    row = lines[at]
    if column:
        rule = max(i for i in range(at) if lines[i].startswith(("|-", "| -", "|:")))
        titles, values = ([cell.strip() for cell in line.split("|")] for line in (lines[rule - 1], row))
        row = " ".join(value for title, value in zip(titles, values, strict=True) if title == column)
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*(?:\.\d+)?", row)]


def agrees(figure: str, source: str) -> bool:
    """Whether the cell, or the ratio of two, in percent or not, rounds to the figure."""
    one, _, other = source.partition(" : ")
    values = cells(one)
    if other:
        values = [factor * values[0] / cells(other)[0] for factor in (1, 100)]
    digits = len(figure.partition(".")[2])
    return figure in {f"{value + 1e-9:,.{digits}f}" for value in values}  # 2.25 is 2.3


def stated(text: str) -> list[str]:
    """The figures of a page, without those of tables that are checked as a whole."""
    text = evidence.PLACE.sub("", text)
    text = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    text = re.sub(r"`[^`]*`", "", text)
    return FIGURE.findall(" ".join(re.sub(r"\]\([^)]*\)", "]", text).split()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_are_those_of_the_results(page):
    facts = FIGURE.findall(FACTS.get(page.name, "")) + re.findall(r"(?<![\w.])\d+(?![\w.])", FACTS.get(page.name, ""))
    cited = dict(line.split(" = ") for line in CITED.get(page.name, "").strip().splitlines())
    found = stated(page.read_text(encoding="utf-8"))
    for figure in found:
        assert figure in facts or figure in cited, (
            f"{page.name}: {figure} is of no result: add it to CITED, or to FACTS"
        )
    for figure, source in cited.items():
        assert agrees(figure, source), (
            f"{page.name}: {figure} is not {source}, which is {cells(source.partition(' : ')[0])}"
        )
        assert figure in found, f"{page.name} says {figure} no more"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_those_of_the_results(page):
    for place in evidence.PLACE.finditer(page.read_text(encoding="utf-8")):
        assert place[3].strip() == evidence.table(place[2]), f"{page.name}: {place[2]} was measured again"


def test_memory_of_long_videos_is_what_was_measured():
    measured = json.loads((RESULTS / "timeline.json").read_text(encoding="utf-8"))["memory, MB by minutes"]
    words = ("for a minute", "for ten", "for thirty", "for an hour", "for two", "for three")
    text = " ".join((ROOT / "docs" / "predict.md").read_text(encoding="utf-8").split())
    for (_, megabytes), word in zip(measured.items(), words, strict=True):
        assert re.search(rf"{megabytes}( MB)? {word}", text)


def test_a_figure_that_no_result_holds_is_found():
    assert stated("It gains 12.3 points, `9.9`, [a page](2.2) and 40 %.") == ["12.3", "40"]
    source = "step#51 classes | fast path | of plain"
    assert agrees("72", source)
    assert not agrees("73", source)


@pytest.mark.parametrize("file", sorted(RESULTS.glob("*.json")), ids=lambda file: file.name)
def test_accuracy_is_of_todays_weights(file):
    content = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        return
    if isinstance(weights := content.get("backbone"), str) and re.fullmatch("[0-9a-f]{64}", weights):
        assert weights == msta.load_backbone("toy").fingerprint()
    runs = [run for run in content.get("runs", []) if isinstance(run, dict) and "weights" in run]
    for name, weights in {(run["backbone"], run["weights"]) for run in runs}:
        assert weights == msta.load_backbone(name).fingerprint()
