"""A timeline against brute force, and its memory against the length of the video.

    python benchmarks/timeline.py [--rounds 3] [--hours 3]

Brute force cuts every window out of the file and predicts it by itself, as `read_frames` and the model would; the
timeline reads the file once. Both see the same frames and must give the same probabilities. Measured in alternation, in
one process, with windows of 2 s every 0.5 s. Then four adapters in one pass against four passes. Memory is
the largest resident size that the kernel saw of a process of its own for each length, of a generated file. Writes
results/timeline.json, results/timeline.md and docs/timeline-memory.png.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import write_video

import msta
from msta.backbone.architecture import Architecture
from msta.backbone.blocks import TowerShape
from msta.data.clips import ONE_VIEW, cut_views
from msta.data.decode import read_frames
from msta.inference import Predictor, Windows, read_timelines
from msta.inference.windows import window_at

RESULTS = Path(__file__).parent / "results"
WINDOWS = Windows(2.0, 0.5)
CLASSES = tuple("abcdefgh")
SMALL_CLIP = Architecture(
    "frame-wise", 112, 16, 8, 256, TowerShape(384, 12, 6, 1536), TowerShape(256, 12, 4, 1024), context_length=77
)
"""CLIP's proportions at a size that a minute's measurement can bear."""


def write(path: Path, seconds: float, width: int, height: int, fps: int = 25) -> Path:
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    pictures = (np.roll(coarse, (i % height, 2 * i % width), (0, 1)) for i in range(round(seconds * fps)))
    return write_video(path, pictures, fps=fps, preset="ultrafast", g="50")


def brute_force(predictor: Predictor, video: Path, count: int) -> np.ndarray:
    rows, form = [], predictor.format
    for i in range(count):
        times = window_at(i, WINDOWS, form.frames).times
        clip = cut_views(read_frames(video, times, form.size, squash=form.fit == "squash"), form, ONE_VIEW)
        with torch.inference_mode():
            rows.append(predictor.probabilities(predictor.model.encode_video(clip)[None])[0])
    return np.stack(rows)


def seconds_of(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(one: Callable[[], object], other: Callable[[], object], rounds: int) -> dict[str, Any]:
    """Seconds of both, in turns, after a round that is not counted."""
    pairs = [(seconds_of(one), seconds_of(other)) for _ in range(rounds + 1)][1:]
    ratios = [a / b for a, b in pairs]
    return {
        "slow": [a for a, _ in pairs],
        "fast": [b for _, b in pairs],
        "ratio": statistics.median(ratios),
        "from": min(ratios),
        "to": max(ratios),
    }


def models() -> dict[str, Predictor]:
    frame_wise = msta.random_backbone(SMALL_CLIP)
    toy = msta.load_backbone("toy")
    made = {
        "toy (joint attention), MSTA": msta.attach(toy, "msta"),
        "CLIP's shape (frame-wise), MSTA": msta.attach(frame_wise, "msta"),
        "CLIP's shape (frame-wise), nothing mixes frames": msta.attach(frame_wise, "zero-shot"),
    }
    return {name: Predictor(model, CLASSES) for name, model in made.items()}


def ratios(rounds: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        video = write(Path(folder) / "video.mp4", 20, 320, 240)
        for name, predictor in models().items():
            (line,) = read_timelines(predictor, video, WINDOWS)
            count = len(line.probabilities)
            difference = float(np.abs(line.probabilities - brute_force(predictor, video, count)).max())
            assert difference < 1e-5, difference

            def slow(predictor: Predictor = predictor, count: int = count) -> object:
                return brute_force(predictor, video, count)

            def fast(predictor: Predictor = predictor) -> object:
                return read_timelines(predictor, video, WINDOWS)

            found[name] = {"difference": difference, **compare(slow, fast, rounds)}
        backbone = msta.random_backbone(SMALL_CLIP)
        four = [Predictor(msta.attach(backbone, "msta"), CLASSES) for _ in range(4)]
        found["CLIP's shape, four MSTA adapters: four passes against one"] = compare(
            lambda: [read_timelines(p, video, WINDOWS) for p in four],
            lambda: read_timelines(four, video, WINDOWS),
            rounds,
        )
    return found


def memory(hours: float) -> dict[str, float]:
    """Minutes -> MB."""
    found = {}
    for minutes in (m for m in (1, 10, 30, 60, 120, 180) if m <= 60 * hours):
        with tempfile.TemporaryDirectory() as folder:
            video = write(Path(folder) / "long.mp4", 60 * minutes, 96, 64, fps=5)
            done = subprocess.run(
                [sys.executable, __file__, "--measure", str(video)], capture_output=True, text=True, check=True
            )
        found[str(minutes)] = float(done.stdout)
        print(f"{minutes} min: {done.stdout.strip()} MB", flush=True)
    return found


def measure(video: str) -> None:
    tiny = Architecture(
        "frame-wise", 32, 16, 4, 24, TowerShape(48, 3, 3, 96), TowerShape(32, 3, 2, 64), context_length=16
    )
    predictor = Predictor(msta.attach(msta.random_backbone(tiny), "zero-shot"), CLASSES)
    read_timelines(predictor, video, WINDOWS)
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1))


def plot(found: dict[str, float], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 2.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.plot([int(m) for m in found], list(found.values()), marker="o", color="#2266aa")
    axes.set_ylim(0, 1.25 * max(found.values()))
    axes.set_xlabel("minutes of video")
    axes.set_ylabel("largest resident size, MB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hours", type=float, default=3)
    parser.add_argument("--only", choices=["ratios", "memory"])
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    file = RESULTS / "timeline.json"
    result = json.loads(file.read_text()) if file.exists() else {}
    if arguments.only != "memory":
        result["ratios"] = ratios(arguments.rounds)
    if arguments.only != "ratios":
        result["memory, MB by minutes"] = found = memory(arguments.hours)
        plot(found, Path(__file__).parents[1] / "docs" / "timeline-memory.png")
    file.write_text(json.dumps(result, indent=2) + "\n")
    lines = ["| 20 s of video, windows of 2 s every 0.5 s | brute force, s | timeline, s | times faster |"]
    lines += ["|---|---|---|---|"]
    for name, row in result.get("ratios", {}).items():
        slow, fast = (statistics.median(row[k]) for k in ("slow", "fast"))
        lines.append(f"| {name} | {slow:.2f} | {fast:.2f} | {row['ratio']:.2f} ({row['from']:.2f}..{row['to']:.2f}) |")
    (RESULTS / "timeline.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
