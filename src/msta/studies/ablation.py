"""``msta ablate``: MSTA's own choices, one at a time: a protocol whose model is trained once at each point.

An axis is a choice (the bottleneck's width), and a point is a value of it (64). Everything else stays as in the preset
and the overrides. The point that changes nothing is run once and belongs to every axis.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.config import RunConfig, changed
from msta.descriptions.bank import KINDS, DescriptionBank
from msta.descriptions.prompts import ENSEMBLE
from msta.errors import ConfigError
from msta.evaluation.figures import AFTER, BEFORE, blank, percent
from msta.evaluation.fonts import png
from msta.evaluation.metrics import harmonic_mean
from msta.evaluation.tables import Column, Table
from msta.files import write_bytes, write_json
from msta.methods.msta import MSTAConfig
from msta.notices import notice
from msta.studies.datasets import parse_datasets
from msta.studies.protocols import Cell, Request, Study, run_config
from msta.studies.results import Results
from msta.studies.running import run_protocol

AXES = {
    "blocks": "adapted blocks",
    "dim": "width of the bottleneck",
    "scale": "factor on the adapter's output",
    "shared": "one projection for both towers",
    "temporal": "frames that the temporal up-projection sees",
    "towers": "adapted towers",
    "init": "initialisation",
    "consistency": "descriptions that the text is held to",
    "alpha": "weight of the consistency term",
    "sentences": "sentences per class and kind",
    "template": "prompt of the classes",
}
MEASURED = {"top1": "top-1", "novel": "novel", "harmonic_mean": "harmonic mean"}
"""Figures of a cell -> columns."""
_COLOURS = (AFTER, BEFORE, "#c8553d")
_OF_DESCRIPTIONS = ("consistency", "alpha", "sentences")
_TEMPLATES = ("a video of {}.", "a photo of {}.", "{}", "ensemble")


@dataclass(frozen=True)
class Ablation(Study):
    """The request for an ablation.

    Attributes:
        data: ``[NAME=]PATH[?setting=value&…]``, see :func:`msta.studies.datasets.parse_datasets`.
        novel: train on the first half of the classes and measure the other half as well.
        axes: names in :data:`AXES`; None: all that the data allow.
        shots: training clips per class; None: all.
    """

    data: str
    novel: bool = False
    axes: tuple[str, ...] | None = None
    shots: int | None = None


def ablate(asked: Ablation, out: Path, console: Console) -> dict[str, Any]:
    """Run what is not finished, and report.

    Args:
        asked: what to vary, on which data.
        out: a protocol's folder, see :func:`run_protocol`, with ablation.json, ablation.md and one PNG per axis.
        console: where the runs print.

    Returns:
        What is written to ``out``/ablation.json. Accuracies in percent.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    if unknown := [name for name in asked.axes or () if name not in AXES]:
        raise ConfigError(f"--axes: no {unknown[0]!r}; there are {', '.join(AXES)}")
    protocol = "base-to-novel" if asked.novel else "few-shot"
    request = Request(protocol, (asked.data,), methods=("msta",), shots=(asked.shots,), **asked.common())
    (dataset,) = parse_datasets(request.data, "--data")
    config = run_config(request, "msta", dataset.path, 0, asked.shots, dataset.dataset)
    if config.method["name"] != "msta":
        raise ConfigError(f"method: {config.method['name']} has other choices; msta ablate varies those of msta")
    bank = config.descriptions.model_copy(update={"per_class": None}).load(dataset.read().classes)
    axes = points(config, load_backbone(config.backbone, base=config.base), bank, asked.axes)
    names = {
        axis: {label: _name(axis, label, changes) for label, changes in each.items()} for axis, each in axes.items()
    }
    variants = {names[axis][label]: changes for axis, each in axes.items() for label, changes in each.items()}
    run_protocol(request, out, console, vary=lambda cells: _at_points(cells, variants))
    results = Results(out)
    cells = [
        {"axis": axis, "point": label, "unchanged": not axes[axis][label], **figures}
        for axis, each in names.items()
        for label, name in each.items()
        for figures in _figures(results, name)
    ]
    result = {
        "data": str(dataset.path), "backbone": config.backbone, "shots": asked.shots, "seeds": list(asked.seeds),
        "novel": asked.novel, "axes": {axis: AXES[axis] for axis in axes}, "cells": cells,
    }  # fmt: skip
    write_json(out / "ablation.json", result)
    write_ablation(out, result)
    return result


