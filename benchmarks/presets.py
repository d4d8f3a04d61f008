"""How the preset small was chosen on drawn motion: its schedule, rate, alpha, and the adapters' scale and start.

    python benchmarks/presets.py run [--seeds 100 101 ...] [--only TASK ...] [--work runs/claims]
    python benchmarks/presets.py checkpoints [--seeds 100 101 ...]
    python benchmarks/presets.py report

The clips are those of claims.py, on seeds that it does not report: 59 motions of the shifted domain, 40 test clips per
class. Every recipe is trained for its fixed schedule, and the last weights count. ``checkpoints`` asks which epoch's
weights to keep if there are a few validation clips: those with the best top-1, those with the lowest negative log
likelihood, or the last. Results go to results/presets.json and presets.md; what is there is not measured again.
"""

from __future__ import annotations

import argparse
import functools
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from claims import BASE, EPOCHS, NOVEL, RESULTS, TUNING_SEEDS, Bench, Results, Variant
from rich.console import Console

from msta.config import make_config
from msta.evaluation.tables import Column, Table
from msta.training.loop import train
from msta.training.report import read_log


class Recipe(NamedTuple):
    """What is varied: epochs, learning rate, alpha, the adapters' scale, and how they start."""

    epochs: int
    lr: float
    alpha: float
    scale: float = 0.1
    init: str = "zero"


class Task(NamedTuple):
    """What recipes are tried on: a task of claims.py, with so many training clips per class, on these seeds."""

    task: str
    shots: int
    seeds: tuple[int, ...]
    recipes: tuple[Recipe, ...]
    backbone: str = "toy"


USUAL = Recipe(0, 0, 0)[3:]
"""Scale and start of most recipes, those of small."""
BASE_TO_NOVEL = "base-to-novel, 4 shots"
FORMER = Recipe(30, 1e-2, 10)
"""What small was before."""
STARTS = ((0.1, "kaiming"), (0.05, "kaiming"), (0.02, "kaiming"), (0.02, "zero"))
"""Scale and start."""
SMALL = Recipe(30, 2e-2, 1)
"""What it is now."""
TASKS = {
    BASE_TO_NOVEL: Task(
        "base-to-novel", 4, TUNING_SEEDS,
        (
            *(Recipe(EPOCHS, lr, alpha) for lr in (1e-2, 2e-2, 4e-2) for alpha in (0, 1, 3, 10)), FORMER, SMALL,
            *(Recipe(EPOCHS, 2e-2, 1, *start) for start in STARTS),
        ),
    ),
    **{
        f"few-shot, {shots} shots": Task(
            "few-shot", shots, TUNING_SEEDS[:1],
            (
                *(Recipe(EPOCHS, lr, 1) for lr in (1e-2, 2e-2, 4e-2)), Recipe(EPOCHS, 2e-2, 10), FORMER,
                Recipe(30, 1e-2, 1), SMALL,
            ),
        )
        for shots in (2, 5)
    },
    **{
        f"few-shot, {shots} shots": Task("few-shot", shots, TUNING_SEEDS[:1], (Recipe(EPOCHS, 2e-2, 1), SMALL))
        for shots in (8, 16)
    },
    "toy-frames, four swipes, 128 shots": Task(
        "swipes", 128, TUNING_SEEDS[:1],
        (Recipe(EPOCHS, 2e-2, 1), Recipe(30, 1e-2, 1), SMALL, Recipe(30, 4e-2, 1)), "toy-frames",
    ),
}  # fmt: skip
FIGURES = {"base-to-novel": ("base", "novel", "harmonic mean"), "few-shot": ("all",), "swipes": ("swipes",)}
"""Of each task of claims.py; recipes are judged by the last."""

TRIALS, CLASSES, VALIDATION, TESTED = 3, 10, 3, 20
"""Of the checkpoints: trials per seed; of each its classes, and validation and test clips per class."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "checkpoints", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of each task")
    parser.add_argument("--only", nargs="+", choices=TASKS, metavar="TASK", default=list(TASKS))
    parser.add_argument("--work", type=Path, default=Path("runs/claims"), help="clips and runs; may be deleted")
    parser.add_argument("--out", type=Path, default=RESULTS / "presets.json")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    for seed in arguments.seeds or TUNING_SEEDS if arguments.what != "report" else ():
        bench = Bench(arguments.work, seed)
        if arguments.what == "checkpoints":
            for trial in range(TRIALS):
                which = {"variant": "checkpoints", "seed": seed, "trial": trial}
                results.keep(which, bench.key(Variant()), functools.partial(checkpoints, bench, trial))
        for task in arguments.only if arguments.what == "run" else ():
            for recipe in TASKS[task].recipes if seed in (arguments.seeds or TASKS[task].seeds) else ():
                results.measure(name(task, recipe), bench, variant(recipe, TASKS[task]))
    text = report(results.runs)
    arguments.out.with_suffix(".md").write_text(text)
    print(text)


def name(task: str, recipe: Recipe) -> str:
    """Of a recipe's runs in the results."""
    start = "" if recipe[3:] == USUAL else f", scale {recipe.scale:g}, {recipe.init}"
    return f"{task}: {recipe.epochs} epochs, rate {recipe.lr:g}, alpha {recipe.alpha:g}{start}"


