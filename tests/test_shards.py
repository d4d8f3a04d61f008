"""Shards: what is written can be read, by us and by WebDataset, wherever it lies and however the server behaves."""

from __future__ import annotations

import itertools
import json
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import tiny
from flaky_server import FAULTS, serving
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from video_files import frame_number, numbered_frames, write_video

import msta
from msta.config import make_config
from msta.data import http
from msta.data.augment import Augmentation
from msta.data.catalog import Clip, write_catalog
from msta.data.clips import ClipDataset, ClipFormat, Failures, steady
from msta.data.decode import all_frames, probe, read_frames
from msta.data.http import Unreachable
from msta.data.loading import StepSampler
from msta.data.order import by_shard, epoch_order
from msta.data.reading import read_catalog
from msta.data.shards.encode import h264
from msta.data.shards.target import Target
from msta.data.shards.write import Recipe, write_shards
from msta.data.storage import as_url, member_of
from msta.data.verify import verify
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import ConfigError, DataError, Interrupted, MSTAError
from msta.training import loop
from msta.training.loop import train

FORM = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3)
FOUR = Recipe(clips_per_shard=4)
IMPATIENT = http.Patience(stall=0.4, total=600.0, attempts=6, pause=0.01)


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    """Two classes, train and test, 14 videos that carry their number, one of them damaged."""
    root = tmp_path_factory.mktemp("videos")
    for k in range(14):
        folder = root / ("train" if k < 10 else "test") / ("push", "pull")[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{k}.mp4", numbered_frames(8, start=100 * k))
    damaged = root / "train" / "push" / "4.mp4"
    damaged.write_bytes(damaged.read_bytes()[:500])
    return root


@pytest.fixture(scope="module")
def shards(videos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("shards") / "out"
    write_shards(read_catalog(videos), out, FOUR, workers=1)
    return out


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(http, "PATIENCE", IMPATIENT)


def sound(videos: Path) -> list[Clip]:
    return [clip for clip in read_catalog(videos).clips if Path(clip.path).name != "4.mp4"]


def batches(clips, *, epoch: int = 0, skip: int = 0, workers: int = 0, seed: int = 3) -> list[dict]:
    dataset = ClipDataset(clips, FORM, augmentation=Augmentation(), seed=seed)
    sampler = StepSampler(len(clips), seed, step_clips=3, batch_size=3, shards=dataset.shards)
    sampler.epoch, sampler.skip = epoch, skip
    return list(steady(dataset, sampler, 3, workers))


# ---------------------------------------------------------------- writing


@settings(max_examples=12)
@given(
    span=st.tuples(st.floats(0, 1.5), st.floats(0.1, 2)), times=st.integers(0, 2**32 - 1), gop=st.sampled_from([5, 30])
)
def test_a_reencoded_clip_shows_the_same_frame_at_every_time(tmp_path_factory, span, times, gop):
    folder = tmp_path_factory.mktemp("clip")
    random = np.random.default_rng(times)
    pts = [0, *np.sort(random.choice(np.arange(1, 2000), 19, replace=False)).tolist()]  # a variable frame rate
    source = write_video(folder / "source.mp4", 20, pts=pts, gop=gop)
    within = (span[0], span[0] + span[1])
    if within[0] >= probe(source).duration:
        return
    made = folder / "made.mp4"
    made.write_bytes(h264(str(source), within, None))
    length = probe(made).duration
    at = np.sort(random.random(16)) * (length - 2e-3) + 1e-3
    changes = np.array(pts) / 1000 - within[0]
    at = at[abs(at[:, None] - changes).min(1) > 1e-3]  # an MP4's edits are in thousandths of a second
    assert [frame_number(f) for f in read_frames(made, at)] == [
        frame_number(f) for f in read_frames(source, at, within=within)
    ]
    assert made.read_bytes() == h264(str(source), within, None)


def test_frames_are_made_smaller_and_even_never_larger(tmp_path):
    source = write_video(tmp_path / "a.mp4", numbered_frames(3, 90, 160))
    assert {frame.shape for *_, frame in all_frames(source, 45)} == {(46, 80, 3)}
    assert {frame.shape for *_, frame in all_frames(source, 500)} == {(90, 160, 3)}


def test_the_index_counts_what_is_there_and_lists_what_is_not(videos, shards):
    index = json.loads((shards / "index.json").read_text())
    assert index["clips"] == 13
    assert index["splits"] == {"train": 9, "test": 4}
    assert index["class_counts"] == {"pull": 7, "push": 6}
    assert [Path(one["clip"]).name for one in index["left_out"]] == ["4.mp4"]
    assert "moov" in index["left_out"][0]["reason"]
    assert [shard["clips"] for shard in index["shards"]] == [4, 4, 1, 4]
    found = {p.name for p in shards.iterdir()}
    assert found == {"index.json", "clips.parquet", *(shard["file"] for shard in index["shards"])}


def test_clips_come_back_with_label_split_and_content(videos, shards):
    read = {Path(c.path).stem: c for c in read_catalog(videos).clips}
    catalog = read_catalog(shards / "index.json")
    assert catalog.clips == read_catalog(shards).clips
    for clip in catalog.clips:
        number = frame_number(read_frames(clip.path, [0.0])[0]) // 100
        source = read[str(number)]
        assert (clip.label, clip.split) == (source.label, source.split)
        member = member_of(clip.path)
        with open(member.shard, "rb") as tar:
            tar.seek(member.offset)
            assert tar.read(member.size) == Path(source.path).read_bytes()
        assert "#" not in clip.name


def test_webdataset_reads_them(videos, shards):
    webdataset = pytest.importorskip("webdataset", reason="the other reader is WebDataset")
    classes = read_catalog(videos).classes
    seen = {}
    for file in sorted(shards.glob("*.tar")):
        for sample in webdataset.WebDataset(str(file), shardshuffle=False, empty_check=False):
            about = json.loads(sample["json"])
            assert classes[int(sample["cls"])] == about["class"]
            seen[about["source"]["path"]] = sample["mp4"]
    assert seen == {c.path: Path(c.path).read_bytes() for c in sound(videos)}


def test_stopped_and_called_again_it_writes_the_same_bytes(videos, shards, tmp_path, monkeypatch):
    catalog, again = read_catalog(videos), tmp_path / "again"
    write = Target.write

    def stopped(self, name, content):
        if name == "train-000002.json":  # its tar file is there, nothing says that it is whole
            raise KeyboardInterrupt
        write(self, name, content)

    monkeypatch.setattr(Target, "write", stopped)
    with pytest.raises(Interrupted, match="after 2 shards"):
        write_shards(catalog, again, FOUR, workers=1)
    monkeypatch.undo()
    assert {p.name for p in again.iterdir()} > {"train-000001.json", "train-000002.tar"}
    with pytest.raises(MSTAError, match="another recipe"):
        write_shards(catalog, again, Recipe(clips_per_shard=5))
    first = (again / "train-000000.tar").stat().st_mtime_ns
    write_shards(catalog, again, FOUR, workers=1)
    assert (again / "train-000000.tar").stat().st_mtime_ns == first, "a finished shard was written again"
    assert {p.name: p.read_bytes() for p in again.iterdir()} == {p.name: p.read_bytes() for p in shards.iterdir()}
    assert write_shards(catalog, again, FOUR) == json.loads((shards / "index.json").read_text())
    with pytest.raises(MSTAError, match="another recipe"):
        write_shards(catalog, again, Recipe(mb=1))


def test_time_ranges_are_cut_out_or_kept_as_such(tmp_path):
    source = write_video(tmp_path / "long.mp4", 50)  # 2 s
    write_catalog(
        tmp_path / "clips.csv", ("a", "b"), [Clip(str(source), 0, None, 0.0, 1.0), Clip(str(source), 1, None, 1.0)]
    )
    catalog = read_catalog(tmp_path / "clips.csv")
    for mode in (None, "copy"):
        write_shards(catalog, tmp_path / str(mode), Recipe(mode), workers=1)
        read = read_catalog(tmp_path / str(mode))
        starts = {c.label: frame_number(read_frames(c.path, [0.0], within=c.span)[0]) for c in read.clips}
        assert starts == {0: 0, 1: 25}
        assert all(c.span == (None, None) for c in read.clips) == (mode is None)
    with pytest.raises(ConfigError, match="--resize"):
        Recipe("copy", 64)


def test_shards_of_shards_hold_the_same_files(videos, shards, tmp_path):
    write_shards(read_catalog(shards), tmp_path / "again", Recipe(), workers=1)
    first, second = (
        {c.path.rpartition("+")[2]: c.label for c in read_catalog(d).clips} for d in (shards, tmp_path / "again")
    )
    assert first == second
    assert {Path(member_of(c.path).name).suffix for c in read_catalog(tmp_path / "again").clips} == {".mp4"}


def test_any_fsspec_target(videos, shards):
    pytest.importorskip("fsspec")
    url = "memory://test-shards/here"
    index = write_shards(read_catalog(videos), url, FOUR, workers=1)
    assert index == json.loads((shards / "index.json").read_text())
    assert write_shards(read_catalog(videos), url, FOUR) == index
    there, here = read_catalog(url), read_catalog(shards)
    assert there.clips[0].path.startswith(url)
    same(batches(there.clips), batches(here.clips))
    with pytest.raises(DataError, match="not all of what"):
        read_catalog("memory://nothing/here")
    with pytest.raises(ConfigError, match="fsspec"):
        read_catalog("nosuchkind://somewhere/index.json")


# ---------------------------------------------------------------- reading


def same(some: list[dict], others: list[dict]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        assert one["index"].tolist() == other["index"].tolist()
        assert np.array_equal(one["video"], other["video"])


def test_a_shard_gives_the_batches_its_files_would(videos, shards):
    catalog = read_catalog(shards)
    files = {frame_number(read_frames(c.path, [0.0])[0]): c for c in sound(videos)}
    order = [files[frame_number(read_frames(c.path, [0.0])[0])] for c in catalog.clips]
    mine, theirs = (
        {int(i): v for b in batches(clips, workers=1) for i, v in zip(b["index"], b["video"], strict=True)}
        for clips in (catalog.clips, order)
    )
    assert mine.keys() == theirs.keys() == set(range(13))
    assert all(np.array_equal(mine[i], theirs[i]) for i in mine)


@given(
    shards=st.lists(st.integers(0, 5), min_size=1, max_size=60),
    seed=st.integers(0, 9),
    window=st.integers(1, 20),
)
def test_an_epoch_has_each_clip_once_and_reads_few_shards_at_a_time(shards, seed, window):
    numbers = np.unique(shards, return_inverse=True)[1]
    order = by_shard(numbers, np.random.default_rng(seed), window)
    assert sorted(order) == list(range(len(shards)))
    assert np.array_equal(order, by_shard(numbers, np.random.default_rng(seed), window))
    for start in range(0, len(order), window):
        counts = np.bincount(numbers)
        among = np.unique(numbers[order[start : start + window]])
        whole = [k for k in among if set(np.flatnonzero(numbers == k)) <= set(order[start : start + window])]
        assert len(among) <= len(whole) + 2, (counts, "a window is a run of whole shards, and a part at either end")


def test_epochs_differ_and_a_resumed_one_goes_on_where_it_was(shards):
    clips = read_catalog(shards).clips
    seen = [[int(i) for b in batches(clips, epoch=epoch) for i in b["index"]] for epoch in (0, 1)]
    assert sorted(seen[0]) == sorted(seen[1]) == list(range(13))
    assert seen[0] != seen[1]
    same(batches(clips, epoch=1, skip=6), batches(clips, epoch=1)[2:])


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_processes_share_an_epoch_without_a_clip_twice(shards, processes):
    dataset = ClipDataset(read_catalog(shards).clips, FORM)
    steps = []
    for process in range(processes):
        sampler = StepSampler(
            13, 3, step_clips=6, batch_size=2, process=process, processes=processes, shards=dataset.shards
        )
        sampler.epoch, sampler.skip = 1, 6
        steps.append([index for batch in sampler for _, index in batch])
    order = epoch_order(13, 3, 1, dataset.shards).tolist()
    assert sorted(index for share in steps for index in share) == sorted(order[6:])
    assert order != epoch_order(13, 3, 1).tolist(), "shards have an order of their own"


def test_damaged_members_are_left_out_and_named(shards, tmp_path):
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    catalog = read_catalog(tmp_path)
    first, last = (member_of(catalog.clips[i].path) for i in (0, 3))
    content = bytearray(Path(first.shard).read_bytes())
    content[first.offset + first.size // 2] ^= 1
    Path(first.shard).write_bytes(content[: last.offset + 10])
    failures, read = Failures(), 0
    for batch in batches(catalog.clips):
        failures.add(batch["failures"])
        read += len(batch["index"])
    assert read == 11
    assert {name: why.split(":")[0] for name, why in failures.reasons.items()} == {
        f"{first.shard}::{first.name}": "damaged",
        f"{last.shard}::{last.name}": "truncated",
    }
    assert len(verify(catalog, tmp_path / "verified", workers=1)["broken"]) == 2


def test_a_damaged_table_or_a_strange_index_is_refused(shards, tmp_path):
    for file in shards.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "clips.parquet").write_bytes(b"x" + (shards / "clips.parquet").read_bytes()[1:])
    with pytest.raises(DataError, match="clips.parquet: damaged"):
        read_catalog(tmp_path)
    (tmp_path / "clips.parquet").unlink()
    with pytest.raises(DataError, match="clips.parquet"):
        read_catalog(tmp_path)
    (tmp_path / "index.json").write_text('{"format": "msta-shards-9"}')
    with pytest.raises(DataError, match="format 'msta-shards-9'"):
        read_catalog(tmp_path)


@pytest.mark.parametrize("where", ["disk", "a server that misbehaves"])
def test_training_on_shards_goes_on_in_the_middle_of_an_epoch(shards, tmp_path, monkeypatch, impatient, where):
    """Stopped after a step and resumed: the weights of a run on the disk that was not stopped."""
    msta.random_backbone(tiny()).save(tmp_path / "backbone")
    changes = ["train.epochs=2", "train.batch_size=4", "data.val_fraction=0", "method.dim=8", "data.workers=0"]
    quiet = Console(quiet=True)

    def config(index: str):
        return make_config("small", {"data.path": index, "backbone": str(tmp_path / "backbone")}, changes)

    train(config(f"{shards}/index.json"), tmp_path / "whole", quiet)
    steps = []

    def stop_once(factor=loop.lr_factor):
        def counted(*arguments):
            steps.append(arguments)
            if len(steps) == 2:
                signal.raise_signal(signal.SIGTERM)
            return factor(*arguments)

        return counted

    monkeypatch.setattr(loop, "lr_factor", stop_once())
    with serving(shards, FAULTS, rate=0.3) as server:
        part = config(f"{shards}/index.json" if where == "disk" else f"{server.url}/index.json")
        with pytest.raises(Interrupted):
            train(part, tmp_path / "stopped", quiet)
        train(part, tmp_path / "stopped", quiet, resume=True)
    weights = [(tmp_path / run / "adapter" / "adapter_model.safetensors").read_bytes() for run in ("whole", "stopped")]
    assert weights[0] == weights[1]
    # Its split.csv is a data set of its own, whose paths are members of the shards.
    assert {c.split for c in read_catalog(tmp_path / "whole" / "split.csv").clips} == {"train", "test"}


# ---------------------------------------------------------------- HTTP


def test_a_server_that_misbehaves_loses_nothing(shards, impatient):
    pytest.importorskip("urllib3")
    with serving(shards, FAULTS, rate=0.6) as server:
        there = read_catalog(f"{server.url}/index.json")
        same(batches(there.clips), batches(read_catalog(shards).clips))
        assert sum(server.counts[fault] for fault in FAULTS) > 5, "it behaved too well"
        assert server.counts["sound"] > 5


def test_what_broke_off_is_gone_on_with_not_begun_again(tmp_path, impatient):
    pytest.importorskip("urllib3")
    content = np.random.default_rng(0).bytes(1 << 20)
    (tmp_path / "file").write_bytes(content)
    with serving(tmp_path, ["truncate"], rate=0.8, seed=1) as server:
        assert http.fetch(f"{server.url}/file") == content
        assert server.counts["truncate"]
        assert server.counts["bytes"] < len(content), "the sound answer had less to bring"


def test_a_server_that_is_down_stops_a_run_and_hangs_nothing(shards, impatient):
    pytest.importorskip("urllib3")
    with serving(shards) as server:
        clips = read_catalog(server.url).clips
        server.faults, server.rate = ["mute"], 1.0
        with pytest.raises(OutOfReach, match="6 attempts in a row brought nothing"):
            read_frames(clips[0].path, [0.0])
        assert server.counts["mute"] <= IMPATIENT.attempts
    (batch,) = batches(clips[:2])  # nobody listens any more
    with pytest.raises(DataError, match="brought nothing"):
        Failures("skip").add(batch["failures"])
    with pytest.raises(DataError, match="brought nothing"):
        read_catalog(f"{server.url}/index.json")


def test_an_outage_is_no_fault_of_the_clips(videos, tmp_path, monkeypatch):
    catalog = read_catalog(videos)

    def down(path, *_, **__):
        raise OutOfReach(str(path), "the server does not answer")

    def here(jobs, workers, timeout, work):
        for job in jobs:
            try:
                yield job, work(job)
            except OutOfReach as error:  # as the pool does, see test_verify.py
                raise DataError(str(error)) from error

    from msta.data import check, index
    from msta.data import verify as verified
    from msta.data.shards import write

    for module, names in ((verified, ["decode_all"]), (check, ["probe"]), (write, ["encode"]), (index, ["probe"])):
        for name in names:
            monkeypatch.setattr(module, name, down)
        if hasattr(module, "in_processes"):
            monkeypatch.setattr(module, "in_processes", here)
    for work in (
        lambda: verify(catalog, tmp_path / "verified"),
        lambda: check.check(catalog),
        lambda: write_shards(catalog, tmp_path / "out", Recipe()),
        lambda: index.index(catalog, tmp_path / "index.parquet"),
    ):
        with pytest.raises(DataError, match="the server does not answer"):
            work()
    assert (tmp_path / "verified" / "files.jsonl").read_text() == ""
    assert not (tmp_path / "index.parquet").exists()


def test_a_drip_ends_at_the_deadline(tmp_path, monkeypatch):
    pytest.importorskip("urllib3")
    (tmp_path / "file").write_bytes(b"x" * 10_000)
    monkeypatch.setattr(http, "PATIENCE", http.Patience(stall=60.0, total=10.0, attempts=3, pause=0.01))
    ticks = itertools.count()  # each look at the clock is a second later
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: next(ticks), sleep=lambda seconds: None))
    with serving(tmp_path, ["drip"], rate=1.0) as server:
        with pytest.raises(Unreachable, match="too slow"):
            http.fetch(f"{server.url}/file")
        assert server.counts["bytes"] == 0, "it was not waited for"


def test_what_is_not_there_is_not_asked_for_again(shards, impatient):
    pytest.importorskip("urllib3")
    with serving(shards) as server:
        clip = read_catalog(server.url).clips[0]
        with pytest.raises(DecodeError, match="not found"):
            read_frames(clip.path.replace("train-0", "train-9"), [0.0])
        member = member_of(clip.path)
        gone = replace(member, offset=member.offset + 10**9)
        with pytest.raises(DecodeError, match="truncated"):
            read_frames(str(gone), [0.0])
        with pytest.raises(DataError, match="not found"):
            read_catalog(f"{server.url}/nothing/index.json")
        with pytest.raises(ConfigError, match="HTTP"):
            write_shards(read_catalog(shards), server.url)


def test_a_server_without_ranges_is_refused_at_once(shards, impatient):
    pytest.importorskip("urllib3")
    with serving(shards, ranges=False) as server, pytest.raises(DataError, match="knows no ranges"):
        read_catalog(f"{server.url}/index.json")


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("http://host/a", "http://host/a"),
        (Path("http://host/a"), "http://host/a"),
        (Path("s3://bucket/a/index.json"), "s3://bucket/a/index.json"),
        ("/data/a", None),
        ("a:b.mp4", None),
        ("C:/data", None),
        ("file:///data", None),
    ],
)
def test_urls_are_told_from_paths(path, url):
    assert as_url(path) == url
