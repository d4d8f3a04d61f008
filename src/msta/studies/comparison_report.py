"""The report of a comparison: accuracy with intervals and paired tests, forgetting, costs, and the Pareto front."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msta.errors import MSTAError
from msta.evaluation import figures
from msta.evaluation.intervals import Answers, interval, paired_test
from msta.evaluation.metrics import Array, harmonic_mean
from msta.evaluation.report import write_page
from msta.evaluation.tables import Column, Table
from msta.files import read_json, write_bytes, write_json
from msta.methods import METHODS
from msta.studies.protocols import FROZEN
from msta.studies.results import Group, Results

AS_IT_IS = "*"
"""Marks a figure of novel classes that the backbone itself gave, because the method knows only its training classes."""

AXES = {"share": "trained parameters, % of the backbone's", "step": "seconds per training step"}
"""Costs that accuracy is drawn against."""


_FORGETTING = (
    Column("case", "case"), Column("trained on", "trained_on"), Column("tested on", "tested_on"),
    Column("method", "label"), Column("top-1", "value", ".1f"), Column("change", "change", "+.1f"),
    Column("p", "p", ".2g"),
)  # fmt: skip
_COSTS = (
    Column("method", "label"), Column("trained", "trainable", ",.0f"), Column("%", "share", ".2f"),
    Column("s per step", "step", ".3f"), Column("clips/s at test", "clips", ".0f"),
    Column("memory, MB", "memory_mb", ".0f"), Column("artefact, MB", "artefact_mb", ".1f"),
)  # fmt: skip
_SETTINGS = (
    Column("case", "case"), Column("data set", "dataset"), Column("method", "method"), Column("settings", "found"),
)  # fmt: skip


def write_comparison(
    out: Path, asked: dict[str, Any], folders: Sequence[tuple[str, str]], costs: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    """Make comparison.json, comparison.md, report.html and a PNG of the front for each case.

    Args:
        out: the comparison's folder.
        asked: the request, which is recorded.
        folders: (case, data set): protocols below ``out``.
        costs: method -> figures of :func:`msta.training.cost.measure_costs`.

    Returns:
        The contents of comparison.json; accuracies in percent.
    """
    rows: list[dict[str, Any]] = []
    forgetting: list[dict[str, Any]] = []
    size: dict[str, float] = {}
    for case, dataset in folders:
        results = Results(out / case / dataset)
        rows += _with_differences(case, results, dataset, reference(asked["methods"]))
        forgetting += _forgetting(case, results, dataset)
        for folder, cell in results.cells.items():
            size[cell["method"]] = max(size.get(cell["method"], 0), _bytes(folder / "adapter"))
    methods = [
        {"method": name, "label": _common_label(name, rows), **costs[name], "artefact": size[name]}
        for name in asked["methods"]
    ]
    content = {
        "asked": asked, "rows": rows, "means": _means(rows), "forgetting": forgetting, "methods": methods,
        "settings": _settings(out, folders, asked["methods"]),
    }  # fmt: skip
    write_json(out / "comparison.json", content)
    fronts = {f"front-{case}-{cost}": _front(content, case, cost) for case in asked["cases"] for cost in AXES}
    for name, picture in fronts.items():
        write_bytes(out / f"{name}.png", picture)
    write_bytes(out / "comparison.md", markdown(content).encode())
    words = {"tables": tables(content), "notes": notes(content)}
    write_page(out / "report.html", "comparison.html", fronts, fronts=list(fronts), **words)
    return content


def _common_label(method: str, rows: Sequence[dict[str, Any]]) -> str:
    """The label of a method in all rows, or its name if a search found another label on each data set."""
    labels = {row["label"] for row in rows if row["method"] == method}
    return labels.pop() if len(labels) == 1 else method


def reference(methods: Sequence[str]) -> str:
    """The method that all others are compared with: msta, or the last one."""
    return "msta" if "msta" in methods else methods[-1]


# ---------------------------------------------------------------- figures


class _Measured:
    """One method on one data set: what its figure is, and how it varies as clips are drawn anew."""

    def __init__(self, results: Results, case: str, dataset: str, method: str) -> None:
        def group(set_: str, of: str) -> Group:
            return next(g for g in results.groups if g[:3] == (dataset, set_, of))

        def answers(set_: str, of: str) -> Answers:
            return results.answers(group(set_, of))

        self.borrowed = case == "base-to-novel" and METHODS[method].closed_set
        names = ("base", "novel") if case == "base-to-novel" else ("",)
        self.label = results.label(group(names[0], method))
        self.parts = {name: answers(name, FROZEN if name == "novel" and self.borrowed else method) for name in names}
        drawn = [each.resampled(seed) for seed, each in enumerate(self.parts.values())]
        self.resampled: Array = drawn[0] if len(drawn) == 1 else 2 * drawn[0] * drawn[1] / np.maximum(sum(drawn), 1e-9)
        means = [each.mean() for each in self.parts.values()]
        self.value = means[0] if len(means) == 1 else harmonic_mean(*means)

    def against(self, other: _Measured) -> dict[str, float]:
        """Difference in points and two-sided p: a sign test over clips; for harmonic means, a bootstrap over clips."""
        if len(self.parts) == 1:
            test = paired_test(self.parts[""], other.parts[""])
            return {"difference": self.value - other.value, "p": test["p"]}
        difference = self.resampled - other.resampled  # the same draws
        below = min((difference <= 0).mean(), (difference >= 0).mean())
        return {"difference": self.value - other.value, "p": float(min(1.0, 2 * below + 1 / len(difference)))}


def _with_differences(case: str, results: Results, dataset: str, to: str) -> list[dict[str, Any]]:
    rows = []
    methods = list(dict.fromkeys(group[2] for group in results.groups))
    measured = {method: _Measured(results, case, dataset, method) for method in methods}
    for method, found in measured.items():
        low, high = interval(found.resampled)
        row: dict[str, Any] = {"case": case, "dataset": dataset, "method": method, "label": found.label,
                               "value": found.value, "low": low, "high": high}  # fmt: skip
        if len(found.parts) > 1:
            row |= {name: each.mean() for name, each in found.parts.items()} | {"borrowed": found.borrowed}
        if method != to:
            row |= found.against(measured[to])
        rows.append(row)
    return rows


def _forgetting(case: str, results: Results, dataset: str) -> list[dict[str, Any]]:
    """Each method on the second data set, against the backbone as it is."""
    rows: list[dict[str, Any]] = []
    second = [group for group in results.groups if group[1] == "second"]
    for group in second:
        before = next(g for g in second if g[0] == group[0] and g[2] == FROZEN)
        row: dict[str, Any] = {"case": case, "trained_on": dataset, "tested_on": group[0], "method": group[2],
                               "label": results.label(group), "value": results.answers(group).mean()}  # fmt: skip
        if group[2] != FROZEN:
            change = row["value"] - results.answers(before).mean()
            row |= {"change": change, "p": paired_test(results.answers(group), results.answers(before))["p"]}
        rows.append(row)
    return rows


def _means(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Over the data sets of a case."""
    found: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        found.setdefault((row["case"], row["method"]), []).append(row["value"])
    return [{"case": case, "method": m, "value": statistics.fmean(v)} for (case, m), v in found.items()]


