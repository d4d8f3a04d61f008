"""``msta ablate``: MSTA's own choices, one at a time. Each point is a run of :func:`train`, skipped once finished.

An axis is a choice (the bottleneck's width), a point a value of it (64); all else stays as the preset and the overrides
have it. The point that changes nothing is run once and is part of every axis.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.config import RunConfig, make_config
from msta.data.catalog import Catalog, write_catalog
from msta.data.splits import base_novel, make_split, restrict
from msta.descriptions.bank import KINDS, DescriptionBank, Kind, Sentences
from msta.errors import ConfigError, MSTAError
from msta.evaluation.ablation_report import write_ablation
from msta.evaluation.metrics import harmonic_mean
from msta.evaluation.part_runs import train_part
from msta.evaluation.parts import READING
from msta.evaluation.run import evaluate_on
from msta.files import new_directory, read_json, write_json
from msta.methods import load_adapter
from msta.methods.msta import MSTAConfig
from msta.notices import notice

AXES = {
    "blocks": "adapted blocks",
    "dim": "width of the bottleneck",
    "scale": "factor on the adapter's output",
    "shared": "one projection for both towers",
    "kernel": "taps of the temporal convolution",
    "towers": "adapted towers",
    "consistency": "descriptions that the text is held to",
    "sentences": "sentences a class and kind",
    "template": "prompt of the classes",
}
_OF_DESCRIPTIONS = ("consistency", "sentences")
_TEMPLATES = ("a video of {}.", "a photo of {}.", "{}", "ensemble")


@dataclass(frozen=True)
class Ablation:
    """What is asked for.

    Attributes:
        data: see :func:`read_catalog`.
        novel: train on the first half of the classes and measure the other half as well.
        axes: names out of :data:`AXES`; None: all that the data allow.
        shots: training clips a class; None: all.
        seeds: of splits and training.
        preset: of settings; ``overrides`` (key=value) come after it.
        backbone: see :func:`load_backbone`; ``base`` as well.
    """

    data: Path
    novel: bool = False
    axes: tuple[str, ...] | None = None
    shots: int | None = None
    seeds: tuple[int, ...] = (0, 1, 2)
    preset: str = "small"
    overrides: tuple[str, ...] = ()
    backbone: str | None = None
    base: str | None = None


def ablate(asked: Ablation, out: Path, console: Console) -> dict[str, Any]:
    """Run what is not finished, and report.

    Args:
        asked: what to vary, on what.
        out: data/ (splits), runs/ (a folder a point and seed), ablation.json, ablation.md and a PNG an axis.
        console: where the runs tell what they do.

    Returns:
        What is written to ``out``/ablation.json. Accuracies in percent.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    wanted = _config(asked, asked.data)
    if wanted.method["name"] != "msta":
        raise ConfigError(f"method: {wanted.method['name']} has other choices; msta ablate varies those of msta")
    if unknown := [name for name in asked.axes or () if name not in AXES]:
        raise ConfigError(f"--axes: no {unknown[0]!r}; there are {', '.join(AXES)}")
    catalog = wanted.data.read()
    if out.absolute().is_relative_to(wanted.data.path):
        raise ConfigError(f"--out: {out} lies inside the data, where it would be taken for a class")
    bank = wanted.descriptions.load(catalog.classes)
    backbone = load_backbone(wanted.backbone, base=wanted.base)
    axes = points(wanted, backbone, bank, asked.axes)
    cells = []
    for seed in asked.seeds:
        data = _Data(asked, catalog, out / "data" / f"seed-{seed}", seed, bank)
        for axis, values in axes.items():
            for label, changes in values.items():
                config = data.config(changes)
                folder = "unchanged" if not changes else f"{axis}-{label}".replace("/", "-").replace(" ", "-")
                run = out / "runs" / folder / f"seed-{seed}"
                console.print(f"\n[bold]{axis} = {label}[/bold], seed {seed}", highlight=False)
                cells.append({"axis": axis, "point": label, "seed": seed, "unchanged": not changes}
                             | _measure(config, run, data.novel, backbone, console))  # fmt: skip
    result = {
        "data": str(wanted.data.path), "backbone": wanted.backbone, "shots": asked.shots, "seeds": list(asked.seeds),
        "novel": asked.novel, "axes": {axis: AXES[axis] for axis in axes}, "cells": cells,
    }  # fmt: skip
    write_json(out / "ablation.json", result)
    write_ablation(out, result)
    return result


