"""The commands as a user meets them: another process, its output, its exit code."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import DATA, OUTSIDE, needs, tiny
from launch import run_msta
from video_files import write_video

import msta
from msta import cli


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """clips/ of two classes, and a small random backbone."""
    root = tmp_path_factory.mktemp("world")
    for k, name in enumerate(("push_it", "pull_it")):
        (root / "clips" / name).mkdir(parents=True)
        for i in range(5):
            frames = (
                np.random.default_rng(10 * k + i).integers(0, 256, (8, 5, 5, 3), np.uint8).repeat(8, 1).repeat(8, 2)
            )
            write_video(root / "clips" / name / f"{i}.mp4", frames)
    msta.random_backbone(tiny()).save(root / "backbone")
    return root


@pytest.fixture(scope="module")
def trained(world) -> Path:
    done = run_msta("train", "--data", world / "clips", "--backbone", world / "backbone", "--shots", 2, "--preset", "small",
               "--out", world / "run", "train.epochs=2", "method.dim=8")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return world / "run"


def one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    """The command failed with this code and one clear line on standard error."""
    assert done.returncode == code, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert last.startswith("msta: ")
    for word in words:
        assert word in last


def test_train_then_predict_then_eval_then_info(world, trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert {"top1", "top5"} <= set(metrics)
    video = world / "clips" / "pull_it" / "3.mp4"

    predicted = run_msta("predict", video, "--adapter", trained / "adapter", "--json")
    assert predicted.returncode == 0, predicted.stderr
    (result,) = json.loads(predicted.stdout)
    assert result["path"] == str(video)
    assert {p["label"] for p in result["predictions"]} == {"push it", "pull it"}
    assert sum(p["probability"] for p in result["predictions"]) == pytest.approx(1)
    plain = run_msta("predict", video, "--adapter", trained / "adapter")
    assert plain.stdout.startswith(f"{video}: {result['predictions'][0]['label']}")

    measured = run_msta("eval", "--data", trained / "split.csv", "--adapter", trained / "adapter", "--json")
    assert json.loads(measured.stdout)["top1"] == pytest.approx(metrics["top1"])
    assert json.loads(measured.stdout)["clips"] == metrics["clips"] == 4

    for target in (trained, trained / "adapter"):
        told = json.loads(run_msta("info", target, "--json").stdout)
        assert told["method"] == "msta"
        assert told["trained parameters"] == metrics["trainable_parameters"]
    assert json.loads(run_msta("info", world / "backbone", "--json").stdout)["attention"] == "joint"
    assert "torch" in run_msta("info").stdout


def test_a_method_chosen_by_a_setting_leaves_the_presets_own_behind(world, tmp_path):
    done = run_msta("train", "--data", world / "clips", "--backbone", world / "backbone", "--out", tmp_path / "run", "--shots", 2,
               "method.name=zero-shot", "data.template=a {} with {braces}")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["method"] == "zero-shot"
    assert msta.load_adapter(tmp_path / "run" / "adapter").task.prompts()[0] == "a pull it with {braces}"


def test_a_completed_fine_tuned_backbone_is_found_again(world, tmp_path):
    tensors = torch.load(DATA / "openai_clip_tiny.pt", weights_only=True)
    torch.save(
        {k.replace("visual.", "image_encoder."): v for k, v in tensors.items() if "token_emb" not in k},
        tmp_path / "vifi.pth",
    )
    done = run_msta("train", "--data", world / "clips", "--backbone", tmp_path / "vifi.pth", "--base", DATA / "openai_clip_tiny.pt",
               "--out", tmp_path / "run", "--shots", 2, "train.epochs=1")  # fmt: skip
    assert done.returncode == 0, done.stderr
    video = world / "clips" / "pull_it" / "0.mp4"
    plain = run_msta("predict", video, "--adapter", tmp_path / "run" / "adapter", "--json")
    given = run_msta("predict", video, "--adapter", tmp_path / "run" / "adapter", "--json", "--backbone", tmp_path / "vifi.pth",
                "--base", DATA / "openai_clip_tiny.pt")  # fmt: skip
    assert plain.returncode == 0, plain.stderr
    assert plain.stdout == given.stdout


def test_version_and_no_arguments():
    assert run_msta("--version").stdout.strip() == msta.__version__
    assert "train" in run_msta().stdout


def test_a_notebooks_backend_for_pictures_does_not_matter(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://not_installed.here")
    monkeypatch.setattr(sys, "argv", ["msta", "--version"])
    with pytest.raises(SystemExit):
        cli.main()
    subprocess.run([sys.executable, "-c", "import matplotlib"], check=True)


def test_zero_shot_with_any_labels(world):
    video = world / "clips" / "pull_it" / "0.mp4"
    done = run_msta("predict", video, "--backbone", world / "backbone", "--labels", "run, jump,sit", "--json")
    assert {p["label"] for p in json.loads(done.stdout)[0]["predictions"]} == {"run", "jump", "sit"}
    done = run_msta("eval", "--data", world / "clips", "--backbone", world / "backbone", "--json")
    assert json.loads(done.stdout)["clips"] == 10


def test_predict_reports_an_unreadable_file_in_its_place_and_exits_1(world, trained, tmp_path):
    good = world / "clips" / "pull_it" / "0.mp4"
    (bad := tmp_path / "new\nline.mp4").write_text("no video")
    done = run_msta("predict", good, bad, tmp_path / "gone.mp4", good, "--adapter", trained / "adapter", "--json")
    assert done.returncode == 1
    results = json.loads(done.stdout)
    assert [r["path"] for r in results] == [str(good), str(bad), str(tmp_path / "gone.mp4"), str(good)]
    assert results[0]["predictions"] == results[3]["predictions"]
    assert results[1]["error"] == "not a video file FFmpeg can read"
    assert results[2]["error"] == "no such file"
    plain = run_msta("predict", bad, good, "--adapter", trained / "adapter")
    assert plain.returncode == 1
    assert len(plain.stdout.splitlines()) == 2
    assert "new\\nline.mp4: not a video" in plain.stdout


def test_ctrl_c_saves_and_says_how_to_go_on(world, tmp_path):
    command = ["train", "--data", world / "clips", "--backbone", world / "backbone", "--shots", 2, "--out", tmp_path / "run",
               "train.epochs=400", "train.eval_every=400", "data.workers=1"]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "msta", *map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    log = tmp_path / "run" / "log.jsonl"
    while not (log.exists() and len(log.read_text().splitlines()) > 3):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to the workers too
    _, said = process.communicate(timeout=600)
    assert process.returncode == 130
    assert f"Go on with: msta train --resume {tmp_path / 'run'}" in said.strip().splitlines()[-1]
    assert "Traceback" not in said
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: 400", "epochs: 60"))  # so that the rest is short
    done = run_msta("train", "--resume", tmp_path / "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines() if "loss" in line]
    assert steps == list(range(1, len(steps) + 1))


def test_unknown_is_said_where_asked(world, trained):
    video = world / "clips" / "pull_it" / "0.mp4"
    done = run_msta("predict", video, "--adapter", trained / "adapter", "--unknown-below", "val", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)[0]
    chosen = json.loads((trained / "metrics.json").read_text())["unknown_below"]
    assert result["unknown"] is (result["predictions"][0]["probability"] < chosen)
    plain = run_msta("predict", video, "--adapter", trained / "adapter", "--unknown-below", "1")
    assert plain.stdout.endswith("(unknown)\n")


def test_a_protocol_from_nothing_to_a_report_and_the_report_again(world, tmp_path):
    done = run_msta("protocol", "few-shot", "--data", world / "clips", "--backbone", world / "backbone", "--shots", "1,2",
               "--seeds", "0", "--out", tmp_path / "out", "train.epochs=1", "method.dim=8", "data.workers=0", "--json")  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [(row["method"], row["shots"]) for row in rows] == [("zero-shot", None), ("msta", 1), ("msta", 2)]
    (tmp_path / "out" / "report.html").unlink()
    again = run_msta("protocol", "report", "--out", tmp_path / "out")
    assert again.returncode == 0, again.stderr
    for row in rows:
        assert f"{row['top1']:.1f}" in again.stdout
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train"], 2, ["--data", "--out"]),
        (["train", *"--data clips --backbone backbone --out r trian.lr=1".split()], 2, ["no setting trian"]),
        (["train", *"--data clips --backbone backbone --out r lr=1".split()], 2, ["no setting lr; did you mean train.lr?"]),
        (["train", "--resume", "r", "--preset", "small"], 2, ["--resume takes its settings from the run"]),
        (["data", "index", *"--data clips --out i.parquet train.lr=1".split()], 2, ["train.lr: says nothing of data"]),
        (["eval", *"--data clips --base clip.pt".split()], 2, ["--base: completes a file that --backbone names"]),
        (["train", *"--data clips --backbone backbone --out r train.lr_=1".split()], 2, ["no setting train.lr_", "train.lr?"]),
        (["train", *"--data clips --backbone backbone --out r train.lr=fast".split()], 2, ["train.lr:", "'fast'"]),
        (["train", *"--data clips --backbone backbone --out r train.batch_size=-1".split()], 2, ["train.batch_size", "-1"]),
        (["train", *"--data clips --backbone backbone --out r data.size=-32".split()], 2, ["data.size", "-32"]),
        (["train", *"--data clips --backbone backbone --out r data.size=33".split()], 2, ["data.size: 33", "patch size 16"]),
        (["train", *"--data clips --backbone backbone --out r method.dim=0".split()], 2, ["method.dim", "0"]),
        (["train", *"--data clips --backbone backbone --out r method.rank=1".split()], 2, ["no setting method.rank"]),
        (["train", *"--data clips --backbone backbone --out r method.first_block=9".split()], 2, ["blocks 9..3"]),
        (["train", *"--data clips --backbone backbone --out r lr".split()], 2, ["key=value", "'lr'"]),
        (["train", *"--data clips --backbone backbone --out r train=5".split()], 2, ["train"]),
        (["train", *"--data clips --backbone backbone --out r data.path.x=1".split()], 2, ["data.path.x"]),
        (["train", *"--data clips --backbone backbone --out r train.lr=inf".split()], 2, ["train.lr"]),
        (["train", *"--data clips --backbone backbone --out r train.lr=".split()], 2, ["train.lr"]),
        (["train", *"--data clips --backbone backbone --out r data.crop_area=5".split()], 2, ["data.crop_area"]),
        (["train", *"--data clips --backbone backbone --out r data.template={}{".split(), "data.template=no place"], 2, ["data.template"]),
        (["train", *"--data clips --backbone backbone --out r method=magic".split()], 2, ["'magic'"]),
        (["train", *"--data clips --backbone backbone --out r method={}".split()], 2, ["'{}'"]),
        (["train", *"--data clips --backbone backbone --out clips/r".split()], 2, ["clips/r lies inside the data"]),
        (["protocol", "few-shot", "--data", "clips"], 2, ["missing --out"]),
        (["protocol", *"few-shot --data clips --out r --shots two".split()], 2, ["--shots", "'two'"]),
        (["protocol", *"few-shot --data clips --out clips/r".split()], 2, ["clips/r lies inside"]),
        (["protocol", *"some-shot --data clips --out r".split()], 2, ["no protocol 'some-shot'", "base-to-novel"]),
        (["protocol", *"report --out nothing".split()], 1, ["protocol.json"]),
        (["info", "hf-hub:clip"], 1, ["clip: no id on the Hub; expected owner/model"]),
        (["protocol", *"few-shot --data clips --out r --shots ,".split()], 2, ["--shots: expected numbers"]),
        (["train", *"--data clips --out r descriptions.kinds=temporal descriptions.spatial=s.json".split()], 2,
         ["descriptions.kinds: temporal, but descriptions.temporal is not given"]),
        (["protocol", *"zero-shot --target clips --second clips --out r".split()], 2, ["zero-shot takes no --second"]),
        (["protocol", *"few-shot --data clips --out r eval.keep=nothing".split()], 2, ["made from the predictions"]),
        (["eval", *"--data clips --backbone backbone --crops 2".split()], 2, ["crops"]),
        (["info", "random:viclip-b16:abc"], 1, ["random:ARCHITECTURE:SEED"]),
        (["predict", "clips/pull_it/0.mp4", *"--backbone backbone --labels a,,b".split()], 2, ["--labels: an empty name"]),
        (["train", *"--data clips --backbone backbone --out r --preset big".split()], 2, ["'big'", "paper, paper-logs, small, upper"]),
        (["train", *"--data clips --backbone backbone --out r --method magic".split()], 2, ["'magic'", "zero-shot"]),
        (["train", *"--data clips --backbone backbone --out r --shots 0".split()], 2, ["data.shots", "0"]),
        (["train", *"--data clips --backbone backbone --out r --shots 9".split()], 1, ["clips", "'pull it' has 5 clips", "9"]),
        (["train", *"--data nowhere --backbone backbone --out r".split()], 1, ["nowhere: no such folder"]),
        (["train", *"--data clips --backbone nothing.pt --out r".split()], 1, ["nothing.pt: no such file"]),
        (["train", *"--data clips --backbone backbone --out clips".split()], 1, ["clips: exists already"]),
        (["train", *"--resume nowhere".split()], 2, ["nowhere/config.yaml"]),
        (["train", *"--resume nowhere --shots 2".split()], 2, ["--resume takes its settings from the run"]),
        (["predict", "clips/pull_it/0.mp4"], 2, ["--adapter", "--labels"]),
        (["predict", "clips/pull_it/0.mp4", "--adapter", "clips"], 1, ["clips: no adapter directory"]),
        (["predict", "clips/pull_it/0.mp4", *"--backbone backbone --labels a,a".split()], 1, ["'a'", "twice"]),
        (["predict", "clips/pull_it/0.mp4", *"--backbone backbone --labels a,b --crops 2".split()], 2, ["crops"]),
        (["eval", *"--data clips --backbone backbone --split dev".split()], 2, ["'dev'"]),
        (["info", "clips"], 1, ["clips", "without weights"]),
        (["info", "--base", "clip.pt"], 2, ["--base: completes a file that --backbone names"]),
        (["info", "toy", "--backbone", "backbone"], 2, ["--backbone: toy is a backbone too"]),
        (["info", "--plan", "clips", "--adapter", "r"], 2, ["--adapter: is described by itself"]),
    ],
    ids=lambda x: " ".join(x[-2:]) if isinstance(x, list) else None,
)  # fmt: skip
def test_wrong_usage_exits_2_and_failure_1_with_one_line(world, arguments, code, words):
    before = sorted(p.name for p in world.iterdir())
    one_line(run_msta(*arguments, cwd=world), code, *words)
    assert sorted(p.name for p in world.iterdir()) == before


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["train", "--nonsense"], ["predict"], ["predict", "a.mp4", "--top", "0"]]
)
def test_the_parser_itself_exits_2(arguments):
    done = run_msta(*arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", ["train", "eval", "predict", "info", "protocol"])
def test_every_command_has_help_with_an_example(command):
    done = run_msta(command, "--help")
    assert done.returncode == 0
    assert f"Example: msta {command}" in done.stdout


def test_a_full_disk_is_one_line_and_leaves_no_half_adapter(world, tmp_path):
    # a limit on the size of files stands in for a full disk: the same error path, from the same write
    def small_files():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    given = ["--data", world / "clips", "--backbone", world / "backbone", "--shots", "2", "--out", tmp_path / "run"]
    command = [sys.executable, "-m", "msta", "train", *given, "train.epochs=1", "method.dim=48", "data.workers=0"]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=small_files)
    one_line(done, 1, "File too large")
    left = [p.name for p in (tmp_path / "run").rglob("*") if p.is_file() and "tfevents" not in p.name]
    assert sorted(left) == ["classes.csv", "config.yaml", "lock", "log.jsonl", "split.csv", "status.json"]


@pytest.mark.slow
@needs("clips")
def test_the_real_clips_end_to_end(tmp_path):
    msta.random_backbone(tiny()).save(tmp_path / "backbone")
    done = run_msta("train", "--data", OUTSIDE / "clips" / "ut_interaction", "--backbone", tmp_path / "backbone", "--shots", 4,
               "--preset", "small", "--out", tmp_path / "run")  # fmt: skip
    assert done.returncode == 0, done.stderr
    videos = sorted(p for p in (OUTSIDE / "clips").rglob("*.*") if p.suffix in (".mp4", ".avi"))
    predicted = run_msta("predict", *videos, "--adapter", tmp_path / "run" / "adapter", "--json")
    assert predicted.returncode == 0, predicted.stderr
    assert len(json.loads(predicted.stdout)) == len(videos) == 169
