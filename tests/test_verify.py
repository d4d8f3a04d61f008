"""Verification finds every kind of damage, survives what hangs or dies, and never does a file twice."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from pathlib import Path

import psutil
import pytest
from launch import run_msta
from video_files import cut, packet_places, write_video

from msta.data import verify as verification
from msta.data.catalog import Catalog, Clip
from msta.data.decode import decode_all
from msta.data.index import index
from msta.data.reading import read_catalog
from msta.data.verify import in_processes, verify
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import DataError, Interrupted, MSTAError

FAST = dict(workers=2, timeout=60.0)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Two classes: sound files, and one of each kind of damage."""
    root = tmp_path_factory.mktemp("videos")
    for name in ("push", "pull"):
        (root / name).mkdir()
        for i in range(3):
            write_video(root / name / f"{i}.mp4", 20 + i)
    whole = write_video(root / "whole.avi", 100, gop=20)
    cut(whole, root / "push" / "cut.avi", 50)
    data = bytearray(whole.read_bytes())
    for position, size in packet_places(whole)[41:44]:
        data[position + 8 : position + size] = bytes(size - 8)
    (root / "push" / "damaged.avi").write_bytes(data)
    whole.unlink()
    (root / "pull" / "text.mp4").write_text("no video")
    (root / "pull" / "empty.webm").touch()
    return root


def problems(done: dict) -> dict[str, str]:
    return {Path(row["path"]).name: row["problem"] for row in done["broken"]}


DAMAGE = {"cut.avi": "unreadable", "damaged.avi": "damaged", "text.mp4": "unreadable", "empty.webm": "unreadable"}


def test_every_kind_of_damage_is_listed_with_its_reason(videos, tmp_path):
    done = verify(read_catalog(videos), tmp_path / "out", **FAST)
    assert problems(done) == DAMAGE
    assert (done["files"], done["clips"], done["decoded"]) == (10, 10, 10)
    with (tmp_path / "out" / "broken.csv").open(newline="") as file:
        rows = {Path(row["path"]).name: row for row in csv.DictReader(file)}
    assert rows.keys() == DAMAGE.keys()
    assert rows["cut.avi"]["reason"].startswith("truncated: its header states 4.00 s of video")
    assert rows["empty.webm"] | {"path": ""} == {
        "path": "", "start": "", "end": "", "class": "pull", "split": "", "problem": "unreadable", "reason": "an empty file"
    }  # fmt: skip
    # an index without them verifies as sound
    index(read_catalog(videos), tmp_path / "sound.parquet", without=tmp_path / "out" / "broken.csv")
    sound = verify(read_catalog(tmp_path / "sound.parquet"), tmp_path / "again", **FAST)
    assert (sound["broken"], sound["files"], sound["frames"]) == ([], 6, 2 * (20 + 21 + 22))


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".mkv"])
def test_all_frames_of_a_sound_file_are_counted(tmp_path, suffix):
    decoded = decode_all(write_video(tmp_path / f"a{suffix}", 37, b_frames=2))
    assert (decoded.frames, decoded.damaged) == (37, 0)
    assert decoded.duration == pytest.approx(37 / 25, abs=0.01)
    with pytest.raises(DecodeError, match="no such file"):
        decode_all(tmp_path / "b.mp4")


def test_ranges_beyond_their_video_are_listed_alone(videos, tmp_path):
    path = str(videos / "push" / "0.mp4")  # 0.8 s
    clips = (Clip(path, 0, "train", 0.0, 0.5), Clip(path, 0, "train", 0.5, 1.5), Clip(path, 1, "test", 3.0, 4.0))
    done = verify(Catalog("made", ("a", "b"), clips), tmp_path / "out", **FAST)
    assert (done["files"], done["clips"], done["decoded"]) == (1, 3, 1)
    (row,) = done["broken"]
    assert (row["start"], row["end"], row["class"], row["problem"]) == (3.0, 4.0, "b", "range")
    assert row["reason"] == "begins at 3 s, but the video ends at 0.80 s"


def test_what_is_done_is_not_done_again_unless_it_changed(videos, tmp_path):
    catalog = read_catalog(videos)
    first = verify(catalog, tmp_path / "out", **FAST)
    second = verify(catalog, tmp_path / "out", **FAST)
    assert second == {**first, "decoded": 0}
    journal = tmp_path / "out" / "files.jsonl"
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join(lines[:4]) + '\n{"path": "/torn')  # a kill in the middle of a line
    third = verify(catalog, tmp_path / "out", **FAST)
    assert third == {**first, "decoded": 6}
    moment = time.time() + 5
    os.utime(videos / "pull" / "1.mp4", (moment, moment))
    assert verify(catalog, tmp_path / "out", **FAST) == {**first, "decoded": 1}


