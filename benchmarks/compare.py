"""Methods side by side with the embedded backbone, on real and synthetic clips: results/compare.json, .md, two plots.

    python benchmarks/compare.py --clips FOLDER [--out runs/compare] [--trials 3] [--methods a,b,c] [--cases few-shot]

FOLDER holds egogestar/ and ut_interaction/, class folders of videos; the demo's data set is drawn here. It is `msta
compare`, few-shot and base-to-novel, five clips per class, three seeds. MSTA is what the preset small has and reads
descriptions: MotionWorld's own of its motions, and of the other classes descriptions.json, which a language model
wrote knowing the names alone. The consistency term is a part of MSTA and of none of the others. OUT keeps the runs;
given again, it goes on where it was stopped. Some hours on two cores; --only DATASET computes one data set's share, so
that several processes can work side by side before the last call, without --only, puts the tables together. Methods
and cases may be added from call to call.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from msta.demo import BASE, CLIPS_PER_CLASS, NOVEL
from msta.descriptions.bank import Described, DescriptionBank
from msta.files import new_directory, write_json
from msta.motionworld import class_name, descriptions, write_dataset
from msta.studies.comparison import CASES, Comparison, compare, prepare
from msta.studies.comparison_report import markdown

RESULTS = Path(__file__).parent / "results"
PLOTS = Path(__file__).parent.parent / "docs"
METHODS = (
    "linear-probe", "tip-adapter", "full", "bitfit", "lora", "prompts", "adaptformer", "st-adapter", "aim", "mma",
    "msta",
)  # fmt: skip
EPOCHS, SHOTS, SEEDS = 12, 5, (0, 1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/compare"))
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--trials", type=int, default=3)
    parser.add_argument("--only", help="one data set")
    arguments = parser.parse_args()
    clips, out = arguments.clips.absolute(), arguments.out.absolute()
    drawn = out / "clips" / "synthetic"
    if arguments.only in (None, "synthetic") and not drawn.exists():
        with new_directory(drawn) as folder:
            write_dataset(folder / "clips", sorted(BASE + NOVEL), CLIPS_PER_CLASS, seed=0)
    bank = DescriptionBank.load(Path(__file__).parent / "descriptions.json")
    for motion in sorted(BASE + NOVEL):
        bank = bank.put(class_name(motion), Described(*descriptions(motion), model="template"))
    out.mkdir(parents=True, exist_ok=True)
    bank.save(out / "descriptions.json")
    sentences = f"descriptions.bank={out / 'descriptions.json'}"
    own = {"msta": sentences, "tip-adapter": "method.views=5"}
    data = {
        "egogestar": clips / "egogestar", "ut_interaction": clips / "ut_interaction", "synthetic": drawn / "clips",
    }  # fmt: skip
    methods = tuple(arguments.methods.split(","))
    settings = (
        f"train.epochs={EPOCHS}", "train.eval_every=4", f"cache.views={EPOCHS}", f"cache.path={out / 'cache'}",
        "cache.max_gb=30", "data.timeout=3600",
    )  # fmt: skip
    asked = Comparison(
        data=tuple(f"{name}={path}" for name, path in data.items()),
        methods=methods, cases=tuple(arguments.cases.split(",")),
        shots=SHOTS, seeds=SEEDS, second=(f"ut_interaction={data['ut_interaction']}",),
        trials=arguments.trials, preset="small", overrides=settings,
        own=tuple((method, (setting,)) for method, setting in own.items() if method in methods),
    )  # fmt: skip
    if arguments.only:
        one = f"{arguments.only}={data[arguments.only]}"
        prepare(replace(asked, data=(one,)), out / "compared", Console())
        return
    content = compare(asked, out / "compared", Console())
    text = markdown(content)
    for name in ("asked", "settings"):
        content[name] = _portable(content[name], {str(clips): "CLIPS", str(out): "OUT"})
    write_json(RESULTS / "compare.json", content)
    (RESULTS / "compare.md").write_text(text)
    for case in asked.cases:
        shutil.copy(out / "compared" / f"front-{case}-share.png", PLOTS / f"compare-{case}.png")
    print(text)


def _portable(value: object, names: dict[str, str]) -> object:
    """Without the folders of this machine."""
    if isinstance(value, dict):
        return {key: _portable(each, names) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(each, names) for each in value]
    if isinstance(value, str):
        for folder, name in names.items():
            value = value.replace(folder, name)
    return value


if __name__ == "__main__":
    main()
