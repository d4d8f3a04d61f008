"""A protocol's figures as tables: the same lines for HTML, Markdown and LaTeX, others' published ones marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from msta.evaluation.figures import case
from msta.studies.published import Published

NOT_OURS = "†"
SETS = {"base": "base", "novel": "novel", "harmonic_mean": "harmonic mean"}


@dataclass(frozen=True)
class Line:
    """A line of the main table, in percent.

    Attributes:
        dataset: tested on.
        case: what of it: "4 shots", "novel"; empty for all.
        method: ours, or the model of others.
        top1: mean over the runs.
        low: with ``high`` the interval over clips; None for others' figures.
        deviation: of the runs; None for one run.
        runs: how many.
        source: of others' figures; None for ours.
    """

    dataset: str
    case: str
    method: str
    top1: float
    low: float | None = None
    high: float | None = None
    deviation: float | None = None
    runs: int = 0
    source: str | None = None

    @property
    def cells(self) -> list[str]:
        """As text, in the order of :data:`HEADER`."""
        interval = "" if self.low is None else f"{self.low:.1f} – {self.high:.1f}"
        spread = "" if self.deviation is None else f"{self.deviation:.1f}"
        method = self.method if self.source is None else f"{self.method} {NOT_OURS}"
        return [self.dataset, self.case, method, f"{self.top1:.1f}", interval, spread, str(self.runs or "")]


HEADER = ["data set", "case", "method", "top-1", "95 % interval", "s.d.", "runs"]
DETAILS = ["data set", "case", "method", "top-5", "mean class", "ECE", "ECE scaled", "T", "clips", "trained", "s a run"]
NUMBERS_FROM = 3
"""Columns from here on are numbers."""


def lines(rows: Sequence[dict[str, Any]], published: Sequence[Published]) -> list[Line]:
    """The main table: each data set's rows, then what others published on it."""
    table = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for row in (r for r in rows if r["dataset"] == dataset):
            numbers = (row["top1"], row["low"], row["high"], row["deviation"], len(row["runs"]))
            table.append(Line(dataset, case(row), row["label"], *numbers))
            if "test_leak" in row:
                leak = f"{row['label']}, best on test (test-leak)"
                table.append(Line(dataset, case(row), leak, row["test_leak"], runs=len(row["runs"])))
        table += published_lines([p for p in published if p.is_on(dataset)], dataset)
    return table


def published_lines(published: Sequence[Published], dataset: str | None = None) -> list[Line]:
    """Others' figures."""
    return [
        Line(dataset or p.dataset, _published_case(name), p.model, value, source=p.source)
        for p in published
        for name, value in p.figures.items()
    ]


def _published_case(name: str) -> str:
    return f"{name} shots" if name.isdecimal() else SETS.get(name, "" if name == "top1" else name)


def details(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The second table, in the order of :data:`DETAILS`."""

    def number(row: dict[str, Any], name: str, digits: int = 1) -> str:
        return f"{row[name]:.{digits}f}" if name in row else ""

    return [
        [
            row["dataset"], case(row), row["label"], number(row, "top5"), number(row, "mean_class"),
            number(row, "ece"), number(row, "ece_scaled"), number(row, "temperature", 2), str(row["clips"]),
            f"{row['trainable_parameters']:,} ({row['share']:.2f} %)", f"{row['seconds']:.0f}",
        ]
        for row in rows
        if "clips" in row
    ]  # fmt: skip


# ---------------------------------------------------------------- Markdown and LaTeX


def markdown(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A table for Markdown."""
    rule = ["---" if i < NUMBERS_FROM else "---:" for i in range(len(header))]
    rows = [header, rule, *([cell.replace("|", "\\|") for cell in line] for line in body)]
    return "".join(f"| {' | '.join(line)} |\n" for line in rows)


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "–": "--", NOT_OURS: r"$^\dagger$",
}  # fmt: skip


def latex(header: Sequence[str], body: Sequence[Sequence[str]], caption: str) -> str:
    """A table for LaTeX, with booktabs; a rule between data sets."""

    def line(cells: Sequence[str]) -> str:
        return " & ".join("".join(_LATEX.get(c, c) for c in cell) for cell in cells) + r" \\"

    rows = []
    for i, cells in enumerate(body):
        rows += [r"\midrule"] * (i > 0 and cells[0] != body[i - 1][0]) + [line(cells)]
    columns = "l" * NUMBERS_FROM + "r" * (len(header) - NUMBERS_FROM)
    return "\n".join([
        r"% needs \usepackage{booktabs}", r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule", line(header), r"\midrule", *rows, r"\bottomrule", r"\end{tabular}",
        rf"\caption{{{''.join(_LATEX.get(c, c) for c in caption)}}}", r"\end{table}", "",
    ])  # fmt: skip
