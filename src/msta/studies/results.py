"""From a protocol's folder to its figures: every number here is made from predictions, logs and settings on disk."""

from __future__ import annotations

import contextlib
import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from msta.adapters.artefact import Artefact
from msta.errors import DataError, MSTAError
from msta.evaluation.calibration import choose_threshold, rejection, temperature_of
from msta.evaluation.intervals import Answers, interval, paired_test
from msta.evaluation.metrics import accuracy, calibration, harmonic_mean, scaled
from msta.evaluation.predictions import Predictions, read_predictions
from msta.files import read_json
from msta.studies.protocols import FROZEN
from msta.training.report import read_log

Group = tuple[str, str, str, int | None]
"""(data set, set, method, shots): what a row of a table is about."""


@dataclass(frozen=True)
class Run:
    """A finished cell, and one test set that it was measured on.

    Attributes:
        folder: of the cell.
        seed: of split and training.
        part: which division of the data set was tested.
        predictions: on the test set.
    """

    folder: Path
    seed: int
    part: int
    predictions: Predictions

    @cached_property
    def validation(self) -> Predictions | None:
        """Predictions on the clips that the checkpoint was selected by."""
        file = self.folder / "predictions" / "val.parquet"
        return read_predictions(file) if file.exists() else None

    @cached_property
    def temperature(self) -> float | None:
        """Fitted on the validation clips, as in a training's own metrics."""
        return temperature_of(self.validation) if self.validation else None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Metrics of the training; empty if nothing was trained."""
        file = self.folder / "metrics.json"
        return read_json(file, MSTAError) if file.exists() else {}

    def figures(self) -> dict[str, Any]:
        """The figures of this run."""
        p = self.predictions
        figures: dict[str, Any] = {
            "seed": self.seed,
            "part": self.part,
            "clips": len(p.clips),
            **accuracy(torch.from_numpy(p.probabilities), torch.from_numpy(p.labels)),
            "ece": calibration(p.probabilities, p.labels),
        }
        if self.temperature is not None:
            figures |= {
                "temperature": self.temperature,
                "ece_scaled": calibration(scaled(p.probabilities, self.temperature), p.labels),
            }
        return figures

    @property
    def top1(self) -> float:
        """Share of the clips that are right, in percent."""
        return 100 * statistics.fmean(self.predictions.hits)

    def log(self) -> list[dict[str, Any]]:
        """Lines of the training's log."""
        return read_log(self.folder)

    def test_leak(self) -> float | None:
        """Top-1 of the epoch that is best on the test clips, if they were watched. The authors chose in this way."""
        watched = [line["test"]["top1"] for line in self.log() if "test" in line]
        return max(watched) if watched else None


