"""An option means the same in every command."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import typer
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


def commands(group=None, above=()):
    """(words, command) of every command."""
    for name, one in sorted((group or typer.main.get_command(cli.app)).commands.items()):
        if hasattr(one, "commands"):
            yield from commands(one, (*above, name))
        else:
            yield (*above, name), one


def test_an_option_has_one_form_in_every_command():
    """The parser and metavar are the same, whichever command it is."""
    forms = {}
    for words, command in commands():
        for option in command.params:
            if {"--adapter", "--backbone", "--base"} & set(option.opts):
                parser = getattr(option.type_descriptor.parameter_info, "parser", None)
                forms.setdefault(option.opts[0], {}).setdefault((option.metavar, parser), []).append(" ".join(words))
    assert {name: len(each) for name, each in forms.items()} == {"--adapter": 1, "--backbone": 1, "--base": 1}, forms
    assert len(next(iter(forms["--adapter"].values()))) >= 7


def test_a_run_is_taken_wherever_its_adapter_is(world, tmp_path, monkeypatch):
    video = world / "clips" / "pull" / "0.mp4"
    for command in (
        ("predict", video, "--json"), ("predict", video, "--window", "0.2s", "--json"), ("predict", video, "--unknown-below", "val", "--json"),
        ("eval", world / "clips", "data.split_folders=false", "--json"), ("info", "--json"),
        ("search", "a pull", "--in", world / "clips", "--json"),
    ):  # fmt: skip
        assert run(*command, "--adapter", world / "run") == run(*command, "--adapter", world / "run" / "adapter")
    assert json.loads(run("info", world / "run", "--json")) == json.loads(
        run("info", "--adapter", world / "run", "--json")
    )
    run("explain", video, "--adapter", world / "run", "--steps", 1, "--out", tmp_path / "why")
    run(
        "predict",
        "--data",
        world / "clips",
        "data.split_folders=false",
        "--adapter",
        world / "run",
        "--out",
        tmp_path / "p.parquet",
    )
    assert msta.load_adapter(world / "run").task.classes == ("train", "pull")
    with pytest.raises(msta.errors.ConfigError, match="is given twice"):
        run("predict", video, "--adapter", world / "run", "--adapter", world / "run" / "adapter")


def test_data_are_given_by_the_option_or_first(world, tmp_path):
    as_classes = "data.split_folders=false"
    for command, out in (("index", "i.csv"), ("verify", "v"), ("split", "s"), ("shard", "x")):
        run("data", command, world / "clips", as_classes, "--out", tmp_path / out)
        run("data", command, "--data", world / "clips", as_classes, "--out", tmp_path / f"again-{out}")
    assert (tmp_path / "i.csv").read_text() == (tmp_path / "again-i.csv").read_text()
    assert json.loads(run("info", "--plan", world / "clips", as_classes, "--backbone", world / "bb", "--json"))
    for command in (("train", "--out", tmp_path / "r"), ("eval",), ("data", "verify", "--out", tmp_path / "w")):
        with pytest.raises(msta.errors.ConfigError, match="missing --data"):
            run(*command, as_classes)


def test_classes_are_named_alike_everywhere(world, tmp_path):
    video = world / "clips" / "pull" / "0.mp4"
    (tmp_path / "data" / "push").mkdir(parents=True)
    shutil.copytree(world / "clips" / "pull", tmp_path / "data" / "pull")
    shutil.copy(video, tmp_path / "data" / "push")
    (tmp_path / "n.txt").write_text("pull\npush\n")
    for labels in ("pull,push", tmp_path / "n.txt", tmp_path / "data"):
        (answer,) = json.loads(run("predict", video, "--backbone", world / "bb", "--labels", labels, "--json"))
        assert {p["label"] for p in answer["predictions"]} == {"pull", "push"}
        bank = tmp_path / f"{getattr(labels, 'name', labels)}.json"
        run("describe", "--template", "--labels", labels, "--out", bank)
        assert "2 classes in" in run("describe", "--template", "--labels", labels, "--out", bank)


def test_predict_runs_an_exported_model(world, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run("export", "--adapter", world / "run", "--out", tmp_path / "exported")
    videos = [str(world / "clips" / "pull" / f"{i}.mp4") for i in range(2)]
    for more in ([], ["--window", "0.2s", "--stride", "0.1s"]):
        given = [*videos, *more, "--json", "--adapter"]
        own, exported = (json.loads(run("predict", *given, of)) for of in (world / "run", tmp_path / "exported"))
        assert exported == json.loads(run("predict", *given, tmp_path / "exported" / "video.onnx"))
        for a, b in zip(own, exported, strict=True):
            if more:
                assert np.allclose(a["windows"], b["windows"], atol=2e-4)
                continue
            assert {p["label"]: pytest.approx(p["probability"], abs=1e-4) for p in a["predictions"]} == {
                p["label"]: p["probability"] for p in b["predictions"]
            }
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    done = CliRunner().invoke(cli.app, ["predict", videos[0], str(broken), "--adapter", str(tmp_path / "exported")])
    assert (done.exit_code, len(done.stdout.splitlines())) == (1, 2)
    for option, value in (("--labels", "a,b"), ("--clips", 2), ("--adapter", world / "run"), ("--backbone", "toy")):
        with pytest.raises(msta.errors.ConfigError, match="does not go with .*exported, an exported model"):
            run("predict", videos[0], "--adapter", tmp_path / "exported", option, value)
    with pytest.raises(msta.errors.ConfigError, match="without the threshold; give a number"):
        run("predict", videos[0], "--adapter", tmp_path / "exported", "--unknown-below", "val")
    with pytest.raises(msta.errors.ConfigError, match="only msta predict runs it"):
        run("eval", world / "clips", "data.split_folders=false", "--adapter", tmp_path / "exported")
