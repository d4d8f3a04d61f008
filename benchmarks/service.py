"""Throughput and latency of ``msta serve``, and what sharing a backbone among adapters is worth.

    python benchmarks/service.py [--seconds 6] [--only clients|eight]

First a table: 1, 8 and 64 clients, 1, 8 and 32 adapters, one service. Then one mixed stream for 8 adapters, answered
  shared    by one service
  apart     by one process per adapter, all eight alive, however much memory they take
  within    by as many such processes as fit into the memory of the one service; the one that has not been asked for
            longest is ended when another adapter is asked for
Everything on this machine: the clients take their part of the processors. Writes results/service.json and service.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import tempfile
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

import httpx
from serving import Server, load, server, write_adapters, write_clips

import msta

RESULTS = Path(__file__).parent / "results"
CLIENTS, ADAPTERS = (1, 8, 64), (1, 8, 32)


def apart(adapters: Path, names: list[str], where: Path) -> dict[str, Server]:
    """A server for each adapter, that has no other."""
    made = {}
    for name in names:
        if not (where / name).exists():
            shutil.copytree(adapters / name, where / name / name)
        made[name] = Server(where / name, "--workers", "1")
    return made


def within(
    adapters: Path, names: list[str], where: Path, alive: int, seconds: float, clips: list[bytes]
) -> dict[str, Any]:
    """A mixed stream for more adapters than may have a process: one client, since the processes come and go."""
    running: OrderedDict[str, Server] = OrderedDict()
    draw, done, starts, begun = random.Random(0), 0, 0, time.perf_counter()
    try:
        while time.perf_counter() - begun < seconds:
            name = draw.choice(names)
            if name not in running:
                if len(running) >= alive:
                    running.popitem(last=False)[1].stop()
                running |= apart(adapters, [name], where)
                starts += 1
            running.move_to_end(name)
            files = {"file": ("x.mp4", draw.choice(clips))}
            httpx.post(
                running[name].url + "/v1/classify", files=files, data={"adapter": name}, timeout=120
            ).raise_for_status()
            done += 1
        return {"requests": done, "per second": round(done / (time.perf_counter() - begun), 3), "starts": starts}
    finally:
        for one in running.values():
            one.stop()


def of_clients(adapters: Path, names: list[str], seconds: float, clips: list[bytes]) -> list[dict[str, Any]]:
    """Throughput and latency of one service, by clients and adapters."""
    rows = []
    with server(adapters) as one:
        for count in ADAPTERS:
            asyncio.run(load(8, 2, lambda name: one.url, names[:count], clips))  # load them
            for clients in CLIENTS:
                found = asyncio.run(load(clients, seconds, lambda name: one.url, names[:count], clips))
                rows.append({"clients": clients, "adapters": count, **found})
                print(rows[-1], flush=True)
    return rows


def of_eight(where: Path, names: list[str], seconds: float, clips: list[bytes]) -> dict[str, Any]:
    """One mixed stream for eight adapters, answered in three ways."""
    adapters, eight = where / "adapters", names[:8]
    with server(adapters) as one:
        asyncio.run(load(8, 2, lambda name: one.url, eight, clips))
        shared = asyncio.run(load(16, seconds, lambda name: one.url, eight, clips))
        shared["MB"] = round(one.bytes() / 1e6)
    print("shared", shared, flush=True)
    all_ = apart(adapters, eight, where / "apart")
    try:
        asyncio.run(load(8, 2, lambda name: all_[name].url, eight, clips))
        separate = asyncio.run(load(16, seconds, lambda name: all_[name].url, eight, clips))
        separate["MB"] = round(sum(s.bytes() for s in all_.values()) / 1e6)
    finally:
        for s in all_.values():
            s.stop()
    print("apart", separate, flush=True)
    alive = max(1, int(8 * shared["MB"] / separate["MB"]))
    swapped = within(adapters, eight, where / "apart", alive, 3 * seconds, clips)
    print("within", swapped, flush=True)
    return {"shared": shared, "apart": separate, "within": {"processes": alive, **swapped}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--seconds", type=float, default=6.0, help="of each measurement; of the mixed stream twice that"
    )
    parser.add_argument("--only", choices=["clients", "eight"])
    arguments = parser.parse_args()
    file = RESULTS / "service.json"
    result: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    result |= {"processors": os.cpu_count(), "seconds": arguments.seconds}
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        names = write_adapters(where / "adapters", max(ADAPTERS), msta.load_backbone("toy"))
        clips = [path.read_bytes() for path in write_clips(where / "clips", 8)]
        if arguments.only != "eight":
            result["table"] = of_clients(where / "adapters", names, arguments.seconds, clips)
        if arguments.only != "clients":
            result["eight adapters"] = of_eight(where, names, 2 * arguments.seconds, clips)
    file.write_text(json.dumps(result, indent=2) + "\n")
    (RESULTS / "service.md").write_text(table(result))
    print(table(result))


def table(result: dict[str, Any]) -> str:
    lines = [
        "## Clients and adapters",
        "",
        "| clients | adapters | requests per second | p50 ms | p95 ms | p99 ms | refused |",
        "|---|---|---|---|---|---|---|",
    ]
    for r in result.get("table", []):
        milliseconds = (f"{r[name]:,.0f}" for name in ("p50", "p95", "p99"))
        cells = (r["clients"], r["adapters"], f"{r['per second']:.1f}", *milliseconds, r["refused"])
        lines.append(f"| {' | '.join(map(str, cells))} |")
    if "eight adapters" not in result:
        return "\n".join(lines) + "\n"
    part = result["eight adapters"]
    base = part["shared"]["per second"]
    lines += [
        "",
        "## Eight adapters",
        "",
        "| eight adapters, one mixed stream | requests per second | of the shared service's | MB |",
        "|---|---|---|---|",
    ]
    for name, label in (("shared", "one service"), ("apart", "one process per adapter, all alive")):
        one = part[name]
        lines.append(f"| {label} | {one['per second']:.1f} | {one['per second'] / base:.2f} | {one['MB']:,} |")
    one = part["within"]
    label = f"in that memory ({one['processes']}), one adapter per process, started as adapters are asked for"
    lines.append(f"| {label} | {one['per second']:.2f} | {one['per second'] / base:.3f} | {part['shared']['MB']:,} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
