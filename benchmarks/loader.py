"""Whether decoding keeps a training step fed: clips per second, on a CPU and as an accelerator gets them.

    python benchmarks/loader.py [--clips 24] [--rounds 3]

Writes ten-second H.264 files of moving noise at 340x256 and 1280x720; reads 8 frames of 224 px of each for training.

On a CPU: augmented and normalised, in this process and with one and two workers. For an accelerator: two workers leave
uint8 crops, and what was drawn for them, in shared memory; at the same time two processes decode the same clips and
hand over nothing. Then frames that cost nothing to decode: what handing over alone allows, in shared memory and, as
fp32, through pipes. It needs no accelerator: the consumer looks at each clip, or copies it within memory. What a step
on a CPU consumes is taken from results/step.json, if that is there. Writes results/loader.json and results/loader.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import spread, write_video

from msta.data.augment import Augmentation
from msta.data.catalog import Clip
from msta.data.clips import ClipDataset, ClipFormat, steady
from msta.data.loading import SteadyLoader, StepSampler

RESULTS = Path(__file__).parent / "results"
SIZES = ((340, 256), (1280, 720))
WORKERS = (0, 1, 2)
BATCH = 4
FORM = ClipFormat(8, 224, (0.5,) * 3, (0.25,) * 3)
HOST = torch.device("cpu")
WINDOW = 40
"""Seconds in which clips for an accelerator are counted."""
FREE = 2000
"""Clips of a round if decoding is free."""


def write(path: Path, width: int, height: int, seed: int) -> None:
    """Ten seconds of a pattern of blocks that drifts, with a little noise: some 1 Mbit/s at 340x256."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)

    def picture(i: int) -> np.ndarray:
        drawn = np.zeros((height, width, 3), np.uint8)
        moved = np.roll(coarse, (2 * i, 3 * i), (0, 1))
        drawn[: moved.shape[0], : moved.shape[1]] = moved
        return drawn + rng.integers(0, 8, drawn.shape, np.uint8)

    write_video(path, map(picture, range(250)), preset="veryfast", g="50")


def rates(files: list[Path], rounds: int) -> Iterator[tuple[int, list[float]]]:
    """Clips per second for each number of workers, whose start is part of the first round, which is not counted."""
    for workers in WORKERS:
        dataset = ClipDataset([Clip(str(f), 0) for f in files], FORM, augmentation=Augmentation())
        sampler = StepSampler(len(files), 0, step_clips=BATCH, batch_size=BATCH)
        loader = steady(dataset, sampler, BATCH, workers)
        measured = []
        for epoch in range(rounds + 1):
            sampler.epoch = epoch
            start = time.perf_counter()
            assert sum(len(batch["label"]) for batch in loader) == len(files)
            measured.append(len(files) / (time.perf_counter() - start))
        yield workers, measured[1:]


class Free(ClipDataset):
    """Frames that are there already: uint8 for an accelerator, else fp32."""

    def __init__(self, draws: bool, finish_on: torch.device | None) -> None:
        super().__init__([Clip(str(i), 0) for i in range(FREE)], FORM, augmentation=Augmentation(), finish_on=finish_on)
        shape = (FORM.frames, FORM.size, FORM.size, 3)
        self.draws = draws
        self.frames = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self.video = np.zeros((1, FORM.frames, 3, FORM.size, FORM.size), np.float32)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        pixels = {"video": self.video} if self.finish_on is None else {"frames": self.frames}
        drawn = self.augmentation.draw(self.draw(key), FORM.margin, FORM.margin) if self.draws else None
        return {**pixels, "drawn": drawn, "label": 0, "index": key[1]}


