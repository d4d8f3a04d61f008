"""What the embedded backbone can do: three seeds, five on real clips, to results/toy.json and results/toy.md.

    python benchmarks/toy.py [--clips FOLDER] [--parts synthetic demo real]

FOLDER holds real clips that pretraining never saw: egogestar/ and ut_interaction/, class folders of videos. A figure
already in toy.json for the same weights and preset is not measured again. Parts take minutes (synthetic) to an hour
(demo, real).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from scipy import stats
from sklearn.linear_model import LogisticRegressionCV

import msta
from msta.adapters.inputs import clip_format
from msta.config import make_config
from msta.data.catalog import Catalog, Clip, write_catalog
from msta.data.clips import ClipDataset, make_loader, on_device
from msta.data.reading import read_catalog
from msta.data.splits import make_split
from msta.demo import demo
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.predictions import read_predictions
from msta.evaluation.tables import Column, Table
from msta.files import write_json
from msta.motionworld.measure import measure
from msta.training.loop import train

RESULTS = Path(__file__).parent / "results"
SEEDS = (0, 1, 2)
REAL_SEEDS = (0, 1, 2, 3, 4)
QUIET = Console(quiet=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of the real clips; without it they are left out")
    parser.add_argument("--parts", nargs="+", default=["synthetic", "demo", "real"])
    arguments = parser.parse_args()
    preset = make_config("small", {"data.path": "."}).flat()
    del preset["data.path"]
    table = Figures(RESULTS / "toy.json", {"backbone": msta.load_backbone("toy").fingerprint(), "small": preset})
    for seed in REAL_SEEDS:
        if arguments.clips is not None and "real" in arguments.parts:
            for name in ("egogestar", "ut_interaction"):
                table.fill(f"{name}, zero-shot", seed, lambda s, name=name: frozen(arguments.clips / name, s))
                table.fill(name, seed, lambda s, name=name: real(arguments.clips / name, s))
    for seed in SEEDS:
        if "synthetic" in arguments.parts:
            table.fill("synthetic", seed, lambda s: measure(msta.load_backbone("toy"), 1000, 10_000 + s))
        if "demo" in arguments.parts:
            table.fill("demo", seed, demo_task)
    (RESULTS / "toy.md").write_text(table.markdown())
    print(table.markdown())


IN_SHORT = (
    ("demo, drawn motion, 10 classes, 8 clips per class", ("demo", "zero_shot"), ("demo", "msta")),
    ("the same, 5 base and 5 novel classes, harmonic mean",
     ("demo", "zero-shot, harmonic_mean"), ("demo", "MSTA, harmonic_mean")),
    ("egogestar, 10 gestures, 5 clips per class",
     ("egogestar, zero-shot", "the clips that 5 shots leave"), ("egogestar", "MSTA, 5 shots")),
    ("ut_interaction, 5 interactions, 5 clips per class",
     ("ut_interaction, zero-shot", "the clips that 5 shots leave"), ("ut_interaction", "MSTA, 5 shots")),
)  # fmt: skip
"""What it is measured on, and (group, figure) of both methods, on the same test clips."""
SHOTS = (5, 8)
HALVES = {"first": True, "second": False}
"""Half of the recordings -> whether it is the early one."""


class Figures:
    """Figures by group and seed, kept as soon as they are measured."""

    def __init__(self, file: Path, made_with: dict[str, Any]) -> None:
        self.file = file
        self.content: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        self.made_with = json.loads(json.dumps(made_with))
        if not self.made_with.items() <= self.content.items():
            self.content = dict(self.made_with)

    def fill(self, group: str, seed: int, figures: Callable[[int], dict[str, float]]) -> None:
        done = self.content.setdefault(group, {})
        if str(seed) not in done:
            done[str(seed)] = {name: round(value, 2) for name, value in figures(seed).items()}
            write_json(self.file, self.content)
            print(group, seed, done[str(seed)], flush=True)

    def seeds(self, group: str, name: str) -> list[float]:
        """One figure of each seed, in percent, by seed; empty if it is not measured."""
        return [figures[name] for _, figures in sorted(self.content.get(group, {}).items())]

    def mean(self, group: str, name: str) -> str:
        """Of the seeds, in percent; a dash if it is not measured."""
        return f"{statistics.mean(values):.1f}" if (values := self.seeds(group, name)) else "–"

    def gain(self, before: tuple[str, str], after: tuple[str, str]) -> str:
        """The 95 % interval of the seeds' differences, by Student's t; a dash if it is not measured."""
        gains = [b - a for a, b in zip(self.seeds(*before), self.seeds(*after), strict=True)]
        if len(gains) < 2:
            return "–"
        half = float(stats.t.ppf(0.975, len(gains) - 1)) * statistics.stdev(gains) / math.sqrt(len(gains))
        mean = statistics.mean(gains)
        return f"{mean:+.1f} ({mean - half:+.1f} .. {mean + half:+.1f})"

    def markdown(self) -> str:
        short = [
            {"row": row, "before": self.mean(*a), "after": self.mean(*b), "gain": self.gain(a, b)}
            for row, a, b in IN_SHORT
        ]
        every = []
        for group, seeds in self.content.items():
            for name in next(iter(seeds.values())) if group not in self.made_with else ():
                each = ", ".join(f"{figures[name]:.1f}" for figures in seeds.values())
                every.append({"figure": f"{group}: {name}", "mean": self.mean(group, name), "seeds": each})
        in_short = (Column("top-1 in percent, means of seeds", "row"), Column("zero-shot", "before", ">"),
                    Column("MSTA", "after", ">"), Column("difference, 95 %", "gain", ">"))  # fmt: skip
        columns = (Column("figure", "figure"), Column("mean", "mean", ">"), Column("seeds", "seeds"))
        tables = (("In short", Table(in_short, short)), ("Every figure", Table(columns, every)))
        return "\n".join(f"## {heading}\n\n{table.markdown()}" for heading, table in tables)


def demo_task(seed: int) -> dict[str, float]:
    """The demo's figures."""
    with tempfile.TemporaryDirectory() as folder:
        results = demo(Path(folder) / "demo", QUIET, seed=seed)
    figures = {name: results["few_shot"][name] for name in ("zero_shot", "msta")}
    for name, values in results["base_to_novel"].items():
        figures |= {f"{name}, {part}": value for part, value in values.items()}
    return figures


