"""What a catalog of a million clips takes to read, to index, to split and to start training on: seconds and memory.

    python benchmarks/large_catalog.py [--clips 1000000] [--per-file 100]

Writes a CSV whose clips are time ranges, ``--per-file`` to each name of a video; the names are links to one real file.
Each stage runs in a process of its own; its memory is the peak over what the process held before the stage, with all
its imports done. "train" is the whole way from the catalog to the first optimizer step of a tiny backbone, and "resume"
the same from the saved state. Writes results/large_catalog.json and results/large_catalog.md.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from measuring import write_video

RESULTS = Path(__file__).parent / "results"
CLASSES = 400
STAGES = ("read", "index", "read index", "split", "read split", "shards' catalog", "train", "resume")


def make(folder: Path, clips: int, per_file: int) -> None:
    """A ten-second video, links to it, and the CSV."""
    from msta.backbone.architecture import Architecture
    from msta.backbone.blocks import TowerShape
    from msta.backbone.dual_encoder import random_backbone

    shape = TowerShape(48, 3, 3, 96)
    random_backbone(
        Architecture(
            attention="joint",
            image_size=32,
            patch_size=16,
            frames=4,
            embed_dim=24,
            video=shape,
            text=TowerShape(32, 3, 2, 64),
            context_length=16,
        )
    ).save(folder / "backbone")
    pictures = (np.full((64, 64, 3), i, np.uint8) for i in range(250))
    write_video(folder / "video.mp4", pictures, preset="ultrafast", g="12")
    (folder / "videos").mkdir()
    classes = min(CLASSES, clips // per_file // 25)  # a class has 25 videos, of which two validate and two test
    with (folder / "clips.csv").open("w") as csv:
        csv.write("path,label,start,end\n")
        for file in range(-(-clips // per_file)):
            link = folder / "videos" / f"a_name_as_long_as_those_of_kinetics_{file:07d}.mp4"
            link.symlink_to(folder / "video.mp4")
            for part in range(min(per_file, clips - file * per_file)):
                start = 9 * part / per_file
                csv.write(f"videos/{link.name},class {file % classes},{start:.6f},{start + 9 / per_file:.6f}\n")


def stage(name: str, folder: Path) -> None:
    """One stage, in this process; prints its figures."""
    import pyarrow.parquet  # noqa: F401  no part of a stage
    import torch
    from rich.console import Console

    import msta.training.loop as loop
    from msta.config import make_config
    from msta.data.index import index
    from msta.data.reading import read_catalog
    from msta.data.splits import write_split
    from msta.errors import Interrupted

    torch.set_num_threads(1)
    quiet = Console(quiet=True)

    def split() -> None:
        write_split(read_catalog(folder / "index.parquet"), folder / "split", shots=None, val_fraction=0.08,
                    test_fraction=0.08, seed=0)  # fmt: skip

    def train(resume: bool = False) -> None:
        factor, begun = loop.lr_factor, []

        def first(*arguments: Any) -> float:
            begun.append(arguments)
            if len(begun) == 2:  # one step is taken, the next one is not
                signal.raise_signal(signal.SIGTERM)
            return factor(*arguments)

        loop.lr_factor = first  # type: ignore[assignment]
        settings = {"data.path": str(folder / "split" / "split.csv"), "backbone": str(folder / "backbone")}
        config = make_config("small", settings, ["train.epochs=1", "data.workers=1"])
        try:
            loop.train(config, folder / "run", quiet, resume=resume)
        except Interrupted as stopped:
            if f"step {2 if resume else 1} of" not in str(stopped):
                raise

    work: dict[str, Callable[[], Any]] = {
        "read": lambda: read_catalog(folder / "clips.csv"),
        "index": lambda: index(read_catalog(folder / "clips.csv"), folder / "index.parquet"),
        "read index": lambda: read_catalog(folder / "index.parquet"),
        "split": split,
        "read split": lambda: read_catalog(folder / "split" / "split.csv"),
        "shards' catalog": lambda: read_catalog(folder / "shards"),
        "train": train,
        "resume": lambda: train(True),
    }
    before, begun = psutil.Process().memory_info().rss, time.perf_counter()
    peak = _Peak()
    work[name]()
    seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "mib": (peak.stop() - before) / 2**20, "before": before / 2**20}))


class _Peak:
    """The largest sum of this process's memory and its children's private memory."""

    def __init__(self) -> None:
        self.largest, self.over = 0, threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)
        self.thread.start()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self.over.wait(0.05):
            held = me.memory_info().rss
            for child in me.children(recursive=True):
                try:
                    held += child.memory_full_info().uss
                except psutil.Error:
                    continue
            self.largest = max(self.largest, held)

    def stop(self) -> int:
        self.over.set()
        self.thread.join()
        return self.largest


def make_shards_catalog(folder: Path, clips: int) -> None:
    """Only the index and the table of shards, of a thousand clips each: what reading their catalog takes."""
    from msta.data.shards.write import Target, write_index

    target = Target(folder / "shards")
    shards = []
    for number in range(-(-clips // 1000)):
        rows = [
            [f"{i:09d}.mp4", 512 + 4096 * (i % 1000), 3000, f"{i:016x}", i % CLASSES, None, None, None,
             f"/videos/a_name_as_long_as_those_of_kinetics_{i:07d}.mp4", None, None]
            for i in range(1000 * number, min(1000 * number + 1000, clips))
        ]  # fmt: skip
        shards.append(
            {"file": f"clips-{number:06d}.tar", "clips": len(rows), "bytes": 4096000, "sha256": "0" * 64, "rows": rows,
             "left_out": []}
        )  # fmt: skip
    (folder / "shards" / shards[0]["file"]).write_bytes(b"\0" * 512)
    write_index(target, [f"class {i}" for i in range(CLASSES)], {}, shards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--per-file", type=int, default=100)
    parser.add_argument("--stage", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help="do not write results")
    arguments = parser.parse_args()
    if arguments.stage:
        stage(arguments.stage[0], Path(arguments.stage[1]))
        return
    measured: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.clips, arguments.per_file)
        make_shards_catalog(folder, arguments.clips)
        for each in STAGES:
            command = [sys.executable, __file__, "--stage", each, name]
            done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
            if done.returncode:
                sys.exit(f"{each}: {done.stderr}")
            measured[each] = json.loads(done.stdout.strip().splitlines()[-1])
            print(each, measured[each], flush=True)
    lines = [f"| of {arguments.clips:,} clips | seconds | MiB over the imports |", "|---|---|---|"]
    lines += [f"| {each} | {found['seconds']:.1f} | {found['mib']:.0f} |" for each, found in measured.items()]
    print("\n".join(lines))
    if not arguments.keep:
        settings = {"clips": arguments.clips, "per_file": arguments.per_file}
        (RESULTS / "large_catalog.json").write_text(
            json.dumps({"settings": settings, "stages": measured}, indent=2) + "\n"
        )
        (RESULTS / "large_catalog.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
