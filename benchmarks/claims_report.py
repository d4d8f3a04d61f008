"""What claims.py measured, as tables and a figure: differences with intervals and paired tests, and a verdict for each.

A seed draws its training clips and its test clips anew, so seeds are independent, and the spread of their differences
shows how much clips and training vary. (The split of the classes, the frozen weights and the learning rates are the
same for all seeds.) Intervals are Student's, of the paired differences, and p is of the paired t test. A comparison
needs MINIMUM seeds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from msta.evaluation.tables import Column, Table

Hits = list[dict[str, np.ndarray]]
"""For each seed: test -> which clips were answered rightly."""

SMALL = 1.0
"""Points: if the whole interval lies within so many of zero, there is no difference worth having."""
SAME = 5.0
"""Points, of a control: if the whole interval lies within so many of zero, both are the same, as they should be."""
MINIMUM = 3
"""Seeds for a comparison."""


@dataclass(frozen=True)
class Row:
    """One comparison: ``one`` is the variant that the claim says is better on ``figure``.

    ``paper`` is what the paper has; two figures are mean harmonic means of its four data sets. In a ``control`` both
    should be the same.
    """

    claim: str
    one: str
    other: str
    figure: str = "harmonic mean"
    paper: str = ""
    control: bool = False


ROWS = (
    Row("1 both towers", "msta", "video alone", paper="60.1, not 57.9"),
    Row("1 both towers", "msta", "text alone", paper="60.1, not 57.9"),
    Row("2 shared projection", "msta", "not shared", paper="60.1, not 59.5"),
    Row("3 temporal, joint attention", "msta", "not temporal"),
    Row("3 temporal, joint attention", "msta", "not temporal", "pairs"),
    Row("3 temporal, frame-wise attention", "frames: msta", "frames: not temporal"),
    Row("3 temporal, frame-wise attention", "frames: msta", "frames: not temporal", "pairs"),
    Row("3 temporal, frame-wise, 128 shots", "frames, swipes: msta", "frames, swipes: not temporal", "swipes"),
    Row("3 temporal, frame-wise, 128 shots", "frames, swipes: msta", "frames, swipes: not temporal", "swipes pairs"),
    Row(
        "3 control: frames shuffled",
        "frames, swipes: msta",
        "frames, swipes: not temporal",
        "swipes shuffled",
        control=True,
    ),
    Row("4 consistency, 2 shots", "2 shots", "2 shots, no consistency", "novel"),
    Row("4 consistency, 4 shots", "msta", "no consistency", "novel"),
    Row("4 consistency, 4 shots", "msta", "no consistency", "base"),
    Row("4 consistency, 8 shots", "8 shots", "8 shots, no consistency", "novel"),
    Row("4 consistency, 16 shots", "16 shots", "16 shots, no consistency", "novel"),
    Row("4 sentences, not templates", "msta", "templates", "novel"),
    Row("4 sentences, not a language model's", "msta", "a language model's sentences", "novel"),
    Row("4 a language model's sentences, not none", "a language model's sentences", "no consistency", "novel"),
    Row("4 consistency in LoRA", "lora", "lora, no consistency", "novel"),
    Row("4 consistency in full fine-tuning", "full", "full, no consistency", "novel"),
    Row("4 weight 1, not 10", "msta", "alpha 10", paper="1 best"),
    Row("5 scale 0.001, not 0.1", "scale 0.001", "msta"),
    Row("5 scale 0.005, not 0.1", "scale 0.005", "msta", paper="0.005 best"),
    Row("5 scale 0.02, not 0.1", "scale 0.02", "msta"),
    Row("5 scale 0.1, not 0.3", "msta", "scale 0.3"),
    Row(
        "6 few shots: upper blocks, not all",
        "few-shot: blocks 4..6",
        "few-shot: all blocks",
        "all",
        paper="8..12 before all",
    ),
    Row("6 few shots: upper blocks, not lower", "few-shot: blocks 4..6", "few-shot: blocks 1..3", "all"),
    Row("6 base-to-novel: all blocks, not upper", "msta", "blocks 4..6"),
    Row("6 base-to-novel: upper blocks, not lower", "blocks 4..6", "blocks 1..3", paper="7..12 before 1..6"),
    Row("7 ahead of LoRA", "msta", "lora", paper="60.0, not 58.2"),
    Row("7 ahead of LoRA, no descriptions", "no consistency", "lora, no consistency"),
    Row("7 ahead of full fine-tuning", "msta", "full", paper="60.0, not 58.2"),
    Row("7 ahead of full fine-tuning, no descriptions", "no consistency", "full, no consistency"),
    Row("7 ahead of AdaptFormer", "msta", "adaptformer", paper="60.0, not 58.7"),
    Row("7 ahead of AdaptFormer, video alone", "video alone", "adaptformer"),
    Row("7 ahead of ST-Adapter", "msta", "st-adapter"),
    Row("7 ahead of ST-Adapter, video alone", "video alone", "st-adapter"),
    Row("7 ahead of a linear probe, few shots", "few-shot: all blocks", "linear-probe", "all"),
    Row(
        "7 ahead of a linear probe, 30 epochs", "few-shot, 30 epochs: msta", "few-shot, 30 epochs: linear-probe", "all"
    ),
    Row("(adapted, not zero-shot)", "msta", "zero-shot"),
    Row("(start at zero, not after Kaiming)", "msta", "kaiming"),
    Row("(width) r 16, not 8", "msta", "r 8"),
    Row("(width) r 32, not 16", "r 32", "msta"),
    Row("(width) r 64, not 16", "r 64", "msta"),
)


def hits_of(runs: Sequence[dict[str, Any]], variant: str, seeds: Sequence[int], strength: str = "1") -> Hits:
    """The answers of a variant on these seeds, unpacked."""
    found = {run["seed"]: run for run in runs if run["variant"] == variant}
    return [
        {
            name: np.unpackbits(np.frombuffer(bytes.fromhex(bits), np.uint8))[: found[seed]["tested"][name]]
            for name, bits in found[seed]["hits"][strength].items()
        }
        for seed in seeds
    ]


def seeds_of(runs: Sequence[dict[str, Any]], *wanted: str) -> list[int]:
    """The seeds on which all of these variants were measured."""
    return sorted(set.intersection(*({run["seed"] for run in runs if run["variant"] == name} for name in wanted)))


def tests(figure: str) -> tuple[str, ...]:
    """Whose clips a figure is made of."""
    return {
        "harmonic mean": ("base", "novel"),
        "pairs": ("base pairs", "novel pairs"),
        "shuffled": ("base shuffled", "novel shuffled"),
    }.get(figure, (figure,))


def together(figure: str, shares: Sequence[np.ndarray]) -> np.ndarray:
    """The tests' accuracies as one figure, in percent."""
    if figure == "harmonic mean":
        base, novel = shares
        return 200 * base * novel / np.maximum(base + novel, 1e-9)
    return 100 * np.mean(shares, axis=0)


