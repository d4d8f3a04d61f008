"""What goes wrong in long runs: full disks, damaged states, dead and hanging decoders, no memory, no number."""

from __future__ import annotations

import contextlib
import gc
import itertools
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import read_log, tiny
from launch import launch, run_msta
from rich.console import Console
from safetensors.torch import load_file

import msta
from msta.adapters.model import AdaptedModel
from msta.config import make_config, read_config
from msta.data.catalog import Clip
from msta.data.clips import ClipDataset, ClipFormat, Failures, make_loader
from msta.errors import CheckpointError, ConfigError, Interrupted, MSTAError
from msta.files import replacing, write_bytes
from msta.training import loop as loop_module
from msta.training import state as state_module
from msta.training import step as step_module
from msta.training.loop import train
from msta.training.state import Pace, Progress, State, random_state, read_progress, save_state, saved_states
from msta.training.status import describe, read_status, to_prometheus

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def clips(moving_clips) -> Path:
    return moving_clips


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> Path:
    return tiny_backbone


def config(clips: Path, backbone: Path, *overrides: str):
    quick = ["train.epochs=3", "train.batch_size=4", "data.workers=0", "method.dim=8", "train.save_every=0"]
    settings = {"data.path": str(clips), "data.shots": 4, "backbone": str(backbone)}
    return make_config("small", settings, [*quick, *overrides])


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_log(run) if "loss" in line]


def same_weights(run: Path, other: Path) -> bool:
    ours, theirs = (load_file(out / "adapter" / "adapter_model.safetensors") for out in (run, other))
    return all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.fixture(scope="module")
