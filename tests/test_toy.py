"""The embedded backbone: that it is there, undamaged, reads any text, sees time; and the demo on it."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import OUTSIDE, needs
from hypothesis import given, settings
from hypothesis import strategies as st
from launch import run_msta
from PIL import Image
from rich.console import Console
from tokenizers import Tokenizer, decoders
from video_files import write_video

import msta
import msta.demo
from msta.data.reading import read_catalog
from msta.errors import CheckpointError, MSTAError
from msta.evaluation.figures import prediction
from msta.evaluation.metrics import harmonic_mean
from msta.evaluation.report import write_page
from msta.motionworld import ALL_MOTIONS, DEMO_MOTIONS, HELD_OUT_MOTIONS, MOTIONS, REVERSED
from msta.motionworld import measure as synthetic
from msta.motionworld.captions import class_name

FOLDER = Path(str(resources.files("msta.backbone"))) / "toy"
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def toy() -> msta.DualEncoder:
    return msta.load_backbone("toy")


# ---------------------------------------------------------------- the files


@pytest.mark.parametrize(("name", "attention"), [("toy", "joint"), ("toy-frames", "frame-wise")])
def test_they_are_small_and_frozen(name, attention):
    backbone = msta.load_backbone(name)
    assert sum(file.stat().st_size for file in (FOLDER.parent / name).iterdir()) < 8e6
    parameters = list(backbone.parameters())
    assert 2e6 <= sum(p.numel() for p in parameters) <= 5e6
    assert not any(p.requires_grad for p in parameters)
    assert backbone.source == name
    assert backbone.architecture.attention == attention


@pytest.mark.parametrize("name", ["toy", "toy-frames"])
def test_they_come_with_their_settings_and_their_log(name):
    made = json.loads((FOLDER.parent / name / "pretraining.json").read_text())
    log = [json.loads(line) for line in (FOLDER.parent / name / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == made["steps"]
    assert {"seed", "clips", "batch", "start"} <= made.keys()


def test_frame_wise_it_knows_motions_and_not_their_order():
    backbone = msta.load_backbone("toy-frames")
    found = synthetic.measure(backbone, 60, seed=77)
    assert found["twenty"] >= 18  # of a chance of 5
    assert 30 <= found["reversed"] <= 70
    video = torch.rand(2, 8, 3, 64, 64)
    torch.testing.assert_close(backbone.encode_video(video), backbone.encode_video(video.flip(1)))


def test_a_folder_of_that_name_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert msta.load_backbone("toy").source == "toy"
    with pytest.raises(CheckpointError, match="without weights"):
        msta.load_backbone("./toy")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_noticed(tmp_path, name, damage):
    shutil.copytree(FOLDER, tmp_path / "toy")
    file = tmp_path / "toy" / name
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif damage == "cut":
        file.write_bytes(content[:-1])
    else:
        file.unlink()
    with pytest.raises(CheckpointError, match=f"{name}: " + ("No such file" if damage == "gone" else "damaged")):
        msta.load_backbone(tmp_path / "toy")


def test_an_adapter_on_it_finds_it_again(toy, tmp_path):
    model = msta.attach(toy, msta.MSTAConfig(dim=8))
    model.save(tmp_path / "adapter")
    again = msta.load_adapter(tmp_path / "adapter")
    video = torch.rand(1, 8, 3, 64, 64)
    assert torch.equal(again.encode_video(video), model.encode_video(video))


# ---------------------------------------------------------------- the tokenizer


def as_read(text: str) -> str:
    """A text after the tokenizer and back."""
    hf = Tokenizer.from_file(str(FOLDER / "tokenizer.json"))
    hf.decoder = decoders.ByteLevel()
    return hf.decode(hf.encode(text, add_special_tokens=False).ids).strip()


@given(st.text(st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=200, deadline=None)
def test_no_text_is_unknown(text):
    import unicodedata

    assert as_read(text) == unicodedata.normalize("NFC", text).lower().strip()


@needs("reference/official_descriptions")
def test_the_official_descriptions_are_read_whole():
    files = sorted((OUTSIDE / "reference" / "official_descriptions").glob("*.json"))
    assert files
    for file in files[:4]:
        for sentences in json.loads(file.read_text()).values():
            assert as_read(sentences[0]) == sentences[0].lower().strip()


# ---------------------------------------------------------------- what it sees


def test_it_knows_motions_and_their_order_in_time(toy):
    found = synthetic.measure(toy, 60, seed=77)
    assert found["twenty"] >= 60  # of a chance of 5; benchmarks/toy.py has the full figures
    assert found["reversed"] >= 85
    assert 30 <= found["shuffled"] <= 70
    assert found["text_to_video"] >= 5 * 100 / 60


def test_the_measure_is_at_chance_without_training(toy):
    random = msta.random_backbone(toy.architecture)
    random.tokenizer = toy.tokenizer
    found = synthetic.measure(random, 60, seed=77)
    assert found["twenty"] <= 15
    assert 25 <= found["reversed"] <= 75
    assert found["video_to_text"] <= 10


def test_the_pairs_are_reversed():
    assert all(REVERSED[a] == b for a, b in zip(synthetic.PAIRS[::2], synthetic.PAIRS[1::2], strict=True))


def test_wide_frames_are_seen_whole(toy, tmp_path):
    """Red ends beside a grey middle: ViCLIP's squash shows them, CLIP's crop does not."""
    from msta.data.clips import ClipFormat, Views, read_views

    frames = np.full((8, 64, 128, 3), 128, np.uint8)
    frames[:, :, :16] = frames[:, :, -16:] = (255, 0, 0)
    path = str(write_video(tmp_path / "wide.mp4", frames))

    def redness(fit, crops=1):
        video = read_views(path, ClipFormat(4, 64, (0.0,) * 3, (1.0,) * 3, fit), Views(1, crops))
        return (video[:, :, 0] - video[:, :, 1]).amax((1, 2, 3))

    assert toy.architecture.fit == "squash"
    assert redness("squash") > 0.7
    assert redness("crop") < 0.2
    assert (redness("squash", crops=3) > 0.7).tolist() == [True, False, True]


# ---------------------------------------------------------------- the demo


@pytest.fixture(scope="module")
def quick_demo():
    """The demo with few clips and one epoch."""
    real = msta.demo.make_config
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(msta.demo, "CLIPS_PER_CLASS", 4)
        patch.setattr(msta.demo, "make_config", lambda *a, **k: real(*a, ["train.epochs=1"], **k))
        yield lambda out: msta.demo.demo(out, QUIET, shots=2, seed=5)


@pytest.fixture(scope="module")
def demonstrated(quick_demo, tmp_path_factory):
    """What a demo returned, and its folder."""
    out = tmp_path_factory.mktemp("demo") / "out"
    return quick_demo(out), out


def test_the_demo_twice_is_the_same(quick_demo, demonstrated, tmp_path):
    results, out = demonstrated
    again = quick_demo(tmp_path / "again")
    content = (out / "results.json").read_bytes()
    assert content == (tmp_path / "again" / "results.json").read_bytes()
    assert json.loads(content) == results == again
    assert str(out.parent) not in content.decode()


def test_what_the_demo_leaves(demonstrated):
    results, out = demonstrated
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert page.count("data:image/png;base64,") == 1
    assert 'src="http' not in page
    assert all(name in page for part in results["classes"].values() for name in part)
    assert msta.demo.NEXT in page
    both = results["base_to_novel"]["MSTA"]
    assert both["harmonic_mean"] == pytest.approx(harmonic_mean(both["base"], both["novel"]))
    assert sum(results["prediction"]["msta"].values()) == pytest.approx(1, abs=0.01)
    truth = results["prediction"]["truth"].removeprefix("draw a ").replace(" ", "_")
    assert (out / results["prediction"]["clip"]).parent.name == truth
    # novel classes are never trained on
    trained = read_catalog(out / "base-to-novel" / "split.csv")
    assert set(trained.classes) == set(results["classes"]["base"])
    tested = read_catalog(out / "splits" / "novel" / "split.csv")
    assert not {c.path for c in trained.clips} & {c.path for c in tested.clips}
    assert msta.load_adapter(out / "few-shot" / "adapter").task.descriptions


def test_the_demo_does_not_touch_what_is_there(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(MSTAError, match="exists already"):
        msta.demo.demo(tmp_path, QUIET)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_an_unwritable_place_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_msta("demo", "--out", tmp_path / "file" / "out")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith(f"msta: {tmp_path / 'file'}")


def test_half_of_the_demos_classes_are_new_to_the_backbone():
    assert not set(msta.demo.BASE) & set(msta.demo.NOVEL)
    for part in (msta.demo.BASE, msta.demo.NOVEL):
        assert len(set(part) & set(HELD_OUT_MOTIONS)) == 3
        assert set(part) <= {*MOTIONS, *HELD_OUT_MOTIONS}
    assert set(DEMO_MOTIONS) <= set(MOTIONS)


def test_the_strip_shows_the_frames_and_the_page_escapes(tmp_path):
    frames = np.zeros((3, 20, 20, 3), np.uint8)
    frames[0], frames[1], frames[2] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    after = {f"c{i}": 0.1 for i in range(6)} | {"<b>": 0.05}
    names = ("before", "after")
    (tmp_path / "p.png").write_bytes(prediction(frames, "<b>", after, after, names=names, classes=3))
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB")).astype(int)
    others = np.stack([picture[..., [k for k in range(3) if k != c]].max(-1) for c in range(3)], axis=-1)
    at = [np.argwhere((picture - others)[..., c] > 150) for c in range(3)]
    (red, green, blue) = (places.mean(0) for places in at)  # two rows: red and green, and blue below red
    assert red[0] == pytest.approx(green[0], abs=3)
    assert red[1] < green[1]
    assert blue[0] > red[0]
    assert blue[1] == pytest.approx(red[1], abs=3)
    once = [len(places) for places in at]
    assert max(once) < 1.1 * min(once), "each frame is shown once"
    (tmp_path / "results").mkdir()
    values = {"base": 1.0, "novel": 1.0, "harmonic_mean": 1.0}
    write_page(
        tmp_path / "page.html", "demo.html", {"prediction": tmp_path / "p.png"}, classes={}, shots=1, trainable=1,
        few_shot={"clips": 1, "zero_shot": 1.0, "msta": 2.0}, parameters=2, base_to_novel={"<i>": values},
        base=["<b>"], novel=["c"], next_command="a && b",
    )  # fmt: skip
    page = (tmp_path / "page.html").read_text()
    assert "<b>" not in page
    assert "&lt;b&gt;" in page
    assert "a &amp;&amp; b" in page


@pytest.mark.parametrize(("base", "novel", "mean"), [(0, 0, 0), (100, 0, 0), (50, 50, 50), (90, 60, 72)])
def test_harmonic_mean(base, novel, mean):
    assert harmonic_mean(base, novel) == pytest.approx(mean)


# ---------------------------------------------------------------- without naming it


def test_train_and_predict_need_no_backbone(tmp_path):
    from msta.motionworld import write_dataset

    write_dataset(tmp_path / "clips", ["swipe left", "swipe right"], 4, size=64, frames_per_clip=8, seed=3)
    trained = run_msta("train", "--data", "clips", "--shots", 2, "--out", "run", "train.epochs=1", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    clip = "clips/swipe_left/swipe_left_000.mp4"
    predicted = run_msta("predict", clip, "--labels", "swipe left,swipe right", "--json", cwd=tmp_path)
    assert {p["label"] for p in json.loads(predicted.stdout)[0]["predictions"]} == {"swipe left", "swipe right"}


# ---------------------------------------------------------------- the wheel


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel_in_an_empty_folder(tmp_path):
    root = Path(__file__).parents[1]
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path / "dist"), str(root)],
        check=True,
        timeout=300,
    )
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        assert "msta/backbone/toy/model.safetensors" in names
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    done = subprocess.run(
        [sys.executable, "-m", "msta", "demo", "--out", "out"],
        cwd=empty, env={"PYTHONPATH": str(tmp_path / "site"), "PATH": ""}, timeout=6000, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    results = json.loads((empty / "out" / "results.json").read_text())
    assert results["few_shot"]["msta"] > results["few_shot"]["zero_shot"]
    with (empty / "out" / "splits" / "base" / "split.csv").open() as file:
        assert len(list(csv.reader(file))) > 1


def test_it_says_what_it_has_seen_unless_it_knows_the_classes(toy, tmp_path, every_notice, caplog):
    from msta.inference.predictor import Predictor
    from msta.inference.search import query_embedding

    model = msta.attach(toy, "zero-shot")
    known = (FOLDER / "motions.txt").read_text().splitlines()
    assert known == list(dict.fromkeys([*ALL_MOTIONS, *map(class_name, ALL_MOTIONS)]))
    Predictor(model, ["Swipe left", "star"])
    query_embedding(model, "swipe left")
    assert not caplog.messages
    for _ in range(2):
        Predictor(model, ["swipe left", "open a door"])
        query_embedding(model, "someone opens a door")
    assert [message for message in caplog.messages if "has seen drawn motion only" in message] == caplog.messages
    assert len(set(caplog.messages)) == 1
