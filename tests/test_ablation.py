"""msta ablate: every point is what it says, runs once, and the report counts what was measured."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
from conftest import tiny
from launch import run_msta
from rich.console import Console
from typer.testing import CliRunner
from video_files import draw

import msta
from msta.cli import app
from msta.config import make_config, read_config
from msta.descriptions.bank import Described, DescriptionBank
from msta.errors import ConfigError, MSTAError
from msta.studies import running
from msta.studies.ablation import AXES, Ablation, ablate, markdown, points

QUIET = Console(quiet=True)
QUICK = ("train.epochs=1", "train.batch_size=4", "data.workers=0")


@pytest.fixture(scope="module")
def clips(moving_clips) -> Path:
    return moving_clips


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> str:
    return str(tiny_backbone)


def bank(sentences: int) -> DescriptionBank:
    own = {name: tuple(f"{name} {i}" for i in range(sentences)) for name in ("push", "hug")}
    return DescriptionBank("a file", {name: Described(said, said) for name, said in own.items()})


def test_exactly_one_point_of_each_axis_changes_nothing_and_all_are_valid():
    toy = msta.random_backbone(tiny(video_layers=9, text_layers=6))
    for overrides in (
        [],
        [
            "method.dim=48",
            "method.scale=0.3",
            "method.shared=false",
            "method.temporal_kernel=0",
            "data.template=ensemble",
        ],
    ):
        config = make_config("small", {"data.path": "."}, overrides)
        axes = points(config, toy, bank(5), None)
        assert axes.keys() == AXES.keys()
        for axis, values in axes.items():
            assert sum(not changes for changes in values.values()) == 1, axis
            assert len(values) > 1, axis
            for changes in values.values():
                method = [f"{n}={'none' if v is None else v}" for n, v in changes.items() if "descr" not in n]
                msta.attach(toy, make_config("small", {"data.path": "."}, [*overrides, *method]).method_config())
    assert list(axes["sentences"]) == ["1", "2", "4", "5"]
    assert list(axes["blocks"]) == ["1..4", "1..9", "5..9", "6..9"]


def test_the_values_are_those_of_the_papers_ablations():
    backbone = msta.random_backbone("viclip-b16")
    for preset in ("paper", "paper:base-to-novel", "paper-logs"):
        axes = points(make_config(preset, {"data.path": "."}), backbone, bank(16), None)
        assert list(axes["blocks"]) == ["1..6", "1..12", "7..12", "8..12"]
        assert list(axes["dim"]) == [
            "8",
            "16",
            "32",
            "64",
            "128",
            "256",
        ]  # the paper has 512, which does not divide 768
        assert list(axes["scale"]) == ["0.001", "0.005", "0.01", "0.05"]
        assert list(axes["sentences"]) == ["1", "2", "4", "8", "16"]
        assert "1" in axes["alpha"]
        assert list(axes["temporal"]) == ["none", "3", "5"]


def test_without_descriptions_their_axes_are_left_out_or_refused():
    toy = msta.random_backbone(tiny())
    config = make_config("small", {"data.path": "."})
    assert points(config, toy, None, None).keys() == AXES.keys() - {"consistency", "alpha", "sentences"}
    with pytest.raises(ConfigError, match=r"--axes: consistency needs sentences: descriptions\.bank"):
        points(config, toy, None, ["dim", "consistency"])


def test_points_run_once_and_go_into_the_table(clips, backbone, tmp_path, monkeypatch):
    said = tmp_path / "said.json"
    said.write_text(json.dumps({"go back": ["back one", "back two"], "go there": ["there one", "there two"]}))
    overrides = (*QUICK, f"descriptions.temporal={said}", "method.dim=8")
    axes = ("towers", "consistency", "sentences")
    asked = Ablation(str(clips), axes=axes, shots=3, seeds=(0, 1), overrides=overrides, backbone=backbone)
    result = ablate(asked, tmp_path / "out", QUIET)
    assert len(result["cells"]) == 2 * (3 + 2 + 2)
    by = {(c["axis"], c["point"], c["seed"]): c for c in result["cells"]}
    video, text, both = (by["towers", t, 0]["trainable"] for t in ("video", "text", "both"))
    assert video + text == both + 3 * (8 * 8 + 8)  # the shared projection counts in each of them
    assert by["consistency", "temporal", 1] | {"axis": "towers", "point": "both"} == by["towers", "both", 1]
    folders = sorted(p.name for p in (tmp_path / "out" / "runs").iterdir())
    assert folders == ["consistency-off", "sentences-1", "towers-text", "towers-video", "unchanged"]
    fewer = tmp_path / "out" / "runs" / "sentences-1" / "seed1" / "config.yaml"
    read = read_config(fewer).descriptions.load(("go back", "go there"))
    assert read.sentences("temporal") == {"go back": ("back one",), "go there": ("there one",)}
    for axis in axes:
        assert (tmp_path / "out" / f"{axis}.png").stat().st_size > 5000
    mean = statistics.fmean(by["towers", "video", seed]["top1"] for seed in (0, 1))
    rows = [[cell.strip() for cell in line.split("|")] for line in markdown(result).splitlines()]
    assert next(row for row in rows if "video" in row)[-2].startswith(f"{mean:.1f} (")
    assert any("**both**" in row for row in rows)

    def not_again(*_, **__):
        raise AssertionError("was run again")

    monkeypatch.setattr(running, "train", not_again)
    assert ablate(asked, tmp_path / "out", QUIET) == result
    other = Ablation(
        str(clips), axes=axes, shots=3, seeds=(0,), overrides=(*overrides, "train.lr=0.5"), backbone=backbone
    )
    with pytest.raises(MSTAError, match=r"was run with train\.lr 0\.02, now 0\.5 is asked for; take another --out"):
        ablate(other, tmp_path / "out", QUIET)


def test_the_command_with_novel_classes(backbone, tmp_path):
    draw(tmp_path / "clips", "a b c d", 4, 0)
    options = ["--data", tmp_path / "clips", "--backbone", backbone, "--shots", 2, "--seeds", "0", *QUICK]
    done = run_msta("ablate", *options, "--axes", "temporal", "--novel", "--out", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    cells = json.loads(done.stdout)["cells"]
    assert [c["point"] for c in cells] == ["none", "3", "5"]
    for cell in cells:
        base, novel = cell["top1"], cell["novel"]
        assert cell["harmonic_mean"] == pytest.approx(2 * base * novel / (base + novel) if base + novel else 0)
    header = (tmp_path / "out" / "ablation.md").read_text().splitlines()[2]
    assert [cell.strip() for cell in header.split("|")[-4:-1]] == ["base", "novel", "harmonic mean"]
    own, new = ((tmp_path / "out/data/clips" / part / "classes.csv").read_text() for part in ("base-seed0", "novel"))
    assert ("0,a" in own, "1,b" in own, "0,c" in new, "1,d" in new) == (True,) * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(axes=("width",)), "--axes: no 'width'; there are blocks, dim"),
        (dict(overrides=("method=lora",)), "method: lora has other choices; msta ablate varies those of msta"),
        (dict(overrides=("method.width=3",)), "no setting method.width"),
        (dict(inside=True), "--out: .* lies inside .*, where it would be taken for a class"),
    ],
)
def test_wrong_usage_is_named_before_anything_is_written(clips, backbone, tmp_path, changes, message):
    changes = dict(changes)
    out = (clips if changes.pop("inside", False) else clips.parent) / "out"
    before = sorted(clips.parent.rglob("*"))
    with pytest.raises(ConfigError, match=message):
        ablate(Ablation(str(clips), backbone=backbone, **changes), out, QUIET)
    assert sorted(clips.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("template", "named"),
    [("a clip of {}.", "a clip of {}."), ("ensemble", "ensemble"), (("one {}", "two {}"), "2 of your own")],
)
def test_the_prompts_of_a_run_are_named_as_what_they_are(template, named):
    config = make_config("small", {"data.path": ".", "data.template": template})
    axis = points(config, msta.random_backbone(tiny()), None, ("template",))["template"]
    assert axis[named] == {}
    assert axis.get("ensemble", {}) == ({} if template == "ensemble" else {"data.template": "ensemble"})


def test_seeds_are_numbers():
    with pytest.raises(ConfigError, match="--seeds: expected numbers separated by commas, got '1,a'"):
        CliRunner().invoke(app, ["ablate", "--data", ".", "--out", "x", "--seeds", "1,a"], catch_exceptions=False)


def test_the_data_are_read_as_asked(clips, backbone, tmp_path):
    (tmp_path / "names.csv").write_text("id,name\n0,go there\n1,go back\n")
    data, overrides = f"{clips}?labels={tmp_path / 'names.csv'}", (*QUICK, "train.epochs=0")
    asked = Ablation(data, axes=("template",), shots=3, seeds=(0,), overrides=overrides, backbone=backbone)
    ablate(asked, tmp_path / "out", QUIET)
    names = json.loads((tmp_path / "out" / "runs" / "unchanged" / "seed0" / "adapter" / "classes.json").read_text())
    assert names["names"] == ["go there", "go back"]
    split = (tmp_path / "out" / "data" / clips.name / "seed0" / "split.csv").read_text()
    assert all(("go_there" in line) == line.split(",")[1].startswith("0") for line in split.splitlines()[1:])