def whole(clips, backbone, tmp_path_factory) -> Path:
    """A run that nothing disturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    train(config(clips, backbone), out, QUIET)
    return out


# ---------------------------------------------------------------- states


def a_state(step: int) -> State:
    progress = Progress(step=step, step_clips=4, batch_size=4)
    return State(progress, {"adapter.x": torch.full((9,), float(step))}, None, {"optimizer": {}}, [random_state()])


def test_the_last_two_states_are_kept_and_a_damaged_one_is_passed_over(tmp_path, caplog):
    for step in (1, 2, 2, 9, 10):
        save_state(tmp_path, a_state(step))
    assert [path.name for path in saved_states(tmp_path)] == ["step-10", "step-9"]
    assert read_progress(tmp_path)[1].step == 10
    for file in list((tmp_path / "step-10").iterdir()):
        content = file.read_bytes()
        for damage in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1]), None):
            file.unlink()
            if damage is not None:
                file.write_bytes(damage)
            path, progress = read_progress(tmp_path)
            assert (path.name, progress.step) == ("step-9", 9), file.name
        file.write_bytes(content)
    assert "step-10: adapter.safetensors is not what was written" in caplog.text
    assert read_progress(tmp_path)[1].step == 10
    for path in saved_states(tmp_path):
        (path / "manifest.json").unlink()
    with pytest.raises(CheckpointError, match=r"step-10: manifest.json: No such file.*step-9.*: cannot go on"):
        read_progress(tmp_path)
    assert read_progress(tmp_path / "nothing") is None


def test_a_kill_in_a_save_leaves_the_state_before_it(tmp_path, monkeypatch):
    save_state(tmp_path, a_state(1))

    class Killed(BaseException):
        pass

    calls = [0]

    def flush(path: Path) -> None:
        calls[0] += 1
        if calls[0] == limit:
            raise Killed  # nothing after it is executed, as by kill -9
        real(path)

    real = state_module._flush
    monkeypatch.setattr(state_module, "_flush", flush)
    for limit in range(1, 8):
        calls[0] = 0
        try:
            save_state(tmp_path, a_state(limit + 1))
        except Killed:
            assert read_progress(tmp_path)[1].step in (1, limit + 1)
        else:
            break
    assert calls[0] > 5
    assert read_progress(tmp_path)[1].step == limit + 1
    assert not list(tmp_path.glob(".step*"))


def test_a_full_disk_keeps_the_state_before_it_and_names_the_folder(tmp_path):
    save_state(tmp_path, a_state(1))
    large = State(Progress(step=2), {"adapter.x": torch.zeros(100_000)}, None, {}, [])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))
    try:
        with pytest.raises(CheckpointError, match=r"cannot save step 2 \(.*\); step-1 is kept. Make room"):
            save_state(tmp_path, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path.name for path in tmp_path.iterdir()] == ["step-1"]
    save_state(tmp_path, large)


def test_slow_disks_are_written_to_less_often(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(state_module.time, "monotonic", lambda: now[0])
    pace = Pace(10)
    pace.saved(3)
    for seconds, due in ((59, False), (2, True)):
        now[0] += seconds
        assert pace.due() is due
    assert Pace(0).due()


def test_a_state_of_another_backbone_is_refused(clips, backbone, tmp_path, whole):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / "metrics.json").unlink()
    other = tmp_path / "other"
    msta.random_backbone(tiny(), 1).save(other)
    with pytest.raises(CheckpointError, match=r"step-6.*: was made with .*backbone"):
        train(config(clips, other), tmp_path / "run", QUIET, resume=True)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_a_stop_while_clips_are_measured_changes_nothing(clips, backbone, tmp_path, whole, monkeypatch, number):
    """In a validation, the last one, the final test."""
    import msta.evaluation.evaluate as evaluate_module

    calls, real = [0], evaluate_module.read_views

    def read_views(*arguments):
        calls[0] += 1
        if calls[0] == number:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(evaluate_module, "read_views", read_views)
    with pytest.raises(Interrupted, match="saved"):
        train(config(clips, backbone), tmp_path / "run", QUIET)
    assert read_status(tmp_path / "run")["state"] == "stopped"
    train(config(clips, backbone), tmp_path / "run", QUIET, resume=True)
    assert same_weights(tmp_path / "run", whole)
    assert (tmp_path / "run" / "log.jsonl").read_text() == (whole / "log.jsonl").read_text()


# ---------------------------------------------------------------- one run, one process


def test_two_runs_in_one_directory_and_a_kill(clips, backbone, tmp_path, whole):
    arguments = ["train", "--data", str(clips), "--backbone", str(backbone), "--shots", "4", "train.epochs=3",
                 "train.batch_size=4", "data.workers=1", "method.dim=8", "train.save_every=0"]  # fmt: skip
    run = tmp_path / "run"
    process = launch([*arguments, "--out", str(run)], 1, tmp_path / "log")[0]
    while not saved_states(run / "checkpoints"):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    assert read_status(run)["state"] == "running"
    with pytest.raises(MSTAError, match=rf"run: process {process.pid} on .* is at work in it"):
        train(read_config(run / "config.yaml"), run, QUIET, resume=True)
    os.kill(process.pid, signal.SIGKILL)  # its decoding process lives on, and is no obstacle
    process.join()
    status = read_status(run)
    assert status["state"] == "dead"
    assert "ended without a word; go on with: msta train --resume" in "\n".join(describe(status))
    train(config(clips, backbone), run, QUIET, resume=True)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    assert same_weights(run, whole)


def test_status_and_prometheus(clips, backbone, tmp_path, whole):
    status = json.loads(run_msta("status", whole, "--json").stdout)
    assert (status["state"], status["step"], status["steps"]) == ("finished", 6, 6)
    assert status["loss"] == losses(whole)[-1]
    text = "\n".join(describe(status))
    assert "step 6 of 6 (100 %)" in text
    assert "test: top-1" in text
    train(config(clips, backbone, f"train.prometheus={tmp_path / 'a.prom'}"), tmp_path / "run", QUIET)
    lines = (tmp_path / "a.prom").read_text().splitlines()
    assert f'msta_step{{run="{tmp_path / "run"}"}} 6' in lines
    assert to_prometheus(Path('a"b'), {"step": 1}).splitlines()[-1] == 'msta_step{run="a\\"b"} 1'
    with pytest.raises(MSTAError, match="nothing: no run of msta train"):
        read_status(tmp_path / "nothing")


def test_a_clock_that_jumps_changes_nothing(clips, backbone, tmp_path, whole, monkeypatch):
    jumps, real = itertools.cycle([0.0, 86400.0, -86400.0]), time.time
    monkeypatch.setattr(time, "time", lambda: real() + next(jumps))
    out = tmp_path / "run"
    train(config(clips, backbone), out, QUIET)
    assert same_weights(out, whole)
    assert 0 < json.loads((out / "metrics.json").read_text())["seconds"] < 43200  # half a jump
    for _ in range(3):
        assert describe(read_status(out))


def test_trackers_are_told_what_tensorboard_is_told(clips, backbone, tmp_path):
    """A stand-in for W&B's package: Accelerate finds it as installed, and calls init, log and finish."""
    with pytest.raises(MSTAError, match=r"train\.trackers: wandb is not installed"):
        train(config(clips, backbone, "train.trackers=wandb"), tmp_path / "no", QUIET)
    with pytest.raises(MSTAError, match=r"train\.trackers: bandw is none of .*wandb"):
        train(config(clips, backbone, "train.trackers=bandw"), tmp_path / "no", QUIET)
    (tmp_path / "wandb-1.0.dist-info").mkdir()
    (tmp_path / "wandb-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 1.0\n")
    (tmp_path / "wandb.py").write_text(
        "import json\n"
        "def tell(*told): print(json.dumps(told), file=open('told.jsonl', 'a'))\n"
        "class Run:\n"
        "    name = 'x'\n"
        "    def log(self, values, step=None, **k): tell(step, values)\n"
        "    def finish(self): tell('finished')\n"
        "class config:\n"
        "    update = staticmethod(lambda values, **k: tell(values))\n"
        "def init(**options): tell(options); return Run()\n"
    )
    given = ["--data", str(clips), "--backbone", str(backbone), "--shots", "4", "--out", "run", "train.trackers=wandb"]
    command = [sys.executable, "-m", "msta", "train", *given, "train.epochs=1", "data.workers=0"]
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]
    opened = told[0][0]
    assert (opened["project"], opened["name"], opened["resume"]) == ("msta", "run", "allow")
    assert told[1][0]["train.lr"] == 2e-2
    assert [values["train/loss"] for _, values in told[2:-1] if "train/loss" in values] == losses(tmp_path / "run")
    assert told[-1] == ["finished"]


