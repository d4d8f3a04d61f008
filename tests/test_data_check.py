"""msta data check: what is found in made data, and that sound data are left in peace."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import OUTSIDE, needs, tiny
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner
from video_files import write_video

import msta
from msta import cli
from msta.app.clips import warnings as app_warnings
from msta.data.catalog import Catalog, Clip
from msta.data.check import alike, check, quick_warnings
from msta.data.decode import all_frames
from msta.data.reading import read_catalog
from msta.data.shards.encode import h264
from msta.evaluation.data_check import read_alike
from msta.training.losses import balanced, objective

pytestmark = pytest.mark.usefixtures("every_notice")


def moving(seed: int, count: int = 16, size: int = 64) -> np.ndarray:
    """uint8 [count, size, size, 3]: coarse noise that drifts; each seed has its own."""
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8).repeat(size // 8, 0).repeat(size // 8, 1)
    return np.stack([np.roll(noise, 2 * i, 1) for i in range(count)])


@pytest.fixture
def root(tmp_path):
    """Two classes of four sound clips, 1.6 s long."""
    for k, name in enumerate(("push", "pull")):
        (tmp_path / "data" / name).mkdir(parents=True)
        for i in range(4):
            write_video(tmp_path / "data" / name / f"{i}.mp4", moving(10 * k + i), fps=10)
    return tmp_path / "data"


def told(root, **options) -> dict[str, str]:
    """About what -> the warning."""
    return {w.about: w.text for w in check(read_catalog(root), workers=2, **options).warnings}


def test_sound_data_are_left_in_peace_and_counted(root):
    checked = check(read_catalog(root), workers=2)
    assert checked.warnings == []
    (pull, push) = checked.classes
    assert (push["class"], push["clips"], push["unreadable"], push["sizes"], push["rates"]) == (
        "push", 4, 0, {"64x64": 4}, {"10": 4},
    )  # fmt: skip
    assert push["seconds"] == pytest.approx(4 * 1.6)
    assert pull["shortest"] == pull["longest"] == pytest.approx(1.6)


def test_the_same_file_in_two_classes_and_in_train_and_test(root, tmp_path):
    shutil.copy(root / "push" / "0.mp4", root / "pull" / "other.mp4")
    (warning,) = [w for w in quick_warnings(read_catalog(root)) if w.about == "duplicates"]
    assert "The same file in two classes: one of the labels is wrong" in warning.text
    assert {c.rpartition("/")[2] for c in warning.clips} == {"0.mp4", "other.mp4"}
    assert "near-duplicates" not in told(root), "it is said once"
    (root / "pull" / "other.mp4").unlink()
    for split in ("train", "test"):
        shutil.copytree(root, tmp_path / "split" / split)
    text = told(tmp_path / "split")["duplicates"]
    assert "in test and train: the test is easier than it looks" in text
    assert "(7 more such groups)" in text


def test_a_clip_that_was_encoded_again_is_found_and_other_clips_are_not(root):
    frames = np.stack([picture for _, _, picture in all_frames(str(root / "push" / "0.mp4"), 32)])
    write_video(root / "pull" / "smaller.mp4", frames, fps=10)
    assert "Almost the same pictures in two classes" in told(root)["near-duplicates"]


@given(st.integers(0, 12), st.integers(1, 5), st.integers(0, 10_000))
def test_pairs_are_those_that_differ_in_a_tenth_of_the_bits(clips, block, seed):
    random = np.random.default_rng(seed)
    hashes = random.integers(0, 2, (1, 40)) ^ (random.random((clips, 40)) < 0.06)
    differ = (hashes[:, None] != hashes[None]).sum(-1)
    expected = [(i, j) for i in range(clips) for j in range(i + 1, clips) if differ[i, j] <= 4]
    assert list(alike(hashes.astype(np.uint8), block)) == expected


@needs("clips")
@pytest.mark.parametrize("name", ["egogestar", "ut_interaction"])
def test_real_clips_differ_and_are_known_again(name, tmp_path):
    catalog = read_catalog(OUTSIDE / "clips" / name)
    assert "near-duplicates" not in told(catalog.source)
    for i, clip in enumerate(catalog.clips[::12]):
        (tmp_path / f"class {i} of them").mkdir()
        shutil.copy(clip.path, tmp_path / f"class {i} of them")
        (tmp_path / f"class {i} of them" / "again.mp4").write_bytes(h264(clip.path, (None, None), 120))
    (warning,) = [w for w in check(read_catalog(tmp_path)).warnings if w.about == "near-duplicates"]
    assert len(warning.clips) == 2 * (i + 1)


def test_what_else_is_told(root):
    for i in range(10, 20):
        write_video(root / "push" / f"{i}.mp4", moving(i + 90), fps=10)
    write_video(root / "push" / "long.mp4", moving(77, 100), fps=10)
    (root / "pull" / "broken.mp4").write_bytes(b"no video")
    shutil.move(root / "pull", root / "class_0")
    shutil.copytree(root / "push", root / "swipe left")
    found = told(root, shots=8)
    assert "'class 0' says nothing" in found["names"]
    assert "'push' has 15 clips, 'class 0' 5" not in found.get("balance", ""), "5 to 15 is not beyond 3 to 1"
    assert "'class 0' (5); 8 shots are asked for" in found["shots"]
    assert "broken.mp4" in found["unreadable"]
    assert "long.mp4 with 10.0 s" in found["lengths"]
    assert "1.6 s are usual" in found["lengths"]
    assert "'swipe left' would be wrong for a mirrored clip" in found["sides"]
    (root / "class_0" / "broken.mp4").unlink()
    assert "'push' has 15 clips, 'class 0' 4; train.balance=classes" in told(root, flip=False)["balance"]
    assert "sides" not in told(root, flip=False)


@pytest.mark.parametrize("name", ["1", "0.0", "a", "class_0", "Class 12", "label", "gesture_b", "New folder (2)"])
def test_names_that_say_nothing(name):
    clips = tuple(Clip(f"{i}.mp4", i % 2) for i in range(4))
    assert [w.about for w in quick_warnings(Catalog("x", (name, "push"), clips))] == ["names"]


@pytest.mark.parametrize(
    "name", ["手", "class photo", "type a letter", "clip nails", "letter V", "action!", "gesture of joy"]
)
def test_names_that_say_something(name):
    clips = tuple(Clip(f"{i}.mp4", i % 2) for i in range(4))
    assert quick_warnings(Catalog("x", (name, "push"), clips)) == []


def test_names_that_a_text_tower_reads_alike():
    toy = msta.load_backbone("toy")
    assert read_alike(toy, ("swipe left", "swipe right", "draw a star")) == []
    (warning,) = read_alike(toy, ("swipe left", "swiping left", "draw a star"))
    assert "'swipe left' and 'swiping left' read almost alike to toy" in warning.text


def test_the_command_writes_a_page_and_json(root, tmp_path):
    shutil.copy(root / "push" / "0.mp4", root / "pull" / "<b>.mp4")
    command = ["data", "check", str(root), "--html", str(tmp_path / "c.html"), "--workers", "2"]
    done = CliRunner().invoke(cli.app, [*command, "--json"], catch_exceptions=False)
    data = json.loads(done.stdout)
    assert [row["class"] for row in data["classes"]] == ["pull", "push"]
    assert [w["about"] for w in data["warnings"]] == ["duplicates"]
    page = (tmp_path / "c.html").read_text()
    assert page.count("<figure>") == 8
    assert "&lt;b&gt;.mp4" in page
    assert "<b>.mp4" not in page
    text = CliRunner().invoke(cli.app, command, catch_exceptions=False).stdout
    assert "| pull" in text
    assert "- The same file in two classes" in text


def test_train_and_the_app_say_what_costs_no_decoding(root, tmp_path, caplog):
    shutil.copy(root / "push" / "0.mp4", root / "pull" / "other.mp4")
    msta.random_backbone(tiny()).save(tmp_path / "bb")
    arguments = ["train", str(root), "--backbone", str(tmp_path / "bb"), "--out", str(tmp_path / "run")]
    CliRunner().invoke(cli.app, [*arguments, "train.epochs=0", "--method", "zero-shot"], catch_exceptions=False)
    assert any("The same file in two classes" in message for message in caplog.messages)
    uploaded = {"push": [str(root / "push" / f"{i}.mp4") for i in range(4)], "a": [str(root / "pull" / "other.mp4")]}
    texts = app_warnings(uploaded)
    assert len(texts) == 4
    assert not any(str(root) in text for text in texts)
    assert app_warnings({"push": uploaded["push"]}) == []
    both = app_warnings({"push": uploaded["push"][:2], "pull": uploaded["push"][1:]})  # one file, uploaded twice
    assert len(both) == 1
    assert "in two classes" in both[0]


def test_balanced_classes_count_alike_and_by_default_nothing_changes():
    labels = torch.tensor([0] * 6 + [1] * 2)
    weights = balanced(labels.tolist(), 2)
    assert weights.tolist() == pytest.approx([8 / 12, 2.0])
    assert weights[labels].mean() == pytest.approx(1)
    video, text = torch.randn(8, 4), torch.randn(2, 4)

    def logits(a, b):
        return a @ b.T

    each = F.cross_entropy(logits(video, text), labels, reduction="none")
    by_class = (each[:6].mean() + each[6:].mean()) / 2
    loss, _ = objective(video, text, labels, logits, [], 1.0, class_weights=weights)
    assert loss.item() == pytest.approx(by_class.item(), rel=1e-5)
    plain, _ = objective(video, text, labels, logits, [], 1.0)
    assert plain.item() == F.cross_entropy(logits(video, text), labels).item()


def test_training_takes_the_balance(root, tmp_path):
    for i in range(10, 20):
        write_video(root / "push" / f"{i}.mp4", moving(i + 90), fps=10)
    msta.random_backbone(tiny()).save(tmp_path / "bb")
    losses = {}
    for how in ("null", "classes"):
        out = tmp_path / how
        arguments = ["train", str(root), "--backbone", str(tmp_path / "bb"), "--out", str(out), "train.epochs=1",
                     "method.dim=8", f"train.balance={how}", "data.workers=0"]  # fmt: skip
        done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        losses[how] = [
            json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines() if "loss" in line
        ]
    assert losses["null"][0] != losses["classes"][0]
