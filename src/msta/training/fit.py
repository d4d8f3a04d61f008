"""``msta train``: one run; or runs that measure, and then one that trains on all clips, so that no clip is wasted.

With ``train.refit`` one run measures on held-out clips and finds the best number of epochs. With ``train.folds`` K runs
measure (cross-validation): each is tested on one of K parts of the clips and trained on the others, for the whole
schedule, because no clips are left to choose an epoch by. The figures are those of all clips, each classified by a
model that did not train on it. They are a little pessimistic: the final adapter has seen more clips.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from msta.backbone.device import best_device
from msta.config import RunConfig, changed
from msta.data.catalog import Catalog, write_catalog
from msta.data.layouts.parts import OPTIONS
from msta.data.splits import Split, every_clip, make_folds
from msta.errors import ConfigError, Interrupted
from msta.evaluation.calibration import calibrated
from msta.evaluation.intervals import wilson
from msta.evaluation.metrics import accuracy
from msta.evaluation.predictions import pooled, read_predictions, write_predictions
from msta.files import new_directory
from msta.training.lock import locked
from msta.training.loop import train
from msta.training.page import write_run_page
from msta.training.processes import Processes
from msta.training.run import Callback
from msta.training.run_folder import check_same_settings, open_run, refuse_run
from msta.training.status import MEASURING


def fit(
    config: RunConfig,
    out: Path,
    console: Console,
    *,
    resume: bool = False,
    or_resume: bool = False,
    on_epoch: Callback | None = None,
) -> dict[str, Any]:
    """Train as :func:`msta.training.loop.train` does, or measure first and then train on all clips.

    In the second case ``out``/measuring has a run per part. The metrics have "measured" (how, in words), "interval"
    (95 %, of top-1), and with folds "folds" (the top-1 of each).

    At the end the main process writes the page of the run, see :mod:`msta.training.page`.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    config, out = config.on(best_device()), out.expanduser()
    processes = Processes(config.train)
    if not config.train.on_all_clips:
        metrics = train(config, out, console, resume=resume, or_resume=or_resume, on_epoch=on_epoch)
    else:
        metrics = _train_on_all(config, out, console, processes, resume or or_resume, or_resume, on_epoch)
    if processes.main and config.eval.keep != "nothing":
        page = write_run_page(out)
        console.print(f"Report: {page}", markup=False, highlight=False, soft_wrap=True)
    return metrics


def _train_on_all(
    config: RunConfig, out: Path, console: Console, processes: Processes, resume: bool, or_resume: bool,
    on_epoch: Callback | None,
) -> dict[str, Any]:  # fmt: skip
    if resume and (out / "metrics.json").exists():
        return train(config, out, console, resume=resume, or_resume=or_resume, estimate={})
    if config.data.shots is not None:
        option = "folds" if config.train.folds else "refit"
        raise ConfigError(f"train.{option}: the adapter trains on all clips; leave --shots out")
    if config.train.patience is not None and config.train.folds is not None:
        raise ConfigError("train.patience: needs validation clips, and with train.folds there are none")
    catalog = config.data.read()
    folds = make_folds(catalog, config.train.folds, config.data.seed) if config.train.folds else []
    stages = _stages(config, out)
    begun = processes.any_rank(processes.main and (out / "config.yaml").exists())
    if begun and or_resume:
        check_same_settings(out, config)
    elif not (begun and resume):
        with processes.alike():
            refuse_run(out, config.data.path)
        if processes.main:
            open_run(out, config, catalog, every_clip(catalog))
    if processes.main:
        _write_folds(out, catalog, folds)
    processes.barrier()
    console = console if processes.main else Console(quiet=True)
    metrics = []
    with locked(out) if processes.main else contextlib.nullcontext():
        for number, (folder, stage) in enumerate(stages, 1):
            if not (folder / "metrics.json").exists():
                console.print(f"\nMeasuring, {number} of {len(stages)}", highlight=False)
            try:
                metrics.append(train(stage, folder, console, or_resume=True))
            except Interrupted as error:
                raise Interrupted(f"Stopped while measuring, saved. Go on with: msta train --resume {out}") from error
    console.print("\nTraining on all clips", highlight=False)
    last = config
    if config.train.refit and not config.train.folds and metrics[0]["selected_at"]:
        last = changed(config, {"train.stop_after": int(metrics[0]["selected_at"]["epoch"])})
    estimate = _estimate(config, out, [folder for folder, _ in stages], metrics)
    return train(last, out, console, resume=True, on_epoch=on_epoch, estimate=estimate)


def _stages(config: RunConfig, out: Path) -> list[tuple[Path, RunConfig]]:
    """The folders and settings of the runs that measure."""
    folder = out / MEASURING
    once: dict[str, Any] = {"train.refit": False, "train.folds": None}
    if config.eval.keep == "nothing":
        once["eval.keep"] = "predictions"
    if not config.train.folds:
        return [(folder / "held-out", changed(config, once))]
    once |= {f"data.{name}": None for name in ("layout", *OPTIONS)} | {"data.names": "words", "data.val_fraction": 0}
    numbers = range(1, config.train.folds + 1)
    return [(folder / f"fold-{i}", changed(config, once | {"data.path": _clips_of(out, i)})) for i in numbers]


def _clips_of(out: Path, fold: int) -> Path:
    return out / MEASURING / f"clips-{fold}" / "split.csv"


def _write_folds(out: Path, catalog: Catalog, folds: Sequence[Split]) -> None:
    for i, split in enumerate(folds, 1):
        csv = _clips_of(out, i)
        if not csv.exists():
            with new_directory(csv.parent) as aside:
                write_catalog(aside / csv.name, catalog.classes, split.all())


def _estimate(config: RunConfig, out: Path, folders: list[Path], metrics: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of all runs that measured, together. Their predictions are written to ``out``/predictions."""
    tested = pooled([read_predictions(folder / "predictions" / "test.parquet") for folder in folders])
    file = out / "predictions" / "test.parquet"
    write_predictions(file, tested, method=config.method["name"], split="test")
    figures = {
        **accuracy(torch.from_numpy(tested.probabilities), torch.from_numpy(tested.labels)),
        "clips": len(tested.clips),
        "interval": wilson(sum(tested.hits), len(tested.clips)),
        "split": "test",
    }
    if not config.train.folds:
        fitted = {name: metrics[0][name] for name in ("temperature", "unknown_below")}
        return {**figures, **fitted, "measured": "on held-out clips, by a model that did not train on them"}
    how = f"by cross-validation in {len(folders)} folds: each clip by a model that did not train on it"
    return {**figures, **calibrated(file), "measured": how, "folds": [each["top1"] for each in metrics]}