# ---------------------------------------------------------------- steps that fail


def test_without_memory_the_run_says_what_to_lower_or_lowers_it(clips, backbone, tmp_path, whole, monkeypatch):
    real = step_module.views_of

    def views_of(batch, *rest):
        if len(batch["label"]) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return real(batch, *rest)

    monkeypatch.setattr(step_module, "views_of", views_of)
    with pytest.raises(
        MSTAError, match=r"out of memory with 4 clips at a time .*lower train\.batch_size; with --auto-b"
    ):
        train(config(clips, backbone), tmp_path / "plain", QUIET)
    train(config(clips, backbone, "train.auto_batch=true"), tmp_path / "auto", QUIET)
    assert losses(tmp_path / "auto") == pytest.approx(losses(whole), abs=1e-5)
    progress = read_progress(tmp_path / "auto" / "checkpoints")[1]
    assert (progress.batch_size, progress.step_clips) == (1, 4)


def test_a_finished_run_is_not_taken_for_one_with_other_settings(clips, backbone, tmp_path):
    first = train(config(clips, backbone), tmp_path / "run", QUIET, or_resume=True)
    assert train(config(clips, backbone), tmp_path / "run", QUIET, or_resume=True)["top1"] == first["top1"]
    with pytest.raises(ConfigError, match="its run has other settings"):
        train(config(clips, backbone, "train.epochs=1"), tmp_path / "run", QUIET, or_resume=True)


def test_a_step_that_lacked_memory_holds_nothing_when_it_is_tried_again(clips, backbone, tmp_path, monkeypatch):
    held, halve = [], loop_module._halve_micro_batches

    def encode_video(model, video):
        activations = embed(model, video)
        if len(activations) > 1 and activations.requires_grad:
            held.append(weakref.ref(activations))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return activations

    def halved(*arguments):
        seen.append([each() is None for each in held])
        halve(*arguments)

    embed, seen = AdaptedModel.encode_video, []
    monkeypatch.setattr(AdaptedModel, "encode_video", encode_video)
    monkeypatch.setattr(loop_module, "_halve_micro_batches", halved)
    train(config(clips, backbone, "train.auto_batch=true", "eval.clips=1"), tmp_path / "auto", QUIET)
    assert seen
    assert all(all(freed) for freed in seen)


def test_a_loss_that_is_no_number_stops_at_the_last_good_state_and_names_the_clips(
    clips, backbone, tmp_path, whole, monkeypatch
):
    steps, embed = [0], AdaptedModel.encode_video

    def encode_video(model, video):
        each = embed(model, video)
        steps[0] += each.requires_grad
        return torch.cat([each[:1] * float("nan"), each[1:]]) if steps[0] == 4 else each

    monkeypatch.setattr(AdaptedModel, "encode_video", encode_video)
    with pytest.raises(
        MSTAError, match=r"no number in step 4; the state before it is saved. Its clips: [^,]*\d\.mp4\. L"
    ):
        train(config(clips, backbone), tmp_path / "run", QUIET)
    status = read_status(tmp_path / "run")
    assert status["state"] == "failed"
    assert "no number" in status["errors"][0]
    assert read_progress(tmp_path / "run" / "checkpoints")[1].step == 3
    train(config(clips, backbone), tmp_path / "run", QUIET, resume=True)  # a passing fault of the hardware, say
    assert same_weights(tmp_path / "run", whole)


