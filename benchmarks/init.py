"""How MSTA's adapters start: He's initialisation (the paper's) against up-projections at zero, at two scales.

    python benchmarks/init.py [--seeds 0 1 2]

The demo's clips and classes, the preset small but for what is varied: few-shot on ten classes, base-to-novel on
five and five. A run that is in results/init.json already is not run again. Writes init.json and init.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console

import msta
from msta.demo import BASE, CLIPS_PER_CLASS, NOVEL, Data
from msta.evaluation.metrics import harmonic_mean
from msta.files import write_json
from msta.motionworld import write_dataset
from msta.training.loop import train

RESULTS = Path(__file__).parent / "results"
SCALES, INITS = (0.005, 0.1), ("zero", "kaiming")
FIGURES = {"few_shot": "few-shot", "base": "base", "novel": "novel", "harmonic_mean": "harmonic mean"}
QUIET = Console(quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    file, backbone = RESULTS / "init.json", msta.load_backbone("toy")
    content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if content.get("backbone") != backbone.fingerprint():
        content = {"backbone": backbone.fingerprint(), "runs": []}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_dataset(root / "clips", sorted(BASE + NOVEL), CLIPS_PER_CLASS, seed=seed)
            data = Data(root, seed)
            for scale, init in itertools.product(SCALES, INITS):
                point = {"seed": seed, "scale": scale, "init": init}
                if any(point.items() <= run.items() for run in content["runs"]):
                    continue
                changes = {"method.scale": scale, "method.init": init}
                few_shot, base = (
                    train(data.config(part, changes=changes), root / f"{part}-{scale}-{init}", QUIET)
                    for part in ("all", "base")
                )
                adapted = msta.load_adapter(root / f"base-{scale}-{init}" / "adapter", backbone)
                novel = data.measure(adapted, "novel", QUIET)["top1"]
                figures = {
                    "few_shot": few_shot["top1"], "base": base["top1"], "novel": novel,
                    "harmonic_mean": harmonic_mean(base["top1"], novel),
                }  # fmt: skip
                content["runs"].append(point | {"method": few_shot["label"]} | figures)
                write_json(file, content)
                print(content["runs"][-1], flush=True)
    (RESULTS / "init.md").write_text(table(content["runs"]))
    print(table(content["runs"]))


def table(runs: list[dict[str, Any]]) -> str:
    lines = ["| scale | init | " + " | ".join(FIGURES.values()) + " |", "|---|---|" + "---|" * len(FIGURES)]
    for scale, init in itertools.product(SCALES, INITS):
        of = [run for run in runs if (run["scale"], run["init"]) == (scale, init)]
        means = [
            f"{statistics.fmean(run[name] for run in of):.1f} ({', '.join(f'{run[name]:.1f}' for run in of)})"
            for name in FIGURES
        ]
        lines.append(f"| {scale:g} | {init} | " + " | ".join(means) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
