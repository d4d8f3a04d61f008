"""A training step of this checkout beside that of another one: the fast path, MSTA's two placements, in turn.

    python benchmarks/against.py OTHER_CHECKOUT [--rounds 7]

Each checkout runs in a process of its own, with this interpreter; only one computes at a time: A B A B. Random
ViCLIP-B/16, noise for pixels. Writes results/against.json and against.md: medians, and the median of the ratios of
neighbouring steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PLACEMENTS = {
    "blocks 8..12, r 128": {"dim": 128},
    "blocks 8..12, r 256": {"dim": 256},
    "blocks 1..12, r 256": {"first_block": 1, "dim": 256},
}
WORKER = """
import sys, time, json, torch, msta
from msta.training.losses import objective
placements, batch, classes = json.loads(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
backbone = msta.random_backbone("viclip-b16")
video, labels = torch.randn(batch, 8, 3, 224, 224), torch.arange(batch) % classes
ids = backbone.tokenize([f"a video of action number {i}." for i in range(classes)])
made = {}
for name, settings in placements.items():
    model = msta.attach(backbone, msta.MSTAConfig(**settings))
    made[name] = model, model.prepare_prompts(ids), torch.optim.AdamW(model.trainable_parameters())
print("ready", flush=True)
for line in sys.stdin:
    model, prompts, optimizer = made[line.strip()]
    start = time.perf_counter()
    loss, _ = objective(*model(video, prompts), labels, model.logits, [], 0.0)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    print(time.perf_counter() - start, flush=True)
"""


class Checkout:
    """A checkout's process, which takes a step when told to."""

    def __init__(self, folder: Path, batch: int, classes: int) -> None:
        arguments = [sys.executable, "-c", WORKER, json.dumps(PLACEMENTS), str(batch), str(classes)]
        environment = os.environ | {"PYTHONPATH": str(folder / "src")}
        self.process = subprocess.Popen(
            arguments, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._read()

    def step(self, placement: str) -> float:
        """Seconds."""
        assert self.process.stdin is not None
        self.process.stdin.write(placement + "\n")
        self.process.stdin.flush()
        return float(self._read())

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("a worker ended early; its error is above")
        return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=51)
    arguments = parser.parse_args()
    folders = {"this": Path(__file__).parents[1], "other": arguments.other.absolute()}
    commits = {
        name: subprocess.run(
            ["git", "-C", str(folder), "describe", "--always"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name, folder in folders.items()
    }
    checkouts = {name: Checkout(folder, arguments.batch, arguments.classes) for name, folder in folders.items()}
    result: dict[str, dict[str, list[float]]] = {}
    for placement in PLACEMENTS:
        seconds: dict[str, list[float]] = {name: [] for name in checkouts}
        for round_ in range(arguments.rounds + 1):
            order = list(checkouts) if round_ % 2 else list(checkouts)[::-1]
            for name in order:
                took = checkouts[name].step(placement)
                if round_:  # the first one warms up
                    seconds[name].append(took)
        result[placement] = seconds
        print(placement, line(seconds), flush=True)
    RESULTS.mkdir(exist_ok=True)
    settings = {name: getattr(arguments, name) for name in ("rounds", "batch", "classes")}
    content = {"commits": commits, "settings": settings, "seconds": result}
    (RESULTS / "against.json").write_text(json.dumps(content, indent=2) + "\n")
    (RESULTS / "against.md").write_text(
        f"ViCLIP-B/16, 8 frames, batch {arguments.batch}, {arguments.classes} classes, fp32, fast path; this commit: "
        f"{commits['this']}, the other: {commits['other']}; medians of {arguments.rounds} rounds.\n\n"
        "| adapters | this, s | other, s | this / other |\n|---|---|---|---|\n"
        + "".join(f"| {placement} | {line(seconds)} |\n" for placement, seconds in result.items())
    )


def line(seconds: dict[str, list[float]]) -> str:
    ratio = statistics.median(a / b for a, b in zip(seconds["this"], seconds["other"], strict=True))
    return f"{statistics.median(seconds['this']):.2f} | {statistics.median(seconds['other']):.2f} | {ratio:.3f}"


if __name__ == "__main__":
    main()
