"""Kill runs at random instants, with kill -9, and see that each goes on to the very same end: ``make chaos``.

A storm of kills goes over runs of one and of two processes, on a folder of clips and on shards, with the prefix cache
and without it. A run is started, killed after a random time, resumed, killed again, some times over, then left to
finish. Its log, with the clips of every step, and its weights must equal those of a run that nothing disturbed, to the
last bit: no clip is lost, none is repeated. Of two processes either one is killed, or both at once, as when a machine
goes. In the folder one clip cannot be read; in the shards one is damaged.

    python tests/chaos.py --kills 50 --out benchmarks/results/chaos.json
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from launch import launch
from safetensors.torch import load_file
from video_files import moving_squares

KILLS_A_RUN = 5
QUICK = ["train.epochs=4", "train.batch_size=2", "train.global_batch=4", "data.workers=1", "method.dim=8",
         "train.log_clips=true", "train.save_every=0.05"]  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Of runs: how many processes, what they read, and whether they cache prefixes."""

    processes: int
    source: str
    cached: bool

    def __str__(self) -> str:
        some = f"{self.processes} process{'es' * (self.processes > 1)}"
        return f"{some}, {self.source}, cache {'on' if self.cached else 'off'}"


KINDS = tuple(Kind(n, source, cached) for cached in (False, True) for source in ("folder", "shards") for n in (1, 2))


@dataclass
class Outcome:
    """Of the runs of one kind.

    Attributes:
        kills: that hit a run at work.
        resumed: how many of them it went on after.
        runs: that were finished.
        identical: how many of those ended with the undisturbed run's weights and log.
        faults: what was wrong.
        phases: what the killed runs were at, by their own account.
    """

    kills: int = 0
    resumed: int = 0
    runs: int = 0
    identical: int = 0
    faults: list[str] = field(default_factory=list)
    phases: Counter[str] = field(default_factory=Counter)


class Storm:
    """Runs of one kind, and the kills that go over them.

    Args:
        folder: for everything.
        world: what :func:`make_world` made.
        kind: of the runs; each that caches begins with an empty cache.
        seed: of the instants.
    """

    def __init__(self, folder: Path, world: Path, kind: Kind, *, seed: int) -> None:
        self.folder, self.kind = folder, kind
        self.data = ["--data", str(world / kind.source), "--backbone", str(world / "tiny"), "--shots", "7"]
        self.random = random.Random(seed)
        self.outcome = Outcome()
        folder.mkdir(parents=True)
        start = time.monotonic()
        self.calm = folder / "calm"
        for process in self._begin(self.calm, "calm"):
            process.join(600)
            if process.exitcode:
                raise RuntimeError(f"the undisturbed run fails: see {folder}/calm.log.0")
        self.seconds = time.monotonic() - start

    def run(self, number: int, kills: int) -> None:
        """One run, killed so many times, or less often if it is done before."""
        out, outcome = self.folder / f"run{number}", self.outcome
        for _ in range(kills):
            start = time.monotonic()
            started = self._begin(out, f"run{number}")
            time.sleep(self.random.uniform(0.02, 1) * self.seconds)
            if self._kill(started):
                outcome.kills += 1
                outcome.phases[self._phase(out)] += 1
            elif any(process.exitcode for process in started):
                outcome.faults.append(f"run{number}: exit codes {[p.exitcode for p in started]}")
                return
            if (out / "metrics.json").exists():
                self.seconds = min(self.seconds, time.monotonic() - start)  # it came too late
                break
        last = self._begin(out, f"run{number}")
        for process in last:
            process.join(600)
        outcome.runs += 1
        if any(process.exitcode != 0 for process in last):
            outcome.faults.append(f"run{number}: does not go on, exit codes {[p.exitcode for p in last]}")
            return
        outcome.resumed = outcome.kills - len(outcome.faults)
        fault = self._differs(out)
        if fault:
            outcome.faults.append(f"run{number}: {fault}")
        else:
            outcome.identical += 1
            shutil.rmtree(out)

    def _begin(self, out: Path, name: str) -> list[BaseProcess]:
        arguments = ["train", *self.data, "--out", str(out), "--or-resume", *QUICK]
        if self.kind.cached:
            arguments += [f"cache.path={self.folder / name}.cache", "cache.views=2", "cache.dtype=fp32"]
        return launch(arguments, self.kind.processes, self.folder / f"{name}.log")

    def _kill(self, started: list[BaseProcess]) -> bool:
        """kill -9 one process, with or without its decoding ones, or all; True if they were at work."""
        busy = all(process.is_alive() for process in started)
        victims = started if self.random.random() < 0.5 else [self.random.choice(started)]
        for process in victims:
            if busy and process.is_alive() and process.pid:
                group = self.random.random() < 0.5 and os.getpgid(process.pid) == process.pid  # it has one of its own
                (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        for process in started:  # the others notice, unless they wait for it to begin: torchrun would end them
            process.join(10)
            process.kill()
            process.join()
        return busy and any(process.exitcode == -signal.SIGKILL for process in victims)

    def _phase(self, out: Path) -> str:
        if not (out / "config.yaml").exists():
            return "before it was set up"
        if (out / "metrics.json").exists():
            return "after its end"
        if not (out / "status.json").exists():
            return "before the first step"
        phase: str = json.loads((out / "status.json").read_text()).get("phase", "before the first step")
        return "caching" if phase.startswith("caching") else phase

    def _differs(self, out: Path) -> str | None:
        """How it differs from the undisturbed one."""
        if (out / "log.jsonl").read_text() != (self.calm / "log.jsonl").read_text():
            return "another log: its steps, their clips or losses"
        ours, theirs = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (out, self.calm))
        if ours.keys() != theirs.keys() or any((ours[name] != theirs[name]).any() for name in theirs):
            return "other weights"
        metrics = [json.loads((run / "metrics.json").read_text()) for run in (out, self.calm)]
        for each in metrics:
            each.pop("seconds")
        return None if metrics[0] == metrics[1] else "other metrics"


