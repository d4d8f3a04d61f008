"""From nothing to a prediction: write a few clips, train an MSTA adapter on them, use it.

The backbone here is small and RANDOM, since no pretrained one comes with the package yet: this shows the machinery, on
real video files, and its accuracy means nothing. Give --backbone a pretrained ViCLIP or CLIP to see the method work.

    python examples/first_run.py [--backbone ViClip-InternVid-10M-FLT.pth]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import av
import numpy as np

import msta
from msta.backbone.architecture import Architecture
from msta.backbone.blocks import TowerShape
from msta.files import refuse_existing

STEPS = {"move_left": (-1, 0), "move_right": (1, 0), "move_up": (0, -1), "move_down": (0, 1)}


def write_clip(path: Path, step: tuple[int, int], seed: int) -> None:
    """A square of random colour that moves one way for a second over a random plain background."""
    random = np.random.default_rng(seed)
    ground, colour = random.integers(0, 256, (2, 3))
    start = np.array([80, 64]) + random.integers(-16, 17, 2) - 36 * np.array(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for t in range(24):
            frame = np.broadcast_to(ground, (128, 160, 3)).astype(np.uint8)
            x, y = start + 3 * t * np.array(step)
            frame[max(0, y - 12) : max(0, y + 12), max(0, x - 12) : max(0, x + 12)] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def run(*command: str) -> None:
    """Show a command and run it."""
    print("\n$ msta", *command, flush=True)
    subprocess.run([sys.executable, "-m", "msta", *command], check=True)


def main() -> None:
    """Write, train, predict, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="a checkpoint; default: a small random one")
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    try:
        refuse_existing(arguments.out)
    except msta.errors.MSTAError as error:
        sys.exit(f"first_run: {error}")
    clips, backbone, result = (arguments.out / name for name in ("clips", "backbone", "run"))

    print(f"Writing 4 classes x 8 clips to {clips}: a square that moves left, right, up or down.")
    for label, (name, step) in enumerate(STEPS.items()):
        for i in range(8):
            write_clip(clips / name / f"{name}_{i}.mp4", step, seed=100 * label + i)
    if arguments.backbone is None:
        shape = TowerShape(width=128, layers=6, heads=2, mlp_width=512)
        msta.random_backbone(Architecture("joint", 64, 16, 8, 64, shape, shape, context_length=32)).save(backbone)
    run("train", "--data", str(clips), "--backbone", arguments.backbone or str(backbone), "--shots", "4",
        "--out", str(result), "train.epochs=10")  # fmt: skip
    run("predict", *map(str, sorted(clips.glob("*/*_7.mp4"))), "--adapter", str(result / "adapter"))
    run("info", str(result / "adapter"))
    if arguments.backbone is None:
        print("\nThe backbone was random: these figures are chance. Now with your own clips and a pretrained one:")
    print("\n    msta train --data YOUR_CLIPS --backbone ViClip-InternVid-10M-FLT.pth --shots 8 --out runs/first")


if __name__ == "__main__":
    main()
