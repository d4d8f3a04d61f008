"""What the service's benchmarks share: adapters, clips, servers, and a load generator."""

from __future__ import annotations

import asyncio
import os
import random
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import psutil
import torch
from measuring import write_video

import msta
from msta.adapters.task import Task
from msta.backbone.architecture import Architecture
from msta.backbone.blocks import TowerShape

CLASSES = ("push", "hug", "walk", "run", "sit down", "stand up", "wave", "point", "kick", "swipe left")


SMALL = Architecture("joint", 64, 16, 8, 64, TowerShape(128, 4, 2, 512), TowerShape(64, 4, 2, 256), context_length=16)
"""A backbone that costs a few milliseconds per clip, about as much as all the rest of a request."""


def write_adapters(folder: Path, count: int, backbone: msta.DualEncoder) -> list[str]:
    """Adapters that all answer differently; nobody trained them."""
    for i in range(count):
        torch.manual_seed(i)
        model = msta.attach(backbone, "msta")
        with torch.no_grad():
            for parameter in model.trainable_parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        model.task = Task(CLASSES)
        model.save(folder / f"a{i:02d}")
    return [f"a{i:02d}" for i in range(count)]


def write_clips(folder: Path, count: int) -> list[Path]:
    """Two seconds of 160x120 H.264 each: squares that drift over noise."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        rng = np.random.default_rng(i)
        paths.append(folder / f"{i}.mp4")
        ground = rng.integers(0, 120, (120, 160, 3), np.uint8)
        pictures = np.stack([ground] * 30)
        for t, picture in enumerate(pictures):
            at = (3 * t * (i + 1)) % 130
            picture[40:70, at : at + 30] = 220
        write_video(paths[-1], pictures, fps=15, preset="veryfast")
    return paths


class Server:
    """``msta serve`` in a process of its own, with as many threads as it takes by itself."""

    def __init__(self, adapters: Path, *options: str) -> None:
        command = [sys.executable, "-m", "msta", "serve", "--adapters", str(adapters), "--port", "0", *options]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r":(\d+) ", line)
        if found is None:
            raise RuntimeError(f"the server says: {line}")
        self.url = f"http://127.0.0.1:{found[1]}"
        urllib.request.urlopen(f"{self.url}/readyz", timeout=120).read()

    def bytes(self) -> int:
        """Its memory and its workers', shared pages counted in parts."""
        parent = psutil.Process(self.process.pid)
        return sum(p.memory_full_info().pss for p in (parent, *parent.children(recursive=True)))

    def stop(self) -> int:
        """Drain; the exit code."""
        self.process.terminate()
        return self.process.wait(120)


@contextmanager
def server(adapters: Path, *options: str) -> Iterator[Server]:
    """A server for the time of a block."""
    running = Server(adapters, *options)
    try:
        yield running
    finally:
        running.stop()


async def load(
    clients: int, seconds: float, url_of: Callable[[str], str], adapters: list[str], clips: list[bytes]
) -> dict[str, float]:
    """``clients`` that ask one question after the other, each of a random adapter about a random clip.

    Returns:
        "requests", "per second", "p50", "p95" and "p99" (milliseconds), and "refused", "wrong".
    """
    times: list[float] = []
    bad = {"refused": 0, "wrong": 0}
    until = time.perf_counter() + seconds

    async def one(number: int, session: httpx.AsyncClient) -> None:
        draw = random.Random(number)
        while (begun := time.perf_counter()) < until:
            adapter, clip = draw.choice(adapters), draw.choice(clips)
            answer = await session.post(
                url_of(adapter) + "/v1/classify", files={"file": ("x.mp4", clip)}, data={"adapter": adapter}
            )
            times.append(time.perf_counter() - begun)
            bad["refused"] += answer.status_code != 200
            bad["wrong"] += answer.status_code == 200 and answer.json()["adapter"] != adapter

    begun = time.perf_counter()
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits) as session:
        await asyncio.gather(*(one(i, session) for i in range(clients)))
    spent = time.perf_counter() - begun
    cuts = [1000 * c for c in statistics.quantiles(times, n=100, method="inclusive")] if len(times) > 1 else [0.0] * 99
    rates = {
        "requests": len(times),
        "per second": len(times) / spent,
        "p50": cuts[49],
        "p95": cuts[94],
        "p99": cuts[98],
    }
    return {**{name: round(value, 2) for name, value in rates.items()}, **bad}
