"""What a step is said to cost, against formulas, against the step itself, and against a run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import KINDS, refused, tiny
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner
from video_files import write_video

import msta
from msta.cli import app
from msta.config import make_config
from msta.errors import ConfigError
from msta.methods import METHODS, method_config
from msta.training import cost as cost_module
from msta.training.cards import CARDS, Card, card_named
from msta.training.cost import MovedBytes, bench, count_forward, count_step, flop_counter, time_forward, time_step
from msta.training.loop import train
from msta.training.losses import objective
from msta.training.plan import plan
from msta.training.setup import set_up

PROMPTED = method_config("prompts", kind="maple", depth=2)  # more would not fit into the tiny context
PROMPTS = ["a video of a cat.", "a video of a very slow dog."]


def made(attention: str, method: object, exact: bool):
    backbone = msta.random_backbone(tiny(attention))
    model = msta.attach(backbone, method, exact_reference=exact)
    model.prepare(len(PROMPTS), 3)
    return model, model.prepare_prompts(model.tokenize(PROMPTS))


@settings(deadline=None, max_examples=12)
@given(
    attention=st.sampled_from(KINDS),
    method=st.sampled_from(
        [
            PROMPTED,
            *(method_config(name, **({"dim": 16} if name == "msta" else {})) for name in METHODS if name != "prompts"),
        ]
    ),
    exact=st.booleans(),
    batch=st.integers(1, 3),
    frames=st.integers(1, 5),
)
def test_counting_without_numbers_counts_what_a_step_does(attention, method, exact, batch, frames):
    assume(not refused(method.name, attention))
    model, prompts = made(attention, method, exact)
    cost = count_step(model, prompts, batch=batch, frames=frames, size=32)
    with flop_counter() as counter:
        video, text = model(torch.randn(batch, frames, 3, 32, 32), prompts)
        loss, _ = objective(video, text, torch.zeros(batch, dtype=torch.int64), model.logits, [], 0.0)
        if loss.requires_grad:
            loss.backward()
    assert cost.flops == counter.get_total_flops()
    assert all(p.device.type == "cpu" for p in model.parameters())


@pytest.mark.parametrize("attention", KINDS)
def test_the_prefix_is_what_the_formula_says(attention):
    model, prompts = made(attention, msta.MSTAConfig(first_block=3, dim=4), exact=False)
    shape = model.backbone.video.shape
    d, m, patches, frames, batch = shape.width, shape.mlp_width, 4, 6, 2
    alone = attention != "siglip"  # a class token
    tokens, sequences = (1 + patches * frames, batch) if attention == "joint" else (alone + patches, batch * frames)
    block = 2 * sequences * tokens * (4 * d * d + 2 * d * m) + 4 * sequences * tokens * tokens * d
    pixels = 2 * batch * frames * patches * 3 * 16 * 16 * d
    cost = count_step(model, prompts, batch=batch, frames=frames, size=32)
    assert cost.prefix_flops == 2 * block + pixels
    assert cost.prefix_bytes == 2 * sequences * tokens * d // batch
    assert cost.weights == 4 * sum(p.numel() for p in model.parameters())
    assert cost.training == 12 * model.num_trainable()


def test_what_waits_for_the_backward_pass_grows_with_the_clips():
    model, prompts = made("joint", msta.MSTAConfig(dim=4), exact=False)
    kept = [count_step(model, prompts, batch=b, frames=4, size=32).kept for b in (1, 2, 3)]
    assert 0 < kept[0] < kept[1] < kept[2]
    plain, ids = made("joint", msta.MSTAConfig(dim=4), exact=True)
    assert count_step(plain, ids, batch=2, frames=4, size=32).kept > kept[1]
    frozen, prompts = made("joint", "zero-shot", exact=False)
    assert count_step(frozen, prompts, batch=2, frames=4, size=32).kept == 0


def test_checkpointing_keeps_less_and_computes_more():
    costs = []
    for checkpointing in (False, True):
        model, prompts = made("joint", "full", exact=False)
        for tower in (model.backbone.video, model.backbone.text):
            tower.checkpointing = checkpointing
        costs.append(count_step(model, prompts, batch=4, frames=4, size=32))
    assert 0 < costs[1].kept < 0.7 * costs[0].kept
    assert costs[1].flops > costs[0].flops


def test_timing_leaves_the_model_as_it_was():
    model, prompts = made("joint", msta.MSTAConfig(dim=4), exact=False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert time_step(model, prompts, batch=2, frames=4, size=32) > 0
    assert time_forward(model, frames=4, size=32) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("task")
    for k, name in enumerate(("push", "pull")):
        (root / "clips" / name).mkdir(parents=True)
        for i in range(6):
            noise = np.random.default_rng(10 * k + i).integers(0, 256, (8, 40, 40, 3), np.uint8)
            write_video(root / "clips" / name / f"{i}.mp4", noise)
    msta.random_backbone(tiny()).save(root / "backbone")
    return root / "clips", root / "backbone"


def test_a_plan_is_what_the_run_then_does(task, tmp_path):
    clips, backbone = task
    config = make_config(
        "small",
        {"data.path": clips, "data.shots": 3, "backbone": str(backbone)},
        ["train.epochs=3", "data.workers=0", "cache.views=2", f"cache.path={tmp_path / 'cache'}"],
    )
    said = plan(config)
    assert not (tmp_path / "cache").exists()
    metrics = train(config, tmp_path / "run", Console(quiet=True))
    assert said["steps"] == metrics["steps"]
    assert said["trainable parameters"] == metrics["trainable_parameters"]
    assert said["cache"] == "0.00 GB for the training clips"


def test_a_plan_counts_the_trainings_that_measure_too(task):
    clips, backbone = task
    once, folds, refit = (
        plan(make_config("small", {"data.path": clips, "backbone": str(backbone), **settings}, ["data.workers=0"]))
        for settings in (
            {"data.val_fraction": 0, "data.test_fraction": 0.01},
            {"train.folds": 3},
            {"train.refit": True},
        )
    )
    assert folds["steps"] > 2 * once["steps"]
    assert once["steps"] < refit["steps"] < folds["steps"]


def test_memory_is_that_of_the_device(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert cost_module._peak(torch.device("cuda")) == 7
    assert cost_module._peak(torch.device("cpu")) > 10**7


def test_a_plan_counts_in_the_precision_of_the_run(task, monkeypatch):
    clips, backbone = task
    seen = {}
    for precision in ("fp32", "bf16"):

        def counted(*arguments, precision=precision, **options):
            seen[precision] = count_step(*arguments, **options)
            return seen[precision]

        monkeypatch.setattr("msta.training.plan.count_step", counted)
        given = {"data.path": clips, "data.shots": 3, "backbone": str(backbone)}
        plan(make_config("small", given, [f"train.precision={precision}", "data.workers=0"]))
    assert seen["bf16"].weights < seen["fp32"].weights
    assert seen["bf16"].kept < 0.9 * seen["fp32"].kept


def test_moved_bytes_are_those_that_operators_read_and_write():
    a, moved = torch.zeros(10, 20), MovedBytes()
    with moved:
        b = a.transpose(0, 1)[:5]  # views
        c = a @ a.t()  # a product
        b + 1  # reads and writes 5 x 10 numbers
    assert c.shape == (10, 10)
    assert moved.total == 2 * 4 * 50


def test_a_forward_pass_costs_what_its_operators_do():
    model, _ = made("joint", "zero-shot", exact=False)
    with flop_counter() as counter, MovedBytes() as moved, torch.no_grad():
        model.encode_video(torch.empty(1, 4, 3, 32, 32).zero_())
    flops, counted = count_forward(model, frames=4, size=32)
    assert flops == counter.get_total_flops()
    assert counted == moved.total - 2 * 4 * 4 * 3 * 32 * 32  # of zero_


def test_a_card_s_time_is_that_of_its_peaks():
    card = Card(low=100, tf32=50, fp32=10, memory=16, bandwidth=500)
    work = 10**12, 10**9
    assert card.seconds(*work, "fp32", False) == pytest.approx(0.1 + 0.002)
    assert card.seconds(*work, "fp32", True) == pytest.approx(0.02 + 0.002)
    assert card.seconds(*work, "bf16", False) == pytest.approx(0.01 + 0.002)
    assert card_named("cuda:rtx-4090") is CARDS["RTX4090"]
    assert [CARDS[name].precision("auto") for name in ("A100", "T4")] == ["bf16", "fp16"]
    assert CARDS["T4"].seconds(*work, "fp32", True) == CARDS["T4"].seconds(*work, "fp32", False)
    for wrong in ("A100", "cuda", "cuda:0", "cpu:A100"):
        with pytest.raises(ConfigError, match="a plan is for cuda:CARD"):
            card_named(wrong)
    with pytest.raises(ConfigError, match="no bf16"):
        CARDS["V100"].precision("bf16")


def test_a_plan_for_a_card_runs_nothing_on_it(task):
    clips, backbone = task
    given = {"data.path": clips, "data.shots": 3, "backbone": str(backbone)}
    slow, fast = (plan(make_config("small", given), device) for device in ("cuda:T4", "cuda:H100"))
    assert (slow["precision"], fast["precision"]) == ("fp16", "bf16")
    assert slow["seconds per step"].startswith("at least ")
    assert float(slow["seconds per step"].split()[2].strip(",")) > float(fast["seconds per step"].split()[2].strip(","))
    result = CliRunner().invoke(app, ["info", "--device", "cuda:A100"])
    assert "--device: goes with --plan" in str(result.exception)


def test_a_plan_says_what_does_not_fit(task, monkeypatch):
    clips, backbone = task
    monkeypatch.setitem(CARDS, "A100", Card(312, 156, 19.5, 1e-6, 1555))
    given = {"data.path": clips, "data.shots": 3, "backbone": str(backbone)}
    assert "lower train.batch_size" in plan(make_config("small", given), "cuda:A100")["too large"]


def test_the_setting_reaches_both_towers(task):
    clips, backbone = task
    for value in ("true", "false"):
        given = {"data.path": clips, "data.shots": 3, "backbone": str(backbone)}
        model = set_up(make_config("small", given, [f"train.checkpointing={value}"]), 8).model
        assert {model.backbone.video.checkpointing, model.backbone.text.checkpointing} == {value == "true"}


def test_the_command(task):
    clips, backbone = task
    options = ["info", "--plan", "--data", str(clips), "--backbone", str(backbone), "--json", "train.epochs=2"]
    result = CliRunner().invoke(app, options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] > 0


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--plan"], "--data"),
        (["a", "b"], "one target"),
        (["--shots", "2"], "--plan"),
        (["--preset", "x"], "no preset 'x'"),
    ],
)
def test_wrong_usage_says_what(arguments, word):
    result = CliRunner().invoke(app, ["info", *arguments])
    assert result.exit_code != 0
    assert word in str(result.exception) + result.output


def test_bench_measures_the_ways_side_by_side(task):
    result = CliRunner().invoke(
        app, ["bench", "--backbone", str(task[1]), "--method", "mma", "--classes", "3", "--rounds", "1", "--json"]
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["method"] == "mma"
    assert facts["seconds per step"] > 0
    assert facts["times faster"] == pytest.approx(facts["seconds per step, plain"] / facts["seconds per step"], rel=0.1)
    assert facts["seconds per step, prefix kept"] > 0


def test_bench_has_no_prefix_to_keep_where_all_trains():
    backbone = msta.random_backbone(tiny())
    before = backbone.fingerprint()
    facts = bench(backbone, "full", classes=2, batch=1, rounds=1)
    assert facts["TFLOP of it in the frozen prefix"] == 0
    assert "seconds per step, prefix kept" not in facts
    assert backbone.fingerprint() == before