def frozen(folder: Path, seed: int) -> dict[str, float]:
    """Zero-shot on all clips, and on those that each of the tasks of :func:`real` tests on."""
    catalog = real_clips(folder)
    model = msta.attach(msta.load_backbone("toy"), "zero-shot")
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary) / "predictions.parquet"
        figures = {"all clips": evaluate_on(model, catalog, split="all", predictions=file, console=QUIET)["top1"]}
        answered = read_predictions(file)
    right = dict(zip((path for path, *_ in answered.files), answered.hits, strict=True))

    def share(clips: Sequence[Clip]) -> float:
        return 100 * statistics.fmean(right[clip.path] for clip in clips)

    for shots in SHOTS:
        split = make_split(catalog, shots=shots, val_fraction=0, test_fraction=0.2, seed=seed)
        figures[f"the clips that {shots} shots leave"] = share(split.test)
    for half, early in HALVES.items():
        figures[f"the {half} half of the recordings"] = share([c for c in catalog.clips if in_half(catalog, c, early)])
    return figures


def real(folder: Path, seed: int) -> dict[str, float]:
    """MSTA and a linear probe on 5 and 8 shots, tested on the clips that remain; and MSTA on one half of the
    recordings, tested on the other.
    """
    with tempfile.TemporaryDirectory() as temporary:
        catalog = real_clips(folder)
        csv = Path(temporary) / "clips.csv"
        write_catalog(csv, catalog.classes, catalog.clips)
        toy = msta.load_backbone("toy")
        figures = {}

        def trained(name: str, **settings: Any) -> float:
            given = {f"data.{key}": value for key, value in settings.items()} | {"train.seed": seed}
            return train(make_config("small", given), Path(temporary) / name, QUIET)["top1"]

        for shots in SHOTS:
            figures[f"MSTA, {shots} shots"] = trained(f"{shots}", path=csv, shots=shots, val_fraction=0, seed=seed)
            figures[f"linear probe, {shots} shots"] = linear_probe(toy, catalog, shots, seed)
        for half, early in HALVES.items():
            split = Path(temporary) / half / "split.csv"
            split.parent.mkdir()
            parts = ["train" if in_half(catalog, clip, early) else "test" for clip in catalog.clips]
            clips = [replace(clip, split=part) for clip, part in zip(catalog.clips, parts, strict=True)]
            write_catalog(split, catalog.classes, clips)
            figures[f"MSTA on the {half} half of the recordings"] = trained(f"{half}-run", path=split, val_fraction=0)
    return figures


def real_clips(folder: Path) -> Catalog:
    """The clips of the folder, without the class "point": its crop gives it away, with one person, not two."""
    catalog = read_catalog(folder)
    return without(catalog, "point") if "point" in catalog.classes else catalog


def in_half(catalog: Catalog, clip: Clip, early: bool) -> bool:
    """Whether a clip is of the early half of the recordings, or of the other."""
    numbers = sorted(map(recording, catalog.clips))
    return (recording(clip) <= numbers[len(numbers) // 2]) == early


def recording(clip: Clip) -> int:
    """The number of the recording, by the file's name: of egogestar the last, of UT-Interaction (setS_N_R_C) R.

    That egogestar's numbers follow its recordings is inferred from the look of the clips; its authors' list would
    decide it.
    """
    numbers = Path(clip.path).stem.split("_")
    return int(numbers[2] if numbers[0].startswith("set") else numbers[-1])


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
        batches = list(make_loader(ClipDataset(part, form), 16, 0))
        video = torch.cat([backbone.encode_video(on_device(b, "video", torch.device("cpu"))[:, 0]) for b in batches])
        return (video / video.norm(dim=-1, keepdim=True)).numpy(), torch.cat([b["label"] for b in batches]).numpy()

    probe = LogisticRegressionCV(Cs=[1, 10, 100, 1000, 10_000], cv=shots, max_iter=5000)
    probe.fit(*features(split.train))
    return 100 * probe.score(*features(split.test))


if __name__ == "__main__":
    main()
