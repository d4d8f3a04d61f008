"""How long the anchors of a large bank take: 600 classes x 16 sentences, once, and from disk.

python benchmarks/anchors.py [--backbone random:clip-b16] [--classes 600] [--sentences 16]
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from pathlib import Path

import torch

import msta
from msta.descriptions.anchors import anchors

WORDS = ("a", "person", "hand", "door", "rope", "moves", "holds", "throws", "slowly", "left", "with", "under", "red")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="random:clip-b16")
    parser.add_argument("--classes", type=int, default=600)
    parser.add_argument("--sentences", type=int, default=16)
    arguments = parser.parse_args()
    draw = random.Random(0)
    bank = {
        f"class {i}": tuple(" ".join(draw.choices(WORDS, k=draw.randint(8, 20))) for _ in range(arguments.sentences))
        for i in range(arguments.classes)
    }
    backbone = msta.load_backbone(arguments.backbone)
    with tempfile.TemporaryDirectory() as folder:
        seconds, results = [], []
        for _ in range(2):
            start = time.perf_counter()
            results.append(anchors(backbone, bank, list(bank), cache=Path(folder)))
            seconds.append(time.perf_counter() - start)
        megabytes = sum(file.stat().st_size for file in Path(folder).iterdir()) / 1e6
    assert torch.equal(*results)
    print(
        f"{arguments.classes} classes x {arguments.sentences} sentences on {arguments.backbone}: {seconds[0]:.0f} s "
        f"with {torch.get_num_threads()} threads, then {seconds[1]:.1f} s from {megabytes:.0f} MB on disk"
    )


if __name__ == "__main__":
    main()
