"""From nothing to a prediction: draw a few clips, train an MSTA adapter on them, use it.

The backbone here is small and RANDOM, since no pretrained one comes with the package yet: this shows the machinery, on
real video files, and its accuracy means nothing. Give --backbone a pretrained ViCLIP or CLIP to see the method work.

    python examples/first_run.py [--backbone ViClip-InternVid-10M-FLT.pth] [--out demo-output]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import msta
from msta.backbone.architecture import Architecture
from msta.backbone.blocks import TowerShape
from msta.files import refuse_existing


def run(*command: str) -> None:
    """Show a command and run it."""
    print("\n$ msta", *(f'"{word}"' if " " in word else word for word in command), flush=True)
    subprocess.run([sys.executable, "-m", "msta", *command], check=True)


def main() -> None:
    """Draw, train, predict, describe."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", help="a checkpoint; default: a small random one")
    parser.add_argument("--out", type=Path, default=Path("demo-output"))
    arguments = parser.parse_args()
    try:
        refuse_existing(arguments.out)
    except msta.errors.MSTAError as error:
        sys.exit(f"first_run: {error}")
    clips, random, result = (str(arguments.out / name) for name in ("clips", "backbone", "run"))

    run("data", "motionworld", "--out", clips, "--motions", "swipe left,swipe right,circle,grow", "--clips", "12")
    if arguments.backbone is None:
        shape = TowerShape(width=128, layers=6, heads=2, mlp_width=512)
        msta.random_backbone(Architecture("joint", 64, 16, 8, 64, shape, shape, context_length=32)).save(random)
    descriptions = [f"descriptions.{kind}={clips}/descriptions_{kind[0]}.json" for kind in ("spatial", "temporal")]
    run("train", "--data", clips, "--backbone", arguments.backbone or random, "--shots", "6", "--out", result,
        "train.epochs=10", *descriptions)  # fmt: skip
    run("predict", *(str(path) for path in sorted(Path(clips).glob("*/*_000.mp4"))), "--adapter", f"{result}/adapter")
    run("info", f"{result}/adapter")
    if arguments.backbone is None:
        print("\nThe backbone was random: these figures are chance. Now with your own clips and a pretrained one:")
    else:
        print("\nNow with your own clips, a folder with a sub-folder a class:")
    print("\n    msta train --data YOUR_CLIPS --backbone ViClip-InternVid-10M-FLT.pth --shots 8 --out runs/first")


if __name__ == "__main__":
    main()