class Results:
    """Everything a report shows.

    Args:
        out: a protocol's folder.

    Raises:
        DataError: ``out`` has no protocol, or one of its cells is not finished.
    """

    def __init__(self, out: Path) -> None:
        plan = read_json(out / "protocol.json", DataError)
        self.out, self.protocol, self.asked = out, str(plan["protocol"]), dict(plan["asked"])
        self.groups: dict[Group, list[Run]] = {}
        self.cells: dict[Path, dict[str, Any]] = {}
        for cell in plan["cells"]:
            folder = out / "runs" / cell["folder"]
            if not (folder / "cell.json").exists():
                raise DataError(f"{folder}: is not finished; give the same msta protocol command again")
            self.cells[folder] = cell | read_json(folder / "cell.json", DataError)
            for measured in cell["measured"]:
                group = measured["dataset"], measured["set"], cell["method"], cell["shots"]
                predictions = read_predictions(folder / measured["file"])
                self.groups.setdefault(group, []).append(Run(folder, cell["seed"], measured["part"], predictions))
        self._answers: dict[Group, Answers] = {}

    def answers(self, group: Group) -> Answers:
        """Which clips the runs of a group had right."""
        if group not in self._answers:
            self._answers[group] = Answers((r.predictions.clips, r.predictions.hits) for r in self.groups[group])
        return self._answers[group]

    def label(self, group: Group) -> str:
        """The group's method and size, as tables and legends name it."""
        return str(self.groups[group][0].metrics.get("label", group[2]))

    def rows(self) -> list[dict[str, Any]]:
        """A dictionary for every data set, set, method and number of shots, in the order of the cells."""
        rows = []
        for group in self.groups:
            if group[1] != "unknown":
                rows.append(self._row(group))
            if group[1] == "novel":
                rows.append(self._harmonic(group))
        order = {"": 0, "base": 0, "novel": 1, "harmonic mean": 2, "second": 3}
        datasets = list(dict.fromkeys(row["dataset"] for row in rows))
        methods = list(dict.fromkeys(row["method"] for row in rows))
        return sorted(
            rows,
            key=lambda r: (
                datasets.index(r["dataset"]), r["shots"] or 0, methods.index(r["method"]), order[r["set"]],
            ),
        )  # fmt: skip

    def _row(self, group: Group) -> dict[str, Any]:
        runs = self.groups[group]
        figures = [run.figures() for run in runs]
        low, high = interval(self.answers(group).resampled())
        row: dict[str, Any] = self._named(group) | {
            "runs": figures,
            "classes": len(runs[0].predictions.classes),
            "top1": statistics.fmean(f["top1"] for f in figures),
            "low": low,
            "high": high,
            "deviation": _deviation([f["top1"] for f in figures]),
        }
        for name in ("top5", "mean_class", "nll", "ece", "ece_scaled", "temperature"):
            if all(name in f for f in figures):
                row[name] = statistics.fmean(f[name] for f in figures)
        row["clips"] = len(self.answers(group).clips)
        own = [run.test_leak() for run in runs if group[1] in ("", "base")]
        if self.protocol != "zero-shot" and own and None not in own:
            row["test_leak"] = statistics.fmean(leak for leak in own if leak is not None)
        if row["set"] == "base":
            row |= self._unknown(group)
        return row | self._cost(runs)

    def _harmonic(self, novel: Group) -> dict[str, Any]:
        """Of the two means, as in the tables of the field; the interval of both sets of clips drawn anew."""
        base = (novel[0], "base", *novel[2:])
        drawn = [self.answers(group).resampled(seed) for seed, group in enumerate((base, novel))]
        low, high = interval(2 * drawn[0] * drawn[1] / np.maximum(drawn[0] + drawn[1], 1e-9))
        runs = [{"seed": a.seed, "part": a.part, "top1": harmonic_mean(a.top1, b.top1)}
                for a, b in zip(self.groups[base], self.groups[novel], strict=True)]  # fmt: skip
        return self._named(novel) | {
            "set": "harmonic mean",
            "runs": runs,
            "top1": harmonic_mean(self.answers(base).mean(), self.answers(novel).mean()),
            "low": low,
            "high": high,
            "deviation": _deviation([run["top1"] for run in runs]),
            **self._cost(self.groups[novel]),
        }

    def _unknown(self, base: Group) -> dict[str, Any]:
        """Base classes are known, novel ones unknown; the threshold is chosen on the validation clips of each run."""
        figures = []
        others = self.groups.get((base[0], "unknown", *base[2:]))
        if others is None:  # a closed method
            return {}
        for known, unknown in zip(self.groups[base], others, strict=True):
            if known.validation is not None:
                below = choose_threshold(known.validation.confidence)
                parted = rejection(below, known.predictions.confidence, unknown.predictions.confidence)
                figures.append({"threshold": below, **parted})
        return {"unknown": {k: statistics.fmean(f[k] for f in figures) for k in figures[0]}} if figures else {}

    def _cost(self, runs: Sequence[Run]) -> dict[str, Any]:
        trainable = [run.metrics.get("trainable_parameters", 0) for run in runs]
        totals = [read_json(file, MSTAError)["total_parameters"] for run in runs
                  if (file := run.folder / "adapter" / "adapter_config.json").exists()]  # fmt: skip
        if not totals and runs[0].folder.name.startswith("adapter-"):  # one that was given
            with contextlib.suppress(MSTAError):
                given = Artefact.read(self.asked["adapter"])
                trainable, totals = [given.trained], [given.total]
        return {
            "trainable_parameters": max(trainable),
            "share": 100 * max(trainable) / totals[0] if totals else 0.0,
            "seconds": statistics.fmean(self.cells[run.folder]["seconds"] for run in runs),
        }

    def comparisons(self) -> list[dict[str, Any]]:
        """Each method against the first one (the baseline), on the clips that both were tested on."""
        found = []
        for group in self.groups:
            baseline = next(g for g in self.groups if g[:2] == group[:2] and g[3] in (group[3], None))
            if group[1] != "unknown" and baseline[2] != group[2]:
                test = paired_test(self.answers(group), self.answers(baseline))
                if test:
                    found.append({**self._named(group), "against": self.label(baseline), **test})
        return found

    def _named(self, group: Group) -> dict[str, Any]:
        return dict(zip(("dataset", "set", "method", "shots"), group, strict=True)) | {"label": self.label(group)}

    def environments(self) -> list[dict[str, str]]:
        """The different environments in which the cells were computed."""
        return list({json.dumps(cell["environment"]): cell["environment"] for cell in self.cells.values()}.values())

    def pictured(self, dataset: str) -> list[Group]:
        """The groups that pictures may be of: those on all classes, or on base classes. None for a second data set."""
        return [g for g in self.groups if g[0] == dataset and g[1] in ("", "base")]

    def headline(self, dataset: str) -> Group:
        """The group whose pictures are shown: the last method with the most shots (None is all clips)."""
        groups = self.pictured(dataset)
        last = [g for g in groups if g[2] == groups[-1][2]]
        return max(last, key=lambda g: math.inf if g[3] is None else g[3])

    def baseline(self, dataset: str) -> Group | None:
        """The same group for the model without training, if it was measured."""
        return next((g for g in self.pictured(dataset) if g[2] == FROZEN), None)

    @property
    def datasets(self) -> list[str]:
        """What was tested on."""
        return list(dict.fromkeys(group[0] for group in self.groups))

    def to_json(self) -> dict[str, Any]:
        """The content of results.json. Times are only under "cost", so the same protocol gives the same figures."""
        rows = self.rows()
        cost = {str(folder.relative_to(self.out)): cell["seconds"] for folder, cell in self.cells.items()}
        return {
            "protocol": self.protocol,
            "asked": self.asked,
            "rows": [{k: v for k, v in row.items() if k != "seconds"} for row in rows],
            "comparisons": self.comparisons(),
            "environments": self.environments(),
            "cost": {"seconds": sum(cost.values()), "cells": cost},
        }


def _deviation(values: Sequence[float]) -> float | None:
    """Of a sample; of one there is none."""
    return statistics.stdev(values) if len(values) > 1 else None
