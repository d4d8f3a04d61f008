"""What the consistency term does: weight x kinds of descriptions x seeds, base-to-novel on the demo's task.

    python benchmarks/ablate_consistency.py --plot docs/consistency.png [--seeds 0 1 2] [--alphas 0 1] [--kinds both]

MSTA on the embedded backbone, with the preset small in 20 epochs: trained on five classes of drawn motion,
8 clips each, tested on them and on five others. All runs of a seed share clips and prefix cache, whose 20 views are
kept in fp32, so that a run computes what it would compute without. Without a term the kinds make no difference: alpha 0
runs once a seed. Distances are 1 - cos: of a class's text embedding from where it began, and from its anchors (mean of
both kinds). A run that is in results/consistency.json already is not run again; --out names another folder, for
trials. Writes consistency.json, consistency.md and, with --plot, a picture.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import msta
from msta.adapters.inputs import clip_format
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.backbone.prefix import Tokens
from msta.data.clips import ClipDataset, make_loader, on_device
from msta.demo import BASE, CLIPS_PER_CLASS, NOVEL, Data
from msta.descriptions.anchors import anchors_of
from msta.evaluation.evaluate import class_embeddings, read_views
from msta.evaluation.metrics import accuracy, harmonic_mean
from msta.files import write_json
from msta.motionworld import write_dataset
from msta.training.loop import train
from msta.training.losses import consistency, distances

RESULTS = Path(__file__).parent / "results"
ALPHAS = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0, 10.0)
KINDS = ("both", "spatial", "temporal")
QUIET = Console(quiet=True)
BINS = 10
"""Of the calibration error: 65 clips allow no more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--alphas", type=float, nargs="+", default=list(ALPHAS))
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--clips", type=int, default=CLIPS_PER_CLASS, help="drawn for each class")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--plot", type=Path, help="docs/consistency.png is what the docs show")
    arguments = parser.parse_args()
    setting = {name: getattr(arguments, name) for name in ("epochs", "shots", "clips")}
    table = Table(arguments.out / "consistency.json", msta.load_backbone("toy").fingerprint(), setting)
    grid = [("zero-shot", None), *cells(arguments.alphas, arguments.kinds)]
    for seed in arguments.seeds:
        missing = [cell for cell in grid if not table.has(seed, *cell)]
        if missing:
            with tempfile.TemporaryDirectory() as folder:
                bench = Bench(Path(folder) / "bench", seed, **setting)
                for kinds, alpha in missing:
                    table.fill(seed, kinds, alpha, bench)
    text = report(table.content["runs"], grid)
    (arguments.out / "consistency.md").write_text(text)
    print(text)
    if arguments.plot:
        plot(table.content["runs"], grid, arguments.plot)


def cells(alphas: Sequence[float], kinds: Sequence[str]) -> list[tuple[str, float]]:
    """(kinds, alpha) of every training: without a term, the kinds do not matter."""
    without = [("none", 0.0)] if 0 in alphas else []
    return without + [cell for cell in itertools.product(kinds, alphas) if cell[1] > 0]


class Table:
    """Figures by seed, kinds and alpha, kept as soon as they are measured."""

    def __init__(self, file: Path, backbone: str, setting: dict[str, int]) -> None:
        self.file = file
        file.parent.mkdir(parents=True, exist_ok=True)
        self.content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        if (self.content.get("backbone"), self.content.get("setting")) != (backbone, setting):
            self.content = {"backbone": backbone, "setting": setting, "runs": []}

    def has(self, seed: int, kinds: str, alpha: float | None) -> bool:
        return any((run["seed"], run["kinds"], run["alpha"]) == (seed, kinds, alpha) for run in self.content["runs"])

    def fill(
        self, seed: int, kinds: str, alpha: float | None, figures: Callable[[str, float | None], dict[str, float]]
    ) -> None:
        start = time.perf_counter()
        measured = {name: round(value, 6) for name, value in figures(kinds, alpha).items()}
        seconds = round(time.perf_counter() - start, 1)
        run = {"seed": seed, "kinds": kinds, "alpha": alpha, "seconds": seconds, **measured}
        self.content["runs"].append(run)
        write_json(self.file, self.content)
        print(json.dumps(run), flush=True)


# ---------------------------------------------------------------- one run


