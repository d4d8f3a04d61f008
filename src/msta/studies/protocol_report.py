"""A protocol's report: results.json, results.md, results.tex, and report.html, which needs no other file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from msta.data.decode import read_frames
from msta.data.times import segment_times
from msta.data.video_file import DecodeError
from msta.evaluation import figures
from msta.evaluation.metrics import confusion, per_class, scaled
from msta.evaluation.report import write_page
from msta.files import write_bytes, write_json
from msta.studies.published import PACKAGED, read_published
from msta.studies.results import Group, Results, Run
from msta.studies.tables import DETAILS, HEADER, NOT_OURS, NUMBERS_FROM, Line, details, latex, lines, markdown
from msta.studies.tables import published_lines as lines_of

MISTAKES, STRIP, FRAME = 6, 6, 96
"""How many mistakes are shown, in how many frames of how many pixels a side."""

TITLES = {
    "zero-shot": "Zero-shot transfer",
    "few-shot": "Few-shot recognition",
    "base-to-novel": "Base-to-novel generalisation",
    "supervised": "Fully supervised recognition",
}


def write_report(out: Path, published: Path | None = None) -> dict[str, Any]:
    """Make tables, pictures and the page from what the runs in ``out`` left.

    Args:
        out: a protocol's folder.
        published: a file of others' figures, see :mod:`msta.studies.published`, beside those that come with the
            package, which are shown where the data set is the same.

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
    table = lines(rows, others)
    elsewhere = lines_of([p for p in others if not any(p.is_on(dataset) for dataset in results.datasets)])
    title = TITLES[results.protocol]
    write_json(out / "results.json", content | {"published": [vars(p) for p in others]})
    write_bytes(out / "results.md", _markdown(results, title, table, elsewhere, rows).encode())
    caption = f"{title}: top-1 in percent."
    if any(line.source for line in table):
        caption += f" {NOT_OURS} Published by others."
    write_bytes(out / "results.tex", latex(HEADER, [line.cells for line in table], caption).encode())
    pictures: dict[str, Path | bytes] = {}
    sections = [_section(results, dataset, rows, pictures) for dataset in results.datasets]
    if results.datasets and len({row["method"] for row in rows}) > 1:
        pictures["trainable"] = figures.trainable_share([row for row in rows if row["set"] != "harmonic mean"])
    write_page(
        out / "report.html", "protocol.html", pictures,
        title=title, protocol=results.protocol, table=table, header=HEADER, numbers_from=NUMBERS_FROM,
        details_header=DETAILS, details=details(rows), comparisons=content["comparisons"], elsewhere=elsewhere,
        mark=NOT_OURS, sections=sections, command=command(results.asked), settings=_settings(results),
        environments=content["environments"], cost=content["cost"], cells=len(results.cells),
        seeds=results.asked["seeds"], unknown=[row for row in rows if "unknown" in row],
        leak=any("test_leak" in row for row in rows),
        unreadable=_unreadable(results),
    )  # fmt: skip
    return content


