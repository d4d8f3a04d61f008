"""Whether explanations are true: what the log-odds lose when patches are deleted, chosen in different ways.

    python benchmarks/explain.py --clips FOLDER [--each 3]

FOLDER has a sub-folder per class. MSTA trains on five clips per class, with toy and the preset small, and some of the
other clips are explained. The class that is explained is the likeliest. A tenth, and a fifth, of a clip's patches are
replaced by the clip's mean colour: those with the highest integrated gradients, in 16 steps and in one, with the
strongest attention of the class token (rollout, Abnar & Zuidema 2020, for joint attention), those that move most, and
random ones (the mean of 8 draws). Writes results/explain.json and .md.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor

import msta
from msta.backbone.blocks import Attention
from msta.config import make_config
from msta.data.clips import ONE_VIEW, read_views
from msta.data.reading import read_catalog
from msta.files import write_json
from msta.inference import Predictor
from msta.inference.explain import delete, log_odds, patch_relevance
from msta.training.loop import train

RESULTS = Path(__file__).parent / "results"
SHOTS = 5
MOTION = "the patches that move most"


@torch.no_grad()
def rollout(predictor: Predictor, clip: Tensor) -> np.ndarray:
    """[T, rows, columns]: attention of the class token, through all blocks, the residual path counted as a half."""
    tower = predictor.model.backbone.video
    maps: list[Tensor] = []

    def keep(module: Attention, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        b, s, d = x.shape
        q, k, _ = module.qkv(x).view(b, s, 3, module.heads, d // module.heads).permute(2, 0, 3, 1, 4)
        maps.append((q @ k.mT * (d // module.heads) ** -0.5).softmax(-1).mean(1)[0])

    handles = [m.register_forward_hook(keep) for m in tower.modules() if isinstance(m, Attention)]
    tower(clip)
    for handle in handles:
        handle.remove()
    total = torch.eye(len(maps[0]))
    for each in maps:
        total = (0.5 * each + 0.5 * torch.eye(len(each))) @ total
    frames, side = clip.shape[1], clip.shape[-1] // tower.patch_size
    return total[0, 1:].view(side, side, frames).permute(2, 0, 1).numpy()


def motion(predictor: Predictor, clip: Tensor) -> np.ndarray:
    side = predictor.model.backbone.video.patch_size
    change = clip[0].diff(dim=0, prepend=clip[0, :1]).abs().sum(1)
    return change.unflatten(2, (-1, side)).unflatten(1, (-1, side)).sum((2, 4)).numpy()


def drops(predictor: Predictor, path: str, rng: np.random.Generator) -> dict[str, dict[str, float]]:
    clip = read_views(path, predictor.format, ONE_VIEW)

    @torch.no_grad()
    def score(video: Tensor) -> Tensor:
        return log_odds(predictor, predictor.model.encode_video(video), index)

    index = int(predictor.probabilities(predictor.model.encode_video(clip).detach()[None])[0].argmax())
    whole, side = float(score(clip)), predictor.model.backbone.video.patch_size
    by = {
        "integrated gradients (`msta explain`)": patch_relevance(predictor, clip, index),
        "integrated gradients, one step": patch_relevance(predictor, clip, index, steps=1),
        MOTION: motion(predictor, clip),
    }
    if predictor.model.backbone.video.attention == "joint":
        by["attention rollout"] = rollout(predictor, clip)
    shape = by[MOTION].shape
    for draw in range(8):
        by[f"random {draw}"] = rng.random(shape)
    found: dict[str, dict[str, float]] = {}
    for share in (0.1, 0.2):
        losses = {}
        for name, relevance in by.items():
            chosen = np.zeros(relevance.size, bool)
            chosen[np.argsort(-relevance.ravel())[: int(share * relevance.size)]] = True
            losses[name] = whole - float(score(delete(clip, chosen.reshape(shape), side)))
        random = [losses.pop(name) for name in list(losses) if name.startswith("random")]
        found[f"{100 * share:.0f} %"] = {**losses, "random": float(np.mean(random))}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--each", type=int, default=3, help="clips of each class")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        settings = {"data.path": arguments.clips, "data.shots": SHOTS, "data.val_fraction": 0}
        train(make_config("small", settings), run := Path(folder) / "run", Console(quiet=True))
        predictor = Predictor(msta.load_adapter(run / "adapter"))
        catalog = read_catalog(run / "split.csv")
    test = [clip for clip in catalog.clips if clip.split == "test"]
    chosen = [
        clip.path
        for label in range(len(catalog.classes))
        for clip in [c for c in test if c.label == label][: arguments.each]
    ]
    rows: list[dict[str, Any]] = [drops(predictor, path, rng) for path in chosen]
    result = {
        share: {
            name: {
                "mean": float(np.mean([row[share][name] for row in rows])),
                "above random": float(np.mean([row[share][name] > row[share]["random"] for row in rows])),
            }
            for name in rows[0][share]
        }
        for share in rows[0]
    }
    made_with = {"backbone": predictor.model.origin["fingerprint"], "shots": SHOTS, "clips": len(rows)}
    write_json(RESULTS / "explain.json", made_with | {"deleted": result})
    lines = [f"| log-odds lost, mean of {len(rows)} clips | a tenth deleted | a fifth deleted |", "|---|---|---|"]
    for name in result["10 %"]:
        cells = [result[share][name] for share in ("10 %", "20 %")]
        told = [f"{c['mean']:.2f}" for c in cells]
        if name != "random":
            told = [f"{text} ({100 * c['above random']:.0f} %)" for text, c in zip(told, cells, strict=True)]
        lines.append(f"| {name} | {' | '.join(told)} |")
    (RESULTS / "explain.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
