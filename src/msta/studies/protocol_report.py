"""A protocol's report: results.json, results.md, results.tex, and report.html, which needs no other file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from msta.evaluation import figures
from msta.evaluation.figures import case
from msta.evaluation.gallery import Gallery, Tested
from msta.evaluation.report import write_page
from msta.evaluation.tables import Column, Table
from msta.files import write_bytes, write_json
from msta.studies.published import PACKAGED, Published, read_published
from msta.studies.results import Group, Results, Run

TITLES = {
    "zero-shot": "Zero-shot transfer",
    "few-shot": "Few-shot recognition",
    "base-to-novel": "Base-to-novel generalisation",
    "supervised": "Fully supervised recognition",
}
NOT_OURS = "†"
_PUBLISHED_CASES = {"base": "base", "novel": "novel", "harmonic_mean": "harmonic mean", "top1": ""}


def write_report(out: Path, published: Path | None = None) -> dict[str, Any]:
    """Make tables, pictures and the page from the results of the runs in ``out``.

    Args:
        out: a protocol's folder.
        published: a file of published figures, see :mod:`msta.studies.published`, in addition to those of the
            package, which are shown if the data set is the same.

    Returns:
        What is written to ``out``/results.json.

    Raises:
        DataError: a run is not finished, or a file damaged.
    """
    results = Results(out)
    others = [p for p in read_published(PACKAGED, results.protocol) if any(map(p.is_on, results.datasets))]
    others += read_published(published, results.protocol) if published is not None else []
    content = results.to_json()
    rows = results.rows()
    main = main_table(rows, others)
    elsewhere = _published_elsewhere([p for p in others if not any(map(p.is_on, results.datasets))])
    tables = {
        "main": main, "elsewhere": elsewhere, "details": details_table(rows), "unknown": _unknown_table(rows),
        "comparisons": _comparisons_table(content["comparisons"]),
    }  # fmt: skip
    sources = dict.fromkeys((row["model"], row["source"]) for row in main.rows if row.get("by_others"))
    title = TITLES[results.protocol]
    write_json(out / "results.json", content | {"published": [vars(p) for p in others]})
    write_bytes(out / "results.md", _markdown(results, title, tables).encode())
    caption = f"{title}: top-1 in percent." + (f" {NOT_OURS} Published by others." if sources else "")
    write_bytes(out / "results.tex", main.latex(caption).encode())
    gallery = Gallery()
    sections = [_section(results, dataset, rows, gallery) for dataset in results.datasets if results.pictured(dataset)]
    if results.datasets and len({row["method"] for row in rows}) > 1:
        gallery.pictures["trainable"] = figures.trainable_share([row for row in rows if row["set"] != "harmonic mean"])
    write_page(
        out / "report.html", "protocol.html", gallery.pictures,
        title=title, tables=tables, sources=sources, mark=NOT_OURS, sections=sections,
        command=command(results.asked), settings=_settings(results), environments=content["environments"],
        cost=content["cost"], cells=len(results.cells), seeds=results.asked["seeds"],
        leak=any("test_leak" in row for row in rows), unreadable=_unreadable(results),
    )  # fmt: skip
    return content


def command(asked: dict[str, Any]) -> str:
    """The command line for the same request."""
    words = ["msta", "protocol", asked["protocol"]]
    for option in ("data", "source", "target", "second"):
        for value in asked[option]:
            words += [f"--{option}", value]
    for option, name in (("methods", "method"), ("shots", "shots"), ("seeds", "seeds")):
        if asked[option]:
            words += [f"--{name}", ",".join(map(str, asked[option]))]
    for option in ("preset", "backbone", "base", "adapter"):
        if asked[option]:
            words += [f"--{option}", asked[option]]
    return shlex.join([*words, "--out", "DIR", *asked["overrides"]])


# ---------------------------------------------------------------- tables


_DATASET, _CASE, _METHOD = Column("data set", "dataset"), Column("case", "case"), Column("method", "method")


def main_table(rows: Sequence[dict[str, Any]], published: Sequence[Published] = ()) -> Table:
    """Top-1 of each of the rows of :class:`Results`, and, after each data set, the figures published on it."""
    shown: list[dict[str, Any]] = []
    for dataset in dict.fromkeys(row["dataset"] for row in rows):
        for row in (r for r in rows if r["dataset"] == dataset):
            named = {"dataset": dataset, "case": case(row), "method": row["label"], "runs": len(row["runs"])}
            interval = f"{row['low']:.1f} – {row['high']:.1f}"
            shown.append(named | {"top1": row["top1"], "interval": interval, "deviation": row["deviation"]})
            if "test_leak" in row:
                leak = f"{row['label']}, best on test (test-leak)"
                shown.append(named | {"method": leak, "top1": row["test_leak"]})
        shown += _published_rows([p for p in published if p.is_on(dataset)], dataset)
    columns = (
        _DATASET, _CASE, _METHOD, Column("top-1", "top1", ".1f"), Column("95 % interval", "interval", ">"),
        Column("s.d.", "deviation", ".1f"), Column("runs", "runs", "d"),
    )  # fmt: skip
    return Table(columns, shown)


def _published_elsewhere(published: Sequence[Published]) -> Table:
    columns = (_DATASET, _CASE, Column("model", "method"), Column("top-1", "top1", ".1f"), Column("source", "source"))
    return Table(columns, _published_rows(published), "Published on other data sets")


def _published_rows(published: Sequence[Published], dataset: str | None = None) -> list[dict[str, Any]]:
    return [
        {
            "dataset": dataset or p.dataset,
            "case": f"{name} shots" if name.isdecimal() else _PUBLISHED_CASES.get(name, name),
            "method": f"{p.model} {NOT_OURS}",
            "top1": value,
            "model": p.model,
            "source": p.source,
            "by_others": True,
        }
        for p in published
        for name, value in p.figures.items()
    ]


def details_table(rows: Sequence[dict[str, Any]], *, seconds: bool = True) -> Table:
    """The other figures of the rows of :class:`Results`; ``seconds``: with the time, which differs from run to run."""
    shown = [
        row | {"case": case(row), "trained": f"{row['trainable_parameters']:,} ({row['share']:.2f} %)"}
        for row in rows
        if "clips" in row  # a harmonic mean has none of its own
    ]
    top5 = [Column("top-5", "top5", ".1f")] if any(row["classes"] > 5 for row in shown) else []
    columns = [
        _DATASET, _CASE, Column("method", "label"), *top5,
        Column("mean class", "mean_class", ".1f"), Column("ECE", "ece", ".1f"),
        Column("ECE scaled", "ece_scaled", ".1f"), Column("T", "temperature", ".2f"), Column("clips", "clips", "d"),
        Column("trained", "trained", ">"),
    ]  # fmt: skip
    return Table([*columns, *([Column("s per run", "seconds", ".0f")] if seconds else [])], shown, "More figures")


def _comparisons_table(comparisons: Sequence[dict[str, Any]]) -> Table:
    shown = [c | {"case": case(c), "methods": f"{c['label']} − {c['against']}"} for c in comparisons]
    columns = (
        _DATASET, _CASE, Column("methods", "methods"), Column("difference", "difference", "+.1f"),
        Column("p", "p", ".3g"), Column("clips", "clips", ".0f"),
    )  # fmt: skip
    return Table(columns, shown, "Paired tests")


def _unknown_table(rows: Sequence[dict[str, Any]]) -> Table:
    shown = [{"dataset": row["dataset"], "method": row["label"], **row["unknown"]} for row in rows if "unknown" in row]
    columns = (
        _DATASET, _METHOD, Column("threshold", "threshold", ".2f"), Column("base kept, %", "kept", ".1f"),
        Column("novel refused, %", "refused", ".1f"), Column("AUROC", "auroc", ".1f"),
    )  # fmt: skip
    return Table(columns, shown, "Saying “unknown”")


def _markdown(results: Results, title: str, tables: dict[str, Table]) -> str:
    main, elsewhere = tables["main"], tables["elsewhere"]
    text = [
        f"# {title}\n\n    {command(results.asked)}\n\n{main.markdown()}\n"
        "Top-1 in percent, mean of the runs; the interval (95 %, bootstrap over clips) is of that mean, s.d. the "
        "deviation of the runs.\n"
    ]
    published = [row for row in (*main.rows, *elsewhere.rows) if row.get("by_others")]
    if published:
        text.append(f"\n{NOT_OURS} Published by others, not measured here:\n\n")
        text += dict.fromkeys(f"- {row['model']}: {row['source']}\n" for row in published)
    shown = (Table(elsewhere.columns[:-1], elsewhere.rows, elsewhere.title), tables["details"], tables["comparisons"])
    text += [f"\n## {table.title}\n\n{table.markdown()}" for table in shown if table.rows]
    return "".join(text)


# ---------------------------------------------------------------- pictures of one data set


def _section(results: Results, dataset: str, rows: Sequence[dict[str, Any]], gallery: Gallery) -> dict[str, Any]:
    """What the page shows of a data set; the pictures are of its headline group."""
    own = [row for row in rows if row["dataset"] == dataset]
    group = results.headline(dataset)
    runs = _comparable(results.groups[group])
    first: list[tuple[str, bytes]] = []
    if results.protocol == "few-shot":
        caption = "Top-1 by clips per class; 95 % intervals over clips"
        first.append((caption, figures.accuracy_by_shots(own)))
    else:
        first.append(("Top-1; 95 % intervals over clips", figures.accuracy_bars(own)))
    logs = {_named(run): run.log() for run in runs}
    if results.protocol != "zero-shot" and any("loss" in line for log in logs.values() for line in log):
        first.append(("Learning curves", figures.learning_curves(logs)))
    compared = {
        _label(results, name): [run.predictions for run in _comparable(results.groups[name])]
        for name in filter(None, (results.baseline(dataset), group))
    }
    tests = [Tested(_named(run), run.predictions, run.temperature) for run in runs]
    return {"dataset": dataset, "of": _label(results, group)} | gallery.section(tests, before=first, compared=compared)


def _comparable(runs: Sequence[Run]) -> list[Run]:
    """Those with the classes of the first one: parts may be sets of different classes."""
    return [run for run in runs if run.predictions.classes == runs[0].predictions.classes]


def _label(results: Results, group: Group) -> str:
    _, part, _, shots = group
    return ", ".join(filter(None, (results.label(group), f"{shots} shots" if shots else "", part)))


def _named(run: Run) -> str:
    return f"seed {run.seed}" + (f", part {run.part}" if run.part else "")


# ---------------------------------------------------------------- settings


def _settings(results: Results) -> list[tuple[str, str]]:
    """Of one run of every method and number of shots: (what, its config.yaml)."""
    found: dict[str, str] = {}
    for folder, cell in results.cells.items():
        shots = f"{cell['shots']} shots" if cell["shots"] else ""
        name = ", ".join(filter(None, (cell["dataset"], cell["method"], shots)))
        found.setdefault(name, (folder / "config.yaml").read_text(encoding="utf-8"))
    return list(found.items())


def _unreadable(results: Results) -> dict[str, str]:
    """Clips that some run left out, and why."""
    reasons: dict[str, str] = {}
    for runs in results.groups.values():
        for run in runs:
            reasons |= run.metrics.get("unreadable", {})
    return reasons
