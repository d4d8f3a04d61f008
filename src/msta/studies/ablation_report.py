"""What an ablation shows: one table, and a figure an axis."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from msta.evaluation.fonts import png
from msta.evaluation.report import AFTER, BEFORE
from msta.files import write_bytes

MEASURED = {"top1": "top-1", "novel": "novel", "harmonic_mean": "harmonic mean"}
"""Figures of a cell -> columns."""
_COLOURS = (AFTER, BEFORE, "#c8553d")


def write_ablation(out: Path, result: dict[str, Any]) -> None:
    """Write ``out``/ablation.md and ``out``/AXIS.png."""
    write_bytes(out / "ablation.md", table(result).encode())
    for axis, title in result["axes"].items():
        draw(out / f"{axis}.png", axis, title, result)


def table(result: dict[str, Any]) -> str:
    """Markdown: mean and, in brackets, standard deviation over the seeds. What changes nothing is in bold."""
    columns = _measured(result)
    shots = "all clips" if result["shots"] is None else f"{result['shots']} clips"
    seeds = ", ".join(map(str, result["seeds"]))
    lines = [
        f"{result['backbone']}, {shots} a class, seeds {seeds}; percent, mean (deviation).",
        "",
        "| varied | | trained parameters | " + " | ".join(columns.values()) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for axis, title in result["axes"].items():
        for label, cells in _of(result, axis).items():
            figures = [_spread([cell[name] for cell in cells]) for name in columns]
            point = f"**{label}**" if cells[0]["unchanged"] else label
            lines.append(f"| {title} | {point} | {cells[0]['trainable']:,} | " + " | ".join(figures) + " |")
            title = ""
    return "\n".join(lines) + "\n"


def draw(path: Path, axis: str, title: str, result: dict[str, Any]) -> None:
    """A PNG: every seed a dot, their mean a line; the point that changes nothing is marked."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    of = _of(result, axis)
    figure = Figure(figsize=(max(4.0, 1.5 + 0.9 * len(of)), 3.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
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
    axes.set_ylabel("accuracy, %")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(axis="y", alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    if len(axes.get_legend_handles_labels()[0]) > 1:
        axes.legend(frameon=False, fontsize=8)
    write_bytes(path, png(figure))


def _measured(result: dict[str, Any]) -> dict[str, str]:
    """What was measured -> what it is called. With novel classes, top-1 is that of the base classes."""
    found = {name: label for name, label in MEASURED.items() if name in result["cells"][0]}
    return found | {"top1": "base"} if "novel" in found else found


def _of(result: dict[str, Any], axis: str) -> dict[str, list[dict[str, Any]]]:
    """Point -> its cells, a seed each."""
    points: dict[str, list[dict[str, Any]]] = {}
    for cell in result["cells"]:
        if cell["axis"] == axis:
            points.setdefault(cell["point"], []).append(cell)
    return points


def _spread(values: list[float]) -> str:
    mean = f"{statistics.fmean(values):.1f}"
    return f"{mean} ({statistics.stdev(values):.1f})" if len(values) > 1 else mean
