"""Four clips per class: what `msta train` makes of them with --folds and without, on clips that neither has seen.

    python benchmarks/few_clips.py CLIPS [--seeds 0 1 2] [--shots 4] [--folds 4]

CLIPS is a folder with a sub-folder for each class. A seed draws the clips of each class that the two commands get; all
others test. Written to results/few_clips.json and .md.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

import msta
from msta.config import make_config
from msta.data.catalog import write_catalog
from msta.data.reading import read_catalog
from msta.data.splits import make_split
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.tables import Column, Table
from msta.files import write_json
from msta.training.fit import fit

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--folds", type=int, default=4)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            rows += measure(arguments.clips, Path(scratch), seed, arguments.shots, arguments.folds)
    for name in dict.fromkeys(row["command"] for row in rows):
        own = [row for row in rows if row["command"] == name]
        means = {k: statistics.fmean(row[k] for row in own) for k in ("others", "own_figure", "trained_on")}
        rows.append({"command": name, "seed": "mean", **means})
    columns = (
        Column("msta train", "command"), Column("seed", "seed", ">"), Column("trained on", "trained_on", ".0f"),
        Column("top-1 on the others, %", "others", ".1f"), Column("its own figure, %", "own_figure", ".1f"),
    )  # fmt: skip
    table = Table(columns, rows).markdown()
    about = {
        "clips": arguments.clips.name,
        "shots": arguments.shots,
        "backbone": msta.load_backbone("toy").fingerprint(),
    }
    write_json(RESULTS / "few_clips.json", {**about, "rows": rows})
    (RESULTS / "few_clips.md").write_text(
        f"{arguments.shots} clips per class of {arguments.clips.name}, the embedded backbone, preset small.\n\n{table}"
    )
    print(table)


def measure(clips: Path, scratch: Path, seed: int, shots: int, folds: int) -> list[dict[str, Any]]:
    """A row for each command."""
    catalog = read_catalog(clips)
    split = make_split(catalog, shots=shots, val_fraction=0, test_fraction=0.2, seed=seed)
    for name, some in (("given", split.train), ("others", split.test)):
        (scratch / name).mkdir()
        write_catalog(scratch / name / "clips.csv", catalog.classes, [replace(clip, split=None) for clip in some])
    rows = []
    for command, settings in (
        ("", {}),
        ("--refit", {"train.refit": True}),
        (f"--folds {folds}", {"train.folds": folds}),
    ):
        out = scratch / f"run{command}"
        config = make_config("small", {"data.path": scratch / "given" / "clips.csv", "train.seed": seed, **settings})
        metrics = fit(config, out, Console(quiet=True))
        others = evaluate_on(msta.load_adapter(out / "adapter"), scratch / "others" / "clips.csv", split="all")
        trained_on = sum(clip.split == "train" for clip in read_catalog(out / "split.csv").clips)
        rows.append({
            "command": command or "(neither)", "seed": seed, "others": others["top1"], "own_figure": metrics["top1"],
            "clips": others["clips"], "trained_on": trained_on, "tested_on": metrics["clips"],
        })  # fmt: skip
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
