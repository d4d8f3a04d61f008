"""An option means the same in every command."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from conftest import tiny
from typer.testing import CliRunner
from video_files import numbered_frames, write_video

import msta
from msta import cli
from msta.adapters.task import Task


def run(*arguments):
    """What a command prints; its error is raised."""
    done = CliRunner().invoke(cli.app, list(map(str, arguments)), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """clips/ with the classes train and pull, and k.csv of them; bb, a backbone; run/adapter, one of its adapters."""
    root = tmp_path_factory.mktemp("world")
    for k, name in enumerate(("train", "pull")):
        (root / "clips" / name).mkdir(parents=True)
        for i in range(2):
            write_video(root / "clips" / name / f"{i}.mp4", numbered_frames(8, start=50 * k + 10 * i))
    backbone = msta.random_backbone(tiny())
    backbone.save(root / "bb")
    model = msta.attach(msta.load_backbone(root / "bb"), msta.MSTAConfig(dim=8))
    model.task = Task(("train", "pull"))
    model.save(root / "run" / "adapter", {"unknown_below": 0.25})
    return root


def test_predict_and_eval_take_the_settings_of_data_that_train_takes(world, tmp_path):
    given = ["--data", world / "clips", "--adapter", world / "run" / "adapter"]
    with pytest.raises(msta.errors.ConfigError, match="a class or a split"):
        run("predict", *given, "--out", tmp_path / "p.parquet")
    run("predict", *given, "--out", tmp_path / "p.parquet", "data.split_folders=false")
    assert sorted(pq.read_table(tmp_path / "p.parquet")["label"].to_pylist()) == ["pull"] * 2 + ["train"] * 2
    assert json.loads(run("eval", *given, "data.split_folders=false", "--json"))["clips"] == 4
    for command in (
        ("predict", "--out", tmp_path / "q.parquet"),
        ("eval",),
        ("data", "index", "--out", tmp_path / "i.csv"),
    ):
        with pytest.raises(msta.errors.ConfigError, match=r"train.lr: says nothing of data"):
            run(*command, *given[: 2 if command[0] == "data" else 4], "train.lr=1")
