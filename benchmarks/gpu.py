"""A GPU, correctness first: the device against the CPU, then steps, prefix, inference and its matrix product.

    python benchmarks/gpu.py [--out FOLDER] [--rounds 10] [--tiny]

Random weights, noise for pixels: no data and no download. Every method must give the CPU's embeddings and gradients to
1e-4 in fp32, the fast path the plain one's; else nothing is timed. Times are medians. Writes gpu.json and gpu.md to
FOLDER (benchmarks/results), with the device's name. ``--tiny``: small towers, few shapes, on whatever there is.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

import msta
from msta.adapters.model import AdaptedModel
from msta.backbone.architecture import ARCHITECTURES, Architecture
from msta.backbone.blocks import TowerShape
from msta.backbone.device import best_device
from msta.methods import METHODS
from msta.training.cost import alternate, step
from msta.training.losses import objective
from msta.training.processes import set_tf32

RESULTS = Path(__file__).parent / "results"
TINY = Architecture(
    attention="joint", image_size=32, patch_size=16, frames=2, embed_dim=24, video=TowerShape(128, 3, 2, 256),
    text=TowerShape(32, 3, 2, 64), context_length=16,
)  # fmt: skip
CLASSES = 51
NEAR = 1e-4
"""Largest difference allowed, over the largest value."""
MODES = ("fp32", "TF32", "bf16")


def results(
    architecture: Architecture, method: str, device: torch.device, *, exact: bool = False
) -> list[torch.Tensor]:
    """Embeddings of two clips and three classes, and all gradients in one, on the CPU."""
    torch.manual_seed(0)
    model = msta.attach(msta.random_backbone(architecture), method, exact_reference=exact)
    model.prepare(3, 2)
    a = architecture
    if model.support_views:
        model.add_support(torch.randn(2, a.embed_dim), torch.arange(2))
    for parameter in model.trainable_parameters():
        parameter.data += 0.02 * torch.randn(parameter.shape)
    video = torch.randn(2, a.frames, 3, a.image_size, a.image_size)
    ids = model.tokenize(["a", "a b c", "a b"])
    model.to(device)
    outputs = model(video.to(device), ids.to(device))
    loss, _ = objective(*outputs, torch.arange(2, device=device), model.logits, [], 0.0)
    if loss.requires_grad:
        loss.backward()
    gradients = [p.grad.flatten() for p in model.trainable_parameters() if p.grad is not None]
    return [each.detach().cpu() for each in (*outputs, *([torch.cat(gradients)] if gradients else []))]


def difference(found: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    """Largest, over each tensor's largest value."""
    pairs = zip(found, expected, strict=True)
    return max(float((a - b).abs().max() / b.abs().max().clamp_min(1e-12)) for a, b in pairs)


def check(architecture: Architecture, device: torch.device) -> dict[str, dict[str, float]]:
    """Method -> differences of the device from the CPU, and of the fast path from the plain one on the device."""
    found = {}
    for method in METHODS:
        fast = results(architecture, method, device)
        cpu = results(architecture, method, torch.device("cpu"))
        plain = results(architecture, method, device, exact=True)
        found[method] = {"from the CPU": difference(fast, cpu), "from the plain path": difference(fast, plain)}
    return found