def make_world(world: Path) -> None:
    """Clips as a folder and as shards, one of which cannot be read, and a tiny backbone."""
    from conftest import tiny

    import msta
    from msta.data.reading import read_catalog
    from msta.data.shards.write import Recipe, write_shards

    clips = world / "folder"
    clips.mkdir()
    moving_squares(clips, {"go_there": -1, "go_back": 1}, 12)
    write_shards(read_catalog(clips), str(world / "shards"), Recipe(clips_per_shard=8), workers=0)
    (clips / "go_back" / "bad.mp4").write_text("no video")
    shard = min((world / "shards").glob("*.tar"))
    content = bytearray(shard.read_bytes())
    content[content.index(b"mdat") + 50] ^= 1
    shard.write_bytes(content)
    msta.random_backbone(tiny()).save(world / "tiny")


def rage(folder: Path, kills: int, *, seed: int = 0, kinds: Sequence[Kind] = KINDS) -> dict[str, Any]:
    """Storms over the kinds of run, as many kills as wanted in all. Returns what came of it, kind by kind."""
    world = folder / "world"
    world.mkdir()
    make_world(world)
    table: dict[str, Any] = {}
    for i, kind in enumerate(kinds):
        storm = Storm(folder / f"kind{i}", world, kind, seed=seed * 10 + i)
        wanted, number = kills // len(kinds) + (i < kills % len(kinds)), 0
        while storm.outcome.kills < wanted and not storm.outcome.faults:
            storm.run(number, min(KILLS_A_RUN, wanted - storm.outcome.kills))
            number += 1
        table[str(kind)] = {**vars(storm.outcome), "phases": dict(storm.outcome.phases)}
        print(f"{kind}: {describe(table[str(kind)])}", flush=True)
    return table


def describe(row: dict[str, Any]) -> str:
    """A line."""
    text = f"{row['kills']} kills, {row['resumed']} resumed; {row['identical']} of {row['runs']} runs ended identical"
    return text + "".join(f"; {fault}" for fault in row["faults"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    table = rage(folder, arguments.kills, seed=arguments.seed)
    total = {name: sum(row[name] for row in table.values()) for name in ("kills", "resumed", "runs", "identical")}
    faults = [fault for row in table.values() for fault in row["faults"]]
    print("in all: " + describe({**total, "faults": faults}))
    if arguments.out:
        result = {"kills": arguments.kills, "seed": arguments.seed, "total": total, "kinds": table}
        arguments.out.write_text(json.dumps(result, indent=2) + "\n")
    if faults:
        sys.exit(f"what is left of the runs that differ: {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