@dataclass(frozen=True)
class Part:
    """The validation or test clips of a set of classes, as the frozen blocks leave them: the same in every run."""

    classes: tuple[str, ...]
    tokens: list[Tokens]
    labels: torch.Tensor


class Bench:
    """What the runs of a seed share."""

    def __init__(self, root: Path, seed: int, *, epochs: int, shots: int, clips: int) -> None:
        self.root, self.epochs, self.runs = root, epochs, itertools.count()
        write_dataset(root / "clips", sorted(BASE + NOVEL), clips, seed=seed)
        self.data = Data(root, seed, shots)
        self.toy = msta.load_backbone("toy")
        self.untrained = msta.attach(self.toy, self.data.config("base").method_config())  # the frozen model, to the bit
        self.anchors = {}
        for name in ("base", "novel"):
            settings, classes = self.data.config(name).descriptions, self.data.catalogs[name].classes
            bank = settings.load(classes)
            assert bank is not None
            self.anchors[name] = anchors_of(bank, self.toy, classes)
        self.parts = {
            (classes, split): self._part(self.untrained, classes, split)
            for classes in ("base", "novel")
            for split in ("val", "test")
        }

    def _part(self, model: msta.AdaptedModel, classes: str, split: str) -> Part:
        catalog = self.data.catalogs[classes]
        dataset = ClipDataset([c for c in catalog.clips if c.split == split], clip_format(model))
        tokens, labels = [], []
        for batch in make_loader(dataset, 8, 0, shuffle=False):
            video = on_device(batch, "video", torch.device("cpu"))
            assert video is not None
            tokens.append(model.video_prefix(video[:, 0]))
            labels.append(batch["label"])
        return Part(catalog.classes, tokens, torch.cat(labels))

    def __call__(self, kinds: str, alpha: float | None) -> dict[str, float]:
        """Train, and measure on both sets of classes. Without alpha: the backbone as it is."""
        selected: dict[str, float] = {}
        if alpha is None:
            model = self.untrained
        else:
            run = self.root / f"run-{next(self.runs)}"
            changes = {
                "train.epochs": self.epochs,
                "descriptions.alpha": alpha,
                "descriptions.kinds": "both" if kinds == "none" else kinds,
                "cache.views": self.epochs,
                "cache.dtype": "fp32",
                "cache.path": self.root / "prefix",
                "data.workers": 0,
            }
            metrics = train(self.data.config("base", changes=changes), run, QUIET)
            selected = {"epoch": metrics["selected_at"].get("epoch", self.epochs)}
            model = msta.load_adapter(run / "adapter", self.toy)
        return {**selected, **self.measure(model)}

    @torch.no_grad()
    def measure(self, model: msta.AdaptedModel) -> dict[str, float]:
        figures: dict[str, float] = {}
        for (classes, split), part in self.parts.items():
            text = class_embeddings(model, part.classes, DEFAULT_TEMPLATE)
            probabilities = torch.cat([read_views(model, [tokens], text)[0][0] for tokens in part.tokens])
            measured = accuracy(probabilities, part.labels)
            name = f"{split} {classes}"
            figures |= {f"{name} top1": measured["top1"], f"{name} nll": measured["nll"]}
            figures[f"{name} ece"] = calibration_error(probabilities, part.labels)
            frozen = class_embeddings(self.untrained, part.classes, DEFAULT_TEMPLATE)
            figures[f"travelled {classes}"] = distances(text, frozen, "cosine").mean().item()
            figures[f"to anchors {classes}"] = consistency(text, self.anchors[classes]).item() / 2
        for split in ("val", "test"):
            figures[f"{split} harmonic mean"] = harmonic_mean(
                figures[f"{split} base top1"], figures[f"{split} novel top1"]
            )
        return figures


def calibration_error(probabilities: torch.Tensor, labels: torch.Tensor) -> float:
    """Expected calibration error in percent: how far confidence and accuracy lie apart, bin by bin of confidence."""
    confidence, chosen = probabilities.max(dim=1)
    bins = (confidence * BINS).long().clamp(max=BINS - 1)
    error = 0.0
    for b in bins.unique():
        inside = bins == b
        gap = confidence[inside].mean() - (chosen[inside] == labels[inside]).float().mean()
        error += 100 * inside.float().mean().item() * abs(gap.item())
    return error


# ---------------------------------------------------------------- what came of it


