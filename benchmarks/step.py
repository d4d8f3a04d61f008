"""What a training step costs: the fast path beside the plain one, one process, A B C A B C.

    python benchmarks/step.py [--architecture viclip-b16] [--classes 51 400] [--batch 4] [--frames 8] [--rounds 5]

Random weights, noise for pixels: neither changes the time. Writes results/step.json and results/step.md: medians and
spread of seconds, peak memory (each variant in a process of its own), arithmetic counted by torch, and the rate of the
frozen prefix beside that of this machine's matrix product.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import spread
from torch import Tensor

import msta
from msta.backbone.prefix import Tokens, pack_tokens, unpack_tokens
from msta.training.cost import alternate, count_step, flop_counter
from msta.training.losses import objective

RESULTS = Path(__file__).parent / "results"
PRODUCTS = 40
VARIANTS = ("reference", "fast", "cached")
UPPER, ALL = msta.MSTAConfig(), msta.MSTAConfig(first_block=1, dim=256)
"""The paper's placements: blocks 8..12 with r 128 for few shots, 1..12 with r 256 for the other protocols."""
LABELS = {
    "reference": "plain (`exact_reference`)",
    "fast": "fast path",
    "cached": "fast path, prefix cache",
    "full": "full fine-tuning",
}


class Step:
    """One training step of a variant: forward, loss, backward, AdamW.

    Args:
        variant: "reference", "fast", "cached" (the clips' prefix is read from disk, in float16) or "full" (fine-tuning
            of everything).
        backbone: shared by all variants.
        shape: batch, frames and classes.
        folder: for the cache.
        dtype: bfloat16 runs under autocast, with the frozen weights kept in it.
        method: what is adapted, unless everything is.
    """

    def __init__(
        self,
        variant: str,
        backbone: msta.DualEncoder,
        shape: argparse.Namespace,
        folder: Path,
        dtype: torch.dtype = torch.float32,
        method: msta.MSTAConfig = UPPER,
    ) -> None:
        plain = variant == "reference"
        self.model = msta.attach(backbone, "full" if variant == "full" else method, exact_reference=plain)
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        if dtype != torch.float32:
            self.model.cast_frozen(dtype)
            self.autocast = partial(torch.autocast, "cpu", dtype)
        size = backbone.architecture.image_size
        self.video = torch.randn(shape.batch, shape.frames, 3, size, size)
        self.labels = torch.arange(shape.batch) % shape.classes
        ids = backbone.tokenize([f"a video of action number {i}." for i in range(shape.classes)])
        self.kept: Path | None = None
        with self.autocast():
            self.prompts = self.model.prepare_prompts(ids)
            if variant == "cached":
                kept = pack_tokens(self.model.video_prefix(self.video), shape.batch)
                self.kept = folder / f"{shape.classes}-{dtype}.npy"
                np.save(self.kept, kept.float().numpy().astype(np.float16))
        self.frames = shape.frames
        self.optimizer = torch.optim.AdamW(self.model.trainable_parameters())

    def __call__(self) -> None:
        video: Tensor | Tokens = self.video
        if self.kept is not None:
            x = torch.from_numpy(np.load(self.kept, mmap_mode="r").astype(np.float32))
            video = unpack_tokens(self.model.backbone.video, x, self.frames)
        with self.autocast():
            outputs = self.model(video, self.prompts)
        loss, _ = objective(*outputs, self.labels, self.model.logits, [], 0.0)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def flops(step: Callable[[], object]) -> int:
    """Multiplications and additions, counted by torch."""
    with flop_counter() as counter:
        step()
    return counter.get_total_flops()


