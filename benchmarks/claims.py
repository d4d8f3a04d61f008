"""The paper's claims, measured on drawn motion: one training per variant and seed, tested on thousands of clips.

    python benchmarks/claims.py run [--seeds 0 1 2 ...] [--only NAME ...] [--work runs/claims]
    python benchmarks/claims.py report --plot docs/claims.png

59 motions that are made of one to three straight strokes, or of growing and shrinking, are 30 base and 29 novel
classes. They are drawn in the shifted domain; pretraining had 16 of them. A seed draws the training clips (16 per
class, of which a variant takes the first so many) and 40 test clips per class anew. Nothing is chosen by them: every
variant is trained for a fixed schedule, with no validation clips, and the last weights count. Learning rates are chosen
on seed 100, the best of five for each method: by the harmonic mean, or for the linear probe, which knows no novel
classes, by top-1 on all of them. The towers compute in bf16. On four shots the weaker toy-frames learns no order, so
it is also asked about the four swipes alone, after 128 clips of each.

results/claims.json keeps one bit for every test clip: whether the answer was right. A variant and seed that is there
for the same clips, weights and settings is not measured again, so a run that was stopped goes on. See claims_report.py
for the intervals and tests.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from claims_report import plot, report
from rich.console import Console
from torch import Tensor

import msta
from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.adapters.task import DEFAULT_TEMPLATE
from msta.config import RunConfig, make_config
from msta.data.catalog import Clip, write_catalog
from msta.data.decode import read_frames
from msta.data.times import segment_times
from msta.descriptions.bank import Described, DescriptionBank
from msta.evaluation.evaluate import class_embeddings
from msta.evaluation.metrics import harmonic_mean
from msta.files import write_json
from msta.motionworld import ALL_MOTIONS, class_name, descriptions, write_dataset
from msta.motionworld.motions import backwards
from msta.motionworld.paths import LEGS, MOVES
from msta.training.loop import train

RESULTS = Path(__file__).parent / "results"
MODEL_SENTENCES = Path(__file__).parent / "motion_descriptions.json"
TRAINING, TESTING, SHOTS, EPOCHS = 16, 40, 4, 12
"""Clips per class that are drawn to train and to test on; shots and epochs of a variant that does not say otherwise."""
TUNING_SEEDS = (100, 101)
"""Learning rates are chosen on the first, presets.py's recipes on both; neither is reported."""
STUDIED = (
    *(name for name in MOVES if name not in ("up and down", "side to side", "bounce")),
    *(name for name in LEGS if name in ALL_MOTIONS),
    "grow", "shrink", "grow then shrink", "shrink then grow",
)  # fmt: skip


def halves() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """30 base and 29 novel motions. Two that are each other backwards stay together: time alone tells them apart."""
    sides: tuple[list[str], list[str]] = ([], [])
    groups = {tuple(sorted({motion, backwards(motion) or motion})) for motion in STUDIED}
    for group in sorted(groups, key=lambda group: (-len(group), group)):
        min(sides, key=len).extend(group)
    base, novel = sorted(sides, key=len, reverse=True)
    return tuple(sorted(base)), tuple(sorted(novel))


BASE, NOVEL = halves()
SWIPES = ("swipe left", "swipe right", "swipe up", "swipe down")
MOTIONS = {"base": BASE, "novel": NOVEL, "all": BASE + NOVEL, "swipes": SWIPES}
"""The classes of each test."""
TESTS = {"base-to-novel": ("base", "novel"), "few-shot": ("all",), "swipes": ("swipes",)}
"""The tests of each task, whose training clips are those of the first."""


