"""The state of a run for others: RUN/status.json, which the run writes, and ``msta status``, which reads it."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from msta.errors import MSTAError, one_line
from msta.evaluation.metrics import in_words
from msta.files import read_json, write_bytes, write_json
from msta.training.lock import alive, holder

FILE = "status.json"
MEASURING = "measuring"
"""The folder, in that of a run, for the runs that measure if the adapter itself trains on all clips."""
_EVERY = 1.0
"""Seconds between two writes."""


class StatusFile:
    """The facts that a run writes about itself, at most once per second.

    Args:
        run: its directory; None: nothing is written.
        prometheus: a file for node_exporter's textfile collector, or None.
    """

    def __init__(self, run: Path | None, prometheus: Path | None = None) -> None:
        self.run, self.prometheus = run, prometheus
        self.facts: dict[str, Any] = {}
        self._last = -_EVERY

    def tell(self, *, now: bool = False, **facts: Any) -> None:
        """Note facts, and write them if it is time, or ``now``. A failure to write them does not end the run."""
        self.facts |= facts
        if self.run is None or not (now or time.monotonic() - self._last >= _EVERY):
            return
        self._last = time.monotonic()
        self.facts["updated"] = round(time.time(), 3)
        with contextlib.suppress(OSError):
            write_json(self.run / FILE, self.facts)
            if self.prometheus is not None:
                write_bytes(self.prometheus, to_prometheus(self.run, self.facts).encode())


def read_status(run: Path) -> dict[str, Any]:
    """The facts that a run wrote, and "state": running, finished, stopped, failed or dead.

    Raises:
        MSTAError: there is no such run.
    """
    if not (run / "config.yaml").exists():
        raise MSTAError(f"{run}: no run of msta train")
    facts = _facts(run)
    if alive(run):
        state = "running"
    elif (run / "metrics.json").exists():
        state = "finished"
    else:
        state = facts.get("ended", "dead")
    if state == "finished":
        facts["metrics"] = {
            k: v
            for k, v in read_json(run / "metrics.json", MSTAError).items()
            if k in ("top1", "top5", "classes", "clips")
        }
    return {"run": str(run), "state": state, **holder(run), **facts}


def _facts(run: Path) -> dict[str, Any]:
    """The facts of the run, or of the run that measures for it at present, see :mod:`msta.training.fit`."""
    if (run / FILE).exists():
        return read_json(run / FILE, MSTAError)
    measuring = max(run.glob(f"{MEASURING}/*/{FILE}"), key=lambda file: file.stat().st_mtime, default=None)
    if measuring is None:
        return {}
    facts = read_json(measuring, MSTAError) | {"stage": f"{MEASURING}/{measuring.parent.name}"}
    if facts.get("ended") == "finished":  # that part, not the whole
        del facts["ended"]
    return facts


def describe(status: dict[str, Any]) -> list[str]:
    """The facts as lines of text for ``msta status``."""
    age = max(0.0, time.time() - status.get("updated", time.time()))
    who = f"process {status.get('pid', '?')} on {status.get('host', '?')}"
    state = {
        "running": f"running: {status.get('phase', 'starting')}, {who}, heard of {age:.0f} s ago",
        "finished": "finished",
        "stopped": f"stopped; go on with: msta train --resume {status['run']}",
        "failed": f"failed; once that is mended: msta train --resume {status['run']}",
        "dead": f"dead: {who} ended without a word; go on with: msta train --resume {status['run']}",
    }[status["state"]]
    lines = [f"{status['run']}: {state}"]
    if "stage" in status:
        lines.append(f"still measuring, in {status['stage']}; the training on all clips follows")
    if status.get("steps"):
        share = 100 * status["step"] / status["steps"]
        line = f"step {status['step']} of {status['steps']} ({share:.0f} %)"
        line += f", {status['epoch']} of {status['epochs']} epochs done"
        if status.get("clips_per_second"):
            line += f", {status['clips_per_second']:.3g} clips/s"
        if status["state"] == "running" and status.get("seconds_left") is not None:
            line += f", about {timedelta(seconds=round(status['seconds_left']))} to go, plus validation"
        lines.append(line)
    if status.get("processes", 1) > 1:
        lines.append(f"{status['processes']} processes")
    if "loss" in status:
        lines.append(f"loss {status['loss']:.4f}, learning rate {status['lr']:.3g}")
    if status.get("best"):
        best = status["best"]
        lines.append(f"best so far: top-1 {best['top1']:.1f} % after epoch {best['epoch']:.0f}")
    if "saved" in status:
        lines.append(f"saved at step {status['saved']}, in {status['save_seconds']:.2g} s")
    if status.get("unreadable"):
        lines.append(f"{status['unreadable']} clip(s) could not be read")
    lines += [f"error: {one_line(error)}" for error in status.get("errors", [])]
    if "metrics" in status:
        m = status["metrics"]
        lines.append(f"test: {in_words(m)} of {m['clips']} clips")
    return lines


_GAUGES = {
    "step": "Optimizer steps done.",
    "steps": "Optimizer steps planned.",
    "epoch": "Epochs done.",
    "loss": "Training loss of the last step.",
    "lr": "Learning rate of the last step.",
    "clips_per_second": "Training clips per second, of late.",
    "seconds_left": "Estimated seconds of training to go.",
    "unreadable": "Clips that could not be read.",
    "updated": "Unix time of these figures.",
}


def to_prometheus(run: Path, facts: dict[str, Any]) -> str:
    """The facts as gauges msta_…, labelled with the run's directory, in Prometheus' text format."""
    label = json.dumps(str(run), ensure_ascii=False)
    lines = []
    for name, text in _GAUGES.items():
        if isinstance(facts.get(name), (int, float)):
            lines += [
                f"# HELP msta_{name} {text}",
                f"# TYPE msta_{name} gauge",
                f"msta_{name}{{run={label}}} {facts[name]}",
            ]
    return "\n".join(lines) + "\n"
