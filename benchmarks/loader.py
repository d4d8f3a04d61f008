"""Whether decoding and augmentation keep a training step fed: clips a second of the loader, by size of the files.

    python benchmarks/loader.py [--clips 24] [--rounds 3]

Writes ten-second H.264 files of moving noise at 340x256 and 1280x720, reads 8 frames of 224 px of each as training
does, in this process and with one and two workers. What a step consumes is taken from results/step.json, if that is
there. Writes results/loader.json and results/loader.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from msta.data.augment import Augmentation
from msta.data.catalog import Clip
from msta.data.clips import ClipDataset, ClipFormat, EpochSampler, make_loader

RESULTS = Path(__file__).parent / "results"
SIZES = ((340, 256), (1280, 720))
WORKERS = (0, 1, 2)


def write(path: Path, width: int, height: int, seed: int) -> None:
    """Ten seconds of a blurred pattern that drifts, with a little noise: some 1 Mbit/s at 340x256."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 16, width // 16, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"preset": "veryfast", "g": "50"})
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        for i in range(250):
            picture = np.zeros((height, width, 3), np.uint8)
            moved = np.roll(coarse, (2 * i, 3 * i), (0, 1))
            picture[: moved.shape[0], : moved.shape[1]] = moved
            picture += rng.integers(0, 8, picture.shape, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)


def rates(files: list[Path], rounds: int) -> Iterator[tuple[int, list[float]]]:
    """Clips a second for each number of workers, whose start is part of the first round, which is not counted."""
    form = ClipFormat(8, 224, (0.5,) * 3, (0.25,) * 3)
    for workers in WORKERS:
        dataset = ClipDataset([Clip(str(f), 0) for f in files], form, augmentation=Augmentation())
        loader = make_loader(dataset, 4, workers, shuffle=True)
        sampler: EpochSampler = loader.sampler  # type: ignore[assignment]
        measured = []
        for epoch in range(rounds + 1):
            sampler.epoch = epoch
            start = time.perf_counter()
            assert sum(len(batch["label"]) for batch in loader) == len(files)
            measured.append(len(files) / (time.perf_counter() - start))
        yield workers, measured[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a worker has one; the model has the rest
    result: dict[str, Any] = {"settings": vars(arguments), "clips a second": {}}
    with tempfile.TemporaryDirectory() as folder:
        for width, height in SIZES:
            files = [Path(folder) / f"{width}-{i}.mp4" for i in range(arguments.clips)]
            for i, file in enumerate(files):
                write(file, width, height, i)
            result["clips a second"][f"{width}x{height}"] = dict(rates(files, arguments.rounds))
    (RESULTS / "loader.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = ["| clips a second | in the training process | one worker | two workers |", "|---|---|---|---|"]
    for size, by_workers in result["clips a second"].items():
        cells = [f"{statistics.median(r):.1f} ({min(r):.1f}..{max(r):.1f})" for r in by_workers.values()]
        lines.append(f"| {size} | {' | '.join(cells)} |")
    if (RESULTS / "step.json").exists():
        steps = json.loads((RESULTS / "step.json").read_text())
        part = next(value for name, value in steps.items() if name.endswith(" classes"))
        eaten = {v: steps["settings"]["batch"] / statistics.median(s) for v, s in part["seconds"].items()}
        lines += ["", f"A step of {steps['settings']['architecture']} consumes {eaten['fast']:.2f} clips a second."]
    (RESULTS / "loader.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
