"""A training step of MSTA beside one of full fine-tuning: same backbone, same clips, one process, A B A B.

python benchmarks/step.py [--architecture viclip-b16] [--classes 51] [--batch 2] [--rounds 5]
Writes benchmarks/results/step.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch

import msta
from msta.training.losses import objective


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="viclip-b16")
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    backbone = msta.random_backbone(arguments.architecture)
    size = backbone.architecture.image_size
    video = torch.randn(arguments.batch, arguments.frames, 3, size, size)
    labels = torch.arange(arguments.batch) % arguments.classes
    ids = backbone.tokenize([f"a video of action number {i}." for i in range(arguments.classes)])
    steps = {}
    for method in ("msta", "full"):
        model = msta.attach(backbone, method)
        steps[method] = (model, torch.optim.AdamW(model.trainable_parameters()))

    seconds: dict[str, list[float]] = {method: [] for method in steps}
    for round_ in range(arguments.rounds + 1):
        for method, (model, optimizer) in steps.items():
            start = time.perf_counter()
            loss, _ = objective(*model(video, ids), labels, backbone.logit_scale, [], 0.0)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            if round_:  # the first one warms up
                seconds[method].append(time.perf_counter() - start)
    medians = {method: statistics.median(times) for method, times in seconds.items()}
    result = {
        "settings": vars(arguments),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seconds": seconds,
        "median": medians,
        "full_over_msta": medians["full"] / medians["msta"],
    }
    out = Path(__file__).parent / "results" / "step.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    for method, times in seconds.items():
        print(f"{method:>5}: {medians[method]:.2f} s a step ({min(times):.2f}..{max(times):.2f})")
    print(f"full / msta: {result['full_over_msta']:.2f}")


if __name__ == "__main__":
    main()
