"""Running a protocol's cells one by one, each once: a finished cell is skipped, and a stopped cell is continued."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from msta._version import __version__
from msta.adapters.model import AdaptedModel
from msta.adapters.task import Task
from msta.backbone.checkpoints import load_backbone
from msta.backbone.device import best_device, device_name
from msta.backbone.dual_encoder import DualEncoder
from msta.config import RunConfig, read_config
from msta.data.reading import read_catalog
from msta.errors import ConfigError, DataError, Interrupted, MSTAError, one_line
from msta.evaluation.evaluate import class_embeddings, measure_clips, view_probabilities
from msta.evaluation.predictions import Recorder
from msta.files import new_directory, read_json, refuse_existing, write_json
from msta.methods import attach, load_adapter
from msta.studies.datasets import parse_datasets
from msta.studies.protocols import FROZEN, PROTOCOLS, Cell, Request, Test, check
from msta.training.loop import train


def run_protocol(
    request: Request, out: Path, console: Console, *, vary: Callable[[Iterable[Cell]], Iterable[Cell]] = iter
) -> None:
    """Run the cells that are not finished. A second call continues, also with more seeds, shots or methods.

    Args:
        request: which protocol, on which data.
        out: data/ (the splits), runs/ (one folder per cell), protocol.json (the request, and every cell).
        console: where the runs print.
        vary: turns the protocol's cells into the cells that run.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    check(request)
    for option in ("data", "source", "target", "second"):
        for part in parse_datasets(getattr(request, option), f"--{option}"):
            if Path(os.path.abspath(out)).is_relative_to(part.path):
                raise ConfigError(f"--out: {out} lies inside {part.path}, where it would be taken for a class")
    plan = out / "protocol.json"
    begun = plan.exists()
    if begun:
        then = read_json(plan, MSTAError).get("protocol")
        if then != request.protocol:
            raise MSTAError(f"{out}: holds the protocol {then}; take another --out for {request.protocol}")
    else:
        refuse_existing(out)
        out.mkdir(parents=True, exist_ok=True)
    out = Path(os.path.abspath(out))
    try:
        cells = list(vary(PROTOCOLS[request.protocol](request, out)))
        for cell in cells:
            check_same_run(out / "runs" / cell.folder, cell.config)
    except (MSTAError, KeyboardInterrupt):
        if not begun:
            shutil.rmtree(out)  # it was empty: what is in it are splits of a command that was wrong
        raise
    asked = {name: str(value) if isinstance(value, Path) else value for name, value in asdict(request).items()}
    write_json(plan, {"protocol": request.protocol, "asked": asked, "cells": [cell.described() for cell in cells]})
    models = _Models()
    for number, cell in enumerate(cells, 1):
        run = out / "runs" / cell.folder
        lacks = any(not (run / "tests" / test.file).exists() for test in cell.tests)
        if lacks or not (run / "cell.json").exists():
            console.print(f"\n[bold]{number} of {len(cells)}[/bold]  {one_line(cell.folder)}", highlight=False)
            try:
                _run_cell(cell, run, models, console)
            except (Interrupted, KeyboardInterrupt) as error:
                raise Interrupted(f"Stopped in {run}, saved. The same command goes on from there.") from error


def _run_cell(cell: Cell, run: Path, models: _Models, console: Console) -> None:
    start = time.perf_counter()
    metrics = {}
    if cell.trains:
        going_on = (run / "config.yaml").exists()
        metrics = train(cell.config, run, console, resume=going_on)
    elif not (run / "config.yaml").exists():
        with new_directory(run) as folder:
            (folder / "config.yaml").write_text(cell.config.to_yaml(), encoding="utf-8")
    for test in cell.tests:
        if not (run / "tests" / test.file).exists():
            models.measure(cell, run, test, console)
    seconds = max(time.perf_counter() - start, metrics.get("seconds", 0.0))  # of all sessions of a training
    write_json(run / "cell.json", {"seconds": round(seconds, 1), "environment": environment()})


