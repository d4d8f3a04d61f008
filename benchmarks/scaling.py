"""Steps of one and of two processes, what they send, and what that means for many GPUs.

    python benchmarks/scaling.py [--batch 4] [--frames 2] [--steps 5]

Measured: seconds per step of ViCLIP-B/16 on noise, one thread per process, for the same global batch; bytes that a
process sends, and the seconds that adding up gradients takes between two processes of this machine (gloo). With many
classes also what sharing out the prompts saves. Two processes on one machine share its memory bus, so this shows that
the work is divided and what the exchange costs, not how a network does.

Modelled, not measured: MODEL's GPUs and networks, in weak scaling (so many clips per GPU), without overlap of
computing and sending, which our step does not have. Writes results/scaling.json, results/scaling.md, docs/scaling.png.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import msta
from msta.adapters.task import Task
from msta.config import make_config
from msta.data.catalog import Clip
from msta.data.clips import Failures
from msta.training.cost import count_step
from msta.training.processes import Processes
from msta.training.step import TrainStep

RESULTS, DOCS = Path(__file__).parent / "results", Path(__file__).parents[1] / "docs"
MODEL = {
    "clips a GPU": 8,
    "FLOP/s a GPU": 125e12,  # 40 % of an A100's dense bf16
    "GPUs a machine": 8,
    "bytes/s within a machine": 200e9,  # NVLink, as a ring of all-reduce achieves it
    "bytes/s between machines": 20e9,  # 200 Gb/s for the machine, 80 % of it
    "seconds a hop within": 5e-6,
    "seconds a hop between": 20e-6,
}
GPUS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


# ---------------------------------------------------------------- measured


def measure(classes: int, share: bool, batch: int, frames: int, steps: int) -> dict[str, Any] | None:
    """In each process: steps of a global batch on noise. The main one returns what it saw."""
    torch.set_num_threads(1)
    overrides = ["train.share_prompts=" + str(share).lower()]
    config = make_config("upper", {"data.path": ".", "backbone": "random:viclip-b16"}, overrides)
    processes = Processes(config.train)
    torch.manual_seed(0)
    model = msta.attach(msta.random_backbone("viclip-b16"), "msta")
    model.task = Task(tuple(f"class number {i}" for i in range(classes)), frames=frames)
    prompts = model.prepare_prompts(model.tokenize(model.task.prompts()))
    optimizer = processes.accelerator.prepare(torch.optim.AdamW(model.trainable_parameters(), lr=1e-4))
    clips = [Clip(f"{i}.mp4", i % classes) for i in range(batch)]
    train_step = TrainStep(config, model, optimizer, prompts, [], clips, Failures(), processes)
    seconds, sending, sent = [], [], 0
    real = processes.add_gradients

    def timed(parameters: Any) -> int:
        processes.barrier()  # what it takes, without waiting for the slower one
        start = time.perf_counter()
        given = real(parameters)
        sending.append(time.perf_counter() - start)
        return given

    processes.add_gradients = timed  # type: ignore[method-assign]
    for step in range(steps + 1):
        processes.barrier()
        start = time.perf_counter()
        result = train_step(noise(processes, batch, frames, classes, step), batch, 0.0, lambda: False, False)
        seconds.append(time.perf_counter() - start)
        sent = result.sent
    if not processes.main:
        return None
    return {"seconds": seconds[1:], "sending": sending[1:], "sent": sent, "trainable": model.num_trainable()}


def noise(processes: Processes, batch: int, frames: int, classes: int, step: int) -> Iterator[dict[str, Any]]:
    """This process's clips of a step, one by one."""
    for i in processes.share(batch):
        video = np.random.default_rng((step, i)).standard_normal((1, 1, frames, 3, 224, 224), np.float32)
        number = torch.tensor([i])
        yield {"video": video, "tokens": None, "kept": None, "label": number % classes, "index": number, "failures": []}