def _bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.exists() else 0


def _settings(out: Path, folders: Sequence[tuple[str, str]], methods: Sequence[str]) -> list[dict[str, Any]]:
    """What the searches chose."""
    found = []
    for case, dataset in folders:
        for method in methods:
            file = out / "search" / case / dataset / method / "search.json"
            if file.exists():
                best = read_json(file, MSTAError)["best"]
                found.append({"case": case, "dataset": dataset, "method": method, "settings": best})
    return found


# ---------------------------------------------------------------- tables and pictures


def tables(content: dict[str, Any]) -> list[Table]:
    """All tables of the comparison."""
    costs = [m | {"memory_mb": m["memory"] / 1e6, "artefact_mb": m["artefact"] / 1e6} for m in content["methods"]]
    found = [row | {"found": " ".join(row["settings"]) or "defaults"} for row in content["settings"]]
    made = [
        *(_accuracy(content, case) for case in content["asked"]["cases"]),
        Table(_FORGETTING, content["forgetting"], "forgetting"),
        Table(_COSTS, costs, "costs"),
        Table(_SETTINGS, found, "settings found"),
    ]
    return [table for table in made if table.rows]


def _accuracy(content: dict[str, Any], case: str) -> Table:
    halves = case == "base-to-novel"
    label = {method["method"]: method["label"] for method in content["methods"]}
    rows = []
    for row in content["rows"]:
        if row["case"] == case:
            mark = AS_IT_IS if row.get("borrowed") else ""
            shown = {name: f"{row[name]:.1f}{mark}" for name in ("value", "novel") if name in row}
            rows.append({**row, **shown, "interval": f"{row['low']:.1f} – {row['high']:.1f}"})
    if len({row["dataset"] for row in rows}) > 1:
        means = (mean for mean in content["means"] if mean["case"] == case)
        rows += [{"dataset": "mean", "label": label[m["method"]], "value": f"{m['value']:.1f}"} for m in means]
    columns = [
        Column("data set", "dataset"), Column("method", "label"),
        *([Column("base", "base", ".1f"), Column("novel", "novel", ">")] if halves else []),
        Column("harmonic mean" if halves else "top-1", "value", ">"), Column("95 %", "interval", ">"),
        Column(f"− {reference(content['asked']['methods'])}", "difference", "+.1f"), Column("p", "p", ".2g"),
    ]  # fmt: skip
    return Table(columns, rows, case)


def notes(content: dict[str, Any]) -> list[str]:
    """Notes that a reader of the tables needs."""
    asked = content["asked"]
    to = reference(asked["methods"])
    said = [
        f"Top-1 in percent, mean of the seeds {', '.join(map(str, asked['seeds']))}, {asked['shots']} clips per class; "
        "95 %: bootstrap over clips of that mean.",
        f"“− {to}” is the difference to {to} in points; p is two-sided, paired on the same clips (of harmonic means by "
        "drawing clips anew).",
        f"Settings: {asked['trials']} trials per method, chosen by validation in the first seed's split."
        if asked["trials"]
        else "Settings: each method's defaults; nothing was searched.",
        "Schedule: the same for all." if asked["schedule"] == "equal" else "Schedule: each method's own.",
        "Costs: medians on noise, each method in a process of its own; memory is what a step adds to an idle process.",
    ]
    if any(row.get("borrowed") for row in content["rows"]):
        said.append(f"{AS_IT_IS} knows its own classes alone: the novel ones are answered by the backbone as it is.")
    return said


def markdown(content: dict[str, Any]) -> str:
    """All tables and notes as Markdown."""
    text = ["# Methods compared\n\n", *(f"- {note}\n" for note in notes(content))]
    text += [f"\n## {table.title.capitalize()}\n\n{table.markdown()}" for table in tables(content)]
    return "".join(text)


def _front(content: dict[str, Any], case: str, cost: str) -> bytes:
    """Mean accuracy over the data sets against a cost."""
    value = {m["method"]: m["value"] for m in content["means"] if m["case"] == case}
    at = {m["label"]: (m[cost], value[m["method"]]) for m in content["methods"]}
    y = "harmonic mean, %" if case == "base-to-novel" else "top-1, %"
    return figures.pareto_front(at, AXES[cost], y, logarithmic=cost == "share")
