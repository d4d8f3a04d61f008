"""Ten thousand requests while adapters load and evict and one upload in fifty is hostile: is any answer wrong or lost?

    python benchmarks/service_soak.py [--requests 10000] [--clients 16] [--backbone small]

Every answer is compared with what the adapter says alone, in this process. Twice as many adapters are asked for as the
service may keep; some are unloaded on purpose. The backbone is a small one with random weights (or "toy", the built-in
one): what is tested is the service, and the less a clip costs, the more happens at a time. Writes
results/service_soak.json; exit code 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import torch
from serving import SMALL, server, write_adapters, write_clips

import msta
from msta.data.clips import ONE_VIEW, read_views
from msta.inference.predictor import Predictor

RESULTS = Path(__file__).parent / "results"
ADAPTERS, KEPT = 16, 8


def expected(
    backbone: msta.DualEncoder, adapters: Path, names: list[str], clips: list[Path]
) -> tuple[dict[tuple[str, int], dict[str, float]], int]:
    """What each adapter says of each clip, alone; and the megabytes of as many as shall be kept."""
    answers, size = {}, 0
    for name in names:
        member = Predictor(msta.load_adapter(adapters / name, backbone))
        size = member.own_bytes(backbone)
        for i, clip in enumerate(clips):
            with torch.no_grad():
                views = read_views(str(clip), member.format, ONE_VIEW)
                found = member.probabilities(member.model.encode_video(views))[0].tolist()
            answers[name, i] = dict(zip(member.classes, found, strict=True))
    return answers, max(1, KEPT * size // 2**20)


def hostile(draw: random.Random, clips: list[bytes]) -> bytes:
    """Something that must not be answered."""
    whole = draw.choice(clips)
    return draw.choice(
        (
            b"",
            draw.randbytes(20_000),
            whole[: len(whole) // 3],
            b"PK\x03\x04" + bytes(10_000),
            gzip.compress(bytes(10**6)),
            b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n#EXT-X-ENDLIST\n",
            b"ffconcat version 1.0\nfile '/etc/passwd'\n",
            whole[:8] + draw.randbytes(len(whole) - 8),
        )
    )


async def soak(url: str, requests: int, clients: int, names: list[str], clips: list[bytes], right: Any) -> Counter[str]:
    """Counts of what came back."""
    counts: Counter[str] = Counter()
    left = iter(range(requests))

    async def one(number: int, session: httpx.AsyncClient) -> None:
        draw = random.Random(number)
        for i in left:
            if i % 200 == 199:
                await session.post(f"{url}/v1/adapters/{draw.choice(names)}/unload")
            name, clip = draw.choice(names), draw.randrange(len(clips))
            bad = i % 50 == 49
            content = hostile(draw, clips) if bad else clips[clip]
            try:
                answer = await session.post(
                    f"{url}/v1/classify", files={"file": ("x.mp4", content)}, data={"adapter": name, "top": "99"}
                )
            except httpx.HTTPError as error:
                counts[f"lost: {type(error).__name__}"] += 1
                continue
            if bad:
                counts["hostile, refused" if answer.status_code in (413, 415, 422) else "hostile, answered"] += 1
            elif answer.status_code != 200:
                counts[f"lost: {answer.status_code} {answer.text[:80]}"] += 1
            else:
                found = {p["label"]: p["probability"] for p in answer.json()["predictions"]}
                wanted = right[name, clip]
                same = found.keys() == wanted.keys() and all(abs(found[k] - wanted[k]) < 1e-4 for k in wanted)
                counts["right" if same else "wrong"] += 1

    async with httpx.AsyncClient(timeout=300) as session:
        await asyncio.gather(*(one(i, session) for i in range(clients)))
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--backbone", choices=["small", "toy"], default="small")
    arguments = parser.parse_args()
    backbone = msta.load_backbone("toy") if arguments.backbone == "toy" else msta.random_backbone(SMALL)
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        backbone.save(where / "backbone")
        names = write_adapters(where / "adapters", ADAPTERS, backbone)
        paths = write_clips(where / "clips", 8)
        right, megabytes = expected(backbone, where / "adapters", names, paths)
        options = ("--backbone", str(where / "backbone"), "--adapter-mb", str(megabytes), "--workers", "3")
        begun = time.perf_counter()
        with server(where / "adapters", *options) as one:
            clips = [path.read_bytes() for path in paths]
            counts = asyncio.run(soak(one.url, arguments.requests, arguments.clients, names, clips, right))
            metrics = httpx.get(f"{one.url}/metrics").text
        seconds = time.perf_counter() - begun
    said = [line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#")]
    kept = ("msta_adapters_evicted", "msta_workers_replaced_total", "msta_adapters_loaded", "msta_batch_clips")
    result = {
        "settings": vars(arguments),
        "seconds": round(seconds, 1),
        "counts": dict(counts),
        "service": {name: float(value) for name, value in said if name.startswith(kept)},
    }
    (RESULTS / "service_soak.json").write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))
    return int(any(name.startswith(("wrong", "lost", "hostile, answered")) for name in counts))


if __name__ == "__main__":
    sys.exit(main())
