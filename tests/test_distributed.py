"""Several processes do what one does: the same losses and weights, every clip once, and no waiting for ever."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from conftest import read_log
from launch import launch, run
from safetensors.torch import load_file
from torch.testing._internal.distributed.fake_pg import FakeStore
from video_files import moving_squares

from msta.data.loading import StepSampler
from msta.errors import ConfigError
from msta.evaluation.predictions import read_predictions
from msta.settings import TrainSettings
from msta.training.processes import _BUCKET, Processes
from msta.training.state import random_state, restore_random, saved_states

QUICK = ["train.batch_size=4", "train.global_batch=8", "data.workers=0", "method.dim=8", "train.log_clips=true"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Four classes of 10 clips, two of which cannot be read."""
    steps = {"go_there": -1, "go_back": 1, "stay": 0, "fly": 2}
    root = moving_squares(tmp_path_factory.mktemp("clips"), steps, 10)
    for name in ("stay", "go_back"):
        (root / name / "3.mp4").write_text("no video")
    return root


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> Path:
    return tiny_backbone


def command(clips: Path, backbone: Path, out: Path, *overrides: str) -> list[str]:
    given = ["--data", str(clips), "--backbone", str(backbone), "--shots", "6", "--out", str(out)]
    return ["train", *given, *QUICK, *overrides]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "adapter" / "adapter_model.safetensors")


def described(folder: Path) -> list[str]:
    """Sentences, so that the consistency term counts too."""
    for kind in "st":
        sentences = {str(i): [f"{kind} {word}"] for i, word in enumerate(("one", "two", "three", "four"))}
        (folder / f"{kind}.json").write_text(json.dumps(sentences))
    return [f"descriptions.spatial={folder / 's.json'}", f"descriptions.temporal={folder / 't.json'}"]


def test_one_two_and_four_processes_agree(clips, backbone, tmp_path):
    options = [
        *described(tmp_path),
        "train.epochs=7",
        "train.eval_every=7",
        "train.share_prompts=true",
        "train.lr=1e-2",
    ]
    for count in (1, 2, 4):
        codes = run(command(clips, backbone, tmp_path / f"run{count}", *options), count, tmp_path / f"log{count}")
        assert codes == [0] * count, (tmp_path / f"log{count}.0").read_text()
    one = [line for line in read_log(tmp_path / "run1") if "loss" in line]
    assert len(one) == 21  # 24 clips, 8 a step
    for count in (2, 4):
        out = tmp_path / f"run{count}"
        other = [line for line in read_log(out) if "loss" in line]
        assert [line["clips"] for line in other] == [line["clips"] for line in one]
        for a, b in zip(one, other, strict=True):
            assert b["loss"] == pytest.approx(a["loss"], abs=1e-5)
            assert b["consistency"] == pytest.approx(a["consistency"], abs=1e-5)
        expected, found = weights(tmp_path / "run1"), weights(out)
        assert max((found[name] - expected[name]).abs().max().item() for name in expected) < 1e-5
        for part in ("val", "test"):
            alone, shared = (read_predictions(tmp_path / r / "predictions" / f"{part}.parquet") for r in ("run1", out))
            assert shared.clips == alone.clips  # every clip once, in order
            assert shared.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert {p.name for p in out.iterdir()} == {p.name for p in (tmp_path / "run1").iterdir()}
        for rank in range(1, count):
            assert (tmp_path / f"log{count}.{rank}").read_text() == ""  # the main process speaks
        unreadable = json.loads((out / "metrics.json").read_text())["unreadable"]
        assert unreadable == json.loads((tmp_path / "run1" / "metrics.json").read_text())["unreadable"]


def test_two_processes_go_on_bit_for_bit_or_as_one(clips, backbone, tmp_path):
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=2"]
    arguments = command(clips, backbone, tmp_path / "whole", "train.epochs=4", *cache)
    assert run(arguments, 2, tmp_path / "log") == [0, 0]
    stopped = command(clips, backbone, tmp_path / "run", "train.epochs=4", "train.save_every=0", *cache)
    both = launch(stopped, 2, tmp_path / "stopped")
    while len(saved_states(tmp_path / "run" / "checkpoints")) < 2:
        time.sleep(0.01)
    both[1].kill()  # the first one notices, and neither waits for ever
    for process in both:
        process.join(60)
    assert both[1].exitcode == -signal.SIGKILL
    assert both[0].exitcode == 1
    assert "another process of this run has ended" in (tmp_path / "stopped.0").read_text()
    shutil.copytree(tmp_path / "run", tmp_path / "alone")
    for name, count in (("run", 2), ("alone", 1)):
        assert run(["train", "--resume", str(tmp_path / name)], count, tmp_path / name) == [0] * count
    expected, same, alone = (weights(tmp_path / name) for name in ("whole", "run", "alone"))
    assert all(torch.equal(same[name], expected[name]) for name in expected)
    assert all(torch.allclose(alone[name], expected[name], atol=1e-5) for name in expected)
    steps = [
        [(x["step"], x["clips"]) for x in read_log(tmp_path / n) if "loss" in x] for n in ("whole", "run", "alone")
    ]
    assert steps[0] == steps[1] == steps[2]