def by_seed(hits: Hits, figure: str) -> np.ndarray:
    """The figure of each seed."""
    return np.array([together(figure, [np.array(seed[t].mean()) for t in tests(figure)]) for seed in hits])


def interval_of(hits: Hits, other: Hits | None, figure: str) -> tuple[float, float, float]:
    """The 95 % interval of a figure, or of the difference of two variants' figures, and p of a difference of zero."""
    values = by_seed(hits, figure) - (0 if other is None else by_seed(other, figure))
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    p = float(stats.ttest_1samp(values, 0).pvalue) if half else float(not values.mean())
    return float(values.mean() - half), float(values.mean() + half), p


def verdict(low: float, high: float, control: bool = False) -> str:
    """What the interval of a difference allows to say of the claim that it is positive.

    No difference comes first: an interval from 0.2 to 0.8 says that there is none worth having.
    """
    if control:
        return "as it should be" if max(-low, high) <= SAME else "cannot be told" if low < 0 < high else "it fails"
    if max(-low, high) <= SMALL:
        return "no difference"
    return "holds here" if low > 0 else "the opposite holds here" if high < 0 else "cannot be told"


def compared(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each comparison that is measured."""
    lines = []
    for row in ROWS:
        if len(seeds := seeds_of(runs, row.one, row.other)) < MINIMUM:
            continue
        one, other = (hits_of(runs, name, seeds) for name in (row.one, row.other))
        low, high, p = interval_of(one, other, row.figure)
        first, second = (float(by_seed(hits, row.figure).mean()) for hits in (one, other))
        lines.append({
            "claim": row.claim, "paper": row.paper, "one": row.one, "other": row.other, "figure": row.figure,
            "seeds": len(seeds), "clips": sum(len(seed[t]) for seed in one for t in tests(row.figure)),
            "first": first, "second": second, "difference": first - second, "low": low, "high": high,
            "interval": f"{low:+.1f} .. {high:+.1f}", "p": f"{p:.4f}" if p >= 5e-5 else "< 0.0001",
            "verdict": verdict(low, high, row.control),
        })  # fmt: skip
    return lines


def figures(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each variant: its figures, the harmonic mean with its interval."""
    lines = []
    for name in dict.fromkeys(run["variant"] for run in runs):
        if not (seeds := seeds_of(runs, name)):
            continue
        hits = hits_of(runs, name, seeds)
        one = next(run for run in runs if run["variant"] == name and run["seed"] in seeds)
        line = {"variant": name, "seeds": len(seeds), "parameters": one["parameters"]}
        # the last of these that was measured is the main one
        for figure in ("pairs", "shuffled", "swipes", "all", "base", "novel", "harmonic mean"):
            for own in (figure, f"swipes {figure}"):
                if all(t in hits[0] for t in tests(own)):
                    line[figure] = float(by_seed(hits, own).mean())
                    main_figure = own
        if len(seeds) >= MINIMUM:
            low, high, _ = interval_of(hits, None, main_figure)
            line["interval"] = f"{low:.1f} .. {high:.1f}"
        lines.append(line)
    return lines


def strengths(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for each method and strength of its adapters at test time; 0 is the frozen model."""
    lines = []
    for name in dict.fromkeys(run["variant"] for run in runs if len(run["hits"]) > 1):
        if len(seeds := seeds_of(runs, name, "zero-shot")) < MINIMUM:
            continue
        scales = sorted({float(s) for run in runs if run["variant"] == name for s in run["hits"]})
        trained = hits_of(runs, name, seeds)
        for scale in (0.0, *scales):
            hits = hits_of(runs, name, seeds, f"{scale:g}") if scale else hits_of(runs, "zero-shot", seeds)
            low, high, _ = interval_of(hits, trained, "harmonic mean") if scale != 1 else (0.0, 0.0, 1.0)
            line = {"variant": name, "strength": scale, "seeds": len(seeds), "gain": f"{low:+.1f} .. {high:+.1f}"}
            means = {f: float(by_seed(hits, f).mean()) for f in ("base", "novel", "harmonic mean")}
            lines.append(line | means)
    return lines


def report(runs: Sequence[dict[str, Any]]) -> str:
    """The three tables as Markdown."""
    percent = [Column(name, name, ".1f") for name in ("base", "novel", "harmonic mean")]
    claims = Table(
        (
            Column("claim", "claim"), Column("the paper", "paper"), Column("one", "one"), Column("other", "other"),
            Column("figure", "figure"),
            Column("seeds", "seeds", "d"), Column("clips", "clips", ",d"), Column("one, %", "first", ".1f"),
            Column("other, %", "second", ".1f"), Column("difference", "difference", "+.1f"),
            Column("95 %", "interval", ">"), Column("p", "p", ">"), Column("verdict", "verdict"),
        ),
        compared(runs),
    )  # fmt: skip
    every = Table(
        (
            Column("variant", "variant"), Column("seeds", "seeds", "d"), Column("parameters", "parameters", ",d"),
            Column("four swipes", "swipes", ".1f"), Column("all 59 classes", "all", ".1f"), *percent,
            Column("95 % of it", "interval", ">"),
            Column("pairs", "pairs", ".1f"), Column("pairs, shuffled", "shuffled", ".1f"),
        ),
        figures(runs),
    )  # fmt: skip
    strong = Table(
        (
            Column("method", "variant"), Column("strength", "strength", "g"), Column("seeds", "seeds", "d"), *percent,
            Column("harmonic mean against strength 1, 95 %", "gain", ">"),
        ),
        strengths(runs),
    )  # fmt: skip
    return "\n".join(
        [
            "## Comparisons\n", claims.markdown(), "## Every variant, %\n", every.markdown(),
            "## Strength of the adapters at test time, %\n", strong.markdown(),
        ]
    )  # fmt: skip


SHOWN = (-18, 20)
"""The points that the figure shows. A difference beyond them is written at their right end."""
COLOURS = ("#2266aa", "#c2571a", "#3a8a4d", "#7a5aa6")


def _label(line: dict[str, Any]) -> str:
    """A comparison in the figure: its claim, whom against if the claim does not say it, and what was measured."""
    against = f", against {line['other']}" if line["claim"].startswith("1") else ""
    return f"{line['claim']}{against}" + (f" ({line['figure']})" if line["figure"] != "harmonic mean" else "")


def plot(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Left: every comparison's difference and interval. Right: base against novel along the strength."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.8), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    lines = [line for line in compared(runs) if line["claim"][0].isdigit()]
    for y, line in enumerate(reversed(lines)):
        low, high = line["low"], line["high"]
        colour = {"holds here": "#3a8a4d", "the opposite holds here": "#c2571a"}.get(line["verdict"], "#8794a3")
        if line["difference"] < SHOWN[1]:
            left.plot((low, high), (y, y), color=colour, linewidth=2)
            left.plot(line["difference"], y, "o", color=colour, markersize=4)
        else:
            text = f"{line['difference']:+.1f}  ({line['interval']})  →"
            left.text(SHOWN[1], y, text, color=colour, fontsize=8, ha="right", va="center")
    left.set_yticks(range(len(lines)), [_label(line) for line in reversed(lines)], fontsize=8)
    left.set_xlim(*SHOWN)
    left.axvline(0, color="#44505c", linewidth=1)
    left.set_title("in favour of the claim, points, 95 %; green: holds, orange: opposite", fontsize=9, loc="left")
    along = strengths(runs)
    for name, colour in zip(dict.fromkeys(line["variant"] for line in along), COLOURS, strict=False):
        own = [line for line in along if line["variant"] == name]
        right.plot(
            [line["novel"] for line in own],
            [line["base"] for line in own],
            "o-",
            color=colour,
            label=name,
            markersize=4,
        )
        for line in own:
            if line["strength"] in (0, 1):
                right.annotate(
                    f"{line['strength']:g}",
                    (line["novel"], line["base"]),
                    fontsize=7,
                    xytext=(4, 4),
                    textcoords="offset points",
                )
    right.set_xlabel("novel classes, %", fontsize=9)
    right.set_ylabel("base classes, %", fontsize=9)
    right.set_title(
        f"adapters by strength, 0 to {max([1.0, *(line['strength'] for line in along)]):g}",
        fontsize=10,
        loc="left",
    )
    right.legend(frameon=False, fontsize=8)
    for axes in (left, right):
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path, format="png", metadata={"Software": None})
