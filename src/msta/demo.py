"""``msta demo``: from nothing to an adapter, a prediction and a report, with the backbone that comes with the package.

The clips come from MotionWorld's shifted domain: things, patterns, backgrounds and compositions of motions that
pretraining did not have.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from msta.adapters.model import AdaptedModel
from msta.backbone.checkpoints import TOY, load_backbone
from msta.config import RunConfig, make_config
from msta.data.catalog import Catalog, write_catalog
from msta.data.decode import read_frames
from msta.data.reading import read_catalog
from msta.data.splits import make_split, restrict
from msta.data.times import segment_times
from msta.errors import one_line
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.figures import prediction
from msta.evaluation.metrics import harmonic_mean
from msta.evaluation.report import write_page
from msta.files import new_directory, refuse_existing, write_bytes, write_json
from msta.inference.predictor import Predictor
from msta.methods import attach, load_adapter
from msta.motionworld import HELD_OUT_MOTIONS, class_name, descriptions, write_dataset
from msta.training.loop import train

BASE = ("circle", "left then down", "right and back", "shrink then grow", "star")
NOVEL = ("down and back", "grow then shrink", "right then up", "square", "swipe left")
"""Chosen before anything was measured. Three of either five are compositions that pretraining did not have."""

CLIPS_PER_CLASS = 28
SETTINGS = {"train.epochs": 16, "train.eval_every": 4}
"""The preset small, in less time."""
NEXT = "msta train --data YOUR_CLIPS --folds 5 --out runs/first"


def demo(out: Path, console: Console, *, seed: int = 0, shots: int = 8) -> dict[str, Any]:
    """Draw clips, train on all classes, train on half of them, predict, report. Takes minutes on two cores.

    Args:
        out: a folder that is not there yet.
        console: where it tells what it does.
        seed: of clips, splits and training.
        shots: training clips per class.

    Returns:
        What is written to ``out``/results.json; the same for one seed. Accuracies in percent.

    Raises:
        MSTAError: ``out`` exists or cannot be written.
    """

    def say(text: str) -> None:
        console.print(one_line(text), markup=False, highlight=False, soft_wrap=True)

    def step(text: str) -> None:
        console.print(f"\n[bold]{text}[/bold]", highlight=False, soft_wrap=True)

    refuse_existing(out)
    step(
        f"1. Clips: {len(BASE + NOVEL)} kinds of motion, as you would have them: one folder per class, MP4 files in it"
    )
    with console.status("drawing"):
        with new_directory(out):
            pass
        write_dataset(out / "clips", sorted(BASE + NOVEL), CLIPS_PER_CLASS, seed=seed)
    data = Data(out, seed, shots)
    say(
        f"{data.catalogs['all'].source}: {CLIPS_PER_CLASS} clips per class; {shots} train, some validate, the rest test"
    )

    step("2. Zero-shot: the backbone compares each clip with the classes' names; nothing is trained")
    toy = load_backbone(TOY)
    zero_shot = attach(toy, "zero-shot")
    before = {name: data.measure(zero_shot, name, console) for name in ("all", "base", "novel")}
    say(f"right on {before['all']['top1']:.1f} % of {before['all']['clips']} test clips")

    step(f"3. Few-shot: small adapters learn from {shots} clips per class; the backbone stays as it is")
    few_shot = train(data.config("all"), out / "few-shot", console)

    step("4. Base to novel: trained on half of the classes, asked about the other half, which it was never shown")
    base = train(data.config("base"), out / "base-to-novel", console)
    adapted = load_adapter(out / "base-to-novel" / "adapter", toy)
    novel = data.measure(adapted, "novel", console)
    base_to_novel = {
        "zero-shot": _base_to_novel(before["base"], before["novel"]),
        "MSTA": _base_to_novel(base, novel),
    }
    for name, result in base_to_novel.items():
        say("{:>9}  base {base:.1f} %, novel {novel:.1f} %, harmonic mean {harmonic_mean:.1f} %".format(name, **result))

    step("5. One clip, looked at closely")
    model = load_adapter(out / "few-shot" / "adapter", toy)
    classes = data.catalogs["all"].classes
    unseen = {class_name(motion) for motion in HELD_OUT_MOTIONS}
    clip = next(c for c in data.catalogs["all"].clips if c.split == "test" and classes[c.label] in unseen)
    truth = classes[clip.label]
    ranked = [Predictor(m, classes)(clip.path) for m in (zero_shot, model)]
    unadapted, predicted = ({p.label: round(p.probability, 4) for p in r} for r in ranked)
    say(f"{clip.path}: {', '.join(f'{p.label} {100 * p.probability:.0f} %' for p in ranked[1][:3])}; it is {truth}")
    frames = read_frames(clip.path, lambda d: segment_times(d, toy.architecture.frames), 128)
    names = ("zero-shot", f"{model.label}, {shots} clips per class")
    write_bytes(out / "prediction.png", prediction(frames, truth, unadapted, predicted, names=names))

    results: dict[str, Any] = {
        "seed": seed,
        "shots": shots,
        "method": model.label,
        "backbone": toy.fingerprint(),
        "classes": {part: list(data.catalogs[part].classes) for part in ("base", "novel")},
        "few_shot": {
            "clips": before["all"]["clips"],
            "zero_shot": before["all"]["top1"],
            "msta": few_shot["top1"],
        },
        "base_to_novel": base_to_novel,
        "prediction": {"clip": clip.path.removeprefix(f"{data.root}/"), "truth": truth, "msta": predicted},
    }
    write_json(out / "results.json", results)
    write_page(
        out / "report.html",
        "demo.html",
        {"prediction": out / "prediction.png"},
        **results,
        base=[name + "*" * (name in unseen) for name in results["classes"]["base"]],
        novel=[name + "*" * (name in unseen) for name in results["classes"]["novel"]],
        trainable=model.num_trainable(),
        parameters=sum(p.numel() for p in model.parameters()),
        next_command=NEXT,
    )
    step("Done")
    say(f"Look at {out / 'report.html'}. Now with your own clips, a folder with a sub-folder for each class:")
    console.print(f"\n    {NEXT}", highlight=False, soft_wrap=True)
    return results


class Data:
    """The clips as three data sets that share one split: all classes, the base classes, the novel ones."""

    def __init__(self, out: Path, seed: int, shots: int = 8) -> None:
        self.root, self.seed = out.absolute(), seed
        catalog = read_catalog(self.root / "clips")
        split = make_split(catalog, shots=shots, val_fraction=0.2, test_fraction=0.2, seed=seed)
        divided = replace(catalog, clips=split.all())
        self.catalogs: dict[str, Catalog] = {}
        chosen = {"all": BASE + NOVEL, "base": BASE, "novel": NOVEL}
        for name, motions in chosen.items():
            ordered = sorted(motions, key=class_name)
            part = restrict(divided, [catalog.classes.index(class_name(motion)) for motion in ordered])
            folder = self.root / "splits" / name
            folder.mkdir(parents=True, exist_ok=True)
            write_catalog(folder / "split.csv", part.classes, part.clips)
            said = [descriptions(motion) for motion in ordered]
            for k, kind in enumerate(("spatial", "temporal")):
                write_json(folder / f"{kind}.json", {str(i): both[k] for i, both in enumerate(said)})
            self.catalogs[name] = read_catalog(folder / "split.csv")

    def config(self, name: str, method: str = "msta", changes: dict[str, Any] | None = None) -> RunConfig:
        """A training on one of them."""
        folder = self.root / "splits" / name
        settings = {
            "data.path": folder / "split.csv",
            "backbone": TOY,
            "descriptions.spatial": folder / "spatial.json",
            "descriptions.temporal": folder / "temporal.json",
            "train.seed": self.seed,
        }
        return make_config("small", settings | SETTINGS | (changes or {}), method=method)

    def measure(self, model: AdaptedModel, name: str, console: Console) -> dict[str, Any]:
        """Accuracy on the test clips of one of them, among its own classes."""
        path = self.root / "splits" / name / "split.csv"
        return evaluate_on(
            model, path, split="test", new_classes=True, console=console if console.is_terminal else None
        )


def _base_to_novel(base: dict[str, Any], novel: dict[str, Any]) -> dict[str, float]:
    return {
        "base": base["top1"],
        "novel": novel["top1"],
        "harmonic_mean": harmonic_mean(base["top1"], novel["top1"]),
    }
