"""The counted cost of a training step beside the authors' logs: time on an A100 by its data sheet, and memory.

    python benchmarks/plan.py [--classes 51]

The logs (ViCLIP-B/16, 4 clips of 8 frames on each of 8 A100, fp32, blocks 8..12) have 0.17 s per step and 10.7 to
12.0 GB. Their code was not published: what it kept for the backward pass is tried out here. Nothing is computed, only
counted. Writes results/plan.md.
"""

from __future__ import annotations

import argparse
import itertools
from contextlib import nullcontext
from pathlib import Path

from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

import msta
from msta.training.cards import CARDS
from msta.training.cost import StepCost, count_step

RESULTS = Path(__file__).parent / "results"
SECONDS, MEMORY = 0.17, (10.7, 12.0)


def counted(classes: int, fast: bool, through: bool, written_out: bool) -> StepCost:
    """A step's.

    ``fast``: with our shortcuts. ``through``: gradients run through all blocks, not only from the first adapter up.
    ``written_out``: attention keeps its matrices, as before fused kernels.
    """
    backbone = msta.random_backbone("viclip-b16")
    model = msta.attach(backbone, msta.MSTAConfig(), exact_reference=not fast)
    if through:
        for tower in (model.backbone.video, model.backbone.text):
            tower.positional_embedding = nn.Parameter(tower.positional_embedding.detach().clone())
    ids = backbone.tokenize([f"a video of action number {i}." for i in range(classes)])
    with sdpa_kernel(SDPBackend.MATH) if written_out else nullcontext():
        return count_step(model, model.prepare_prompts(ids), batch=4, frames=8, size=224)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", type=int, default=51)
    classes = parser.parse_args().classes
    readings = {"ours, with its shortcuts": counted(classes, True, False, False)}
    for through, written_out in itertools.product((False, True), (False, True)):
        name = f"gradients {'through all blocks' if through else 'in blocks 8..12'}, attention "
        readings[name + ("written out" if written_out else "fused")] = counted(classes, False, through, written_out)
    lines = [
        "| | TFLOP | seconds, fp32 | seconds, TF32 | GB |",
        "|---|---|---|---|---|",
        f"| the authors' logs | | {SECONDS} | | {MEMORY[0]} to {MEMORY[1]} |",
    ]
    for name, cost in readings.items():
        seconds = [f"{CARDS['A100'].seconds(cost.flops, cost.moved, 'fp32', tf32):.3f}" for tf32 in (False, True)]
        lines.append(f"| {name} | {cost.flops / 1e12:.2f} | {' | '.join(seconds)} | {cost.memory / 1e9:.2f} |")
    (RESULTS / "plan.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
