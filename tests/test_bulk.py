"""Catalogs of any size: every clip a row, in order, the same from every engine, and nothing computed twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import tiny
from typer.testing import CliRunner
from video_files import numbered_frames, write_video

import msta
from msta import cli
from msta.data.catalog import Clip
from msta.data.reading import read_catalog
from msta.data.shards.write import Recipe, write_shards
from msta.errors import CheckpointError, ConfigError, DataError, MSTAError
from msta.inference.arguments import read_clips
from msta.inference.bulk import Job, Part, predict_catalog

LABELS = ("push", "pull", "hug", "wave", "nod", "point")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """Seven videos in clips/, two classes, one of them damaged; a backbone; a CSV without labels."""
    root = tmp_path_factory.mktemp("world")
    for k in range(7):
        folder = root / "clips" / LABELS[k % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write_video(folder / f"{k}.mp4", numbered_frames(8, start=100 * k))
    (root / "clips" / "push" / "4.mp4").write_bytes(b"no video")
    msta.random_backbone(tiny()).save(root / "backbone")
    (root / "list.csv").write_text("path,start,end\nclips/push/0.mp4,,\nclips/pull/1.mp4,0.1,0.2\n")
    return root


@pytest.fixture(scope="module")
def job(world) -> Job:
    return Job(backbone=str(world / "backbone"), labels=LABELS, batch=2)


@pytest.fixture(scope="module")
def local(world, job) -> Path:
    catalog = read_catalog(world / "clips")
    done = predict_catalog(catalog.clips, catalog.classes, world / "local.parquet", job, partition=3)
    assert done == {"clips": 7, "unreadable": 1, "parts": 3, "computed": 3, "out": str(world / "local.parquet")}
    return world / "local.parquet"


def test_every_clip_has_a_row_in_its_place(world, job, local):
    catalog = read_catalog(world / "clips")
    rows = pq.read_table(local).to_pylist()
    assert [row["path"] for row in rows] == [clip.path for clip in catalog.clips]
    assert [row["label"] for row in rows] == [catalog.classes[clip.label] for clip in catalog.clips]
    assert not (world / "local.parquet.parts").exists()
    predictor = job.predictor(torch.device("cpu"))
    for row in rows:
        if row["path"].endswith("4.mp4"):
            assert row["predicted"] is row["probabilities"] is None
            assert "not a video file" in row["error"]
            continue
        ranked = predictor(row["path"])
        assert row["error"] is None
        assert (row["predicted"], row["top_labels"]) == (ranked[0].label, [p.label for p in ranked[:5]])
        assert np.allclose(row["top_probabilities"], [p.probability for p in ranked[:5]], atol=1e-6)
        assert abs(sum(row["probabilities"]) - 1) < 1e-5


def test_two_processes_give_the_same_file(world, job, local):
    catalog = read_catalog(world / "clips")
    out = world / "two.parquet"
    predict_catalog(catalog.clips, catalog.classes, out, job, partition=3, processes=2)
    assert pq.read_table(out).equals(pq.read_table(local))


@pytest.mark.slow
def test_ray_gives_the_same_file(world, job, local):
    pytest.importorskip("ray", reason="the engine ray is an extra")
    catalog = read_catalog(world / "clips")
    out = world / "ray.parquet"
    done = predict_catalog(catalog.clips, catalog.classes, out, job, engine="ray", partition=3)
    assert done["computed"] == 3
    assert pq.read_table(out).equals(pq.read_table(local))
    assert pq.read_schema(out).metadata == pq.read_schema(local).metadata


def test_stopped_it_goes_on_with_the_parts_that_are_missing(world, job, local, tmp_path, monkeypatch):
    catalog = read_catalog(world / "clips")
    written, write = [], Part.write

    def stopped(part, predictor, job):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(part.number)
        return write(part, predictor, job)

    monkeypatch.setattr(Part, "write", stopped)
    with pytest.raises(MSTAError, match="2 of 3 parts"):
        predict_catalog(catalog.clips, catalog.classes, tmp_path / "out", job, partition=3)
    written.clear()
    with pytest.raises(MSTAError, match="other clips"):
        predict_catalog(catalog.clips[:5], catalog.classes, tmp_path / "out", job, partition=3)
    done = predict_catalog(catalog.clips, catalog.classes, tmp_path / "out", job, partition=3)
    assert (done["computed"], written) == (1, [2])
    parts = sorted((tmp_path / "out").glob("*.parquet"))
    assert [row for p in parts for row in pq.read_table(p).to_pylist()] == pq.read_table(local).to_pylist()
    assert predict_catalog(catalog.clips, catalog.classes, tmp_path / "out", job, partition=3)["computed"] == 0


def test_a_process_that_dies_is_an_error_that_says_so(world, job, tmp_path):
    catalog = read_catalog(world / "clips")
    with pytest.raises(MSTAError):
        predict_catalog(catalog.clips, catalog.classes, tmp_path / "out", Job(backbone="nowhere", labels=LABELS),
                        partition=3, processes=2)  # fmt: skip


def test_lists_without_labels(world, tmp_path):
    def refused():
        raise AssertionError("has no labels to read")

    clips, classes = read_clips(world / "list.csv", refused)
    assert classes == ()
    assert [(Path(c.path).name, c.label, c.span) for c in clips] == [
        ("0.mp4", -1, (None, None)),
        ("1.mp4", -1, (0.1, 0.2)),
    ]
    clips, _ = read_clips(world / "clips" / "push", refused)
    assert len(clips) == 4
    assert len(read_clips(world / "clips", lambda: read_catalog(world / "clips"))[0]) == 7


def test_clips_in_shards_and_parts_of_videos(world, job, tmp_path):
    catalog = read_catalog(world / "clips")
    write_shards(catalog, tmp_path / "shards", Recipe(clips_per_shard=3), workers=1)
    sharded = read_catalog(tmp_path / "shards")
    predict_catalog(sharded.clips, sharded.classes, tmp_path / "out.parquet", job)
    assert len(pq.read_table(tmp_path / "out.parquet")) == 6
    part = Clip(catalog.clips[0].path, 0, None, 0.0, 0.1)
    predict_catalog([part], catalog.classes, tmp_path / "part.parquet", job)
    assert pq.read_table(tmp_path / "part.parquet")["end"].to_pylist() == [0.1]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables_without_labels_are_checked_row_by_row(tmp_path, form):
    def read(path, start=None, end=None, last="end"):
        table = tmp_path / f"t.{form}"
        if form == "csv":
            cells = ",".join("" if x is None else str(x) for x in (path, start, end))
            table.write_text(f"path,start,{last}\n{cells}")
        else:
            pq.write_table(pa.table({"path": [path], "start": [start], last: [end]}), table)
        return read_clips(table, lambda: pytest.fail("it has no labels"))[0][0]

    assert read("a.mp4", 1.0, 2.0).path == str(tmp_path / "a.mp4")
    assert read("b\\a.mp4").path == read("b/a.mp4").path
    assert read("a.mp4", 1.0, 2.0, "duration").span == (1.0, 3.0)
    for start, end in ((2.0, 1.0), (-3.0, None), (1.0, 1.0)):
        with pytest.raises(
            DataError, match=r"t\.\w+, (line 2|row 1): .*must begin at 0 s or later, and before it ends"
        ):
            read("a.mp4", start, end)
    with pytest.raises(DataError, match="(line 2|row 1): expected a time in seconds, got 'soon'"):
        read("a.mp4", "soon")
    with pytest.raises(DataError, match="(line 2|row 1): no path"):
        read("" if form == "csv" else None, 1.0)


def test_what_failed_at_its_start_does_not_keep_its_place(world, job, tmp_path):
    catalog = read_catalog(world / "clips")
    wrong, out = replace(job, backbone=str(tmp_path / "nowhere")), tmp_path / "out"
    for processes in (1, 2):
        with pytest.raises(CheckpointError, match="nowhere"):
            predict_catalog(catalog.clips, catalog.classes, out, wrong, partition=3, processes=processes)
    predict_catalog(catalog.clips[:2], catalog.classes, out, job)
    with pytest.raises(MSTAError, match="holds predictions of other clips"):
        predict_catalog(catalog.clips[:3], catalog.classes, out, job)


def test_wrong_requests(world, job, local, tmp_path, monkeypatch):
    catalog = read_catalog(world / "clips")
    with pytest.raises(ConfigError, match="--engine"):
        predict_catalog(catalog.clips, catalog.classes, tmp_path / "a", job, engine="spark")
    with pytest.raises(MSTAError, match="exists already"):
        predict_catalog(catalog.clips, catalog.classes, local, job)
    with pytest.raises(DataError, match="no clips"):
        predict_catalog([], (), tmp_path / "a", job)


def test_the_command(world, tmp_path):
    arguments = ["predict", "--data", world / "list.csv", "--backbone", world / "backbone", "--labels", "push,pull"]
    done = CliRunner().invoke(cli.app, [*map(str, arguments), "--out", str(tmp_path / "p.parquet"), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["clips"] == 2
    assert pq.read_table(tmp_path / "p.parquet")["predicted"].to_pylist()[0] in ("push", "pull")
    refused = CliRunner().invoke(cli.app, [*map(str, arguments)])
    assert isinstance(refused.exception, ConfigError)
    for option in ("--top 2", "--format csv", "--overlay o.mp4", "--stride 1s", "--seconds 3", "--unknown-below 0.5"):
        refused = CliRunner().invoke(cli.app, [*map(str, arguments), "--out", str(tmp_path / "q"), *option.split()])
        assert f"{option.split()[0]}: does not go with --data" in str(refused.exception)
    refused = CliRunner().invoke(cli.app, ["predict", "a.mp4", "--labels", "a,b", "--engine", "ray"])
    assert "--engine: goes with --data" in str(refused.exception)
