"""Runs of ``msta train``, one at a time: start, watch, stop and resume them.

A run is a separate process. It continues if the page is closed, can be stopped as on a command line, and frees its
memory when it ends. The page shows what the run writes: status.json, log.jsonl, metrics.json.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from msta.app.models import Models
from msta.backbone.checkpoints import EMBEDDED
from msta.config import make_config
from msta.data.catalog import Catalog
from msta.data.splits import FEW
from msta.errors import MSTAError
from msta.evaluation.figures import learning_curves
from msta.files import check_writable, read_json, refuse_existing
from msta.inference.export import export
from msta.inference.predictor import Predictor
from msta.methods import load_adapter
from msta.training.page import PAGE
from msta.training.report import read_log
from msta.training.status import MEASURING, read_status

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SECONDS_TO_SAVE = 20.0  # for a run, when the app ends
_FOLDS = 5  # of cross-validation, if there are few clips per class
UNDER_WAY = "A training is under way already; stop it, or wait for its end."


@dataclass(frozen=True)
class Progress:
    """The state of a run."""

    name: str  # of its adapter
    state: str  # starting, running, finished, stopped or failed
    share: float  # of its steps that are done, 0..1
    message: str  # a sentence
    curve: bytes | None = None  # PNG of losses and validation, once there are some
    result: tuple[str, ...] = ()  # sentences about the result
    adapter: Path | None = None  # its directory, once it is trained
    archive: Path | None = None  # the adapter as a zip
    report: Path | None = None  # the page about the run
    output: str = ""  # what the run printed

    @property
    def over(self) -> bool:
        """Whether the run has ended."""
        return self.state not in ("starting", "running")


@dataclass
class _Run:
    name: str
    folder: Path
    data: Path
    process: subprocess.Popen[bytes]
    output: Path
    parts: int  # trainings one after another: those that measure, and the last one, on all clips
    stopping: bool = False


class Trainings:
    """The current run, or the last one.

    Args:
        models: has the backbone to adapt, and the folder for the runs.
        scratch: a folder for the output of runs, and for zips.
    """

    def __init__(self, models: Models, scratch: Path) -> None:
        self.models, self.scratch = models, scratch
        self._run: _Run | None = None

    def start(self, name: str | None, data: Path, method: str = "msta", epochs: int = 30) -> None:
        """Start a training in the background.

        Args:
            name: of the adapter, and of the folder of the run.
            data: the argument of ``msta train --data``.
            method: see docs/methods.md.
            epochs: passes over the training clips.

        Raises:
            MSTAError: a training is under way, the name is missing or taken, the clips cannot be trained on, or the
                folder of runs cannot be written to.
        """
        if self.busy:
            raise MSTAError(UNDER_WAY)
        name = (name or "").strip()
        if not _NAME.fullmatch(name):
            raise MSTAError("Give the adapter a name of letters, digits, dots and dashes.")
        if name in self.models.adapters():
            raise MSTAError(f"There is an adapter {name!r} already; choose another name.")
        folder = self.models.runs / name
        refuse_existing(folder)
        check_writable(folder, "start the app with another --runs.")
        catalog = _check_clips(data, method, epochs)
        source, base = self.models.backbone.source, self.models.backbone.base
        options = ["--data", str(data), "--out", str(folder), "--backbone", str(source), "--method", method]
        options += ["--base", str(base)] if base else []
        options += ["--preset", "small" if source in EMBEDDED else "upper"]
        folds = 0 if catalog.has_splits else min(_FOLDS, *catalog.counts())
        few = min(catalog.counts()) < FEW and folds > 1
        parts = folds + 1 if few else 2
        options += ["--folds", str(folds)] if few else ["--refit"]
        for old in (f"{name}.zip", f"{name}-onnx.zip"):  # of an adapter of this name that was removed
            (self.scratch / old).unlink(missing_ok=True)
        shutil.rmtree(self.scratch / f"{name}-onnx", ignore_errors=True)
        self._launch(name, folder, data, [*options, f"train.epochs={epochs}"], parts)

    def resume(self) -> None:
        """Resume the run that was stopped. Raises MSTAError if there is none."""
        if self._run is None or self.busy or not (self._run.folder / "config.yaml").exists():
            raise MSTAError("There is no stopped training to go on with.")
        run = self._run
        self._launch(run.name, run.folder, run.data, ["--resume", str(run.folder)], run.parts)

    def stop(self) -> None:
        """Ask the run, if there is one, to save itself and stop."""
        if self._run is not None and self.busy:
            self._run.stopping = True
            self._run.process.send_signal(signal.SIGTERM)

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None and self._run.process.poll() is None

    def close(self) -> None:
        """Stop the run, and wait until it has ended."""
        self.stop()
        if self._run is not None:
            try:
                self._run.process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                self._run.process.kill()
                self._run.process.wait()

    def export(self) -> Path:
        """The trained adapter as a zip for ONNX Runtime. Raises MSTAError if it cannot be made."""
        now = self.progress()
        if now is None or now.adapter is None:
            raise MSTAError("There is no trained adapter to export.")
        folder = self.scratch / f"{now.name}-onnx"
        if not folder.exists():
            export(Predictor(load_adapter(now.adapter)), folder)
        return _zip(folder, self.scratch / f"{now.name}-onnx.zip")

    def progress(self) -> Progress | None:
        """The state of the run. None before the first."""
        run = self._run
        if run is None:
            return None
        code = run.process.poll()
        output = run.output.read_text(encoding="utf-8", errors="replace")
        begun = (run.folder / "config.yaml").exists()
        status = read_status(run.folder) if begun else {}
        log = read_log(run.folder / status.get("stage", ""))
        if log and "step" in status:
            status["step"] = max(status["step"], log[-1]["step"])  # the status is written only every second
        steps = status.get("steps") or 0
        begun_parts = len(list((run.folder / MEASURING).glob("*/config.yaml"))) + ("stage" not in status)
        share = (begun_parts - 1 + status["step"] / steps) / run.parts if steps else 0.0
        status["part"] = f"{begun_parts} of {run.parts}"
        curve = learning_curves({run.name: log}) if log else None
        if code is None:
            message = "Stopping: saving what it has …" if run.stopping else _describe_status(status)
            return Progress(run.name, "running" if steps else "starting", share, message, curve, output=output)
        if code == 0:
            adapter = run.folder / "adapter"
            classes = len(read_json(adapter / "classes.json", MSTAError)["names"])
            result = tuple(in_words(read_json(run.folder / "metrics.json", MSTAError), classes))
            archive = _zip(adapter, self.scratch / f"{run.name}.zip")
            message = f"Done: the adapter “{run.name}” can be chosen under Predict and Search."
            report = run.folder / PAGE
            return Progress(run.name, "finished", 1.0, message, curve, result, adapter, archive, report, output)
        if run.stopping:
            saved = " It is saved: “Go on” resumes it." if steps else ""
            where = f"after step {status['step']} of {steps}" if steps else "before the first step"
            return Progress(run.name, "stopped", share, f"Stopped {where}.{saved}", curve, output=output)
        return Progress(run.name, "failed", share, self._reason(output), curve, output=output)

    def _launch(self, name: str, folder: Path, data: Path, options: Sequence[str], parts: int) -> None:
        output = self.scratch / f"{name}.txt"
        with output.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "msta", "train", *options], stdin=subprocess.DEVNULL, stdout=file,
                stderr=file, start_new_session=True,  # Ctrl-C ends the app, which then stops the run itself
            )  # fmt: skip
        self._run = _Run(name, folder, data, process, output, parts)

    def _reason(self, output: str) -> str:
        """The last error that the command printed, without folders that users do not know."""
        lines = [line for line in output.splitlines() if line.startswith("msta: ")]
        reason = lines[-1].removeprefix("msta: ") if lines else "it ended without a message; perhaps memory ran out"
        return f"The training failed: {reason.replace(f'{self.scratch}/', '')}"


# ---------------------------------------------------------------- before a run


def _check_clips(data: Path, method: str, epochs: int) -> Catalog:
    """Read the clips, and raise the errors that the run would raise at its start."""
    config = make_config("small", {"data.path": str(data)}, [f"train.epochs={epochs}"], method=method)
    config.method_config()
    catalog = config.data.read()
    config.data.split(catalog)
    return catalog


# ---------------------------------------------------------------- during a run


def _describe_status(status: dict[str, Any]) -> str:
    if not status.get("steps"):
        return "Starting: reading the clips and the backbone …"
    message = f"Training {status['part']}: step {status['step']} of {status['steps']}"
    phase = status.get("phase", "training")
    if phase not in ("training", "finished"):
        return f"{message}: {phase} …"
    left = status.get("seconds_left")
    return f"{message}, about {timedelta(seconds=round(left))} to go." if left is not None else f"{message}."


# ---------------------------------------------------------------- after a run


def _zip(adapter: Path, to: Path) -> Path:
    if not to.exists():
        shutil.make_archive(str(to.with_suffix("")), "zip", adapter.parent, adapter.name)
    return to


def in_words(metrics: dict[str, Any], classes: int) -> list[str]:
    """Metrics of a run -> sentences for users who do not know the metrics."""
    clips, top1 = int(metrics["clips"]), float(metrics["top1"])
    right = round(top1 * clips / 100)
    sentences = [
        f"Of {clips} clips, each named by a model that was not trained on it, {right} were named rightly: "
        f"{top1:.0f} %. Guessing would get {100 / classes:.0f} %."
    ]
    if "interval" in metrics:
        low, high = metrics["interval"]
        sentences.append(
            f"With other clips of the same kind, expect {low:.0f} to {high:.0f} %. The adapter itself was trained on "
            "all of your clips."
        )
    best = metrics.get("selected_at") or {}
    if best:
        sentences.append(
            f"It is the state after pass {best['epoch']}, the best on {best['clips']} validation clips "
            f"({best['top1']:.0f} % right), which it was not trained on either."
        )
    if metrics.get("temperature"):
        clips_of = "these answers" if "folds" in metrics else "the validation clips"
        sentences.append(f"Its probabilities are fitted to {clips_of}, and it can say “unknown”.")
    else:
        sentences.append(
            "There were no clips to validate on (three or more per class leave some). So it is the last state, its "
            "probabilities are not fitted, and it never says “unknown”."
        )
    if unreadable := metrics.get("unreadable"):
        names = ", ".join(Path(path).name for path in list(unreadable)[:3])
        sentences.append(f"{len(unreadable)} clips could not be read and were left out: {names}.")
    return sentences
