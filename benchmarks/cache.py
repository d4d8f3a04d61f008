"""Few-shot training from end to end, with and without the prefix cache: wall-clock and accuracy, in turn.

    python benchmarks/cache.py --clips FOLDER [--shots 8] [--epochs 30] [--views 10] [--seeds 0 ...]

FOLDER holds class folders of videos. The backbone is the embedded one. Writes results/cache.json and results/cache.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

import msta
from msta.config import make_config
from msta.training.loop import train

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--views", type=int, default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    measured: dict[str, list[dict[str, float]]] = {"without": [], "with": [], "again": []}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            for variant, rows in measured.items():
                settings: dict[str, Any] = {
                    "data.path": arguments.clips, "data.shots": arguments.shots, "data.val_fraction": 0,
                    "data.seed": seed, "train.seed": seed, "train.epochs": arguments.epochs,
                }  # fmt: skip
                if variant != "without":
                    settings |= {"cache.views": arguments.views, "cache.path": Path(folder) / "cache"}
                start = time.perf_counter()
                metrics = train(make_config("upper", settings), Path(folder) / variant, Console(quiet=True))
                rows.append({"seconds": round(time.perf_counter() - start, 1), "top1": round(metrics["top1"], 2)})
                print(variant, seed, rows[-1], flush=True)
    result = {"settings": {k: str(v) if k == "clips" else v for k, v in vars(arguments).items()}, "runs": measured}
    result["settings"]["clips"] = arguments.clips.name
    result["backbone"] = msta.load_backbone("toy").fingerprint()
    (RESULTS / "cache.json").write_text(json.dumps(result, indent=2) + "\n")
    names = {"without": "no cache", "with": f"{arguments.views} views, an empty cache", "again": "the same, a full one"}
    seeds = ", ".join(map(str, arguments.seeds))
    lines = [
        f"{arguments.clips.name}, {arguments.shots} shots, {arguments.epochs} epochs, seeds {seeds}.", "",
        "| | s, mean | s, each | top-1, mean | top-1, each |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for variant, rows in measured.items():
        seconds, top1 = [row["seconds"] for row in rows], [row["top1"] for row in rows]
        lines.append(
            f"| {names[variant]} | {statistics.mean(seconds):.1f} | {', '.join(map(str, seconds))} "
            f"| {statistics.mean(top1):.1f} | {', '.join(map(str, top1))} |"
        )
    (RESULTS / "cache.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
