"""All four protocols with the embedded backbone on real clips it never saw: figures to results/protocols.json and .md.

    python benchmarks/protocols.py --clips FOLDER [--out runs/protocols] [--epochs 20] [--seeds 0,1,2] [--shots 2,4,8]

FOLDER holds egogestar/ and ut_interaction/, class folders of videos. OUT keeps runs, predictions and a report a
protocol; given again, it goes on where it was stopped. Under an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from msta.files import write_json
from msta.studies.protocol_report import command, details_table, main_table, write_report
from msta.studies.protocols import Request
from msta.studies.running import run_protocol

RESULTS = Path(__file__).parent / "results"
SETS = ("egogestar", "ut_interaction")


def requests(clips: Path, out: Path, epochs: int, seeds: tuple[int, ...], shots: tuple[int, ...]) -> dict[str, Request]:
    """What is asked for, by name. The prefix cache, shared by all, is an approximation that the reports name."""
    first, second = (str(clips / name) for name in SETS)
    settings = (
        f"train.epochs={epochs}", "train.eval_every=2", "train.watch_test=true", "cache.views=5",
        f"cache.path={out / 'cache'}",
    )  # fmt: skip
    usual: dict[str, Any] = {"seeds": seeds, "overrides": settings}
    return {
        "few-shot": Request("few-shot", data=(first, second), shots=shots, **usual),
        "base-to-novel": Request("base-to-novel", data=(first,), shots=(5,), **usual),
        "supervised": Request(
            "supervised", data=(first, second), seeds=seeds, overrides=(*settings, "eval.clips=2", "eval.crops=1")
        ),
        "zero-shot": Request("zero-shot", source=(first,), target=(second,), **usual),
        "zero-shot-back": Request("zero-shot", source=(second,), target=(first,), **usual),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/protocols"))
    parser.add_argument("--results", type=Path, default=RESULTS, help="where protocols.json and protocols.md go")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shots", default="2,4,8")
    arguments = parser.parse_args()
    seeds, shots = (tuple(map(int, text.split(","))) for text in (arguments.seeds, arguments.shots))
    start = time.perf_counter()
    content: dict[str, Any] = {}
    text = [
        "# The four protocols on real clips, with the embedded backbone\n\n"
        "Written by `python benchmarks/protocols.py --clips FOLDER` (see there). Top-1 in percent, mean of the seeds;\n"
        "the interval (95 %, bootstrap over clips) is of that mean. Each seed divides the clips anew. Lines with\n"
        "test-leak choose the epoch by the test clips, as the authors did; nothing else does. The prefix cache of\n"
        "five views of every clip is an approximation.\n"
    ]
    clips = arguments.clips.absolute()
    for name, request in requests(clips, arguments.out.absolute(), arguments.epochs, seeds, shots).items():
        run_protocol(request, arguments.out / name, Console())
        write_report(arguments.out / name)
        results = json.loads((arguments.out / name / "results.json").read_text())
        seconds = results.pop("cost")["seconds"]
        results.pop("asked")
        asked = command(vars(request)).replace(str(clips), "CLIPS").replace(str(arguments.out.absolute()), "OUT")
        content[name] = {"command": asked, "minutes": round(seconds / 60, 1), **results}
        text += [
            f"\n## {name}\n\n    {asked}\n\n{content[name]['minutes']} minutes.\n\n",
            main_table(results["rows"]).markdown(), "\n", details_table(results["rows"], seconds=False).markdown(),
        ]  # fmt: skip
        print(f"{name}: {(time.perf_counter() - start) / 60:.1f} minutes so far", flush=True)
    write_json(arguments.results / "protocols.json", content)
    (arguments.results / "protocols.md").write_text("".join(text))
    print("".join(text))


if __name__ == "__main__":
    main()
