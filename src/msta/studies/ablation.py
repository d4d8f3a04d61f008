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
from msta.evaluation.metrics import harmonic_mean
from msta.evaluation.run import evaluate_on
from msta.files import new_directory, read_json, write_json
from msta.methods import load_adapter
from msta.methods.msta import MSTAConfig
from msta.notices import notice
from msta.studies.ablation_report import write_ablation
from msta.studies.datasets import READING
from msta.studies.resumable import train_part

AXES = {
    "blocks": "adapted blocks",
    "dim": "width of the bottleneck",
    "scale": "factor on the adapter's output",
    "shared": "one projection for both towers",
    "temporal": "frames that the temporal up-projection sees",
    "towers": "adapted towers",
    "init": "initialisation",
    "consistency": "descriptions that the text is held to",
    "alpha": "weight of the consistency term",
    "sentences": "sentences per class and kind",
    "template": "prompt of the classes",
}
_OF_DESCRIPTIONS = ("consistency", "alpha", "sentences")
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
    bank = wanted.descriptions.model_copy(update={"per_class": None}).load(catalog.classes)
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

    Values are the paper's own, with those that "small" and the built-in backbone call for; a bottleneck's width that
    the temporal up-projection does not allow is left out (512 on a ViT-B).

    Raises:
        ConfigError: an axis that needs descriptions, and none are given.
    """
    method = config.method_config()
    assert isinstance(method, MSTAConfig)
    video, text = len(backbone.video.blocks), len(backbone.text.blocks)
    width = backbone.video.shape.width
    kinds = _sentences(bank)
    longest = max((len(s) for sentences in kinds.values() for s in sentences.values()), default=0)
    own = config.data.template if isinstance(config.data.template, str) else "ensemble"
    counts = [*(n for n in (1, 2, 4, 8, 16) if n < longest), longest]
    dims = [r for r in (8, 16, 32, 64, 128, 256, 512) if method.temporal_kernel in (None, 0, 1) or width % r == 0]
    every: dict[str, dict[str, dict[str, Any]]] = {
        "blocks": _block_ranges(method, video, text),
        "dim": _values("method.dim", dims, method.dim),
        "scale": _values("method.scale", (0.001, 0.005, 0.01, 0.05), method.scale),
        "shared": _values("method.shared", (True, False), method.shared),
        "temporal": _values("method.temporal_kernel", (1, 3, 5), max(1, method.temporal_kernel or 0), {1: "none"}),
        "towers": {t: {} if t == method.towers else {"method.towers": t} for t in ("both", "video", "text")},
        "init": {i: {} if i == method.init else {"method.init": i} for i in ("kaiming", "zero")},
        "consistency": {
            name: {f"descriptions.{k}": None for k in kinds if k not in kept}
            for name, kept in (("both", kinds), ("spatial", ["spatial"]), ("temporal", ["temporal"]), ("off", []))
            if set(kept) <= set(kinds) and (name != "both" or len(kinds) == 2)
        },
        "alpha": _values("descriptions.alpha", (0.1, 0.5, 1, 2, 10), config.descriptions.alpha),
        "sentences": _values("descriptions.per_class", counts, config.descriptions.per_class or longest),
        "template": {own: {}, **{t: {"data.template": t} for t in _TEMPLATES if t != own}},
    }  # fmt: skip
    if not kinds and (needed := [name for name in axes or () if name in _OF_DESCRIPTIONS]):
        raise ConfigError(f"--axes: {needed[0]} needs sentences: descriptions.bank, .spatial or .temporal")
    if not kinds and axes is None:
        notice(f"No descriptions are given: {' and '.join(_OF_DESCRIPTIONS)} are not varied.")
    return {name: every[name] for name in axes or AXES if kinds or name not in _OF_DESCRIPTIONS}


def _block_ranges(method: MSTAConfig, video: int, text: int) -> dict[str, dict[str, Any]]:
    """The paper's four choices for towers of 12 blocks (8..12, 1..6, 7..12, 1..12), in proportion, and the own one."""
    depth = max(video, text)
    usual = type(method)().block_pairs(video, text)[0][0]
    own = (method.block_pairs(video, text)[0][0], method.last_block or depth)
    half = max(1, depth // 2)
    ranges = sorted({(usual, depth), (1, half), (min(half + 1, depth), depth), (1, depth), own})
    return {
        f"{first}..{last}": {} if (first, last) == own else {"method.first_block": first, "method.last_block": last}
        for first, last in ranges
    }


def _values(
    setting: str, values: Sequence[Any], own: Any, names: dict[Any, str] | None = None
) -> dict[str, dict[str, Any]]:
    found = sorted({*values, own}, reverse=isinstance(own, bool))
    labels = names or ({True: "yes", False: "no"} if isinstance(own, bool) else {})
    return {labels.get(value, f"{value:g}"): {} if value == own else {setting: value} for value in found}


def _config(asked: Ablation, data: Path, overrides: Sequence[str] = ()) -> RunConfig:
    settings = {"data.path": str(data), "data.shots": asked.shots, "backbone": asked.backbone, "base": asked.base}
    protocol = "base-to-novel" if asked.novel else "few-shot"
    dataset = asked.data.stem
    return make_config(
        asked.preset, settings, [*asked.overrides, *overrides], method="msta", protocol=protocol, dataset=dataset
    )


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
        ours: dict[str, Any] = {f"data.{name}": None for name in READING}  # the split is a CSV of our own
        ours["data.names"] = "given"
        last = {**ours, "descriptions.bank": None, **files, **changes, "train.seed": self.seed}
        overrides = [f"{name}={'none' if value is None else value}" for name, value in last.items()]
        return _config(self.asked, self.folder / "own" / "split.csv", overrides)

    def _file(self, kind: Kind) -> Path:
        """The sentences of a kind of these classes; written when first asked for."""
        file = self.folder / f"{kind}.json"
        if not file.exists():
            write_json(file, {name: list(self.sentences[kind][name]) for name in self.classes})
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