COLUMNS = (
    ("base", "test base top1"),
    ("novel", "test novel top1"),
    ("harmonic mean", "test harmonic mean"),
    ("validation: base", "val base top1"),
    ("novel", "val novel top1"),
    ("harmonic mean", "val harmonic mean"),
    ("text moved: base", "travelled base"),
    ("novel", "travelled novel"),
    ("text to anchors: base", "to anchors base"),
    ("novel", "to anchors novel"),
    ("calibration error: base", "test base ece"),
    ("novel", "test novel ece"),
    ("nll: base", "test base nll"),
    ("novel", "test novel nll"),
)


def mean(runs: list[dict[str, Any]], cell: tuple[str, float | None], figure: str) -> float | None:
    values = values_of(runs, cell, figure)
    return statistics.mean(values) if values else None


def values_of(runs: list[dict[str, Any]], cell: tuple[str, float | None], figure: str) -> list[float]:
    return [run[figure] for run in runs if (run["kinds"], run["alpha"]) == cell]


def report(runs: list[dict[str, Any]], grid: Sequence[tuple[str, float | None]]) -> str:
    """The table, means over the seeds, and the choice by validation clips."""
    lines = [
        "| descriptions | alpha | " + " | ".join(title for title, _ in COLUMNS) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for cell in grid:
        if not values_of(runs, cell, COLUMNS[0][1]):
            continue
        kinds, alpha = cell
        shown = []
        for _, figure in COLUMNS:
            digits = 4 if figure.startswith(("travelled", "to anchors")) else 3 if figure.endswith("nll") else 1
            shown.append(f"{mean(runs, cell, figure):.{digits}f}")
        lines.append(f"| {kinds} | {'' if alpha is None else f'{alpha:g}'} | {' | '.join(shown)} |")
    trained = [cell for cell in grid if cell[1] is not None and values_of(runs, cell, "val harmonic mean")]
    ranked = sorted(trained, key=lambda cell: -(mean(runs, cell, "val harmonic mean") or 0))
    lines += ["", "Harmonic mean on the validation clips, the best first, with its seeds:", ""]
    for cell in ranked[:5]:
        each = ", ".join(f"{value:.1f}" for value in values_of(runs, cell, "val harmonic mean"))
        lines.append(f"- {cell[0]}, alpha {cell[1]:g}: {mean(runs, cell, 'val harmonic mean'):.1f} ({each})")
    return "\n".join(lines) + "\n"


PANELS = (
    ("base: top-1, %", "test base top1"),
    ("novel: top-1, %", "test novel top1"),
    ("harmonic mean, %", "test harmonic mean"),
    ("harmonic mean on validation clips, %", "val harmonic mean"),
    ("base: distance its text moved, 1 - cos", "travelled base"),
    ("novel: calibration error, %", "test novel ece"),
)
COLOURS = {"both": "#2266aa", "spatial": "#c2571a", "temporal": "#3a8a4d"}


def plot(runs: list[dict[str, Any]], grid: Sequence[tuple[str, float | None]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 6.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3).flat
    alphas = sorted({alpha for _, alpha in grid if alpha is not None})
    places = {alpha: i for i, alpha in enumerate(alphas)}
    for axes, (title, name) in zip(panels, PANELS, strict=True):
        for kinds, colour in COLOURS.items():
            line = [(alpha, values_of(runs, ("none" if alpha == 0 else kinds, alpha), name)) for alpha in alphas]
            line = [(alpha, values) for alpha, values in line if values]
            if len(line) < 2:
                continue
            x = [places[alpha] for alpha, _ in line]
            axes.plot(x, [statistics.mean(v) for _, v in line], "o-", color=colour, label=kinds, markersize=4)
            axes.fill_between(
                x, [min(v) for _, v in line], [max(v) for _, v in line], color=colour, alpha=0.12, linewidth=0
            )
        zero_shot = mean(runs, ("zero-shot", None), name)
        if zero_shot is not None and not name.startswith("travelled"):
            axes.axhline(zero_shot, color="#9aa5b1", linestyle="--", linewidth=1, label="zero-shot")
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_xticks(range(len(alphas)), [f"{alpha:g}" for alpha in alphas])
        axes.set_xlabel("alpha", fontsize=9)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(path, format="png", metadata={"Software": None})


if __name__ == "__main__":
    main()