def _peak(variant: str, shape: argparse.Namespace, answer: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        step = Step(variant, msta.random_backbone(shape.architecture), shape, Path(folder))
        step()
        step()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    answer.put(1024 * int(status["VmHWM"].split()[0]))  # getrusage's would include what the parent held at the fork


def peak_memory(variant: str, shape: argparse.Namespace) -> int:
    """Bytes that a process of its own held at most, weights and Python included."""
    context = multiprocessing.get_context("spawn")
    answer = context.Queue()
    process = context.Process(target=_peak, args=(variant, shape, answer))
    process.start()
    peak = answer.get()
    process.join()
    return int(peak)


def matrix_product(dtype: torch.dtype) -> Callable[[], None]:
    """2,048 x 2,048 by itself, PRODUCTS times, which takes about as long as what it is compared with."""
    a = torch.randn(2048, 2048).to(dtype)

    def product() -> None:
        for _ in range(PRODUCTS):
            a @ a

    return product


def prefix_rate(backbone: msta.DualEncoder, shape: argparse.Namespace, dtype: torch.dtype) -> dict[str, float]:
    """The frozen blocks beside the machine's matrix product, in the same dtype and in turn."""
    model = msta.attach(backbone, "msta")
    size = backbone.architecture.image_size
    video = torch.randn(shape.batch, shape.frames, 3, size, size)
    autocast = nullcontext() if dtype == torch.float32 else torch.autocast("cpu", dtype)
    if dtype != torch.float32:
        model.cast_frozen(dtype)

    def prefix() -> None:
        with autocast:
            model.video_prefix(video)

    seconds = alternate({"prefix": prefix, "product": matrix_product(dtype)}, shape.rounds)
    rates = {
        "prefix": flops(prefix) / statistics.median(seconds["prefix"]) / 1e9,
        "product": PRODUCTS * 2 * 2048**3 / statistics.median(seconds["product"]) / 1e9,
    }
    return {**rates, "share": rates["prefix"] / rates["product"]}


def growth(backbone: msta.DualEncoder, arguments: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """Counted, not run: arithmetic and memory of the fast path as frames, classes and clips grow, one at a time."""
    model = msta.attach(backbone, "msta")
    usual = {"frames": arguments.frames, "classes": arguments.classes[0], "batch": arguments.batch}
    axes = {"frames": (4, 8, 16, 32), "classes": (10, 51, 174, 400, 700), "batch": (1, 4, 16, 32)}
    table: dict[str, dict[str, dict[str, float]]] = {}
    for axis, values in axes.items():
        table[axis] = {}
        for value in values:
            at = usual | {axis: value}
            ids = model.tokenize([f"a video of action number {i}." for i in range(at["classes"])])
            cost = count_step(
                model, model.prepare_prompts(ids), batch=at["batch"], frames=at["frames"],
                size=backbone.architecture.image_size,
            )  # fmt: skip
            table[axis][str(value)] = {"prefix": cost.prefix_flops, "suffix": cost.suffix_flops, "memory": cost.memory}
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="viclip-b16")
    parser.add_argument("--classes", type=int, nargs="+", default=[51, 400])
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parts", nargs="+", default=["growth", "steps", "all", "memory", "bf16", "prefix"])
    arguments = parser.parse_args()

    def shape(classes: int) -> argparse.Namespace:
        return argparse.Namespace(**{**vars(arguments), "classes": classes})

    file = RESULTS / "step.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    result |= {"settings": vars(arguments), "torch": torch.__version__, "threads": torch.get_num_threads()}
    backbone = msta.random_backbone(arguments.architecture)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if "growth" in arguments.parts:
            result["growth"] = growth(backbone, arguments)
        if "steps" in arguments.parts:
            for classes in arguments.classes:
                variants = (*VARIANTS, "full") if classes < 100 else VARIANTS
                steps = {v: Step(v, backbone, shape(classes), folder) for v in variants}
                result[f"{classes} classes"] = {
                    "seconds": alternate(steps, arguments.rounds),
                    "flops": {v: flops(step) for v, step in steps.items()},
                    "cached_bytes": count_step(
                        steps["fast"].model,
                        steps["fast"].prompts,
                        batch=1,
                        frames=arguments.frames,
                        size=backbone.architecture.image_size,
                    ).prefix_bytes,
                }
        if "all" in arguments.parts:
            classes = arguments.classes[0]
            steps = {v: Step(v, backbone, shape(classes), folder, method=ALL) for v in ("reference", "fast")}
            result[f"blocks 1..12, r 256, {classes} classes"] = {
                "seconds": alternate(steps, arguments.rounds), "flops": {v: flops(step) for v, step in steps.items()},
            }  # fmt: skip
        if "memory" in arguments.parts:
            for classes in arguments.classes:
                result[f"{classes} classes"]["peak"] = {v: peak_memory(v, shape(classes)) for v in VARIANTS}
        if "prefix" in arguments.parts:
            result["prefix"] = {
                "fp32": prefix_rate(backbone, shape(1), torch.float32),
                "bf16": prefix_rate(msta.random_backbone(arguments.architecture), shape(1), torch.bfloat16),
            }
        if "bf16" in arguments.parts:
            classes = arguments.classes[0]
            both = {
                "fp32": Step("fast", backbone, shape(classes), folder),
                "bf16": Step(
                    "fast", msta.random_backbone(arguments.architecture), shape(classes), folder, torch.bfloat16
                ),
            }
            result["bf16"] = {"seconds": alternate(both, arguments.rounds)}
    RESULTS.mkdir(exist_ok=True)
    file.write_text(json.dumps(result, indent=2) + "\n")
    table = markdown(result)
    (RESULTS / "step.md").write_text(table)
    print(table)


def markdown(result: dict[str, Any]) -> str:
    """Every figure, as a page with a section per table."""
    s = result["settings"]
    product = result.get("prefix", {}).get("fp32", {}).get("product")
    lines = [
        "## Settings",
        "",
        f"{s['architecture']}, {s['frames']} frames, batch {s['batch']}, {result['threads']} threads, "
        f"torch {result['torch']}; medians of {s['rounds']} rounds (smallest..largest).",
    ]
    for name, part in result.items():
        if not name.endswith(" classes"):
            continue
        lines += [
            "",
            f"## {name}",
            "",
            f"| {name} | s per step | times faster | TFLOP | floor, s | peak GB | of plain |",
        ]
        lines += ["|---|---|---|---|---|---|---|"]
        plain = statistics.median(part["seconds"]["reference"])
        for variant, times in part["seconds"].items():
            median, work, peak = statistics.median(times), part["flops"][variant], part.get("peak", {}).get(variant)
            lines.append(
                f"| {LABELS[variant]} | {spread(times)} | {plain / median:.2f} "
                f"| {work / 1e12:.2f} | {f'{work / product / 1e9:.2f}' if product else ''} "
                + (f"| {peak / 1e9:.2f} | {100 * peak / part['peak']['reference']:.0f} % |" if peak else "| | |")
            )
    if "prefix" in result:
        lines += [
            "",
            "## The prefix",
            "",
            "| GFLOP/s | the prefix | a matrix product of 2,048 | share |",
            "|---|---|---|---|",
        ]
        for dtype, rate in result["prefix"].items():
            lines.append(f"| {dtype} | {rate['prefix']:.0f} | {rate['product']:.0f} | {100 * rate['share']:.0f} % |")
    if "bf16" in result:
        fp32, bf16 = (statistics.median(result["bf16"]["seconds"][name]) for name in ("fp32", "bf16"))
        lines += [
            "",
            "## bf16",
            "",
            f"A step of the fast path takes {fp32:.2f} s in fp32 and {bf16:.2f} s in bf16: bf16 is {fp32 / bf16:.2f} "
            "times as fast.",
        ]
    for axis, rows in result.get("growth", {}).items():
        lines += [
            "",
            f"## {axis}",
            "",
            f"| {axis} | TFLOP of the prefix | of the rest | GB | floor, s |",
            "|---|---|---|---|---|",
        ]
        for value, cost in rows.items():
            work = cost["prefix"] + cost["suffix"]
            lines.append(
                f"| {value} | {cost['prefix'] / 1e12:.2f} | {cost['suffix'] / 1e12:.2f} | {cost['memory'] / 1e9:.2f} "
                f"| {f'{work / product / 1e9:.1f}' if product else ''} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