def _name(axis: str, label: str, changes: dict[str, Any]) -> str:
    """Of a point's folder."""
    return f"{axis}-{label}".replace("/", "-").replace(" ", "-") if changes else "unchanged"


def _at_points(cells: Iterable[Cell], variants: dict[str, dict[str, Any]]) -> Iterator[Cell]:
    """Each cell at each point: name -> the settings it changes."""
    for cell in cells:
        for name, changes in variants.items():
            yield replace(cell, folder=f"{name}/seed{cell.seed}", method=name, config=changed(cell.config, changes))


def _figures(results: Results, point: str) -> Iterator[dict[str, Any]]:
    """What each seed's run at a point measured."""
    runs = {set_: runs for (_, set_, method, _), runs in results.groups.items() if method == point}
    for i, run in enumerate(runs.get("base") or runs[""]):
        metrics, seconds = run.metrics, results.cells[run.folder]["seconds"]
        figures = {"seed": run.seed, "trainable": metrics["trainable_parameters"], "seconds": seconds, "top1": run.top1}
        if "novel" in runs:
            novel = runs["novel"][i].top1
            figures |= {"novel": novel, "harmonic_mean": harmonic_mean(run.top1, novel)}
        yield figures


def points(
    config: RunConfig, backbone: DualEncoder, bank: DescriptionBank | None, axes: Sequence[str] | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Axis -> point -> the settings it changes (dotted name -> value), none at the point of ``config`` itself.

    Values are those of the paper, and some for the preset "small" and the built-in backbone. Widths of the bottleneck
    that the temporal up-projection does not allow are left out (512 on a ViT-B).

    Raises:
        ConfigError: an axis needs descriptions, and none are given.
    """
    method = config.method_config()
    assert isinstance(method, MSTAConfig)
    video, text = len(backbone.video.blocks), len(backbone.text.blocks)
    width = backbone.video.shape.width
    kinds = {kind: bank.sentences(kind) or {} for kind in KINDS if bank.sentences(kind)} if bank else {}
    longest = max((len(s) for sentences in kinds.values() for s in sentences.values()), default=0)
    template = config.data.template
    own = "ensemble" if template == ENSEMBLE else f"{len(template)} of your own"
    own = template if isinstance(template, str) else own
    counts = [*(n for n in (1, 2, 4, 8, 16) if n < longest), longest]
    dims = [r for r in (8, 16, 32, 64, 128, 256, 512) if method.temporal_kernel in (None, 0, 1) or width % r == 0]
    every: dict[str, dict[str, dict[str, Any]]] = {
        "blocks": _block_ranges(method, video, text),
        "dim": _values("method.dim", dims, method.dim),
        "scale": _values("method.scale", (0.001, 0.005, 0.01, 0.05), method.scale),
        "shared": _values("method.shared", (True, False), method.shared),
        "temporal": _values("method.temporal_kernel", (1, 3, 5), max(1, method.temporal_kernel or 0), {1: "none"}),
        "towers": {t: {} if t == method.towers else {"method.towers": t} for t in ("both", "video", "text")},
        "init": {i: {} if i == method.init else {"method.init": i} for i in ("kaiming", "zero")},
        "consistency": _consistency(kinds),
        "alpha": _values("descriptions.alpha", (0.1, 0.5, 1, 2, 10), config.descriptions.alpha),
        "sentences": _values("descriptions.per_class", counts, config.descriptions.per_class or longest),
        "template": {own: {}, **{t: {"data.template": t} for t in _TEMPLATES if t != own}},
    }  # fmt: skip
    if not kinds and (needed := [name for name in axes or () if name in _OF_DESCRIPTIONS]):
        raise ConfigError(f"--axes: {needed[0]} needs sentences: descriptions.bank, .spatial or .temporal")
    if not kinds and axes is None:
        notice(f"No descriptions are given: {' and '.join(_OF_DESCRIPTIONS)} are not varied.")
    return {name: every[name] for name in axes or AXES if kinds or name not in _OF_DESCRIPTIONS}


def _consistency(kinds: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Both kinds of descriptions, as far as there are both, each alone, and none."""
    given = list(kinds)
    used: dict[str, dict[str, Any]] = {"both" if len(given) > 1 else name: {} for name in given}
    if len(given) > 1:
        used |= {name: {"descriptions.kinds": name} for name in given}
    return used | {"off": {f"descriptions.{file}": None for file in ("bank", "spatial", "temporal")}}


def _block_ranges(method: MSTAConfig, video: int, text: int) -> dict[str, dict[str, Any]]:
    """The paper's four choices for towers of 12 blocks (8..12, 1..6, 7..12, 1..12), in proportion, and the own one."""
    depth = max(video, text)
    usual = type(method)().block_pairs(video, text)[0][0]
    own = (method.block_pairs(video, text)[0][0], method.last_block or depth)
    half = max(1, depth // 2)
    ranges = sorted({(usual, depth), (1, half), (min(half + 1, depth), depth), (1, depth), own})
    return {
        f"{first}..{last}": {} if (first, last) == own else {"method.first_block": first, "method.last_block": last}
        for first, last in ranges
    }


def _values(
    setting: str, values: Sequence[Any], own: Any, names: dict[Any, str] | None = None
) -> dict[str, dict[str, Any]]:
    found = sorted({*values, own}, reverse=isinstance(own, bool))
    labels = names or ({True: "yes", False: "no"} if isinstance(own, bool) else {})
    return {labels.get(value, f"{value:g}"): {} if value == own else {setting: value} for value in found}


# ---------------------------------------------------------------- table and figures


def write_ablation(out: Path, result: dict[str, Any]) -> None:
    """Write ``out``/ablation.md and ``out``/AXIS.png."""
    write_bytes(out / "ablation.md", markdown(result).encode())
    for axis, title in result["axes"].items():
        draw(out / f"{axis}.png", axis, title, result)


def markdown(result: dict[str, Any]) -> str:
    """A table: the mean and, in brackets, the standard deviation over the seeds. The unchanged setting is in bold."""
    measured = _measured(result)
    rows: list[dict[str, Any]] = []
    for axis, title in result["axes"].items():
        for label, cells in _of(result, axis).items():
            rows.append({
                "varied": title if not rows or rows[-1]["axis"] != axis else "", "axis": axis,
                "point": f"**{label}**" if cells[0]["unchanged"] else label, "trainable": cells[0]["trainable"],
                **{name: _spread([cell[name] for cell in cells]) for name in measured},
            })  # fmt: skip
    columns = [
        Column("varied", "varied"), Column("", "point"), Column("trained parameters", "trainable", ","),
        *(Column(title, name, ">") for name, title in measured.items()),
    ]  # fmt: skip
    shots = "all clips" if result["shots"] is None else f"{result['shots']} clips"
    seeds = ", ".join(map(str, result["seeds"]))
    about = f"{result['backbone']}, {shots} per class, seeds {seeds}; percent, mean (deviation)."
    return f"{about}\n\n{Table(columns, rows).markdown()}"


def draw(path: Path, axis: str, title: str, result: dict[str, Any]) -> None:
    """A PNG: one dot per seed, a line through the means, and a mark at the unchanged setting."""
    of = _of(result, axis)
    figure, (axes,) = blank(3.2, max(4.0, 1.5 + 0.9 * len(of)))
    for (name, label), colour in zip(_measured(result).items(), _COLOURS, strict=False):
        means = []
        for x, cells in enumerate(of.values()):
            values = [cell[name] for cell in cells]
            means.append(statistics.fmean(values))
            axes.plot([x] * len(values), values, "o", color=colour, alpha=0.35, markersize=5)
        axes.plot(range(len(means)), means, "-", color=colour, linewidth=1.8, label=label)
    for x, cells in enumerate(of.values()):
        if cells[0]["unchanged"]:
            axes.axvline(x, color="#000000", alpha=0.12, linewidth=14, zorder=0)
    axes.set_xticks(range(len(of)), list(of), rotation=20 if max(map(len, of)) > 8 else 0)
    axes.set_xlim(-0.5, len(of) - 0.5)
    axes.set_ylabel("accuracy, %", fontsize=9)
    percent(axes, "y")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", alpha=0.25)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8)
    write_bytes(path, png(figure))


def _measured(result: dict[str, Any]) -> dict[str, str]:
    """What was measured -> what it is called. With novel classes, top-1 is that of the base classes."""
    found = {name: label for name, label in MEASURED.items() if name in result["cells"][0]}
    return found | {"top1": "base"} if "novel" in found else found


def _of(result: dict[str, Any], axis: str) -> dict[str, list[dict[str, Any]]]:
    """Point -> its cells, one per seed."""
    points: dict[str, list[dict[str, Any]]] = {}
    for cell in result["cells"]:
        if cell["axis"] == axis:
            points.setdefault(cell["point"], []).append(cell)
    return points


def _spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ({statistics.stdev(values):.1f})" if len(values) > 1 else mean