# ---------------------------------------------------------------- decoding processes


FINISHED = pytest.mark.parametrize("finish_on", [None, torch.device("cpu")], ids=["by the pipe", "by the ring"])


def dataset_of(clips: Path, finish_on: torch.device | None = None) -> ClipDataset:
    files = [Clip(str(file), 0) for file in sorted(clips.rglob("*.mp4"))]
    return ClipDataset(files, ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3), finish_on=finish_on)


def pixels(loader) -> torch.Tensor:
    return torch.cat([torch.as_tensor(batch["video"]) for batch in loader])


def indices(loader) -> tuple[list[int], Failures]:
    failures, seen = Failures(), []
    for batch in loader:
        failures.add(batch["failures"])
        seen += batch["index"].tolist()
    return seen, failures


class Trap(ClipDataset):
    """Hangs or dies on clip 5."""

    how = "hang"

    def __getitem__(self, key):
        if key[1] == 5 and 5 not in self.given_up:
            if self.how == "hang":
                time.sleep(1000)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(key)


@FINISHED
@pytest.mark.parametrize("how", ["hang", "die"])
def test_a_clip_on_which_the_decoder_hangs_or_dies_is_left_out(clips, how, finish_on):
    plain = dataset_of(clips)
    trap = Trap(plain.clips[:9], plain.form, finish_on=finish_on)
    trap.how = how
    loader = make_loader(trap, 2, 2, timeout={"hang": 5, "die": None}[how])
    seen, failures = indices(loader)
    assert seen == [0, 1, 2, 3, 4, 6, 7, 8]
    reason = {"hang": "not decoded within 5 s", "die": "the decoding process died on it, twice"}[how]
    assert failures.reasons == {plain.clips[5].path: reason}
    assert indices(loader)[0] == seen  # and is not tried again


@FINISHED
def test_a_decoding_process_that_is_killed_is_replaced(clips, finish_on):
    dataset = dataset_of(clips, finish_on)
    seen, shown = [], []
    loader = make_loader(dataset, 3, 1)
    for number, batch in enumerate(loader):
        seen += batch["index"].tolist()
        shown.append(torch.as_tensor(batch["video"]))
        if number in (0, 2):
            os.kill(loader._workers[0].process.pid, signal.SIGKILL)
    assert seen == list(range(18))
    assert torch.equal(torch.cat(shown), pixels(make_loader(dataset_of(clips), 3, 0)))


def test_a_pass_that_ends_early_keeps_no_slot(clips):
    loader = make_loader(dataset_of(clips, torch.device("cpu")), 3, 2)
    for ends_at in (1, 2, 6):
        for number, _ in enumerate(loader, start=1):
            if number == ends_at:
                break
        gc.collect()
    assert torch.equal(pixels(loader), pixels(make_loader(dataset_of(clips), 3, 0)))
    assert len(loader._ring._free) == (2 * 2 + 1) * 3


def test_a_forked_copy_of_a_loader_leaves_the_decoding_processes_alone(clips):
    loader = make_loader(dataset_of(clips), 3, 1)
    batches = iter(loader)
    next(batches)
    child = os.fork()
    if not child:
        try:
            loader.__del__()
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert loader._workers[0].process.is_alive()
    assert len(list(batches)) == 5


class Dead(ClipDataset):
    """Every clip ends its process."""

    def __getitem__(self, key):
        os._exit(3)


def test_decoding_processes_that_always_die_end_the_run(clips):
    plain = dataset_of(clips)
    loader = make_loader(Dead(plain.clips[:3], plain.form), 1, 1)
    with pytest.raises(MSTAError, match=r"data\.workers: decoding processes die again and again"):
        list(loader)


def test_the_last_of_many_states_of_one_step_is_the_newest(tmp_path):
    for seconds in range(6):
        save_state(tmp_path, replace(a_state(7), progress=Progress(step=7, seconds=seconds)))
        assert read_progress(tmp_path)[1].seconds == seconds
    assert [path.name for path in saved_states(tmp_path)] == ["step-7.5", "step-7.4"]


def test_two_threads_may_write_one_file(tmp_path):
    with replacing(tmp_path / "file") as mine:
        with ThreadPoolExecutor(1) as other:
            other.submit(write_bytes, tmp_path / "file", b"theirs").result()
        assert (tmp_path / "file").read_bytes() == b"theirs"
        mine.write_bytes(b"mine")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"mine"
