"""A GPU, correctness first: the device against the CPU, then steps, other libraries, decoding and its matrix product.

    python benchmarks/gpu.py [--out FOLDER] [--rounds 10] [--tiny]

Random weights, noise for pixels: no data and no download. Every method must give the CPU's embeddings and gradients to
1e-4 in fp32, the fast path the plain one's; else nothing is timed. Then steps, prefix and inference, also with compiled
frozen blocks; steps of CLIP-B/16 beside LoRA by peft on transformers' CLIP and full fine-tuning; and clips per second
that this host decodes for the device, in files that it writes. Times are medians. Writes gpu.json and gpu.md to FOLDER
(benchmarks/results), with the device's name. ``--tiny``: small towers, few shapes, on whatever there is.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import loader
import peers
import torch

import msta
from msta.adapters.model import AdaptedModel
from msta.backbone.architecture import ARCHITECTURES, Architecture
from msta.backbone.blocks import TowerShape
from msta.backbone.device import accelerator_of, best_device
from msta.data.augment import Augmentation
from msta.data.catalog import Clip
from msta.data.clips import ClipDataset, make_loader
from msta.data.processes import decoders
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
WAYS = ("plain", "checkpointing", "compiled")


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
    for tower in (model.backbone.video, model.backbone.text):
        tower.checkpointing = checkpointing
    autocast = computing_in(mode)
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
    return {**seconds, "clips per second": batch / seconds["step"], "memory": memory}


def computing_in(mode: str) -> Callable[[], Any]:
    """A context for each step; TF32 is set now, until another mode is."""
    device = best_device()
    set_tf32(device, mode == "TF32")
    return partial(torch.autocast, device.type, torch.bfloat16) if mode == "bf16" else nullcontext


def product_rates(size: int, rounds: int) -> dict[str, float]:
    """TFLOP per second of a product of two square matrices, by mode: what the device itself can do."""
    device, rates = best_device(), {}
    for mode in MODES:
        computing_in(mode)
        a = torch.randn(size, size, device=device, dtype=torch.bfloat16 if mode == "bf16" else torch.float32)
        seconds = alternate({mode: partial(torch.mm, a, a)}, rounds)[mode]
        rates[mode] = 2 * size**3 / statistics.median(seconds) / 1e12
    return rates


def other_methods(architecture: Architecture, batch: int, rounds: int) -> dict[str, dict[str, float]]:
    """Mode -> seconds of a whole step, update included: MSTA, LoRA by peft, and full fine-tuning by both libraries."""
    a, device = architecture, best_device()
    backbone = msta.random_backbone(a).to(device)
    video = torch.randn(batch, a.frames, 3, a.image_size, a.image_size, device=device)
    labels = torch.arange(batch, device=device) % CLASSES
    ids = backbone.tokenize([f"a video of action number {i}." for i in range(CLASSES)])
    ids = ids[:, : int(ids.argmax(1).max()) + 1].to(device)
    adapted, full = msta.attach(backbone, msta.MSTAConfig(dim=min(128, a.text.width))), msta.attach(backbone, "full")
    models: dict[str, tuple[Any, Any]] = {
        "MSTA": (adapted.to(device), adapted.prepare_prompts(ids)),
        "LoRA by peft": (peers.lora(peers.Theirs(a)).to(device).train(), ids),
        "full fine-tuning": (full.to(device), ids),
        "full fine-tuning by transformers": (peers.Theirs(a).to(device).train(), ids),
    }
    steps = {name: peers.step(model, video, prompts, labels) for name, (model, prompts) in models.items()}
    found = {}
    for mode in MODES:
        autocast = computing_in(mode)

        def within(step: Callable[[], None], autocast: Callable[[], Any] = autocast) -> None:
            with autocast():
                step()

        seconds = alternate({name: partial(within, step) for name, step in steps.items()}, rounds)
        found[mode] = {name: statistics.median(each) for name, each in seconds.items()}
    return found


def decoding(files: int) -> dict[str, float]:
    """Clips per second that are decoded here and finished on the device, and how many processes decode."""
    device = best_device()
    with tempfile.TemporaryDirectory() as folder:
        clips = [Clip(str(Path(folder) / f"{i}.mp4"), 0) for i in range(files)]
        for i, clip in enumerate(clips):
            loader.write(Path(clip.path), 340, 256, i)
        dataset = ClipDataset(clips, loader.FORM, augmentation=Augmentation(), finish_on=accelerator_of(device))
        batches = make_loader(dataset, 4, decoders(device))
        list(batches)
        start = time.perf_counter()
        for batch in batches:
            torch.as_tensor(batch["video"]).sum().item()
        return {"processes": decoders(device), "clips per second": files / (time.perf_counter() - start)}


def steps_of(shape: str, architecture: Architecture, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each first block, batch, mode, and way: plain, with checkpointing, with compiled frozen blocks."""
    rows = []
    firsts, batches = ((2,), (2,)) if options.tiny else ((8, 1), (4, 16, 64))
    for first in firsts:
        method = msta.MSTAConfig(first_block=first, dim=16 if options.tiny else 128)
        model = msta.attach(msta.random_backbone(architecture), method).to(best_device())
        low = copy.deepcopy(model)
        low.cast_frozen(torch.bfloat16)  # as a run in bf16 does
        for way, batch, mode in itertools.product(WAYS, batches, MODES):
            chosen = low if mode == "bf16" else model
            if way == "compiled":  # the last way: what is compiled stays so
                chosen.compile_prefix(**({"backend": "eager"} if options.tiny else {}))
            row = {"backbone": shape, "first block": first, "clips": batch, "mode": mode, "way": way, "step": None}
            with suppress(torch.OutOfMemoryError):
                row |= measure(chosen, architecture, batch, mode, way == "checkpointing", options.rounds)
            rows.append(row)
    return rows


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
    wrong = {method: each for method, each in differences.items() if not all(value <= NEAR for value in each.values())}
    if wrong:
        sys.exit(f"{name}: results differ, nothing was timed: {wrong}")
    shapes = {"tiny": TINY} if options.tiny else {n: ARCHITECTURES[n] for n in ("viclip-b16", "clip-b16")}
    clip = replace(TINY, attention="frame-wise") if options.tiny else ARCHITECTURES["clip-b16"]
    report = {
        "device": name,
        "torch": torch.__version__,
        "differences": differences,
        "rows": [row for shape, architecture in shapes.items() for row in steps_of(shape, architecture, options)],
        "other methods": other_methods(clip, 2 if options.tiny else 16, options.rounds),
        "decoding": decoding(4 if options.tiny else 64),
        "matrix product, TFLOP/s": product_rates(256 if options.tiny else 8192, options.rounds),
    }
    set_tf32(device, False)
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
        f"Decoding for it: {report['decoding']['clips per second']:.1f} clips per second by "
        f"{report['decoding']['processes']} processes, of 340x256",
        "",
        "| step of CLIP | " + " | ".join(next(iter(report["other methods"].values()))) + " |",
        "|---|---|---|---|---|",
    ]
    for mode, seconds in report["other methods"].items():
        lines.append(f"| {mode} | " + " | ".join(f"{1e3 * each:.1f}" for each in seconds.values()) + " |")
    lines += [
        "",
        "| backbone | blocks from | clips | mode | way | step | prefix | inference | clips per second | GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        about = [row[each] for each in ("backbone", "first block", "clips", "mode", "way")]
        found = ["out of memory", "", "", "", ""]
        if row["step"] is not None:
            memory = "" if row["memory"] is None else f"{row['memory'] / 1e9:.2f}"
            found = [f"{1e3 * row[each]:.1f}" for each in ("step", "prefix", "inference")]
            found += [f"{row['clips per second']:.1f}", memory]
        lines.append("| " + " | ".join(map(str, [*about, *found])) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
