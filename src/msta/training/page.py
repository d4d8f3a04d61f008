"""RUN/report.html: how good the adapter is, what it confuses, how it was made, and what can be done with it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from msta.adapters.artefact import Artefact
from msta.config import read_config
from msta.errors import MSTAError
from msta.evaluation import figures
from msta.evaluation.gallery import Gallery, Tested
from msta.evaluation.intervals import wilson
from msta.evaluation.metrics import confusion
from msta.evaluation.predictions import Predictions, read_predictions
from msta.evaluation.report import write_page
from msta.evaluation.tables import Column, Table
from msta.files import read_json
from msta.training.report import read_log

PAGE = "report.html"


def write_run_page(run: Path) -> Path:
    """Write the page of a finished run, from the files in its directory. Returns the page's path.

    Raises:
        MSTAError: the run is not finished, or kept no predictions (``eval.keep=nothing``).
    """
    metrics, config = read_json(run / "metrics.json", MSTAError), read_config(run / "config.yaml")
    artefact = Artefact.read(run / "adapter")
    tested = read_predictions(run / "predictions" / "test.parquet")
    log = read_log(run)
    gallery = Gallery()
    caption = "Learning curves of the training on all clips" if config.train.on_all_clips else "Learning curves"
    curves = [(caption, figures.learning_curves({run.name: log}))] if any("loss" in x for x in log) else []
    answers = gallery.section(
        [Tested("", tested, metrics["temperature"])], before=curves, compared={artefact.label: [tested]}
    )
    right = sum(tested.hits)
    low, high = wilson(right, len(tested.clips))
    adapter = shlex.quote(str(run / "adapter"))
    commands = [
        f"msta predict VIDEO --adapter {adapter}",
        f"msta predict LONG_VIDEO --adapter {adapter} --window 2s",
        f"msta app --adapter {adapter}",
        f"msta export --adapter {adapter} --out exported",
    ]
    settings = ", ".join(f"{name}={value}" for name, value in artefact.settings.items()) or "no settings"
    facts = [
        ("backbone", artefact.backbone["source"] + (", frozen" if not artefact.method.startswith("full") else "")),
        ("method", f"{artefact.label}: {settings}"),
        ("trained", f"{artefact.trained:,} of {artefact.total:,} parameters"),
        ("training", _training(metrics)),
        ("data", str(config.data.path)),
    ]
    write_page(
        run / PAGE, "run.html", gallery.pictures,
        name=run.name, metrics=metrics, right=right, low=low, high=high, s=answers, classes=tested.classes,
        how=metrics.get("measured", "none of which it was trained on"), unreadable=metrics["unreadable"],
        folds=[f"{each:.1f} %" for each in metrics.get("folds", ())], table=class_table(tested), commands=commands,
        facts=facts, settings=config.to_yaml(),
    )  # fmt: skip
    return run / PAGE


def _training(metrics: dict[str, Any]) -> str:
    if not metrics["steps"]:
        return "none"
    best = metrics["selected_at"]
    leak = metrics["selected_by"] == "test-leak"
    by = "the test clips, which makes the figure too good" if leak else "the validation clips"
    chosen = f"; the adapter is that after epoch {best['epoch']}, the best on {by}" if best else ""
    return f"{metrics['steps']:,} steps in {metrics['seconds']:.0f} s{chosen}"


def class_table(tested: Predictions) -> Table:
    """For each class its test clips, how many were right, and what the others were most often taken for."""
    counts = confusion(tested.labels, tested.predicted, len(tested.classes))
    rows = []
    for i, name in enumerate(tested.classes):
        clips, right = int(counts[i].sum()), int(counts[i, i])
        wrong = np.where(np.arange(len(counts)) == i, 0, counts[i])
        taken = tested.classes[int(wrong.argmax())] if wrong.any() else None
        share = 100 * right / clips if clips else None
        rows.append({"class": name, "clips": clips, "right": right, "share": share, "taken": taken})
    columns = (
        Column("class", "class"), Column("test clips", "clips", "d"), Column("right", "right", "d"),
        Column("%", "share", ".0f"), Column("most often taken for", "taken"),
    )  # fmt: skip
    return Table(columns, rows)