@pytest.mark.parametrize("processes", [1, 2, 3, 5])
@pytest.mark.parametrize(("count", "step_clips", "batch_size"), [(23, 8, 3), (8, 8, 8), (5, 7, 1)])
def test_every_clip_is_dealt_out_once_in_the_same_steps(count, step_clips, batch_size, processes):
    def epoch(skip: int, processes: int, batch_size: int) -> list[list[int]]:
        """The clips of each step."""
        steps: list[list[int]] = []
        for rank in range(processes):
            sampler = StepSampler(
                count, 3, step_clips=step_clips, batch_size=batch_size, process=rank, processes=processes
            )
            sampler.epoch, sampler.skip = 2, skip
            batches = iter(sampler)
            for number, start in enumerate(range(skip, count, step_clips)):
                own = len(range(rank, min(step_clips, count - start), processes))
                steps += [[] for _ in range(number + 1 - len(steps))]
                while own > 0:
                    batch = next(batches)
                    assert 0 < len(batch) <= min(batch_size, own)  # never of two steps
                    own -= len(batch)
                    steps[number] += [i for _, i in batch]
            assert next(batches, None) is None
        return [sorted(step) for step in steps]

    alone = epoch(0, 1, step_clips)
    assert sorted(i for step in alone for i in step) == list(range(count))
    assert epoch(0, processes, batch_size) == alone
    assert epoch(step_clips, processes, batch_size) == alone[1:]


@pytest.mark.parametrize("without", [(), (1,)])
def test_gradients_go_in_one_piece_and_always_in_the_same_order(monkeypatch, without):
    """Of eight processes, of which seven are made up."""
    sent: list[torch.Tensor] = []
    parameters = [torch.nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2, 2))]
    for i, parameter in enumerate(parameters):
        parameter.grad = None if i in without else torch.full_like(parameter, i + 1.0)
    processes = Processes.__new__(Processes)
    processes.rank, processes.count = 0, 8
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    try:
        real = dist.all_reduce
        monkeypatch.setattr(dist, "all_reduce", lambda tensor: (sent.append(tensor), real(tensor)))
        told = processes.all_reduce_gradients(parameters)
    finally:
        dist.destroy_process_group()
    flags, bucket = sent
    assert flags.tolist() == [float(i not in without) for i in range(3)]
    left = [p for i, p in enumerate(parameters) if i not in without]
    assert torch.equal(bucket, torch.cat([p.grad.flatten() for p in left]))
    assert told == 4 * (3 + len(bucket))
    assert _BUCKET > 8_712_192  # the paper's widest adapters go in one piece


def test_the_accelerator_s_generator_is_saved_and_restored(monkeypatch):
    held = {"state": torch.tensor([1, 2], dtype=torch.uint8)}
    module = SimpleNamespace(
        get_rng_state=lambda: held["state"].clone(), set_rng_state=lambda state: held.update(state=state)
    )
    on_cpu = random_state()
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("xpu"))
    monkeypatch.setattr(torch, "get_device_module", lambda device=None: module)
    saved = random_state()
    held["state"] = torch.zeros(2, dtype=torch.uint8)
    restore_random(on_cpu)  # of another kind of device: left alone
    assert held["state"].tolist() == [0, 0]
    restore_random(saved)
    assert held["state"].tolist() == [1, 2]


@pytest.mark.parametrize(
    "left",
    [
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},
        {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost"},
        {"WORLD_SIZE": "", "LOCAL_WORLD_SIZE": "", "LOCAL_RANK": "0"},
        {"ACCELERATE_USE_DEEPSPEED": "true", "RANK": "0", "LOCAL_RANK": "0"},
        {"ACCELERATE_USE_FSDP": "true", "ACCELERATE_TORCH_DEVICE": "cuda"},
    ],
    ids=lambda left: " ".join(left),
)
def test_what_a_launcher_leaves_for_one_process_does_not_matter(left, monkeypatch):
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    processes = Processes(TrainSettings(precision="fp32"))
    assert (processes.rank, processes.count) == (0, 1)
    assert processes.decoders(2) == 2


@pytest.mark.parametrize(
    ("left", "says"),
    [
        ({"WORLD_SIZE": "auto"}, "WORLD_SIZE is 'auto', not a number"),
        ({"WORLD_SIZE": "2"}, "RANK and MASTER_ADDR and MASTER_PORT are not set: start them with torchrun"),
    ],
)
def test_what_a_launcher_forgot_is_said(left, says, monkeypatch):
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=says):
        Processes(TrainSettings(precision="fp32"))
