"""What each method trains, and how many blocks it leaves as a frozen prefix. Prints docs/methods.md's table of counts.

python benchmarks/methods.py --architecture clip-b16 --classes 51 --shots 16
"""

from __future__ import annotations

import argparse

import msta
from msta.backbone.prefix import prefix_length
from msta.methods import METHODS, method_config

VARIANTS = [
    *((name, {}) for name in METHODS if name != "prompts"),
    *(("prompts", {"kind": kind}) for kind in ("coop", "vpt", "ivlp", "maple")),
    ("tip-adapter", {"trained": True}),
    ("st-adapter", {"kernel": (3, 3, 3)}),
    ("st-adapter", {"before": "both"}),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", default="clip-b16")
    parser.add_argument("--classes", type=int, default=51)
    parser.add_argument("--shots", type=int, default=16)
    asked = parser.parse_args()
    backbone = msta.random_backbone(asked.architecture)
    total = sum(p.numel() for p in backbone.parameters())
    print(f"{asked.architecture}, {total:,} parameters; {asked.classes} classes of {asked.shots} clips\n")
    print("| method | trains | share | frozen blocks, video | text |\n|---|---|---|---|---|")
    for name, settings in sorted(VARIANTS, key=lambda variant: variant[0]):
        model = msta.attach(backbone, method_config(name, **settings))
        model.prepare(asked.classes, asked.classes * asked.shots)
        prefixes = [prefix_length(tower) for tower in (model.backbone.video, model.backbone.text)]
        label = " ".join([name, *(f"{k}={v}" for k, v in settings.items())])
        below = " | ".join("none" if p is None else str(p) for p in prefixes)
        print(f"| {label} | {model.num_trainable():,} | {100 * model.num_trainable() / total:.3f} % | {below} |")


if __name__ == "__main__":
    main()
