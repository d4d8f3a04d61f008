"""Damaged files through ``msta predict`` and the service: an answer or a reason for each, within memory."""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from conftest import tiny
from video_files import write_video

import msta
from msta.adapters.task import Task

SOURCE = Path(msta.__file__).parents[1]
CONTAINERS = ("mp4", "avi", "mkv", "webm", "mov", "gif", "flv", "wmv", "ts")
FEW, MANY = 20, 2000
MB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """bb: a tiny backbone; adapters/a: one of its adapters."""
    where = tmp_path_factory.mktemp("fuzz")
    backbone = msta.random_backbone(tiny())
    backbone.save(where / "bb")
    model = msta.attach(backbone, msta.MSTAConfig(dim=8))
    model.task = Task(("push", "hug", "walk"))
    model.save(where / "adapters" / "a")
    return where


def mutated(content: bytes, draw: random.Random) -> bytes:
    """One of the ways in which files are damaged, or made to do damage."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 20))):
        at, n = draw.randrange(len(data)), draw.choice((1, 2, 4, 8, 64))
        kind = draw.randrange(5)
        if kind == 0:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            data[at : at + n] = draw.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * n
        elif kind == 2:
            data[at : at + n] = draw.randbytes(n)
        elif kind == 3:
            del data[at : at + draw.choice((1, 16, len(data) // 4 or 1))]
        else:
            other = draw.randrange(len(data))
            data[at:at] = data[other : other + n]
        data = data or bytearray(b"x")
    return bytes(data)


def damaged(where: Path, container: str, count: int) -> list[Path]:
    """So many files, each with its own damage."""
    whole = write_video(where / f"whole.{container}", 12, gop=4).read_bytes()
    draw = random.Random(container)
    (where / "damaged").mkdir()
    files = [where / "damaged" / f"{i:04d}.{container}" for i in range(count)]
    for file in files:
        file.write_bytes(mutated(whole, draw))
    return files


# ---------------------------------------------------------------- the service


def through_the_service(folder: Path, files: list[Path]) -> Counter[str]:
    """How many uploads ended how: by status, and "replaced ..." for decoding processes they cost."""
    pytest.importorskip("fastapi", reason="needs the extra serve")
    from fastapi.testclient import TestClient

    from msta.serve.app import create_app
    from msta.serve.limits import Limits

    limits, ends = Limits(decode_seconds=10, decode_bytes=512 * MB), Counter[str]()
    app = create_app(msta.load_backbone(str(folder / "bb")), folder / "adapters", limits=limits, workers=1)
    app.state.service.workers.on_loss = lambda why: ends.update([f"replaced: {why}"])
    with TestClient(app, raise_server_exceptions=False) as client:
        for file in files:
            answer = client.post("/v1/classify", files={"file": ("x", file.read_bytes())}, data={"adapter": "a"})
            ends[str(answer.status_code)] += 1
            if answer.status_code == 200:
                assert len(answer.json()["predictions"]) == 3
            else:
                assert answer.json()["detail"].isprintable(), file
                assert answer.json()["detail"], file
    return ends


@pytest.mark.parametrize("container", CONTAINERS[:4])
def test_the_service_answers_or_refuses_damaged_files(folder, tmp_path, container):
    ends = through_the_service(folder, damaged(tmp_path, container, FEW))
    assert sum(ends[status] for status in ("200", "413", "415", "422")) == FEW, ends


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_the_service_answers_or_refuses_two_thousand(folder, tmp_path, container):
    files = damaged(tmp_path, container, MANY)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    ends = through_the_service(folder, files)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 - before
    print("service", container, dict(sorted(ends.items())), f"{grown} MB more")
    assert sum(ends[status] for status in ("200", "413", "415", "422")) == MANY, ends
    assert grown < 300, "the service's own memory, its decoders apart"


# ---------------------------------------------------------------- predict


def through_predict(folder: Path, files: list[Path]) -> tuple[Counter[str], int]:
    """``msta predict`` of all of them at once: how many were read and how many refused, and its memory in MB."""
    done = subprocess.Popen(
        [sys.executable, "-m", "msta", "predict", str(files[0].parent), "--backbone", str(folder / "bb"),
         "--adapter", str(folder / "adapters" / "a"), "--json"],
        env={**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        text, _ = done.communicate()
    finally:
        done.kill()
    answers = {Path(answer["path"]): answer for answer in json.loads(text)}
    assert answers.keys() == set(files)
    for answer in answers.values():
        assert ("error" in answer) != ("predictions" in answer)
        assert "predictions" in answer or (answer["error"] and answer["error"].isprintable()), answer
    ends = Counter("read" if "predictions" in answer else "refused" for answer in answers.values())
    assert done.returncode == (1 if ends["refused"] else 0)
    return ends, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024


def test_predict_reads_or_refuses_damaged_files(folder, tmp_path):
    files = [f for c in CONTAINERS for f in damaged(_made(tmp_path / c), c, FEW)]
    together = _made(tmp_path / "all")
    files = [file.rename(together / f"{i}{file.suffix}") for i, file in enumerate(files)]
    ends, _ = through_predict(folder, files)
    assert ends["read"] > 10
    assert ends["refused"] > 10


def _made(path: Path) -> Path:
    path.mkdir()
    return path


@pytest.mark.slow
@pytest.mark.parametrize("container", CONTAINERS)
def test_predict_reads_or_refuses_two_thousand(folder, tmp_path, container):
    ends, memory = through_predict(folder, damaged(tmp_path, container, MANY))
    print("predict", container, dict(sorted(ends.items())), f"{memory} MB at most so far")
    assert memory < 2000
