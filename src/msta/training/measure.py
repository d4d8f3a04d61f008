"""Validation after an epoch, and the test at the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from msta.adapters.task import per_class
from msta.errors import DataError
from msta.evaluation.calibration import calibrated
from msta.evaluation.evaluate import evaluate
from msta.evaluation.predictions import Recorder
from msta.training.run import Run
from msta.training.saving import stop_if_asked


def validate(run: Run) -> None:
    """After an epoch, validate if it is time, and keep the best weights."""
    progress, settings = run.progress, run.config.train
    done, run.validated = progress.epoch + 1, None
    if done % settings.eval_every and done != run.epochs:
        return
    if run.watched:
        measured = _measure(run, run.watched, record := _recorder(run, run.watched))
        run.log.epoch(progress, run.watched, measured)
        run.validated = measured
        if measured and is_better(measured, progress.best):
            progress.best = {**measured, "epoch": done}
            run.best = {name: tensor.clone() for name, tensor in run.model.adapter_state().items()}
            _keep(run, record, run.watched)
            run.status.tell(best=progress.best)
    if settings.watch_test and run.watched != "test" and run.setup.split.test:
        run.log.epoch(progress, "test", _measure(run, "test"))


def is_better(measured: dict[str, float], best: dict[str, float]) -> bool:
    """Whether top-1 is higher; or if equal, as it often is with few clips, the negative log likelihood is lower."""
    return not best or (measured["top1"], -measured["nll"]) > (best["top1"], -best["nll"])


def test(run: Run, estimate: dict[str, Any] | None) -> dict[str, Any]:
    """Measure the test clips. Returns the metrics of the whole run. ``estimate``: the figures, if it has no test clips.

    Raises:
        DataError: no test clip can be read.
    """
    return (estimate if estimate is not None else _tested(run)) | _about(run)


def _tested(run: Run) -> dict[str, Any]:
    tested = _measure(run, "test", record := _recorder(run, "test"))
    if not tested:
        error = DataError(f"{run.setup.catalog.source}: not one of the test clips can be read")
        raise run.processes.common(error)
    _keep(run, record, "test")
    lacking = run.processes.any_rank(run.processes.main and not _predictions_file(run, "val").exists())
    if run.setup.split.val and record and lacking and _measure(run, "val", record := _recorder(run, "val")):
        _keep(run, record, "val")  # nothing was trained, or not selected by these clips
    fitted = calibrated(_predictions_file(run, "val")) if run.processes.main else {}
    return {**tested, "split": "test", **fitted}


def _about(run: Run) -> dict[str, Any]:
    progress, model = run.progress, run.model
    return {
        "classes": len(run.setup.catalog.classes),
        "selected_by": run.config.train.select if progress.best else "last",
        "selected_at": progress.best,
        "method": model.config.name,
        "label": model.label,
        "trainable_parameters": model.num_trainable(),
        "steps": progress.step,
        "seconds": round(run.clock.seconds(), 1),
        "consistency": run.config.descriptions.summary(run.setup.bank if run.anchors else None),
        "approximations": run.config.approximations(),
        "unreadable": run.failures.reasons,
    }


def _measure(run: Run, split: str, recorder: Recorder | None = None) -> dict[str, float]:
    run.status.tell(now=True, phase=f"measuring the {split} clips")
    autocast = run.processes.accelerator.autocast
    with run.clock.elsewhere():
        with torch.no_grad(), autocast():
            text = per_class(run.model.encode_text(run.prompts), len(run.setup.catalog.classes))
        measured = evaluate(
            run.model, run.source.test(split, run.caching), text, run.failures, recorder=recorder,
            autocast=autocast, gather=run.processes.gather,
        )  # fmt: skip
    stop_if_asked(run)
    return measured


def _recorder(run: Run, split: str) -> Recorder | None:
    keep, clips = run.config.eval.keep, run.source.datasets[split].clips
    if keep == "nothing":
        return None
    return Recorder(clips, run.setup.catalog.classes, embeddings=keep == "embeddings")


def _predictions_file(run: Run, split: str) -> Path:
    return run.out / "predictions" / f"{split}.parquet"


def _keep(run: Run, record: Recorder | None, split: str) -> None:
    if record is not None and run.processes.main:
        record.write(_predictions_file(run, split), split=split, method=run.model.config.name)
