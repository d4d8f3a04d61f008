"""The measured figures of the docs again, one step after the other, and the tables in the docs (``make evidence``).

    python benchmarks/evidence.py [--clips FOLDER] [--list] [--only STEP ...]

Each step writes its files to results/. A step that was finished with the same source code, weights and benchmarks is
not done again, so a call that was stopped goes on where it was; the longest steps go on in their middle, too. (Those
look at weights, clips and settings: after a change of an adapter's code delete claims.json and toy.json.) Accuracy
needs time, speed needs a machine that does nothing else. FOLDER holds the real clips, egogestar/ and ut_interaction/,
class folders of videos; without it the steps that need them are left out, and named. Not among the steps are
against.py, which needs another checkout, export.py, which needs an adapter, gpu.py, which needs a GPU, tests/chaos.py,
an hour of kills, methods.py, which counts and does not measure, and anchors.py and few_clips.py, whose figures no page
shows.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from msta.files import read_json, write_json

HERE = Path(__file__).parent
SOURCE = HERE.parent / "src" / "msta"
DONE = HERE.parent / "runs" / "evidence.json"


@dataclass(frozen=True)
class Step:
    """One command. ``minutes`` are those of two cores; ``needs`` is "clips", "idle cores" or nothing."""

    name: str
    command: str
    minutes: int
    needs: str = ""


STEPS = (
    Step("claims", "claims.py run --plot docs/claims.png", 200),
    Step("presets", "presets.py run", 120),
    Step("checkpoints", "presets.py checkpoints", 15),
    Step("toy", "toy.py --parts synthetic demo", 40),
    Step("toy on real clips", "toy.py --clips {clips} --parts real", 40, "clips"),
    Step("protocols", "protocols.py --clips {clips}", 60, "clips"),
    Step("compare", "compare.py --clips {clips}", 240, "clips"),
    Step("explain", "explain.py --clips {clips}/egogestar", 5, "clips"),
    Step("attention", "attention.py", 3, "idle cores"),
    Step("step", "step.py", 10, "idle cores"),
    Step("peers", "peers.py", 5, "idle cores"),
    Step("loader", "loader.py", 5, "idle cores"),
    Step("cache", "cache.py --clips {clips}/egogestar", 30, "clips"),
    Step("timeline", "timeline.py", 10, "idle cores"),
    Step("scaling", "scaling.py", 10, "idle cores"),
    Step("service", "service.py", 10, "idle cores"),
    Step("service, for long", "service_soak.py", 20, "idle cores"),
    Step("a million clips", "large_catalog.py", 5, "idle cores"),
    Step("plan", "plan.py", 1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, help="folder of the real clips")
    parser.add_argument("--list", action="store_true", help="say what there is to do, and do nothing")
    parser.add_argument("--only", nargs="+", metavar="STEP", help="names of steps; default: all")
    arguments = parser.parse_args()
    now, done = fingerprint(), read_json(DONE, ValueError) if DONE.exists() else {}
    chosen = [step for step in STEPS if arguments.only is None or step.name in arguments.only]
    lacking = [step for step in chosen if step.needs == "clips" and arguments.clips is None]
    to_do = [step for step in chosen if step not in lacking and done.get(step.name) != now]
    print(f"{len(to_do)} of {len(STEPS)} steps to do, some {sum(step.minutes for step in to_do)} minutes on two cores:")
    for step in chosen:
        state = "needs --clips" if step in lacking else "to do" if step in to_do else "done"
        print(f"  {step.name:18} {step.minutes:4} min  {step.needs:10}  {state}")
    if arguments.list:
        return
    for step in to_do:
        command = step.command.format(clips=arguments.clips).split()
        print(f"\n{step.name}: python benchmarks/{' '.join(command)}", flush=True)
        subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=True)
        done[step.name] = now
        DONE.parent.mkdir(exist_ok=True)
        write_json(DONE, done)
    fill_in()


def fill_in() -> None:
    """Put the tables of results/ into the pages, between <!-- results/NAME --> (a file, or a section of it) and
    <!-- end -->.
    """
    for page in [HERE.parent / "README.md", *sorted((HERE.parent / "docs").glob("*.md"))]:
        text = page.read_text(encoding="utf-8")
        filled = PLACE.sub(lambda place: f"{place[1]}\n\n{table(place[2])}\n\n{place[4]}", text)
        page.write_text(filled, encoding="utf-8")


PLACE = re.compile(r"(<!-- results/(\S+\.md(?:#[^>]+)?) -->)\n(.*?)\n?(<!-- end -->)", re.DOTALL)


def table(name: str) -> str:
    """A file of results/, or what stands in it under a heading, as ``file.md#Heading``."""
    file, _, heading = name.partition("#")
    if not (HERE / "results" / file).exists():
        return "(Not measured yet with these weights.)"
    text = (HERE / "results" / file).read_text(encoding="utf-8")
    if heading:
        text = f"\n{text}".split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return text.strip()


def fingerprint() -> str:
    """Of the source code, the weights and the benchmarks, which the figures are of."""
    digest = hashlib.sha256()
    files = [*SOURCE.rglob("*"), *HERE.glob("*.py")]
    for file in sorted(p for p in files if p.is_file() and "__pycache__" not in p.parts):
        digest.update(str(file.relative_to(HERE.parent)).encode() + file.read_bytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main()