class _Models:
    """Finished models, loaded to be tested: the backbone once, and the last adapter."""

    def __init__(self) -> None:
        self._backbone: DualEncoder | None = None
        self._run: Path | None = None
        self._model: AdaptedModel | None = None

    def of(self, cell: Cell, run: Path) -> AdaptedModel:
        """The model of a cell."""
        if self._model is None or self._run != run:
            if self._backbone is None:  # the same for all cells of a protocol
                self._backbone = load_backbone(cell.config.backbone, base=cell.config.base)
            adapter = run / "adapter" if cell.trains else cell.adapter
            if adapter is None:
                model, data = attach(self._backbone, FROZEN), cell.config.data
                model.task = Task((), data.template, data.frames, data.size, data.fit)
            else:
                model = load_adapter(adapter, self._backbone)
            self._run, self._model = run, model.placed().eval()
        return self._model

    def measure(self, cell: Cell, run: Path, test: Test, console: Console) -> None:
        """Write the predictions for a test set's clips with its classes and, if asked, with the model's own classes."""
        model = self.of(cell, run)
        catalog = read_catalog(test.csv)
        config = cell.config
        template = model.task.template if model.task else config.data.template
        recorder = Recorder(catalog.clips, catalog.classes, embeddings=True)
        metrics, unreadable = measure_clips(
            model, catalog.clips, class_embeddings(model, catalog.classes, template),
            views=config.eval.views(), batch_size=config.eval.batch_size, workers=config.data.workers,
            console=console, recorder=recorder,
        )  # fmt: skip
        if not metrics:
            raise DataError(f"{test.csv}: not one of its {len(catalog.clips)} clips can be read")
        for path, reason in unreadable.items():
            console.print(one_line(f"left out: {path}: {reason}"), markup=False, highlight=False)
        about = {"split": "test", "method": cell.method, "unreadable": unreadable}
        if test.unknown and model.task is not None and model.task.classes:
            own = Recorder(catalog.clips, model.task.classes)
            text = class_embeddings(model, model.task.classes, template)
            embeddings = recorder.embeddings.to(text.device)
            nothing = torch.full_like(recorder.labels, -1)  # none of these classes
            own.add(recorder.indices, nothing, view_probabilities(model, embeddings, text), embeddings)
            own.write(run / "tests" / test.unknown_file, **about)
        recorder.write(run / "tests" / test.file, **about)  # last: where it is, both are
        name = test.dataset + (f" {test.set}" if test.set else "")
        console.print(f"{name}: top-1 {metrics['top1']:.1f} % of {metrics['clips']} clips", highlight=False)


_MAY_DIFFER = (
    "cache.path", "cache.max_gb", "data.workers", "data.timeout", "eval.batch_size", "data.path",
    "train.save_every", "train.log_clips", "train.trackers", "train.prometheus", "train.share_prompts",
)  # fmt: skip
"""Settings that change no figure, or that change if the folder is moved."""


def check_same_run(run: Path, asked: RunConfig) -> None:
    """Raise if the folder has a run with other settings than those asked for, since these may change a figure."""
    if not (run / "config.yaml").exists():
        return
    then, now = (
        {name: json.dumps(value) for name, value in config.flat().items()}
        for config in (read_config(run / "config.yaml").on(best_device()), asked.on(best_device()))
    )
    for name in sorted(then.keys() | now.keys()):
        if name not in _MAY_DIFFER and then.get(name) != now.get(name):
            raise MSTAError(
                f"{run}: was run with {name} {then.get(name)}, now {now.get(name)} is asked for; "
                "take another --out, or remove that folder"
            )


def environment() -> dict[str, str]:
    """What the figures were computed with."""
    device = device_name()
    versions = {"msta": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return {
        **versions,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": f"CPU, {os.cpu_count()} cores" if device == "CPU" else device,
    }