def test_a_file_that_timed_out_is_tried_again_with_more_time(videos, tmp_path, monkeypatch):
    catalog = Catalog("made", ("a",), (Clip(str(videos / "push" / "0.mp4"), 0),))

    def timed_out(paths, workers, timeout, work):
        yield from ((path, {"problem": "timeout", "reason": f"not decoded within {timeout:g} s"}) for path in paths)

    with monkeypatch.context() as patch:
        patch.setattr(verification, "in_processes", timed_out)
        assert problems(verify(catalog, tmp_path / "out", timeout=5)) == {"0.mp4": "timeout"}
    assert verify(catalog, tmp_path / "out", timeout=5)["decoded"] == 0
    done = verify(catalog, tmp_path / "out", timeout=600)
    assert (done["decoded"], done["broken"]) == (1, [])


def test_ctrl_c_keeps_what_is_done(videos, tmp_path, monkeypatch):
    real = verification.in_processes

    def interrupted(*arguments):
        for i, result in enumerate(real(*arguments)):
            if i == 3:
                raise KeyboardInterrupt
            yield result

    with monkeypatch.context() as patch:
        patch.setattr(verification, "in_processes", interrupted)
        with pytest.raises(Interrupted, match="stopped after 3 of 10 files; the same command goes on"):
            verify(read_catalog(videos), tmp_path / "out", **FAST)
    assert not (tmp_path / "out" / "broken.csv").exists()
    assert verify(read_catalog(videos), tmp_path / "out", **FAST)["decoded"] == 7


def badly(path: str) -> dict[str, object]:
    """What a decoder may do to its process."""
    if "hang" in path:
        time.sleep(600)
    if "crash" in path:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "away" in path:
        raise OutOfReach(path, "the server does not answer")
    return {"frames": len(path)}


def test_what_hangs_or_dies_takes_nothing_with_it():
    paths = ["a", "hang 1", "bb", "crash 1", "ccc", "crash 2", "hang 2", "dddd"]
    results = dict(in_processes(paths, 3, 5.0, badly))
    assert results.keys() == set(paths)
    assert {p: results[p] for p in ("a", "bb", "ccc", "dddd")} == {
        p: {"frames": len(p)} for p in ("a", "bb", "ccc", "dddd")
    }
    for path in paths:
        if "hang" in path:
            assert results[path] == {"problem": "timeout", "reason": "not decoded within 5 s"}
        if "crash" in path:
            assert results[path] == {"problem": "crash", "reason": "the decoding process died (SIGSEGV)"}
    assert not [child for child in psutil.Process().children(recursive=True) if child.name() == "hang"]


def test_a_server_that_does_not_answer_ends_the_work():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with pytest.raises(DataError, match="away: the server does not answer"):
        list(in_processes(["a", "away", "hang 1"], 2, 600.0, badly))
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert not [pid for pid in left if "spawn_main" in " ".join(psutil.Process(pid).cmdline())]


def test_nothing_is_left_running_when_the_caller_stops():
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    results = in_processes(["a", "hang 1", "hang 2"], 3, 600.0, badly)
    assert next(results)[0] == "a"
    results.close()
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    # the fork server and its resource tracker live as long as this process; none of their children does
    assert not [pid for pid in left if "spawn_main" in " ".join(psutil.Process(pid).cmdline())]
    assert all(not psutil.Process(pid).children() for pid in left)


def test_a_folder_of_something_else_is_not_touched(videos, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(MSTAError, match="exists already, as a folder with other contents"):
        verify(read_catalog(videos), tmp_path, **FAST)
    with pytest.raises(DataError, match="does not exist"):
        verify(Catalog("made", ("a",), (Clip("/nowhere/a.mp4", 0),)), tmp_path / "out", **FAST)


def test_the_commands(videos, tmp_path):
    done = run_msta(
        "data", "index", "--data", videos, "--out", tmp_path / "all.parquet", "--json", "data.layout=folder"
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["clips"] == 10
    done = run_msta("data", "verify", "--data", tmp_path / "all.parquet", "--out", tmp_path / "v", "--workers", 2)
    assert done.returncode == 1
    assert done.stdout == f"4 of 10 clips in 10 files are broken; see {tmp_path}/v/broken.csv\n"
    assert "empty.webm: an empty file" in done.stderr
    done = run_msta("data", "split", "--data", videos, "--out", tmp_path / "s", "data.shots=1", "data.seed=4")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 classes: 2 train, 2 val, 6 test")
    done = run_msta("data", "index", "--data", videos, "--out", tmp_path / "b.parquet", "data.layout=ucf")
    assert done.returncode == 2
    assert "data.layout: 'ucf' is none of" in done.stderr
    assert "Traceback" not in done.stderr