@dataclass(frozen=True)
class Variant:
    """One way to train.

    Attributes:
        settings: on top of the preset small.
        method: its name; "zero-shot" trains nothing.
        backbone: toy or toy-frames.
        task: "base-to-novel"; "few-shot", trained and tested on all 59 classes; or "swipes", on these four.
        shots: training clips per class.
        sentences: whose descriptions: "good" (MotionWorld's own), "templates", or "model" (a language model's, told the
            names alone: motion_descriptions.json).
        strengths: factors on the adapters' output at test time, besides 1.
        control: reversed pairs are also asked with their frames in random order.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    method: str = "msta"
    backbone: str = "toy"
    task: str = "base-to-novel"
    shots: int = SHOTS
    sentences: str = "good"
    strengths: tuple[float, ...] = ()
    control: bool = False


SEEDS = {
    **dict.fromkeys(("msta", "not shared", "not temporal", "no consistency"), range(12)),
    **dict.fromkeys(("lora", "full"), range(8)),
    "few-shot, 30 epochs: msta": range(4),
}
"""The seeds of a variant, if they are not USUAL_SEEDS: more for small differences, fewer for long trainings."""
USUAL_SEEDS = range(5)
STRENGTHS = (0.25, 0.5, 0.75, 1.25)
RATES = {
    "lora": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "adaptformer": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "st-adapter": (3e-4, 1e-3, 3e-3, 1e-2, 3e-2), "full": (1e-5, 3e-5, 1e-4, 3e-4, 1e-3),
    "linear-probe": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1), "msta": (5e-3, 1e-2, 2e-2, 4e-2, 8e-2),
}  # fmt: skip
"""Learning rates that a method may choose from, on seed 100: as many trials for each."""


def variants() -> dict[str, Variant]:
    """By name, what the claims need; the first ones tell most."""
    upper, lower = {"method.first_block": 4}, {"method.first_block": 1, "method.last_block": 3}
    few = Variant(task="few-shot")
    swipes = Variant({"train.epochs": 30}, backbone="toy-frames", task="swipes", shots=128, control=True)
    named = {
        "zero-shot": Variant(method="zero-shot"),
        "msta": Variant(strengths=STRENGTHS, control=True),
        "video alone": Variant({"method.towers": "video"}),
        "text alone": Variant({"method.towers": "text"}),
        "not shared": Variant({"method.shared": False}),
        "not temporal": Variant({"method.temporal_kernel": 0}, control=True),
        "no consistency": Variant({"descriptions.alpha": 0.0}),
        "frames: zero-shot": Variant(method="zero-shot", backbone="toy-frames"),
        "frames: msta": Variant(backbone="toy-frames", control=True),
        "frames: not temporal": Variant({"method.temporal_kernel": 0}, backbone="toy-frames", control=True),
        "frames, swipes: zero-shot": replace(swipes, method="zero-shot"),
        "frames, swipes: msta": swipes,
        "frames, swipes: not temporal": replace(swipes, settings=swipes.settings | {"method.temporal_kernel": 0}),
        "blocks 4..6": Variant(upper),
        "blocks 1..3": Variant(lower),
        "few-shot: all blocks": few,
        "few-shot: blocks 4..6": replace(few, settings=upper),
        "few-shot: blocks 1..3": replace(few, settings=lower),
        **{name: Variant(method=name, strengths=(0.5,)) for name in ("lora", "adaptformer", "full")},
        **{f"{name}, no consistency": Variant({"descriptions.alpha": 0.0}, method=name) for name in ("lora", "full")},
        "st-adapter": Variant(method="st-adapter"),
        "linear-probe": replace(few, method="linear-probe"),
        "few-shot, 30 epochs: msta": replace(few, settings={"train.epochs": 30}),
        "few-shot, 30 epochs: linear-probe": replace(few, method="linear-probe", settings={"train.epochs": 30}),
        **{f"scale {s:g}": Variant({"method.scale": s}) for s in (0.001, 0.005, 0.02, 0.3)},
        "templates": Variant(sentences="templates"),
        "a language model's sentences": Variant(sentences="model"),
        "alpha 10": Variant({"descriptions.alpha": 10.0}),
        "kaiming": Variant({"method.init": "kaiming"}),
    }  # fmt: skip
    for shots in (2, 8, 16):
        named[f"{shots} shots"] = Variant(shots=shots)
        named[f"{shots} shots, no consistency"] = Variant({"descriptions.alpha": 0.0}, shots=shots)
    named |= {f"r {r}": Variant({"method.dim": r}) for r in (8, 32, 64)}
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of each variant")
    parser.add_argument("--only", nargs="+", choices=variants(), metavar="VARIANT", help="default: all")
    parser.add_argument("--work", type=Path, default=Path("runs/claims"), help="clips and runs; may be deleted")
    parser.add_argument("--plot", type=Path, help="a picture; docs/claims.png is what the docs show")
    parser.add_argument("--out", type=Path, default=RESULTS / "claims.json")
    arguments = parser.parse_args()
    results = Results(arguments.out)
    if arguments.what == "run":
        chosen = arguments.only or list(variants())
        rates = tune(results, {variants()[name].method for name in chosen}, arguments.work)
        seeds = {name: arguments.seeds or SEEDS.get(name, USUAL_SEEDS) for name in chosen}
        for seed in sorted(set().union(*seeds.values())):
            bench = Bench(arguments.work, seed)
            for name in (name for name in chosen if seed in seeds[name]):
                variant = variants()[name]
                if variant.method in rates:
                    variant = replace(variant, settings={"train.lr": rates[variant.method], **variant.settings})
                results.measure(name, bench, variant)
    runs = [run for run in results.runs if run["seed"] not in TUNING_SEEDS]
    text = report(runs)
    arguments.out.with_suffix(".md").write_text(text)
    print(text)
    if arguments.plot:
        plot(runs, arguments.plot)


class Results:
    """The runs, kept as soon as they are measured. Several processes may measure other seeds or variants at once."""

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def runs(self) -> list[dict[str, Any]]:
        """What is measured so far, by all processes."""
        return json.loads(self.file.read_text())["runs"] if self.file.exists() else []

    def measure(self, name: str, bench: Bench, variant: Variant) -> dict[str, Any]:
        """One variant on one seed, if it is not there yet with the same clips, weights and settings."""
        rate = {"rate": variant.settings.get("train.lr")}
        which = {"variant": name, "seed": bench.seed, **(rate if bench.seed in TUNING_SEEDS else {})}
        return self.keep(which, {**rate, **bench.key(variant)}, lambda: bench(variant))

    def keep(
        self, which: dict[str, Any], made_with: dict[str, Any], measure: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """The run ``which``; it is measured if it is not there with the same ``made_with``."""
        for run in self.runs:
            if (which | made_with).items() <= run.items():
                return run
        start = time.perf_counter()
        measured = {**which, **made_with, **measure(), "seconds": round(time.perf_counter() - start, 1)}
        with locked(self.file.with_suffix(".lock")):
            # what was measured with other clips, weights or settings is out of date
            others = [run for run in self.runs if not which.items() <= run.items()]
            write_json(self.file, {"runs": [*others, measured]})
        print(which | {"seconds": measured["seconds"], "top1": measured["top1"]}, flush=True)
        return measured


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Let one process at a time do what follows."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def tune(results: Results, methods: set[str], work: Path) -> dict[str, float]:
    """For each method the learning rate that is best on the tuning seed: by the harmonic mean, or on all classes."""
    bench, best = None, {}
    for method in sorted(methods & RATES.keys()):
        bench = bench or Bench(work, TUNING_SEEDS[0])
        trials = [replace(variants()[method], strengths=(), settings={"train.lr": rate}) for rate in RATES[method]]
        runs = [results.measure(method, bench, trial) for trial in trials]
        figure = "all" if variants()[method].task == "few-shot" else "harmonic mean"
        best[method] = max(runs, key=lambda run: run["top1"][figure])["rate"]
    return best


# ---------------------------------------------------------------- one seed


class Bench:
    """The clips of a seed, on disk to train on and in memory to test on."""

    def __init__(self, work: Path, seed: int) -> None:
        self.folder, self.seed = work / f"seed-{seed}", seed
        self._draw("training", BASE + NOVEL, TRAINING, 2 * seed)
        self._draw("testing", BASE + NOVEL, TESTING, 2 * seed + 1)
        self.video = {motion: self._read(motion) for motion in BASE + NOVEL}
        self.digest = hashlib.sha256(b"".join(video.numpy().tobytes() for video in self.video.values())).hexdigest()

    def _draw(self, part: str, motions: Sequence[str], clips: int, seed: int) -> None:
        with locked(self.folder / "drawing.lock"):
            if not (self.folder / part).exists():
                write_dataset(self.folder / part, sorted(motions), clips, size=64, frames_per_clip=16, seed=seed)

    def _read(self, motion: str) -> Tensor:
        """Its test clips: uint8 [clips, T, 3, H, W]."""
        clips = [
            read_frames(self._file("testing", motion, i), lambda d: segment_times(d, 8), 64) for i in range(TESTING)
        ]
        return torch.from_numpy(np.stack(clips)).permute(0, 1, 4, 2, 3).contiguous()

    def _file(self, part: str, motion: str, number: int) -> Path:
        folder = motion.replace(" ", "_")
        return self.folder / part / folder / f"{folder}_{number:03d}.mp4"

    def key(self, variant: Variant) -> dict[str, str]:
        """Which clips, weights, settings and sentences a figure is of. The code is not in it: if a method changes,
        delete the results.
        """
        settings = self._config(variant, Path()).flat()
        said = json.dumps([asdict(each) for each in sentences(BASE + NOVEL, variant.sentences).classes.values()])
        text = json.dumps({k: v for k, v in settings.items() if k not in ("data.path", "descriptions.bank")}) + said
        return {
            "backbone": variant.backbone,
            "clips": self.digest[:16],
            "weights": frozen_backbone(variant.backbone).fingerprint(),
            "settings": hashlib.sha256(f"{variant.shots} {variant.task} {text}".encode()).hexdigest()[:16],
        }

    def __call__(self, variant: Variant) -> dict[str, Any]:
        """Train, and test on both halves, or on all classes."""
        backbone = frozen_backbone(variant.backbone)
        frozen = variant.method == "zero-shot"
        model = msta.attach(backbone, "zero-shot") if frozen else self._train(variant, backbone)
        tests = TESTS[variant.task]
        answers = {"1": self._test(model, tests, variant.control)}
        for strength in variant.strengths:
            answers[f"{strength:g}"] = self._test(at_strength(model, backbone, strength), tests)
        top1 = {name: 100 * float(np.mean(hits)) for name, hits in answers["1"].items()}
        if "base" in top1:
            top1["harmonic mean"] = harmonic_mean(top1["base"], top1["novel"])
        return {
            "parameters": 0 if frozen else sum(p.numel() for p in model.adapter.parameters()),
            "top1": top1,
            "tested": {name: len(hits) for name, hits in answers["1"].items()},
            "hits": {s: {n: np.packbits(hits).tobytes().hex() for n, hits in of.items()} for s, of in answers.items()},
        }

    def _config(self, variant: Variant, folder: Path) -> RunConfig:
        settings = {
            "data.path": folder / "split.csv", "data.val_fraction": 0, "data.workers": 0, "backbone": variant.backbone,
            "descriptions.bank": folder / "bank.json", "train.seed": self.seed, "train.epochs": EPOCHS,
            "train.precision": "bf16", "eval.keep": "nothing", **variant.settings,
        }  # fmt: skip
        return make_config("small", settings, method=variant.method)

    def _train(self, variant: Variant, backbone: msta.DualEncoder) -> AdaptedModel:
        motions, folder = MOTIONS[TESTS[variant.task][0]], self.folder / f"run-{os.getpid()}"
        drawn = "training"
        if variant.shots > TRAINING:
            drawn = f"training-{variant.task}"
            self._draw(drawn, motions, variant.shots, 2 * self.seed)
        parts = ((drawn, range(variant.shots), "train"), ("testing", range(1), "test"))
        self.write_task(folder, motions, parts, variant.sentences)
        metrics = train(self._config(variant, folder), folder / "run", Console(quiet=True))
        assert metrics["selected_by"] == "last", "a checkpoint was chosen"
        return msta.load_adapter(folder / "run" / "adapter", backbone)

    def write_task(
        self, folder: Path, motions: Sequence[str], parts: Sequence[tuple[str, Sequence[int], str]], whose: str
    ) -> None:
        """A fresh folder with bank.json and split.csv: the clips with these numbers, of each (part, numbers, split)."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        clips = [
            Clip(str(self._file(part, motion, i).absolute()), label, split)
            for label, motion in enumerate(motions)
            for part, numbers, split in parts
            for i in numbers
        ]
        write_catalog(folder / "split.csv", tuple(map(class_name, motions)), clips)
        sentences(motions, whose).save(folder / "bank.json")

    @torch.no_grad()
    def _test(self, model: AdaptedModel, tests: Sequence[str], control: bool = False) -> dict[str, np.ndarray]:
        """Per test: which clips were answered rightly. "pairs": the true motion beat its reverse; "shuffled": so did it
        with the frames in random order.
        """
        form = clip_format(model)

        def answer(clips: Tensor, text: Tensor) -> Tensor:
            found = []
            for part in clips.split(64):
                with torch.autocast("cpu", torch.bfloat16):
                    embeddings = model.encode_video(form.normalise(part.float() / 255))
                found.append(model.logits(embeddings.float(), text))
            return torch.cat(found)

        answers: dict[str, np.ndarray] = {}
        for test in tests:
            motions = MOTIONS[test]
            text = class_embeddings(model, [class_name(motion) for motion in motions], DEFAULT_TEMPLATE)
            label = torch.arange(len(motions)).repeat_interleave(TESTING)
            video = torch.cat([self.video[motion] for motion in motions])
            scores = answer(video, text)
            answers[test] = (scores.argmax(1) == label).numpy()
            if test == "all":
                continue
            reverse = [backwards(motion) for motion in motions]
            other = torch.tensor([motions.index(name) if name in motions else -1 for name in reverse])
            paired = other[label] >= 0
            own, label, other = video[paired], label[paired, None], other[label][paired, None]
            asked = {"pairs": scores[paired]}
            if control:
                order = torch.rand(own.shape[:2], generator=torch.Generator().manual_seed(self.seed)).argsort(1)
                asked["shuffled"] = answer(own.gather(1, order[:, :, None, None, None].expand_as(own)), text)
            for name, found in asked.items():
                answers[f"{test} {name}"] = (found.gather(1, label) > found.gather(1, other))[:, 0].numpy()
        return answers