def look(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A consumer that reads a row of every clip."""
    rows = [(s["frames"] if "frames" in s else s["video"])[0, 0].sum() for s in samples]
    return {"clips": len(samples), "seen": rows}


def copy(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A consumer that copies every clip within memory."""
    return {"clips": len(samples), "copied": [sample["frames"].copy() for sample in samples]}


def delivered(
    dataset: ClipDataset, consume: Callable[..., dict[str, Any]] = look, workers: int = 2
) -> Callable[[], float]:
    """Clips per second to the consumer, after a first pass that starts the workers."""
    keys = [(0, i) for i in range(len(dataset))]
    batches = [keys[i : i + BATCH] for i in range(0, len(keys), BATCH)]
    ring = None if dataset.finish_on is None else (BATCH, dataset.clip_bytes, HOST)
    loader = SteadyLoader(dataset, batches, consume, workers, ring=ring)

    def once() -> float:
        start = time.perf_counter()
        assert sum(batch["clips"] for batch in loader) == len(keys)
        return len(keys) / (time.perf_counter() - start)

    once()
    return once


def decode(dataset: ClipDataset, counts: Any, number: int) -> None:
    """Decode for ever, and count."""
    torch.set_num_threads(1)
    for epoch in itertools.count():
        for i in range(len(dataset)):
            dataset[epoch, i]
            counts[number] += 1


def alternating(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """What each way gives, in turns."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            found[name].append(way())
    return found


def for_an_accelerator(files: list[Path], rounds: int) -> dict[str, list[float]]:
    """Clips per second of two workers that hand over, and of two processes that do not, at the same time.

    All four have the same share of the cores, so that whatever else runs slows both alike.
    """
    dataset = ClipDataset([Clip(str(f), 0) for f in files], FORM, augmentation=Augmentation(), finish_on=HOST)
    counts = multiprocessing.RawArray("q", 2)
    alone = [multiprocessing.Process(target=decode, args=(dataset, counts, i), daemon=True) for i in range(2)]
    keys = [[(epoch, i)] for epoch in range(1000) for i in range(len(dataset))]
    loader = SteadyLoader(dataset, keys, look, 2, ring=(1, dataset.clip_bytes, HOST))
    found: dict[str, list[float]] = {"decoding alone": [], "handed over": []}
    for process in alone:
        process.start()
    batches = iter(loader)
    for _ in range(10):
        next(batches)
    for _ in range(rounds):
        start, before, handed = time.perf_counter(), sum(counts), 0
        while time.perf_counter() - start < WINDOW:
            next(batches)
            handed += 1
        seconds = time.perf_counter() - start
        found["decoding alone"].append((sum(counts) - before) / seconds)
        found["handed over"].append(handed / seconds)
    for process in alone:
        process.kill()
        process.join()
    loader.close()
    return found


def free(rounds: int) -> dict[str, list[float]]:
    """Two workers and frames that cost nothing."""
    ways = {
        "shared memory": delivered(Free(False, HOST)),
        "shared memory, the consumer copies": delivered(Free(False, HOST), copy),
        "shared memory, with the draws of augmentation": delivered(Free(True, HOST)),
        "fp32 through pipes": delivered(Free(False, None)),
    }
    return alternating(ways, rounds)


def cell(measured: Sequence[float]) -> str:
    return spread(measured, 1 if statistics.median(measured) < 100 else 0)


def tables(result: dict[str, Any]) -> str:
    """Markdown, a section per table."""
    lines = [
        "## In training",
        "",
        "| clips per second | in the training process | one worker | two workers |",
        "|---|---|---|---|",
    ]
    for size, by_workers in result["clips per second"].items():
        lines.append(f"| {size} | {' | '.join(map(cell, by_workers.values()))} |")
    if (RESULTS / "step.json").exists():
        steps = json.loads((RESULTS / "step.json").read_text())
        part = next(value for name, value in steps.items() if name.endswith(" classes"))
        eaten = {v: steps["settings"]["batch"] / statistics.median(s) for v, s in part["seconds"].items()}
        lines += ["", f"A step of {steps['settings']['architecture']} consumes {eaten['fast']:.2f} clips per second."]
    lines += [
        "",
        "## For an accelerator",
        "",
        "| clips per second, at the same time | two processes alone | two workers, handed over | share |",
        "|---|---|---|---|",
    ]
    for size, found in result["for an accelerator"].items():
        alone, over = found["decoding alone"], found["handed over"]
        share = statistics.median(b / a for a, b in zip(alone, over, strict=True))
        lines.append(f"| {size} | {cell(alone)} | {cell(over)} | {100 * share:.0f} % |")
    lines += ["", "| decoding is free, two workers | clips per second |", "|---|---|"]
    lines += [f"| {way} | {cell(found)} |" for way, found in result["decoding is free"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a worker has one; the model has the rest
    result: dict[str, Any] = {"settings": vars(arguments), "clips per second": {}, "for an accelerator": {}}
    result["decoding is free"] = free(arguments.rounds)
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            files = [Path(folder) / f"{width}-{i}.mp4" for i in range(arguments.clips)]
            for i, file in enumerate(files):
                write(file, width, height, i)
            size = f"{width}x{height}"
            result["for an accelerator"][size] = for_an_accelerator(files, arguments.rounds)
            result["clips per second"][size] = dict(rates(files, arguments.rounds))
    (RESULTS / "loader.json").write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "loader.md").write_text(tables(result))
    print(tables(result))


if __name__ == "__main__":
    main()