def points(
    config: RunConfig, backbone: DualEncoder, bank: DescriptionBank | None, axes: Sequence[str] | None
) -> dict[str, dict[str, dict[str, Any]]]:
    """Axis -> point -> the settings it changes (dotted name -> value), none at the point that ``config`` is at.

    Descriptions are named by what :class:`_Data` writes: "spatial", or "spatial-2" for two sentences a class.

    Raises:
        ConfigError: an axis that needs descriptions, and none are given.
    """
    method = config.method_config()
    assert isinstance(method, MSTAConfig)
    depth = max(len(backbone.video.blocks), len(backbone.text.blocks))
    usual = depth - method.twelfths_below * depth // 12
    last = usual if method.first_block is None else depth + 1 - method.first_block
    counts = sorted({n for n in (1, 3, 5, 8, depth, usual, last) if n <= depth})
    kinds = _sentences(bank)
    longest = max((len(s) for sentences in kinds.values() for s in sentences.values()), default=0)
    own = config.data.template if isinstance(config.data.template, str) else "ensemble"
    limits = [n for n in (1, 2, 4, 8, 16) if n < longest]
    every: dict[str, dict[str, dict[str, Any]]] = {
        "blocks": {
            f"last {n}": {} if n == last else {"method.first_block": None if n == usual else depth + 1 - n}
            for n in counts
        },
        "dim": _values("method.dim", (8, 16, 32, 64, 128, 256), method.dim),
        "scale": _values("method.scale", (0.005, 0.02, 0.1, 0.5), method.scale),
        "shared": _values("method.shared", (True, False), method.shared),
        "kernel": _values("method.temporal_kernel", (1, 3, 5), max(1, method.temporal_kernel or 0)),
        "towers": {t: {} if t == method.towers else {"method.towers": t} for t in ("both", "video", "text")},
        "consistency": {
            name: {f"descriptions.{k}": None for k in kinds if k not in kept}
            for name, kept in (("both", kinds), ("spatial", ["spatial"]), ("temporal", ["temporal"]), ("off", []))
            if set(kept) <= set(kinds) and (name != "both" or len(kinds) == 2)
        },
        "sentences": {
            **{str(n): {f"descriptions.{k}": f"{k}-{n}" for k in kinds} for n in limits},
            f"all ({longest})": {},
        },
        "template": {own: {}, **{t: {"data.template": t} for t in _TEMPLATES if t != own}},
    }  # fmt: skip
    if not kinds and (needed := [name for name in axes or () if name in _OF_DESCRIPTIONS]):
        raise ConfigError(f"--axes: {needed[0]} needs sentences: descriptions.bank, .spatial or .temporal")
    if not kinds and axes is None:
        notice(f"No descriptions are given: {' and '.join(_OF_DESCRIPTIONS)} are not varied.")
    return {name: every[name] for name in axes or AXES if kinds or name not in _OF_DESCRIPTIONS}


def _values(setting: str, values: Sequence[Any], own: Any) -> dict[str, dict[str, Any]]:
    found = sorted({*values, own}, reverse=isinstance(own, bool))
    labels = {True: "yes", False: "no"} if isinstance(own, bool) else {}
    return {labels.get(value, f"{value:g}"): {} if value == own else {setting: value} for value in found}


def _config(asked: Ablation, data: Path, overrides: Sequence[str] = ()) -> RunConfig:
    settings = {"data.path": str(data), "data.shots": asked.shots, "backbone": asked.backbone, "base": asked.base}
    return make_config(asked.preset, settings, [*asked.overrides, *overrides], method="msta")


def _sentences(bank: DescriptionBank | None) -> dict[Kind, Sentences]:
    """Those of either kind, as far as there are any."""
    found = {kind: bank.sentences(kind) for kind in KINDS} if bank else {}
    return {kind: sentences for kind, sentences in found.items() if sentences is not None}


class _Data:
    """One seed's clips as data sets of their own: what trains and is tested, and the novel classes."""

    def __init__(
        self, asked: Ablation, catalog: Catalog, folder: Path, seed: int, bank: DescriptionBank | None
    ) -> None:
        self.asked, self.folder, self.seed = asked, folder.absolute(), seed
        own, novel = base_novel(catalog.classes) if asked.novel else (range(len(catalog.classes)), ())
        some = restrict(catalog, own)
        self.classes = some.classes
        self.novel = self.folder / "novel" / "split.csv" if asked.novel else None
        if not (self.folder / "own").exists():
            settings = _config(asked, asked.data).data
            split = make_split(
                some, shots=asked.shots, val_fraction=settings.val_fraction, test_fraction=settings.test_fraction,
                seed=seed,
            )  # fmt: skip
            with new_directory(self.folder / "own") as made:
                write_catalog(made / "split.csv", some.classes, split.all())
        if self.novel is not None and not self.novel.exists():
            others = restrict(catalog, novel)
            tested = [clip for clip in others.clips if clip.split == "test"] or others.clips
            with new_directory(self.novel.parent) as made:
                write_catalog(made / "split.csv", others.classes, [replace(clip, split="test") for clip in tested])
        self.sentences = _sentences(bank)

    def config(self, changes: dict[str, Any]) -> RunConfig:
        """A run on the base classes' clips (all classes, if none are novel) with these changes."""
        files = {f"descriptions.{kind}": self._file(kind) for kind in self.sentences}
        files |= {n: v and self._file(v) for n, v in changes.items() if n.startswith("descriptions.")}
        rest = {n: v for n, v in changes.items() if not n.startswith("descriptions.")}
        ours = {f"data.{name}": None for name in READING}  # the split is a CSV of our own
        last = {**ours, "descriptions.bank": None, **files, **rest, "train.seed": self.seed}
        overrides = [f"{name}={'none' if value is None else value}" for name, value in last.items()]
        return _config(self.asked, self.folder / "own" / "split.csv", overrides)

    def _file(self, name: str) -> Path:
        """The sentences of a kind, or "kind-n": the first n of each class; written when first asked for."""
        kind, _, limit = name.partition("-")
        sentences = self.sentences["spatial" if kind == "spatial" else "temporal"]
        file = self.folder / f"{name}.json"
        if not file.exists():
            first = int(limit) if limit else None
            write_json(file, {n: list(sentences[n][:first]) for n in self.classes})
        return file


def _measure(
    config: RunConfig, run: Path, novel: Path | None, backbone: DualEncoder, console: Console
) -> dict[str, float]:
    """Train, unless it is done; the figures of the test clips, and of the novel classes."""
    metrics = train_part(config, run, console)
    figures = {"trainable": metrics["trainable_parameters"], "seconds": metrics["seconds"], "top1": metrics["top1"]}
    if novel is None:
        return figures
    if not (run / "novel.json").exists():
        model = load_adapter(run / "adapter", backbone)
        write_json(run / "novel.json", evaluate_on(model, novel, split="test", new_classes=True))
    measured = read_json(run / "novel.json", MSTAError)["top1"]
    return figures | {"novel": measured, "harmonic_mean": harmonic_mean(metrics["top1"], measured)}
