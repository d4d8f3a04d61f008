"""Our CLIP-B/16 beside Hugging Face's, and MSTA beside LoRA by `peft`: same shapes, random weights, in turn.

    python benchmarks/peers.py [--batch 4] [--frames 8] [--classes 51] [--rounds 5]

Both read the same frames one by one and average them, and both cut the prompts to the longest. In the last row each
has its usual placement: MSTA in blocks 8..12, so that the blocks below need no backward pass and the class prompts'
prefix is computed once, LoRA in all blocks of both towers. Writes results/peers.json and results/peers.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from measuring import spread
from torch import Tensor, nn

import msta
from msta.adapters.model import class_logits
from msta.backbone.architecture import ARCHITECTURES, Architecture
from msta.training.cost import alternate
from msta.training.losses import objective

RESULTS = Path(__file__).parent / "results"


class Theirs(nn.Module):
    """transformers' CLIP over frames, with the interface of an AdaptedModel."""

    def __init__(self, architecture: Architecture = ARCHITECTURES["clip-b16"]) -> None:
        super().__init__()
        a = architecture
        video, text = (
            {
                "hidden_size": shape.width, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads,
                "intermediate_size": shape.mlp_width, "projection_dim": a.embed_dim,
            }
            for shape in (a.video, a.text)
        )  # fmt: skip
        video |= {"image_size": a.image_size, "patch_size": a.patch_size}
        text |= {"max_position_embeddings": a.context_length, "vocab_size": a.vocab_size, "eos_token_id": 49407}
        config = transformers.CLIPConfig(vision_config=video, text_config=text, projection_dim=a.embed_dim)
        self.clip: Any = transformers.CLIPModel(config)

    def encode_video(self, video: Tensor) -> Tensor:
        seen = self.clip.vision_model(pixel_values=video.flatten(0, 1)).pooler_output
        return self.clip.visual_projection(seen).unflatten(0, video.shape[:2]).mean(1)

    def forward(self, video: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        return self.encode_video(video), self.clip.text_projection(self.clip.text_model(input_ids=ids).pooler_output)


def step(model: nn.Module, video: Tensor, prompts: Any, labels: Tensor) -> Callable[[], None]:
    """A training step of what requires a gradient."""
    scale = torch.tensor(100.0).log()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad])

    def run() -> None:
        seen, said = model(video, prompts)
        loss, _ = objective(seen, said, labels, lambda v, t: class_logits(v, t, scale), [], 0.0)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return run


def lora(model: Theirs) -> Theirs:
    """`peft`'s own injection, rank 16 on queries and values of both towers: their usual choice."""
    config = peft.LoraConfig(r=16, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    model.clip = peft.get_peft_model(model.clip, config)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    backbone = msta.random_backbone("clip-b16")
    video = torch.randn(arguments.batch, arguments.frames, 3, 224, 224)
    labels = torch.arange(arguments.batch) % arguments.classes
    ids = backbone.tokenize([f"a video of action number {i}." for i in range(arguments.classes)])
    ids = ids[:, : int(ids.argmax(1).max()) + 1]
    rows: dict[str, dict[str, Callable[[], object]]] = {}

    theirs = Theirs().eval()

    def forward(model: Any) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                model.encode_video(video)

        return run

    rows["forward of the clips"] = {"msta": forward(backbone), "transformers": forward(theirs)}
    full = msta.attach(backbone, "full")
    rows["step of full fine-tuning"] = {
        "msta": step(full, video, ids, labels),
        "transformers": step(Theirs().train(), video, ids, labels),
    }
    adapted = msta.attach(backbone, "msta")
    rows["step of adapters (MSTA; LoRA by peft)"] = {
        "msta": step(adapted, video, adapted.prepare_prompts(ids), labels),
        "transformers": step(lora(Theirs()).train(), video, ids, labels),
    }
    result: dict[str, Any] = {
        "settings": vars(arguments),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
        "threads": torch.get_num_threads(),
        "seconds": {name: alternate(row, arguments.rounds) for name, row in rows.items()},
    }
    (RESULTS / "peers.json").write_text(json.dumps(result, indent=2) + "\n")
    lines = [
        f"CLIP-B/16, batch {arguments.batch}, {arguments.frames} frames, {arguments.classes} classes, fp32, "
        f"{result['threads']} threads; torch {result['torch']}, transformers {result['transformers']}, peft "
        f"{result['peft']}; medians of {arguments.rounds} rounds (smallest..largest).",
        "",
        "| | ours, s | theirs, s | times faster |",
        "|---|---|---|---|",
    ]
    for name, seconds in result["seconds"].items():
        cells = [spread(each) for each in seconds.values()]
        ratio = statistics.median(seconds["transformers"]) / statistics.median(seconds["msta"])
        lines.append(f"| {name} | {' | '.join(cells)} | {ratio:.2f} |")
    (RESULTS / "peers.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
