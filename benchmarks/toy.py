"""What the embedded backbone can do: three seeds of every figure, written to results/toy.json and results/toy.md.

    python benchmarks/toy.py [--clips FOLDER] [--parts synthetic demo real]

FOLDER holds real clips that pretraining never saw: egogestar/ and ut_interaction/, class folders of videos. A figure
already in toy.json for the same weights is not measured again. Parts take minutes (synthetic) to an hour (demo, real).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from sklearn.linear_model import LogisticRegressionCV

import msta
from msta.adapters.inputs import clip_format
from msta.config import make_config
from msta.data.catalog import Catalog, write_catalog
from msta.data.clips import ClipDataset, make_loader, on_device
from msta.data.reading import read_catalog
from msta.data.splits import make_split
from msta.demo import Data, demo
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.metrics import harmonic_mean
from msta.files import write_json
from msta.motionworld.measure import measure
from msta.training.loop import train

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
QUIET = Console(quiet=True)
FULL_RATES = (1e-5, 5e-5, 2e-4)
"""Learning rates full fine-tuning may choose from, by its validation clips."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of the real clips; without it they are left out")
    parser.add_argument("--parts", nargs="+", default=["synthetic", "demo", "real"])
    arguments = parser.parse_args()
    table = Table(RESULTS / "toy.json", msta.load_backbone("toy").fingerprint())
    for seed in SEEDS:
        if "synthetic" in arguments.parts:
            table.fill("synthetic", seed, lambda s: measure(msta.load_backbone("toy"), 1000, 10_000 + s))
        if "demo" in arguments.parts:
            table.fill("demo", seed, demo_task)
        if "real" in arguments.parts and arguments.clips is not None:
            for name in ("egogestar", "ut_interaction"):
                table.fill(name, seed, lambda s, name=name: real(arguments.clips / name, s))
    (RESULTS / "toy.md").write_text(table.markdown())
    print(table.markdown())


class Table:
    """Figures by group and seed, kept as soon as they are measured."""

    def __init__(self, file: Path, backbone: str) -> None:
        self.file = file
        self.content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        if self.content.get("backbone") != backbone:
            self.content = {"backbone": backbone}

    def fill(self, group: str, seed: int, figures: Callable[[int], dict[str, float]]) -> None:
        done = self.content.setdefault(group, {})
        if str(seed) not in done:
            done[str(seed)] = {name: round(value, 2) for name, value in figures(seed).items()}
            write_json(self.file, self.content)
            print(group, seed, done[str(seed)], flush=True)

    def markdown(self) -> str:
        lines = ["| | mean | seeds |", "|---|---|---|"]
        for group, seeds in self.content.items():
            if group == "backbone":
                continue
            for name in next(iter(seeds.values())):
                values = [figures[name] for figures in seeds.values()]
                each = ", ".join(f"{v:.1f}" for v in values)
                lines.append(f"| {group}: {name} | {statistics.mean(values):.1f} | {each} |")
        return "\n".join(lines) + "\n"


def demo_task(seed: int) -> dict[str, float]:
    """The demo's figures, and base-to-novel by full fine-tuning on its clips."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        results = demo(out, QUIET, seed=seed)
        figures = {name: results["few_shot"][name] for name in ("zero_shot", "msta")}
        for name, values in results["base_to_novel"].items():
            figures |= {f"{name}, {part}": value for part, value in values.items()}
        data = Data(out, seed)
        tried = []
        for rate in FULL_RATES:
            run = out / f"full-{rate}"
            metrics = train(data.config("base", "full", {"train.lr": rate}), run, QUIET)
            chosen = metrics["selected_at"]
            tried.append((chosen["top1"], -chosen["nll"], metrics["top1"], run))
        *_, base, run = max(tried)
        novel = data.measure(msta.load_adapter(run / "adapter"), "novel", QUIET)["top1"]
    return figures | {
        "full, base": base, "full, novel": novel, "full, harmonic_mean": harmonic_mean(base, novel),
    }  # fmt: skip


def real(folder: Path, seed: int) -> dict[str, float]:
    """Zero-shot on all clips; MSTA and a linear probe on 5 and 8 shots, tested on the clips that remain."""
    with tempfile.TemporaryDirectory() as temporary:
        catalog = read_catalog(folder)
        if "point" in catalog.classes:  # its crop gives it away: one person, not two
            catalog = without(catalog, "point")
        csv = Path(temporary) / "clips.csv"
        write_catalog(csv, catalog.classes, catalog.clips)
        toy = msta.load_backbone("toy")
        figures = {"zero-shot": evaluate_on(msta.attach(toy, "zero-shot"), csv, console=QUIET)["top1"]}
        for shots in (5, 8):
            settings = {"data.path": csv, "data.shots": shots, "data.val_fraction": 0, "data.seed": seed}
            config = make_config("small", settings | {"train.seed": seed})
            figures[f"MSTA, {shots} shots"] = train(config, Path(temporary) / f"msta-{shots}", QUIET)["top1"]
            figures[f"linear probe, {shots} shots"] = linear_probe(toy, catalog, shots, seed)
    return figures


def without(catalog: Catalog, name: str) -> Catalog:
    gone = catalog.classes.index(name)
    clips = [replace(c, label=c.label - (c.label > gone)) for c in catalog.clips if c.label != gone]
    return replace(catalog, classes=tuple(c for c in catalog.classes if c != name), clips=tuple(clips))


@torch.inference_mode()
def linear_probe(backbone: msta.DualEncoder, catalog: Catalog, shots: int, seed: int) -> float:
    """Logistic regression on the frozen video embeddings; its strength by cross-validation on the shots."""
    split = make_split(catalog, shots=shots, val_fraction=0, test_fraction=0.2, seed=seed)
    form = clip_format(msta.attach(backbone, "zero-shot"))

    def features(part: Any) -> tuple[Any, Any]:
        batches = list(make_loader(ClipDataset(part, form), 16, 0, shuffle=False))
        video = torch.cat([backbone.encode_video(on_device(b, "video", torch.device("cpu"))[:, 0]) for b in batches])
        return (video / video.norm(dim=-1, keepdim=True)).numpy(), torch.cat([b["label"] for b in batches]).numpy()

    probe = LogisticRegressionCV(Cs=[1, 10, 100, 1000, 10_000], cv=shots, max_iter=5000)
    probe.fit(*features(split.train))
    return 100 * probe.score(*features(split.test))


if __name__ == "__main__":
    main()
