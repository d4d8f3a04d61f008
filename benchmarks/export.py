"""What an export costs and keeps: size, speed and accuracy beside torch, for one adapter.

    python benchmarks/export.py --data RUN/split.csv --adapter RUN/adapter [--rounds 7]

The adapter is exported in every form; each is timed on the same clips, one thread, in turns, so that whatever else the
machine does meets all of them, and measured on the run's test clips. Writes results/export.json and results/export.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import msta
from msta.data.clips import ONE_VIEW, read_views
from msta.data.reading import read_catalog
from msta.inference.export import export
from msta.inference.onnx_predictor import OnnxPredictor
from msta.inference.predictor import Predictor

RESULTS = Path(__file__).parent / "results"
FORMS = (("onnx", "fp32"), ("onnx", "fp16"), ("onnx", "int8"), ("torch-export", "fp32"))
Run = Callable[[torch.Tensor], np.ndarray]


def runners(member: Predictor, where: Path) -> tuple[dict[str, Run], dict[str, int]]:
    """By name: a function from clips to probabilities, and the bytes of the file it runs."""

    def by_torch(video: torch.Tensor) -> np.ndarray:
        with torch.no_grad():
            return member.probabilities(member.model.encode_video(video)[None])

    tower = sum(p.nbytes for p in member.model.backbone.video.parameters())
    runs: dict[str, Run] = {"torch": by_torch}
    sizes = {"torch": tower}
    for form, precision in FORMS:
        name = f"{form} {precision}"
        about = export(member, where / name.replace(" ", "-"), form, precision)  # type: ignore[arg-type]
        folder = where / name.replace(" ", "-")
        if form == "onnx":
            predictor = OnnxPredictor(folder, threads=1)
            runs[name] = lambda video, p=predictor: p.run(video.numpy())[0]
            sizes[name] = about["bytes"]["video.onnx"]
        else:
            module = torch.export.load(folder / "video.pt2").module()
            runs[name] = lambda video, m=module: m(video)[0].detach().numpy()
            sizes[name] = about["bytes"]["video.pt2"]
    return runs, sizes


def times(runs: dict[str, Run], clips: torch.Tensor, rounds: int) -> dict[str, list[float]]:
    """Milliseconds per clip, each round all of them in turn; the first round is not counted."""
    measured: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 1):
        for name, run in runs.items():
            begun = time.perf_counter()
            run(clips)
            measured[name].append(1000 * (time.perf_counter() - begun) / len(clips))
    return {name: values[1:] for name, values in measured.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--adapter", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    member = Predictor(msta.load_adapter(arguments.adapter))
    catalog = read_catalog(arguments.data)
    test = [clip for clip in catalog.clips if clip.split == "test"]
    views = torch.cat([read_views(clip.path, member.format, ONE_VIEW, clip.span) for clip in test])
    labels = np.array([member.classes.index(catalog.classes[clip.label]) for clip in test])
    with tempfile.TemporaryDirectory() as folder:
        runs, sizes = runners(member, Path(folder))
        one, eight = (times(runs, views[:n], arguments.rounds) for n in (1, 8))
        correct = {n: [run(part).argmax(1) for part in views.split(8)] for n, run in runs.items()}
    rows: dict[str, Any] = {
        name: {
            "bytes": sizes[name],
            "ms per clip, one": one[name],
            "ms per clip, eight": eight[name],
            "top1": round(100 * float((np.concatenate(correct[name]) == labels).mean()), 1),
        }
        for name in runs
    }
    made_with = {"backbone": member.model.origin["fingerprint"]}
    result = made_with | {
        "test clips": len(test),
        "classes": len(member.classes),
        "rounds": arguments.rounds,
        "forms": rows,
    }
    (RESULTS / "export.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        "| | `video` MB | ms per clip, one | of torch's | ms per clip, eight | of torch's | top-1 % |",
        "|---|---|---|---|---|---|---|",
    ]
    base = [statistics.median(part["torch"]) for part in (one, eight)]
    for name, row in rows.items():
        middles = [statistics.median(row[f"ms per clip, {n}"]) for n in ("one", "eight")]
        cells = [f"{m:.1f} | {m / b:.2f}" for m, b in zip(middles, base, strict=True)]
        lines.append(f"| {name} | {row['bytes'] / 1e6:.1f} | {' | '.join(cells)} | {row['top1']} |")
    lines += ["", f"Top-1 of {len(test)} test clips, {len(member.classes)} classes; one thread."]
    (RESULTS / "export.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