def measure(
    model: AdaptedModel, architecture: Architecture, batch: int, mode: str, checkpointing: bool, rounds: int
) -> dict[str, Any]:
    """Seconds of a step, of its prefix and of inference, and the most memory that tensors took meanwhile."""
    device, a = best_device(), architecture
    set_tf32(device, mode == "TF32")
    for tower in (model.backbone.video, model.backbone.text):
        tower.checkpointing = checkpointing
    autocast = partial(torch.autocast, device.type, torch.bfloat16) if mode == "bf16" else nullcontext
    video = torch.randn(batch, a.frames, 3, a.image_size, a.image_size, device=device)
    labels = torch.arange(batch, device=device) % CLASSES
    with autocast():
        prompts = model.prepare_prompts(model.tokenize([f"action number {i}" for i in range(CLASSES)]).to(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()

    def training_step() -> None:
        with autocast():
            step(model, video, prompts, labels)

    def inference() -> None:
        with autocast(), torch.no_grad():
            model.encode_video(video)

    def prefix() -> None:
        with autocast(), torch.no_grad():
            model.video_prefix(video)

    ways = {"step": training_step, "prefix": prefix, "inference": inference}
    seconds = {name: statistics.median(each) for name, each in alternate(ways, rounds).items()}
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else None
    return {**seconds, "clips a second": batch / seconds["step"], "memory": memory}


def product_rates(size: int, rounds: int) -> dict[str, float]:
    """TFLOP a second of a product of two square matrices, by mode: what the device itself can do."""
    device, rates = best_device(), {}
    for mode in MODES:
        set_tf32(device, mode == "TF32")
        a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if mode == "bf16" else torch.float32)
        seconds = alternate({mode: partial(torch.mm, a, a)}, rounds)[mode]
        rates[mode] = 2 * size**3 / statistics.median(seconds) / 1e12
    return rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--tiny", action="store_true")
    options = parser.parse_args()
    device = best_device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else device.type.upper()
    if device.type == "cpu" and not options.tiny:
        sys.exit("There is no GPU here; --tiny runs on a CPU.")
    set_tf32(device, False)
    differences = check(TINY, device)
    wrong = {method: each for method, each in differences.items() if max(each.values()) > NEAR}
    if wrong:
        sys.exit(f"{name}: results differ, nothing was timed: {wrong}")
    shapes = {"tiny": TINY} if options.tiny else {n: ARCHITECTURES[n] for n in ("viclip-b16", "clip-b16")}
    firsts, batches = ((2,), (2,)) if options.tiny else ((8, 1), (4, 16, 64))
    rows: list[dict[str, Any]] = []
    for shape, architecture in shapes.items():
        for first in firsts:
            method = msta.MSTAConfig(first_block=first, dim=16 if options.tiny else 128)
            model = msta.attach(msta.random_backbone(architecture), method).to(device)
            low = copy.deepcopy(model)
            low.cast_frozen(torch.bfloat16)  # as a run in bf16 does
            for batch, mode, checkpointing in itertools.product(batches, MODES, (False, True)):
                about = {
                    "backbone": shape,
                    "first block": first,
                    "clips": batch,
                    "mode": mode,
                    "checkpointing": checkpointing,
                }
                try:
                    rows.append(
                        {
                            **about,
                            **measure(
                                low if mode == "bf16" else model,
                                architecture,
                                batch,
                                mode,
                                checkpointing,
                                options.rounds,
                            ),
                        }
                    )
                except torch.OutOfMemoryError:
                    rows.append({**about, "step": None})
    rates = product_rates(256 if options.tiny else 8192, options.rounds)
    set_tf32(device, False)
    report = {
        "device": name, "torch": torch.__version__, "differences": differences, "matrix product, TFLOP/s": rates,
        "rows": rows,
    }  # fmt: skip
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    (options.out / "gpu.md").write_text(table(report))
    print(table(report))


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"{report['device']}, torch {report['torch']}; milliseconds, medians",
        "",
        "Matrix product, TFLOP/s: " + ", ".join(f"{m} {r:.3g}" for m, r in report["matrix product, TFLOP/s"].items()),
        "",
        "| backbone | blocks from | clips | mode | checkpointing | step | prefix | inference | clips a second | GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        about = [
            row["backbone"],
            row["first block"],
            row["clips"],
            row["mode"],
            "yes" if row["checkpointing"] else "no",
        ]
        if row["step"] is None:
            found = ["out of memory", "", "", "", ""]
        else:
            found = [f"{1e3 * row[each]:.1f}" for each in ("step", "prefix", "inference")]
            memory = "" if row["memory"] is None else f"{row['memory'] / 1e9:.2f}"
            found += [f"{row['clips a second']:.1f}", memory]
        lines.append("| " + " | ".join(map(str, [*about, *found])) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