def summary(content: dict[str, Any]) -> str:
    """The main table of results.json, for a terminal."""
    body = [line.cells for line in lines(content["rows"], [])]
    widths = [max(map(len, column)) for column in zip(HEADER, *body, strict=True)]
    rows = [
        "  ".join(
            cell.rjust(width) if i >= NUMBERS_FROM else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [HEADER, *body]
    ]
    return "\n".join(row.rstrip() for row in rows)


def command(asked: dict[str, Any]) -> str:
    """The command line that asks for the same."""
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


def _markdown(
    results: Results, title: str, table: Sequence[Line], elsewhere: Sequence[Line], rows: Sequence[dict[str, Any]]
) -> str:
    text = [f"# {title}\n\n    {command(results.asked)}\n\n", markdown(HEADER, [line.cells for line in table])]
    text.append(
        "\nTop-1 in percent, mean of the runs; the interval (95 %, bootstrap over clips) is of that mean, s.d. the "
        "deviation of the runs.\n"
    )
    sources = dict.fromkeys((line.method, line.source) for line in [*table, *elsewhere] if line.source)
    if sources:
        text.append(f"\n{NOT_OURS} Published by others, not measured here:\n\n")
        text += [f"- {method}: {source}\n" for method, source in sources]
    if elsewhere:
        text.append("\n## Published on other data sets\n\n" + markdown(HEADER, [line.cells for line in elsewhere]))
    text.append("\n## More figures\n\n" + markdown(DETAILS, details(rows)))
    comparisons = [
        [c["dataset"], c["set"] or (f"{c['shots']} shots" if c["shots"] else ""), f"{c['label']} − {c['against']}",
         f"{c['difference']:+.1f}", f"{c['p']:.3g}", f"{c['clips']:.0f}"]
        for c in results.comparisons()
    ]  # fmt: skip
    if comparisons:
        header = ["data set", "case", "methods", "difference", "p", "clips"]
        text.append("\n## Paired tests\n\n" + markdown(header, comparisons))
    return "".join(text)


# ---------------------------------------------------------------- pictures of one data set


def _section(
    results: Results, dataset: str, rows: Sequence[dict[str, Any]], pictures: dict[str, Path | bytes]
) -> dict[str, Any]:
    """What the page shows of a data set; the pictures are of its headline group."""
    own = [row for row in rows if row["dataset"] == dataset]
    number = results.datasets.index(dataset)
    group = results.headline(dataset)
    runs = _comparable(results.groups[group])
    classes = runs[0].predictions.classes
    shown: list[tuple[str, str]] = []

    def add(name: str, caption: str, picture: bytes | None) -> None:
        if picture is not None:
            pictures[f"{name}{number}"] = picture
            shown.append((f"{name}{number}", caption))

    if results.protocol == "few-shot":
        add("accuracy", "Top-1 by clips a class; 95 % intervals over clips", figures.accuracy_by_shots(own))
    else:
        add("accuracy", "Top-1; 95 % intervals over clips", figures.accuracy_bars(own))
    logs = {f"seed {run.seed}" + (f", part {run.part}" if run.part else ""): run.log() for run in runs}
    if results.protocol != "zero-shot" and any("loss" in line for log in logs.values() for line in log):
        add("learning", "Learning curves", figures.learning_curves(logs))
    labels = np.concatenate([run.predictions.labels for run in runs])
    predicted = np.concatenate([run.predictions.predicted for run in runs])
    matrix = confusion(labels, predicted, len(classes))
    add("confusion", f"Confusion, clips of {len(runs)} run(s)", figures.confusion_matrix(matrix, classes))
    bars = {}
    for name in filter(None, (results.baseline(dataset), group)):
        each = _comparable(results.groups[name])
        truth = np.concatenate([run.predictions.labels for run in each])
        bars[_label(results, name)] = per_class(
            truth, np.concatenate([run.predictions.predicted for run in each]), len(classes)
        )
    few = "the classes with the lowest accuracy" if len(classes) > figures.LABELLED else "every class"
    add("classes", f"Accuracy of {few}", figures.class_bars(bars, classes))
    curves = {"as it is": (np.concatenate([run.predictions.probabilities for run in runs]), labels)}
    if all(run.temperature is not None for run in runs):
        parts = [scaled(run.predictions.probabilities, run.temperature or 1.0) for run in runs]
        curves["temperature-scaled"] = (np.concatenate(parts), labels)
    add("reliability", "Calibration", figures.reliability_diagram(curves))
    caption = f"Embeddings of the test clips (t-SNE), {_named(runs[0])}; filled: right, open: wrong"
    add("map", caption, figures.embedding_map(runs[0].predictions))
    mistakes = _mistakes(runs, f"mistake{number}-", pictures)
    wrong = sum(run.predictions.hits.count(False) for run in runs)
    return {"dataset": dataset, "of": _label(results, group), "pictures": shown, "mistakes": mistakes, "wrong": wrong,
            "clips": len(labels), "classes": len(classes)}  # fmt: skip


def _comparable(runs: Sequence[Run]) -> list[Run]:
    """Those with the classes of the first one: parts may be sets of different classes."""
    return [run for run in runs if run.predictions.classes == runs[0].predictions.classes]


def _mistakes(runs: Sequence[Run], prefix: str, pictures: dict[str, Path | bytes]) -> list[dict[str, Any]]:
    """The wrong answers given with most confidence, a clip once, as film strips."""
    wrong = [
        (-float(run.predictions.confidence[i]), run.predictions.clips[i], i, run)
        for run in runs
        for i, hit in enumerate(run.predictions.hits)
        if not hit
    ]
    found: list[dict[str, Any]] = []
    for confidence, clip, i, run in sorted(wrong, key=lambda w: w[:3]):
        if len(found) == MISTAKES:
            break
        if any(clip == mistake["clip"] for mistake in found):
            continue
        path, span = run.predictions.files[i]
        try:
            frames = read_frames(path, lambda d: segment_times(d, STRIP), FRAME, within=span)
        except DecodeError:
            continue
        name = f"{prefix}{len(found)}"
        pictures[name] = figures.film_strip(frames)
        p = run.predictions
        found.append({
            "picture": name, "clip": clip, "file": "/".join(Path(clip).parts[-2:]), "run": _named(run),
            "truth": p.classes[p.labels[i]], "said": p.classes[p.predicted[i]], "confidence": -100 * confidence,
        })  # fmt: skip
    return found


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