@functools.cache
def frozen_backbone(name: str) -> msta.DualEncoder:
    """Read once: the weights whose fingerprint is kept are those that were used."""
    return msta.load_backbone(name)


def sentences(motions: Sequence[str], whose: str) -> DescriptionBank:
    """Two sentences of either kind per class, as the paper's N = 2."""
    if whose == "model":
        return DescriptionBank.load(MODEL_SENTENCES).subset(tuple(map(class_name, motions)))
    if whose == "good":
        described = {class_name(m): Described(*descriptions(m, 2), model="MotionWorld") for m in motions}
    else:
        forms = ("a video of {}.", "a video about {}."), ("footage of {}.", "a short clip of {}.")
        described = {
            n: Described(*(tuple(f.format(n) for f in kind) for kind in forms), model="template")
            for n in map(class_name, motions)
        }
    return DescriptionBank("these", described)


def at_strength(model: AdaptedModel, backbone: msta.DualEncoder, strength: float) -> AdaptedModel:
    """A copy whose adapters count ``strength`` times as much. For ``full``, the weights lie that share of the way from
    the frozen to the trained ones.
    """
    changed = msta.attach(backbone, model.config)
    changed.load_adapter_state(model.adapter_state())
    if model.config.name == "full":
        with torch.no_grad():
            for own, frozen in zip(changed.adapter.parameters(), backbone.parameters(), strict=True):
                own.lerp_(frozen, 1 - strength)
        return changed
    for module in changed.backbone.modules():
        if model.config.name == "lora" and hasattr(module, "scaling"):
            module.scaling = {key: value * strength for key, value in module.scaling.items()}
        elif isinstance(getattr(module, "scale", None), float):
            module.scale *= strength
    return changed


if __name__ == "__main__":
    main()