def variant(recipe: Recipe, task: Task) -> Variant:
    settings = {"train.epochs": recipe.epochs, "train.lr": recipe.lr, "descriptions.alpha": recipe.alpha}
    settings |= {"method.scale": recipe.scale, "method.init": recipe.init} if recipe[3:] != USUAL else {}
    return Variant(settings, backbone=task.backbone, task=task.task, shots=task.shots)


# ---------------------------------------------------------------- which epoch's weights


CHOICES: dict[str, Callable[[dict[str, float]], Any]] = {
    "top-1, then likelihood": lambda figures: (figures["top1"], -figures["nll"]),
    "likelihood": lambda figures: -figures["nll"],
}


def checkpoints(bench: Bench, trial: int) -> dict[str, Any]:
    """Test top-1, in percent, of the epoch that each way chooses by the validation clips. Ten classes, four shots."""
    random = np.random.default_rng((bench.seed, trial))
    motions = [str(motion) for motion in random.choice(BASE + NOVEL, CLASSES, replace=False)]
    folder = bench.folder / f"checkpoints-{trial}"
    parts = (("training", range(4), "train"), ("training", range(4, 4 + VALIDATION), "val"),
             ("testing", range(TESTED), "test"))  # fmt: skip
    bench.write_task(folder, motions, parts, "good")
    settings = {
        "data.path": folder / "split.csv", "data.workers": 0, "descriptions.bank": folder / "bank.json",
        "train.seed": trial, "train.watch_test": True, "train.eval_every": 2, "eval.keep": "nothing",
    }  # fmt: skip
    train(make_config("small", settings), folder / "run", Console(quiet=True))
    log = read_log(folder / "run")
    val, test = ([line[part] for line in log if part in line] for part in ("val", "test"))
    chosen = {way: test[max(range(len(val)), key=lambda i: choose(val[i]))]["top1"] for way, choose in CHOICES.items()}
    return {"top1": chosen | {"the last": test[-1]["top1"], "the best of all": max(each["top1"] for each in test)}}


# ---------------------------------------------------------------- the report


def report(runs: list[dict[str, Any]]) -> str:
    """A table per task, and that of the checkpoints, as Markdown."""
    texts = []
    for heading, task in TASKS.items():
        figures = FIGURES[task.task]
        lines = []
        for recipe in task.recipes:
            own = [run for run in runs if run["variant"] == name(heading, recipe)]
            if own:
                means = {name: statistics.mean(run["top1"][name] for run in own) for name in figures}
                each = ", ".join(f"{run['top1'][figures[-1]]:.1f}" for run in sorted(own, key=lambda run: run["seed"]))
                lines.append(recipe._asdict() | means | {"each": each})
        columns = [Column("epochs", "epochs", "d"), Column("learning rate", "lr", "g"), Column("alpha", "alpha", "g")]
        columns += [Column("scale", "scale", "g"), Column("start", "init")]
        columns += [Column(n, n, ".1f") for n in figures]
        texts += [f"## {heading}\n", Table((*columns, Column("its seeds", "each")), lines).markdown()] if lines else []
    trials = [run["top1"] for run in runs if run["variant"] == "checkpoints"]
    if trials:
        lines = []
        for way in trials[0]:
            values = [trial[way] for trial in trials]
            each = ", ".join(f"{value:.1f}" for value in values)
            lines.append({"way": way, "mean": statistics.mean(values), "trials": len(values), "each": each})
        columns = [Column("the epoch with the best", "way"), Column("test top-1, %", "mean", ".1f")]
        columns += [Column("trials", "trials", "d"), Column("each", "each")]
        texts += ["## Checkpoints\n", Table(tuple(columns), lines).markdown()]
    return "\n".join(texts)


if __name__ == "__main__":
    main()
