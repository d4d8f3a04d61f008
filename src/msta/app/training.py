"""Runs of ``msta train``, one at a time: begun, watched, stopped, gone on with.

A run is a process of its own. It outlives the page that began it, can be stopped as on a command line, and what it
takes is free again when it ends. What is shown of it is what it writes: status.json, log.jsonl, metrics.json.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from msta.app.models import Models
from msta.backbone.checkpoints import TOY
from msta.config import make_config
from msta.data.splits import make_split
from msta.errors import MSTAError
from msta.evaluation.figures import learning_curves
from msta.files import read_json, refuse_existing
from msta.training.status import read_status

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PATIENCE = 20.0
"""Seconds that a run has to save itself when the app ends."""


@dataclass(frozen=True)
class Progress:
    """How a run is doing.

    Attributes:
        name: what its adapter is called.
        state: starting, running, finished, stopped or failed.
        share: of its steps that are done, 0..1.
        said: a sentence.
        curve: PNG of losses and validation, once there are some.
        result: sentences about what it reached.
        adapter: its directory, once there is one.
        archive: the adapter as a zip.
        told: what it printed.
    """

    name: str
    state: str
    share: float
    said: str
    curve: bytes | None = None
    result: tuple[str, ...] = ()
    adapter: Path | None = None
    archive: Path | None = None
    told: str = ""

    @property
    def over(self) -> bool:
        """Whether there is nothing more to come."""
        return self.state not in ("starting", "running")


@dataclass
class _Run:
    name: str
    folder: Path
    data: Path
    process: subprocess.Popen[bytes]
    told: Path
    stopping: bool = False


class Trainings:
    """The run under way, or the last one.

    Args:
        models: its backbone is adapted, and its folder of runs has the results.
        scratch: for what is printed, and zips.
    """

    def __init__(self, models: Models, scratch: Path) -> None:
        self.models, self.scratch = models, scratch
        self._run: _Run | None = None

    def begin(self, name: str | None, data: Path, method: str = "msta", epochs: int = 30) -> None:
        """Train on the clips in ``data`` in the background.

        Args:
            name: of the folder of the run, and of its adapter.
            data: what ``msta train --data`` takes.
            method: see docs/methods.md.
            epochs: passes over the training clips.

        Raises:
            MSTAError: one is under way; no name, or one that is taken; clips that cannot be trained on; a folder of
                runs that cannot be written to.
        """
        if self.busy:
            raise MSTAError("A training is under way already; stop it, or wait for its end.")
        name = (name or "").strip()
        if not _NAME.fullmatch(name):
            raise MSTAError("Give the adapter a name of letters, digits, dots and dashes.")
        if name in self.models.adapters():
            raise MSTAError(f"There is an adapter {name!r} already; choose another name.")
        folder = self.models.runs / name
        refuse_existing(folder)
        _try_to_write(self.models.runs)
        _check(data, method, epochs)
        source, base = self.models.backbone.source, self.models.backbone.base
        options = ["--data", str(data), "--out", str(folder), "--backbone", str(source), "--method", method]
        options += ["--base", str(base)] if base else []
        options += ["--preset", "small" if source == TOY else "upper"]
        self._start(name, folder, data, [*options, f"train.epochs={epochs}"])

    def go_on(self) -> None:
        """With the run that was stopped, from its last step.

        Raises:
            MSTAError: there is none.
        """
        if self._run is None or self.busy or not (self._run.folder / "config.yaml").exists():
            raise MSTAError("There is no stopped training to go on with.")
        run = self._run
        self._start(run.name, run.folder, run.data, ["--resume", str(run.folder)])

    def stop(self) -> None:
        """Ask the run to save itself and stop. None under way: nothing."""
        if self._run is not None and self.busy:
            self._run.stopping = True
            self._run.process.send_signal(signal.SIGTERM)

    @property
    def busy(self) -> bool:
        """Whether a run is under way."""
        return self._run is not None and self._run.process.poll() is None

    def close(self) -> None:
        """Stop, and wait."""
        self.stop()
        if self._run is not None:
            try:
                self._run.process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._run.process.kill()
                self._run.process.wait()

    def progress(self) -> Progress | None:
        """How the run is doing; None before the first."""
        run = self._run
        if run is None:
            return None
        code = run.process.poll()
        told = run.told.read_text(encoding="utf-8", errors="replace")
        begun = (run.folder / "config.yaml").exists()
        status = read_status(run.folder) if begun else {}
        log = _read_log(run.folder / "log.jsonl")
        if log and "step" in status:
            status["step"] = max(status["step"], log[-1]["step"])  # it is written every second
        steps = status.get("steps") or 0
        share = status["step"] / steps if steps else 0.0
        curve = learning_curves({run.name: log}) if log else None
        if code is None:
            said = "Stopping: saving what it has …" if run.stopping else _underway(status)
            return Progress(run.name, "running" if steps else "starting", share, said, curve, told=told)
        if code == 0:
            adapter = run.folder / "adapter"
            classes = len(read_json(adapter / "classes.json", MSTAError)["names"])
            result = tuple(in_words(read_json(run.folder / "metrics.json", MSTAError), classes))
            archive = _zip(adapter, self.scratch / f"{run.name}.zip")
            said = f"Done: the adapter “{run.name}” can be picked under Predict and Search."
            return Progress(run.name, "finished", 1.0, said, curve, result, adapter, archive, told)
        if run.stopping:
            saved = " It is saved: “Go on” takes it from there." if steps else ""
            where = f"after step {status['step']} of {steps}" if steps else "before the first step"
            return Progress(run.name, "stopped", share, f"Stopped {where}.{saved}", curve, told=told)
        return Progress(run.name, "failed", share, self._reason(told), curve, told=told)

    def _start(self, name: str, folder: Path, data: Path, options: Sequence[str]) -> None:
        told = self.scratch / f"{name}.txt"
        with told.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "msta", "train", *options], stdin=subprocess.DEVNULL, stdout=output,
                stderr=output, start_new_session=True,  # Ctrl-C ends the app, which then stops the run itself
            )  # fmt: skip
        self._run = _Run(name, folder, data, process, told)

    def _reason(self, told: str) -> str:
        """The last line of the command's, without the folders that the page's user does not know."""
        lines = [line for line in told.splitlines() if line.startswith("msta: ")]
        reason = lines[-1].removeprefix("msta: ") if lines else "it ended without a word; out of memory, perhaps"
        return f"The training failed: {reason.replace(f'{self.scratch}/', '')}"


# ---------------------------------------------------------------- before it


def _try_to_write(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        reason = f"{folder}: cannot be written to ({error.strerror}); start the app with another --runs."
        raise MSTAError(reason) from error


def _check(data: Path, method: str, epochs: int) -> None:
    """What would fail at once fails here."""
    config = make_config("small", {"data.path": str(data)}, [f"train.epochs={epochs}"], method=method)
    config.method_config()
    s = config.data
    make_split(s.read(), shots=s.shots, val_fraction=s.val_fraction, test_fraction=s.test_fraction, seed=s.seed)


# ---------------------------------------------------------------- while it runs


def _underway(status: dict[str, Any]) -> str:
    if not status.get("steps"):
        return "Starting: reading the clips and the backbone …"
    said = f"Step {status['step']} of {status['steps']}, {status['epochs']} passes over the clips"
    phase = status.get("phase", "training")
    if phase not in ("training", "finished"):
        return f"{said}: {phase} …"
    left = status.get("seconds_left")
    return f"{said}, about {timedelta(seconds=round(left))} to go." if left is not None else f"{said}."


def _read_log(log: Path) -> list[dict[str, Any]]:
    lines = []
    for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
        try:
            lines.append(json.loads(line))
        except ValueError:  # half of it is written
            break
    return lines


# ---------------------------------------------------------------- after it


def _zip(adapter: Path, to: Path) -> Path:
    if not to.exists():
        shutil.make_archive(str(to.with_suffix("")), "zip", adapter.parent, adapter.name)
    return to


def in_words(metrics: dict[str, Any], classes: int) -> list[str]:
    """Metrics of a run -> what they say, to somebody who has not met them."""
    clips, top1 = int(metrics["clips"]), float(metrics["top1"])
    right = round(top1 * clips / 100)
    said = [
        f"Of {clips} test clips, which it was not trained on, it named {right} rightly: {top1:.0f} %. "
        f"Guessing would get {100 / classes:.0f} %."
    ]
    if clips < 30:
        said.append(f"{clips} clips are few: with others the figure may well be a different one.")
    best = metrics.get("selected_at") or {}
    if best:
        said.append(
            f"It is the state after pass {best['epoch']}, the best on {best['clips']} validation clips "
            f"({best['top1']:.0f} % right), which it was not trained on either."
        )
    if metrics.get("temperature"):
        said.append("Its probabilities are fitted to the validation clips, and it can say “unknown”.")
    else:
        said.append(
            "There were no clips to validate on (three or more a class leave some): it is the last state, its "
            "probabilities are not fitted, and it never says “unknown”."
        )
    if unreadable := metrics.get("unreadable"):
        names = ", ".join(Path(path).name for path in list(unreadable)[:3])
        said.append(f"{len(unreadable)} clips could not be read and were left out: {names}.")
    return said