def launched(processes: int, *arguments: object) -> dict[str, Any]:
    """:func:`measure` in processes of its own."""
    launcher = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes)] if processes > 1 else []
    command = [sys.executable, *launcher, __file__, "--measure", json.dumps(arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    if done.returncode:
        sys.exit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# ---------------------------------------------------------------- modelled


def counted(method: str) -> tuple[float, int]:
    """Arithmetic of a clip in a training step of ViCLIP-B/16 with 8 frames, prompts aside, and bytes of gradients."""
    model = msta.attach(msta.random_backbone("viclip-b16"), method)
    prompts = model.prepare_prompts(model.tokenize(["a video"]))
    one, two = (count_step(model, prompts, batch=b, frames=8, size=224).flops for b in (1, 2))
    return float(two - one), 4 * model.num_trainable()


def exchange(size: float, gpus: int) -> float:
    """Seconds of an all-reduce of so many bytes: rings within machines, then between them."""
    within = min(gpus, int(MODEL["GPUs a machine"]))
    between = gpus / within
    ring = 2 * (within - 1) * (size / within / MODEL["bytes/s within a machine"] + MODEL["seconds a hop within"])
    outer = 2 * (between - 1) * (size / between / MODEL["bytes/s between machines"] + MODEL["seconds a hop between"])
    return ring + outer


def efficiency(flops: float, size: float) -> dict[int, float]:
    """Share of a step that is computing, by number of GPUs."""
    compute = flops * MODEL["clips a GPU"] / MODEL["FLOP/s a GPU"]
    return {gpus: compute / (compute + exchange(size, gpus)) for gpus in GPUS}


def plot(measured: dict[str, Any], modelled: dict[str, dict[int, float]], file: Path) -> None:
    """Measured speed-up beside the model's curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
    left.bar(["1 process", "2 processes"], [measured["1"], measured["2"]], color=["0.7", "tab:blue"])
    left.set(title="Measured here: seconds per step, same global batch", ylabel="seconds")
    for name, curve in modelled.items():
        right.plot(list(curve), [100 * share for share in curve.values()], marker="o", label=name)
    right.set(title="Modelled: weak scaling", xlabel="GPUs", ylabel="efficiency, %", xscale="log", ylim=(0, 102))
    right.set_xticks([1, 8, 64, 512], ["1", "8", "64", "512"])
    right.legend(loc="lower left")
    right.grid(alpha=0.3)
    figure.savefig(file, dpi=110)


def table(runs: dict[str, Any], middle: dict[str, float], modelled: dict[str, dict[int, float]]) -> list[str]:
    """For people."""
    lines = ["## Measured", "", "| seconds per step | 1 process | 2 processes | speed-up |", "|---|---|---|---|"]
    for name, one, two in (
        ("2 classes", "1", "2"),
        ("400 classes, each process reads all prompts", "1 many", "2 many"),
        ("400 classes, prompts divided among the processes", "1 many", "2 shared"),
    ):
        lines.append(f"| {name} | {middle[one]:.2f} | {middle[two]:.2f} | {middle[one] / middle[two]:.2f} |")
    two, shared = runs["2"], runs["2 shared"]
    lines += [
        "",
        f"A process sends {two['sent'] / 1e6:.2f} MB per step ({two['trainable']:,} gradients), and summing them takes "
        f"{1000 * statistics.median(two['sending']):.1f} ms between two processes here. If the prompts of 400 classes "
        f"are divided among the processes, it sends {shared['sent'] / 1e6:.2f} MB.",
        "",
        "## Modelled",
        "",
        "| modelled efficiency | 8 GPUs | 64 GPUs | 512 GPUs |",
        "|---|---|---|---|",
    ]
    for name, curve in modelled.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * curve[gpus]:.1f} %" for gpus in (8, 64, 512)) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        if (seen := measure(*json.loads(given.measure))) is not None:
            print(json.dumps(seen))
        return
    shape = given.batch, given.frames, given.steps
    runs = {
        "1": launched(1, 2, False, *shape), "2": launched(2, 2, False, *shape),
        "1 many": launched(1, 400, False, *shape), "2 many": launched(2, 400, False, *shape),
        "2 shared": launched(2, 400, True, *shape),
    }  # fmt: skip
    middle = {name: statistics.median(run["seconds"]) for name, run in runs.items()}
    work = {"MSTA": counted("msta"), "full fine-tuning": counted("full")}
    modelled = {
        f"{name}, {size / 1e6:.0f} MB per step": efficiency(flops, size) for name, (flops, size) in work.items()
    }
    result = {
        "settings": dict(zip(("batch", "frames", "steps"), shape, strict=True)),
        "runs": runs,
        "medians": middle,
        "model": MODEL,
        "work": work,
        "modelled": modelled,
    }
    (RESULTS / "scaling.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = table(runs, middle, modelled)
    (RESULTS / "scaling.md").write_text("\n".join(lines) + "\n")
    plot(middle, modelled, DOCS / "scaling.png")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
