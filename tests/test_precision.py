"""Where and how to compute: the device, the precision, and compiled blocks, as the user chooses or by default."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
import typer
from conftest import saved_adapter, tiny
from rich.console import Console
from safetensors.torch import load_file
from torch._dynamo.testing import CompileCounter
from typer.testing import CliRunner

import msta
from msta.backbone.device import best_device, precision_on
from msta.cli import app
from msta.config import make_config, read_config
from msta.errors import ConfigError
from msta.inference.predictor import Predictor
from msta.inference.shared_backbone import SharedBackbone
from msta.training.loop import train

QUIET = Console(quiet=True)


def config(clips: Path, backbone: Path, *overrides: str):
    quick = ["train.epochs=1", "train.batch_size=4", "data.workers=0", "method.dim=8", "method.first_block=3"]
    return make_config(
        "small", {"data.path": str(clips), "backbone": str(backbone), "data.shots": 4}, [*quick, *overrides]
    )


# ---------------------------------------------------------------- defaults


@pytest.mark.parametrize(("low", "precision"), [(True, "bf16"), (False, "fp16")])
def test_a_cuda_card_computes_in_bf16_or_else_in_fp16(low, precision, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: low)
    assert precision_on(torch.device("cuda")) == precision
    assert precision_on(torch.device("cuda"), "fp32") == "fp32"
    assert {precision_on(torch.device(kind)) for kind in ("cpu", "mps", "xpu")} == {"fp32"}
    given = make_config("small", {"data.path": "."})
    assert given.train.precision == "auto"
    assert given.on(torch.device("cuda")).train.precision == precision
    assert make_config("paper", {"data.path": "."}).on(torch.device("cuda")).train.precision == "fp32"


def test_a_run_keeps_the_precision_that_it_found(moving_clips, tiny_backbone, tmp_path):
    out, output = tmp_path / "run", Console(record=True, width=200)
    train(config(moving_clips, tiny_backbone), out, output)
    assert read_config(out / "config.yaml").train.precision == "fp32"
    assert "clips each, fp32" in output.export_text()
    train(config(moving_clips, tiny_backbone), out, QUIET, or_resume=True)  # "auto" is the same run


# ---------------------------------------------------------------- the options


def test_the_device_that_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    for name in ("cpu", "cuda", "cuda:1"):
        monkeypatch.setenv("MSTA_DEVICE", name)
        assert best_device() == torch.device(name)
    for name, message in (
        ("mps", "does not find mps"),
        ("cuda:2", "does not find cuda:2"),
        ("gpu", "knows no device 'gpu'"),
    ):
        monkeypatch.setenv("MSTA_DEVICE", name)
        with pytest.raises(ConfigError, match=message):
            best_device()


COMPUTING = {
    "demo", "train", "eval", "predict", "explain", "search", "serve", "app", "protocol", "ablate", "compare", "bench",
    "descriptions check",
}  # fmt: skip
CHOOSES_BY_SETTING = {"demo", "train"}


def test_every_command_that_computes_has_the_options():
    commands = dict(typer.main.get_command(app).commands)
    commands |= {f"descriptions {name}": command for name, command in commands["descriptions"].commands.items()}
    having = {
        option: {name for name, command in commands.items() if option in {p.name for p in command.params}}
        for option in ("device", "precision")
    }
    assert having["device"] - {"info"} == COMPUTING
    assert having["precision"] - {"export"} == COMPUTING - CHOOSES_BY_SETTING


def test_the_options_hold_for_one_command():
    refused = CliRunner().invoke(app, ["bench", "--precision", "int4"])
    assert isinstance(refused.exception, ConfigError)
    assert "--precision: expected one of auto" in str(refused.exception)
    refused = CliRunner().invoke(app, ["bench", "--device", "gpu"])
    assert "knows no device 'gpu'" in str(refused.exception)
    assert not {"MSTA_DEVICE", "MSTA_PRECISION"} & set(os.environ)


# ---------------------------------------------------------------- inference


@pytest.fixture(scope="module")
def adapter(tmp_path_factory):
    path = tmp_path_factory.mktemp("adapter") / "adapter"
    saved_adapter(path, 0, ["left", "right", "up"], msta.load_backbone("toy"))
    return path


def outcome(*words: object) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("window", [[], ["--window", "0.4s"]])
def test_predictions_in_bf16_are_near_those_in_fp32(adapter, moving_clips, window):
    clip = sorted(moving_clips.rglob("*.mp4"))[0]
    command = ["predict", clip, "--adapter", adapter, "--json", *window]
    plain, low = (json.loads(outcome(*command, "--precision", precision)) for precision in ("fp32", "bf16"))
    assert plain != low
    if not window:
        expected, found = ({p["label"]: p["probability"] for p in each[0]["predictions"]} for each in (plain, low))
        assert found == pytest.approx(expected, abs=0.05)
    assert json.loads(outcome(*command)) == plain


def test_other_commands_in_bf16(adapter, moving_clips, tmp_path):
    low = ["--precision", "bf16"]
    clip = sorted(moving_clips.rglob("*.mp4"))[0]
    outcome("eval", "--data", moving_clips, "--backbone", "toy", "--predictions", tmp_path / "p.parquet", *low)
    outcome("search", "left", "--in", clip.parent, "--adapter", adapter, "--index", tmp_path / "i", *low)
    outcome("explain", clip, "--adapter", adapter, "--out", tmp_path / "why", "--steps", 2, *low)
    outcome("predict", "--data", moving_clips, "--adapter", adapter, "--out", tmp_path / "all.parquet", *low)
    facts = json.loads(outcome("bench", "--batch", 1, "--classes", 2, "--rounds", 1, "--json", *low))
    assert ", bf16, " in facts["on"]


def test_a_service_s_backbone_computes_in_its_precision(adapter):
    backbone = msta.load_backbone("toy")
    shared = SharedBackbone(backbone)
    member, clip = Predictor(msta.load_adapter(adapter, backbone)), torch.randn(1, 8, 3, 64, 64)
    plain, _ = shared.answer([(clip, member)])[0]
    backbone.precision = "bf16"
    low, embeddings = shared.answer([(clip, Predictor(msta.load_adapter(adapter, backbone), None))])[0]
    assert low == pytest.approx(plain, abs=0.05)
    assert (low != plain).any()
    assert embeddings.dtype == torch.bfloat16


# ---------------------------------------------------------------- compiled blocks


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_with_compiled_blocks_gives_what_it_gives_without(
    moving_clips, tiny_backbone, tmp_path, precision, monkeypatch
):
    torch._dynamo.reset()
    graphs = CompileCounter()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=graphs))
    weights = []
    for compiled in ("false", "true"):
        assert not graphs.frame_count
        settings = (f"train.compile={compiled}", f"train.precision={precision}")
        train(config(moving_clips, tiny_backbone, *settings), tmp_path / compiled, QUIET)
        weights.append(load_file(tmp_path / compiled / "adapter" / "adapter_model.safetensors"))
    assert graphs.frame_count
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_exact_reference_is_not_compiled(moving_clips, tiny_backbone, tmp_path):
    with pytest.raises(ConfigError, match=r"train\.compile: the exact reference"):
        train(
            config(moving_clips, tiny_backbone, "train.compile=true", "train.exact_reference=true"),
            tmp_path / "run",
            QUIET,
        )


def test_blocks_above_the_prefix_are_not_compiled():
    model = msta.attach(msta.random_backbone(tiny("joint")), msta.MSTAConfig(first_block=3, dim=4))
    model.compile_prefix()
    assert [block._compiled_call_impl is not None for block in model.backbone.video.blocks] == [True, True, False]
