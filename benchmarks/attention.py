"""Attention on a CPU: ours (backbone/attention.py) beside torch's own kernel, in turn, forward and backward.

    python benchmarks/attention.py [--rounds 5]

Writes results/attention.md: medians (smallest..largest) in milliseconds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from measuring import spread

from msta.backbone.attention import attend
from msta.training.cost import alternate

RESULTS = Path(__file__).parent / "results"
SHAPES = {
    "a ViCLIP-B/16 clip, 1,569 tokens": (1, 1569, 12, 64),
    "8 frames of CLIP-B/16, 197 tokens": (8, 197, 12, 64),
    "96 clips of the toy in pretraining, 161 tokens": (96, 161, 4, 32),
    "400 class prompts, 13 tokens": (400, 13, 8, 64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    lines = ["| forward and backward, ms | torch | ours | times faster |", "|---|---|---|---|"]
    for name, (b, s, heads, e) in SHAPES.items():
        for dtype in (torch.float32, torch.bfloat16):
            qkv = torch.randn(b, s, 3, heads, e).to(dtype).requires_grad_(True)

            def step(kernel: Callable[..., torch.Tensor], qkv: torch.Tensor = qkv) -> None:
                y = kernel(*qkv.permute(2, 0, 3, 1, 4))
                y.backward(torch.ones_like(y))
                qkv.grad = None

            kernels = {"torch": F.scaled_dot_product_attention, "ours": attend}
            seconds = alternate({n: lambda k=k, step=step: step(k) for n, k in kernels.items()}, rounds)
            cells = [spread([1e3 * s for s in each], 0) for each in seconds.values()]
            ratio = statistics.median(seconds["torch"]) / statistics.median(seconds["ours"])
            lines.append(
                f"| {name}, {'fp32' if dtype == torch.float32 else 'bf16'} | {' | '.join(cells)} | {ratio:.2f} |"
            )
    (RESULTS / "attention.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
