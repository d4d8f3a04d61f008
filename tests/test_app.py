"""``msta app``: its functions, and the page itself in a real browser."""

from __future__ import annotations

import csv
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from conftest import saved_adapter, tiny
from hypothesis import given
from hypothesis import strategies as st
from video_files import write_video

import msta
from msta.adapters.zoo import find_adapters
from msta.app import clips, render
from msta.app.models import Models
from msta.app.predicting import Settings, answer, explain_answer, in_words, typed_classes, written
from msta.app.searching import search
from msta.app.server import run
from msta.app.training import Progress, Trainings
from msta.app.training import in_words as figures_in_words
from msta.backbone.blocks import TowerShape
from msta.data.reading import read_catalog
from msta.errors import ConfigError, MSTAError
from msta.evaluation.figures import learning_curves
from msta.inference.search import INDEX, index_key, read_index, update_index
from msta.inference.windows import Windows

CLASSES = ("push", "hug", "walk")
SOURCE = Path(msta.__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """bb: a backbone; adapters/a, b (of it), other (of another); videos/short, long; bad/: damaged, no video."""
    where = tmp_path_factory.mktemp("app")
    backbone = msta.random_backbone(tiny(video=TowerShape(64, 3, 4, 128)))  # the preset's 64 channels divide the width
    backbone.save(where / "bb")
    for i, name in enumerate(("a", "b", "other")):
        own = backbone if name != "other" else msta.random_backbone(tiny(), seed=1)
        metrics = {"temperature": 2.0, "unknown_below": 0.99} if name == "b" else {}
        saved_adapter(where / "adapters" / name, i, CLASSES, own, metrics)
    (where / "videos").mkdir()
    write_video(where / "videos" / "short.mp4", 25)
    write_video(where / "videos" / "long.mp4", 300)  # 12 s
    (where / "bad").mkdir()
    whole = (where / "videos" / "short.mp4").read_bytes()
    (where / "bad" / "damaged.mp4").write_bytes(whole[: len(whole) // 3])
    (where / "bad" / "letter.mp4").write_bytes(b"Dear Sir or Madam, this is not a video. " * 20)
    (where / "bad" / "notes.txt").write_text("Dear diary")
    for name in ("left", "right"):
        (where / "clips" / name).mkdir(parents=True)
        for i in range(2):
            write_video(where / "clips" / name / f"{i}.mp4", 12 + i, gop=5 + len(name))
    return where


@pytest.fixture(scope="module")
def models(folder) -> Models:
    return Models(msta.load_backbone(str(folder / "bb")), find_adapters(folder / "adapters"), folder / "runs")


def needs(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"needs {package}: pip install 'msta[dev]'")


# ---------------------------------------------------------------- models


def test_adapters_are_found_as_such_and_in_runs_and_given_ones_come_first(folder, tmp_path):
    shutil.copytree(folder / "adapters" / "a", tmp_path / "runs" / "mine" / "adapter")
    shutil.copytree(folder / "adapters" / "b", tmp_path / "runs" / "a" / "adapter")
    models = Models(msta.random_backbone(tiny()), {"a": folder / "adapters" / "a"}, tmp_path / "runs")
    assert list(models.adapters()) == ["a", "mine"]
    assert models.adapters()["a"] == folder / "adapters" / "a"


def test_an_adapter_that_took_the_place_of_a_removed_one_is_loaded(models, folder, tmp_path):
    own = Models(models.backbone, {}, tmp_path)
    for seed, classes in enumerate((CLASSES, ("sit", "stand"))):
        shutil.rmtree(tmp_path / "mine", ignore_errors=True)
        saved_adapter(tmp_path / "mine" / "adapter", seed, classes, models.backbone)
        assert own.predictor("mine").classes == classes
        assert own.predictor("mine") is own.predictor("mine")


def test_an_answer_with_a_timeline_is_a_table_of_its_segments(models, folder, tmp_path):
    video = str(folder / "videos" / "short.mp4")
    table, subtitles = written(answer(models, video, "b", "", Settings(timeline=True)), tmp_path)
    rows = list(csv.reader(table.open()))
    assert {len(row) for row in rows} == {5}
    assert rows[0] == ["path", "start", "end", "label", "probability"]
    assert subtitles is not None
    table, _ = written(answer(models, video, "b", "", Settings(timeline=False)), tmp_path)  # below b's threshold
    assert [row[2] != "" for row in csv.reader(table.open())] == [True, False, True, True]


def test_an_adapter_of_another_backbone_is_refused_in_words(models):
    with pytest.raises(MSTAError, match="adapters/other: "):
        models.predictor("other")


def test_an_adapter_that_went_away_is_named(models):
    with pytest.raises(MSTAError, match="no adapter 'gone'"):
        models.predictor("gone")


# ---------------------------------------------------------------- predicting


@given(
    st.lists(st.text(st.characters(exclude_characters=",;\n", exclude_categories=("Cs",))).map(str.strip).filter(bool))
)
def test_class_names_are_read_however_they_are_separated(names):
    for separator in (", ", ";", "\n", " ,\n"):
        assert typed_classes(separator.join(names)) == names


def test_an_answer_is_the_predictors(models, folder):
    video = str(folder / "videos" / "short.mp4")
    got = answer(models, video, "a", "")
    assert got.ranked == msta.Predictor(msta.load_adapter(folder / "adapters" / "a", models.backbone))(video)
    assert got.timeline is None
    assert not got.calibrated
    typed = answer(models, video, None, "run, jump")
    assert {one.label for one in typed.ranked} == {"run", "jump"}


def test_unknown_is_what_the_adapter_says_of_its_own_classes(models, folder):
    video = str(folder / "videos" / "short.mp4")
    own = answer(models, video, "b", "")
    assert own.calibrated
    assert own.unknown
    assert "Unknown" in render.ranking(own)
    others = answer(models, video, "b", "run, jump")
    assert not others.unknown
    assert not others.calibrated
    assert "not calibrated" in render.ranking(others)


@pytest.mark.parametrize(
    ("video", "adapter", "typed", "says"),
    [
        (None, "a", "", "Give a video first"),
        ("videos/short.mp4", None, " , ", "two classes or more"),
        ("videos/short.mp4", None, "run", "'run'"),
        ("videos/short.mp4", "a", "run", "'run'"),
        ("videos/short.mp4", None, "run, jump, run", "twice: 'run'"),
        ("bad/damaged.mp4", "a", "", "^damaged.mp4: "),
        ("bad/letter.mp4", "a", "", "^letter.mp4: not a video file"),
        ("videos/gone.mp4", "a", "", "^gone.mp4: "),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_a_sentence(models, folder, video, adapter, typed, says):
    with pytest.raises(MSTAError, match=says) as told:
        answer(models, video and str(folder / video), adapter, typed)
    assert "\n" not in str(told.value)


def test_a_video_that_is_too_long_is_refused(models, folder):
    with pytest.raises(MSTAError, match=r"long.mp4: 12 s of video; the limit is 5 s"):
        answer(
            models, str(folder / "videos" / "long.mp4"), "a", "", limits={"seconds": 5, "pixels": 1e9, "frames": 1e9}
        )


def test_long_videos_have_a_timeline_and_its_strip_covers_them(models, folder):
    told: list[float] = []
    got = answer(models, str(folder / "videos" / "long.mp4"), "a", "", tell=told.append)
    assert got.timeline is not None
    assert got.timeline.segments[-1].end == pytest.approx(12)
    assert told == sorted(told)
    html = render.timeline(got)
    widths = [float(w) for w in re.findall(r"width:([\d.]+)%", html)]
    assert sum(widths) == pytest.approx(100, abs=0.01)
    assert len(widths) == len(got.timeline.segments) == html.count("<tr data-seek")
    assert answer(models, str(folder / "videos" / "long.mp4"), "a", "", Settings(timeline=False)).timeline is None


@given(st.integers(0, 200))
def test_no_two_classes_of_a_timeline_have_one_colour(count):
    colours = render._distinct(count)
    assert len(set(colours)) == len(colours) == count


def test_a_timeline_is_unknown_only_if_that_is_wanted(models, folder):
    def labels(unknown: bool) -> set[str | None]:
        got = answer(models, str(folder / "videos" / "long.mp4"), "b", "", Settings(unknown=unknown))
        assert got.timeline is not None
        return {segment.label for segment in got.timeline.segments}

    assert None not in labels(False)
    assert labels(True) == {None}  # its threshold is 0.99


def test_a_part_of_a_timeline_can_be_explained(models, folder):
    got = answer(models, str(folder / "videos" / "long.mp4"), "a", "", Settings(window=1, shortest=0))
    name, (span, label) = list(got.parts.items())[-1]
    explanation = explain_answer(got, None, name, steps=2)
    assert explanation.label == label
    assert all(span[0] <= t < span[1] for t in explanation.times)
    html = render.explanation(explanation)
    assert html.count("<figure") == len(explanation.times)
    assert html.count("data:image/jpeg") == 2 * len(explanation.times)
    best = max(zip(explanation.by_frame, explanation.times, strict=True))
    assert f"{best[1]:.1f} s" in in_words(explanation) or best[0] <= 0


def test_nothing_from_outside_becomes_html(models, folder):
    names = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${1+1} {{value}}"]
    got = answer(models, str(folder / "videos" / "short.mp4"), None, ",".join(names), Settings(timeline=True))
    explanation = explain_answer(got, names[1], steps=1)
    for html in (render.ranking(got), render.timeline(got), render.explanation(explanation), render.problem(names[0])):
        assert not re.search(r"<script|<img src=x|onerror=alert\(1\)>", html)
    assert "&lt;script&gt;" in render.ranking(got)


# ---------------------------------------------------------------- errors


def fails(error: BaseException):
    def work():
        raise error

    return work


def test_every_failure_is_a_sentence(tmp_path):
    assert render.attempt(lambda: 7) == (7, "")
    cases = {
        "data: is wrong": MSTAError("data: is wrong"),
        "/x: Permission denied": PermissionError(13, "Permission denied", "/x"),
        "Something unexpected went wrong (ZeroDivisionError)": ZeroDivisionError("secret"),
        "clip.mp4: no": MSTAError(f"{tmp_path}/uploads/0123abcd/clip.mp4: no"),
        "my.zip: no": MSTAError(f"{tmp_path}/clips/12/my.zip: no"),
    }
    for says, error in cases.items():
        result, html = render.attempt(fails(error), str(tmp_path))
        assert result is None
        assert says in html
        assert "Traceback" not in html
        assert "secret" not in html
        assert str(tmp_path) not in html


# ---------------------------------------------------------------- clips


def test_classes_are_added_one_by_one(folder):
    added = clips.add_class({}, "  swipe   left ", ["1.mp4", "2.mov"])
    added = clips.add_class(added, "Swipe Left", ["2.mov", "3.mp4"])  # the same class
    assert added == {"swipe left": ["1.mp4", "2.mov", "3.mp4"]}
    for name, files, says in (
        ("", ["1.mp4"], "name"),
        ("x", [], "clips of 'x'"),
        ("x", ["some/notes.txt"], "^notes.txt"),
    ):
        with pytest.raises(MSTAError, match=says):
            clips.add_class(added, name, files)


@pytest.mark.parametrize(
    ("uploaded", "says"),
    [
        ({}, "two classes"),
        ({"a": ["1.mp4", "2.mp4"]}, "two classes"),
        ({"a": ["1.mp4", "2.mp4"], "b": ["3.mp4"]}, "'b' has one"),
    ],
)
def test_too_few_clips_are_told(uploaded, says, tmp_path):
    with pytest.raises(MSTAError, match=says):
        clips.from_uploads(uploaded, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_uploads_become_a_catalog(folder, tmp_path):
    uploaded = {name: [str(p) for p in sorted((folder / "clips" / name).iterdir())] for name in ("right", "left")}
    catalog = read_catalog(clips.from_uploads(uploaded, tmp_path / "new"))
    found = {name: [c.path for c in catalog.clips if catalog.classes[c.label] == name] for name in catalog.classes}
    assert found == uploaded


def zipped(to: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(to, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return to


def test_a_zip_of_class_folders_is_unpacked(tmp_path):
    archive = zipped(
        tmp_path / "my.zip",
        **{"all/left/1.mp4": b"1", "all/right/2.MOV": b"2", "all/notes.txt": b"3", "__MACOSX/all/left/._1.mp4": b"4"},
    )
    found = clips.from_zip(str(archive), tmp_path / "new")
    assert sorted(str(p.relative_to(found)) for p in found.rglob("*.*")) == ["left/1.mp4", "right/2.MOV"]


@pytest.mark.parametrize("name", ["../../out/1.mp4", "/out/1.mp4", "a/../../../out/1.mp4"])
def test_a_zip_writes_nothing_outside(tmp_path, name):
    archive = zipped(tmp_path / "my.zip", **{"a/1.mp4": b"1", name: b"2"})
    with pytest.raises(MSTAError, match="leads out"):
        clips.from_zip(str(archive), tmp_path / "in" / "new")
    assert not list(tmp_path.rglob("1.mp4"))
    assert not Path("/out").exists()


def test_zips_that_cannot_be_used_are_told(tmp_path):
    bomb = zipped(tmp_path / "bomb.zip", **{"a/1.mp4": bytes(5_000_000)})
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(bomb.read_bytes()[:300])
    flat = zipped(tmp_path / "flat.zip", **{"1.mp4": b"1", "a/readme.txt": b"2"})
    many = zipped(tmp_path / "many.zip", **{f"a/{i}.mp4": b"1" for i in range(5)})
    for archive, says in (
        (bomb, "more than"), (damaged, "cannot be unpacked"), (flat, "a folder for each class"), (many, "5 videos"), (None, "Give a zip"),
    ):  # fmt: skip
        with pytest.raises(MSTAError, match=says):
            clips.from_zip(archive and str(archive), tmp_path / "new", most_bytes=1_000_000, most_files=4)
        assert not list(tmp_path.rglob("new/*"))


def test_a_folder_on_this_computer(tmp_path):
    assert clips.from_folder(f" {tmp_path} ") == tmp_path
    for typed, says in (("", "Type"), (str(tmp_path / "gone"), "no such folder")):
        with pytest.raises(MSTAError, match=says):
            clips.from_folder(typed)


# ---------------------------------------------------------------- training


@pytest.fixture
def trainings(models, tmp_path):
    (tmp_path / "scratch").mkdir()
    made = Trainings(Models(models.backbone, {}, tmp_path / "runs"), tmp_path / "scratch")
    yield made
    made.close()


def test_what_cannot_be_trained_is_told_before(trainings, folder, tmp_path):
    one = tmp_path / "one"
    shutil.copytree(folder / "clips" / "left", one / "left")
    (tmp_path / "runs" / "taken").mkdir(parents=True)
    (tmp_path / "runs" / "taken" / "notes").touch()
    for name, data, epochs, says in (
        ("", folder / "clips", 1, "Give the adapter a name"),
        ("../x", folder / "clips", 1, "Give the adapter a name"),
        ("taken", folder / "clips", 1, "exists already"),
        ("x", one, 1, "only one class, 'left'"),
        ("x", folder / "bad", 1, "sub-folder for each class"),
        ("x", folder / "clips", -1, "train.epochs"),
    ):
        with pytest.raises(MSTAError, match=says):
            trainings.start(name, data, epochs=epochs)
    assert trainings.progress() is None
    assert not (tmp_path / "runs" / "x").exists()


def test_a_clip_of_two_classes_is_told(trainings, folder, tmp_path):
    left = [str(path) for path in sorted((folder / "clips" / "left").iterdir())]
    right = [str(path) for path in sorted((folder / "clips" / "right").iterdir())]
    data = clips.from_uploads({"left": left, "right": [*right, left[0]]}, tmp_path / "new")
    with pytest.raises(MSTAError, match=r"0\.mp4"):
        trainings.start("x", data)


def test_a_folder_of_runs_that_cannot_be_written_to_is_told(models, folder, tmp_path):
    (tmp_path / "file").touch()
    made = Trainings(Models(models.backbone, {}, tmp_path / "file" / "runs"), tmp_path)
    with pytest.raises(MSTAError, match=r"file/runs/.*: cannot be written .*--runs"):
        made.start("x", folder / "clips")


def wait(trainings: Trainings, done, seconds: float = 600) -> Progress:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        now = trainings.progress()
        if now is not None and done(now):
            return now
        time.sleep(0.2)
    raise AssertionError(f"still {now}")


@pytest.mark.slow  # it starts three processes
def test_a_run_is_stopped_and_gone_on_with(trainings, folder):
    trainings.start("mine", folder / "clips", epochs=300)
    with pytest.raises(MSTAError, match="under way"):
        trainings.start("other", folder / "clips")
    assert wait(trainings, lambda now: now.curve).state == "running"
    trainings.close()  # as the app does at its end: it waits
    stopped = trainings.progress()
    assert stopped is not None
    assert stopped.state == "stopped"
    assert 0 < stopped.share < 1
    trainings.resume()
    done = wait(trainings, lambda now: now.over)
    assert (done.state, done.share) == ("finished", 1.0), done.output
    assert "mine" in trainings.models.adapters()
    assert {"mine/adapter_config.json"} <= {
        n.replace("adapter/", "mine/") for n in zipfile.ZipFile(done.archive).namelist()
    }


@pytest.mark.slow  # it starts a process
def test_a_run_that_fails_says_why(trainings, folder, tmp_path):
    shutil.copytree(folder / "clips", tmp_path / "bad")
    for file in (tmp_path / "bad").rglob("*.mp4"):
        file.write_bytes(b"no video")
    trainings.start("mine", tmp_path / "bad", epochs=1)
    failed = wait(trainings, lambda now: now.over)
    assert failed.state == "failed"
    assert "not one of the training clips can be read" in failed.message
    assert "\n" not in failed.message
    with pytest.raises(MSTAError, match="exists already|holds a run"):
        trainings.start("mine", folder / "clips", epochs=1)


def test_figures_in_words():
    metrics = {"clips": 2, "top1": 50.0, "selected_at": {}, "temperature": None, "unreadable": {"/x/y.mp4": "no"}}
    said = " ".join(figures_in_words(metrics, 4))
    for part in ("2 clips", "1 were named rightly: 50 %", "get 25 %", "no clips to validate", "y.mp4"):
        assert part in said
    best = {"epoch": 3, "clips": 19, "top1": 100.0}
    whole = {"clips": 40, "top1": 85.0, "selected_at": best, "temperature": 1.6, "interval": [70.9, 92.9]}
    said = " ".join(figures_in_words(whole, 10))
    for part in (
        "34 were named rightly: 85 %",
        "after pass 3",
        "19 validation clips",
        "can say “unknown”",
        "71 to 93 %",
    ):
        assert part in said


def test_a_curve_without_validation_has_one_panel():
    def height(log: list[dict]) -> int:
        return int.from_bytes(learning_curves({"x": log})[20:24], "big")  # of a PNG

    steps = [{"step": i, "epoch": i, "loss": 1 / (i + 1)} for i in range(3)]
    validated = [*steps, {"step": 2, "epoch": 3, "val": {"top1": 100.0}}]
    assert height(steps) < 0.7 * height(validated)


def test_clips_are_moved_and_removed():
    given = {"left": ["a", "b"], "right": ["c"]}
    assert clips.listed(given) == [("left", "a"), ("left", "b"), ("right", "c")]
    assert clips.moved(given, 0, "right") == {"left": ["b"], "right": ["c", "a"]}
    assert clips.moved(given, 1, "left") == given
    assert clips.moved(given, 2, None) == {"left": ["a", "b"]}
    assert clips.moved(given, 2, "up") == {"left": ["a", "b"], "up": ["c"]}
    assert given == {"left": ["a", "b"], "right": ["c"]}


def test_the_last_seconds_of_a_camera_make_a_clip():
    needs("gradio")
    from msta.app.live import Recent

    recent = Recent()
    for i in range(30):
        recent = recent.with_frame(i / 10, np.full((4, 6, 3), i, np.uint8), 2.0)
    assert len(recent.frames) == 20
    assert recent.seconds == pytest.approx(1.9)
    clip = recent.clip(5)
    assert clip.shape == (5, 4, 6, 3)
    assert clip[0, 0, 0, 0] == 10
    assert clip[-1, 0, 0, 0] == 29
    assert (np.diff(clip[:, 0, 0, 0].astype(int)) > 3).all()
    assert len(recent.with_frame(3.0, np.zeros((8, 6, 3), np.uint8), 2.0).frames) == 1, "the camera turned"


# ---------------------------------------------------------------- searching


def test_a_search_finds_what_the_index_has(models, folder, tmp_path):
    shutil.copytree(folder / "videos", tmp_path / "videos")
    found = search(models, "a person", str(tmp_path / "videos"), None, window=2.0, top=3)
    assert len(found.moments) == len(found.strips) == 3
    assert found.files == 2
    html = render.moments(found)
    assert html.count("<figure ") == 3
    assert all(m.path in html for m in found.moments)


def test_the_index_of_msta_search_is_used_if_it_fits_and_never_replaced(models, folder, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(folder / "videos", videos)
    update_index(models.model(None), videos, videos / INDEX, Windows(4.0, 2.0))
    before = (videos / INDEX).read_bytes()
    search(models, "a person", str(videos), None)
    assert [path.name for path in videos.glob(".*")] == [INDEX]
    search(models, "a person", str(videos), "a")
    search(models, "a person", str(videos), None, window=2.0)
    told: list[int] = []
    search(models, "a person", str(videos), "a", tell=lambda number, count, path: told.append(number))
    assert told == []  # it was read before
    assert len(list(videos.glob(".*"))) == 3
    assert read_index(videos / INDEX).key == index_key(models.model(None), Windows(4.0, 2.0))
    assert len((videos / INDEX).read_bytes()) == len(before)


def test_a_folder_that_cannot_be_written_to_is_told_before_it_is_read(models, folder, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the tests may run as root, who may everything
    with pytest.raises(MSTAError, match="videos: cannot be written to"):
        search(models, "x", str(folder / "videos"), None)


def test_a_search_that_cannot_be_made_is_told(models, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    shutil.copytree(folder / "videos", tmp_path / "full")
    (tmp_path / "full" / INDEX).mkdir()  # where the index cannot be written
    for query, where, says in (
        (" ", folder / "videos", "what to look for"),
        ("x", "", "path of a folder"),
        ("x", tmp_path / "gone", "no folder"),
        ("x", tmp_path / "empty", "no video files"),
        ("x", tmp_path / "full", INDEX),
    ):
        result, html = render.attempt(lambda query=query, where=where: search(models, query, str(where), None))
        assert result is None
        assert says in html


# ---------------------------------------------------------------- starting


def test_others_are_let_in_on_purpose_only(folder):
    needs("gradio")
    with pytest.raises(ConfigError, match="--allow-anyone"):
        run(host="0.0.0.0", backbone=str(folder / "bb"))
    with pytest.raises(MSTAError, match="--in: .*gone is not a folder"):
        run(search_in=folder / "gone", backbone=str(folder / "bb"))


def test_a_port_that_is_taken_is_told(folder):
    needs("gradio")
    with socket.socket() as result:
        result.bind(("127.0.0.1", 0))
        result.listen()
        port = result.getsockname()[1]
        with pytest.raises(MSTAError, match=f"--port {port}: Address already in use"):
            run(backbone=str(folder / "bb"), port=port)


def test_without_gradio_the_extra_is_named(monkeypatch):
    monkeypatch.setattr("msta.app.server.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"msta\[app\]"):
        run()


# ---------------------------------------------------------------- in a browser

WATCHED = """
import sys

def heard(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo"):
        host = arguments[1][0] if event == "socket.connect" and isinstance(arguments[1], tuple) else arguments[0]
        if isinstance(host, str) and host not in ("127.0.0.1", "::1", "localhost"):
            print("NETWORK", event, host, file=sys.stderr, flush=True)

sys.addaudithook(heard)
from msta.cli import main

sys.argv[0] = "msta"
main()
"""
"""``msta``, which tells of every address but loopback that it asks for."""


@pytest.fixture(scope="module")
def app(folder, tmp_path_factory):
    """(URL, file of what it printed) of ``msta app``."""
    needs("gradio")
    told, runs = tmp_path_factory.mktemp("told") / "app.txt", tmp_path_factory.mktemp("trained")
    shutil.copytree(folder / "videos", runs.parent / "searched", dirs_exist_ok=True)
    command = [
        sys.executable, "-c", WATCHED, "app", "--port", "0", "--backbone", str(folder / "bb"), "--runs", str(runs),
        "--adapters", str(folder / "adapters"), "--in", str(runs.parent / "searched"),
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    with told.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    until = time.monotonic() + 300
    while not (found := re.search(r"http://127.0.0.1:\d+", told.read_text())):
        assert process.poll() is None, told.read_text()
        assert time.monotonic() < until, told.read_text()
        time.sleep(0.1)
    yield found[0], told
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0, told.read_text()


@pytest.fixture(params=[390])
def page(app, browser, request):
    """The page on a phone; afterwards: nothing was fetched from elsewhere, nothing is wider than the screen."""
    page = browser.new_page(viewport={"width": request.param, "height": 844})
    page.set_default_timeout(300_000)  # ends what hangs; a busy machine is no failure
    asked, broken = [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda error: broken.append(str(error)))
    page.goto(app[0])
    page.wait_for_selector("#msta-predict")
    yield page
    assert page.evaluate("document.documentElement.scrollWidth") <= request.param
    assert [url for url in asked if not url.startswith((app[0], "data:", "blob:"))] == []
    assert broken == []
    page.close()
    told = app[1].read_text()
    assert "NETWORK" not in told
    assert "Traceback" not in told


def tab(page, name: str) -> None:
    page.get_by_role("tab", name=name).click()


def box(page, name: str):
    return page.locator(f"#{name} textarea, #{name} input").first


def pick(page, label: str, choice: str) -> None:
    page.get_by_label(label, exact=True).locator("visible=true").click()
    page.get_by_role("option", name=choice, exact=True).click()


def give(page, where: str, *files: Path) -> None:
    page.set_input_files(f"#{where} input[type=file]", [str(file) for file in files])


def add_class(page, name: str, folder: Path) -> None:
    box(page, "msta-class").fill(name)
    with page.expect_response(re.compile("upload")):
        give(page, "msta-clips", *sorted((folder / "clips" / name).iterdir()))
    page.wait_for_selector("#msta-clips .file-preview")
    page.click("#msta-add")
    page.wait_for_selector(f"#msta-added b:has-text('{name}')")
    page.wait_for_selector("#msta-clips .file-preview", state="detached")


def predict(page, video: Path | None, typed: str = "") -> None:
    if video is not None:
        if page.locator("#msta-video [aria-label=Clear]").count():
            page.click("#msta-video [aria-label=Clear]")
        with page.expect_response(re.compile("upload")):
            give(page, "msta-video", video)
        page.wait_for_selector("#msta-video video", state="attached")
    page.get_by_label("Class names").fill(typed)
    page.click("#msta-predict")


def test_a_video_is_predicted_shown_in_time_and_explained(page, models, folder):
    pick(page, "Adapter", "b")
    predict(page, folder / "videos" / "long.mp4")
    page.wait_for_selector(".msta-why")
    tops = [
        page.locator(one).bounding_box()["y"] for one in ("#msta-answer", "#msta-video", "#msta-predict", ".msta-why")
    ]
    assert tops == sorted(tops), "the answer first, then the video, the form, the reasons"
    expected = models.predictor("b")(str(folder / "videos" / "long.mp4"))
    assert page.locator(".msta-bar .label").all_inner_texts() == [one.label for one in expected]
    assert page.locator(".msta-bar.first .value").inner_text() == f"{100 * expected[0].probability:.0f}\xa0%"
    assert "Unknown" in page.locator(".msta-unknown").inner_text()
    assert page.locator(".msta-strip button").count() >= 1
    assert page.locator(".msta-film figure").count() == models.predictor("b").format.frames
    page.locator(".msta-film figure").last.click()
    time_of_last = float(page.locator(".msta-film figure").last.get_attribute("data-seek"))
    assert page.evaluate("document.querySelector('#msta-video video').currentTime") == pytest.approx(
        time_of_last, abs=0.1
    )
    page.get_by_label("Explain", exact=True).click()
    page.get_by_role("option", name=expected[1].label, exact=True).click()
    page.wait_for_selector(f".msta-why h3:has-text('{expected[1].label}')")


def test_what_goes_wrong_in_predict_is_a_sentence(page, folder):
    pick(page, "Adapter", "none: the backbone as it is")
    for video, typed, says in (
        (None, "", "Give a video first."),
        (folder / "videos" / "short.mp4", "", "two classes or more"),
        (None, "run", "One class is no choice"),
        (None, "run, run", "given twice: 'run'"),
        (folder / "bad" / "damaged.mp4", "run, jump", "damaged.mp4: "),
        (folder / "bad" / "letter.mp4", "run, jump", "letter.mp4: not a video file"),
    ):
        predict(page, video, typed)
        page.wait_for_selector(f'.msta-problem:has-text("{says}")')
        assert page.locator(".msta-problem").count() == 1
    assert "cannot play" in page.evaluate(  # instead of a message that says Error
        "getComputedStyle(document.querySelector('#msta-video'), '::after').content"
    )
    page.click("#msta-video [aria-label=Clear]")
    give(page, "msta-video", folder / "bad" / "notes.txt")
    page.wait_for_selector(".toast-body:has-text('Invalid file type: notes.txt')")
    predict(page, folder / "videos" / "short.mp4", "<b>run</b>, ${1+1}")
    page.wait_for_selector(".msta-ranking")
    assert set(page.locator(".msta-bar .label").all_inner_texts()) == {"<b>run</b>", "${1+1}"}


def test_a_video_that_the_browser_cannot_play_is_shown_as_pictures(page, folder):
    write_video(folder / "bad" / "old.avi", 25)
    pick(page, "Adapter", "a")
    predict(page, folder / "bad" / "old.avi")
    page.wait_for_selector("#msta-frames img")
    assert page.locator("#msta-frames img").evaluate(
        "image => image.decode().then(() => image.naturalWidth > 5 * image.naturalHeight)"
    )
    page.wait_for_selector(".msta-ranking")


def test_four_clips_become_an_adapter_that_can_be_picked(page, folder, tmp_path):
    tab(page, "Train")
    page.click("#msta-train")
    page.wait_for_selector(".msta-problem:has-text('two classes or more')")
    for name in ("left", "right"):
        add_class(page, name, folder)
        assert page.locator("#msta-trained .msta-problem:visible").count() == 0
        if name == "left":
            page.click("#msta-train")
            page.wait_for_selector(".msta-problem:has-text('two classes or more')")
    box(page, "msta-name").fill("two-ways")
    page.get_by_role("button", name="Settings").click()
    box(page, "msta-epochs").fill("5")
    page.click("#msta-train")
    page.wait_for_selector(".msta-run")
    page.wait_for_selector(".msta-run.finished")
    assert page.locator(".msta-problem").count() == 0
    assert "Of 4 clips" in page.locator(".msta-result").inner_text()
    assert page.locator(".msta-curve").evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    with page.expect_download() as download:
        page.click("#msta-download")
    download.value.save_as(tmp_path / "two-ways.zip")
    assert "adapter/adapter_config.json" in zipfile.ZipFile(tmp_path / "two-ways.zip").namelist()
    box(page, "msta-name").fill("two-ways")
    page.click("#msta-train")
    page.wait_for_selector(".msta-problem:has-text('already')")
    tab(page, "Predict")
    predict(page, folder / "videos" / "short.mp4")
    page.wait_for_selector(".msta-ranking")
    assert set(page.locator(".msta-bar .label").all_inner_texts()) == {"left", "right"}


CAMERA = """
navigator.mediaDevices.getUserMedia = async (wanted) => {
  if (wanted.audio) throw new Error("nobody asked for the microphone");
  const canvas = document.createElement("canvas"), started = performance.now();
  [canvas.width, canvas.height] = [160, 120];
  const picture = canvas.getContext("2d");
  setInterval(() => {
    const at = ((performance.now() - started) / 1000) % 1;
    picture.fillStyle = "#456";
    picture.fillRect(0, 0, 160, 120);
    picture.fillStyle = "#fd8";
    picture.fillRect((window.leftwards ? 1 - at : at) * 130, 45, 30, 30);
  }, 33);
  return canvas.captureStream(30);
};
"""
"""A camera that sees a square move, to the right or to the left."""


@pytest.mark.parametrize("page", [390, pytest.param(1280, marks=pytest.mark.slow)], indirect=True)
def test_two_gestures_are_recorded_trained_and_recognised(page, tmp_path, request):
    page.evaluate(f"() => {{ {CAMERA} }}")
    tab(page, "Train")
    page.click("#msta-recorder [data-do=open]")
    page.wait_for_selector("#msta-recorder [data-do=record]:visible")
    page.click("#msta-recorder [data-do=record]")
    page.wait_for_selector("#msta-recorder [role=status]:has-text('name of the class first')")
    page.fill("#msta-recorder [name=clips]", "2")
    page.fill("#msta-recorder [name=seconds]", "1")
    for name, leftwards in (("rightwards", "false"), ("leftwards", "true")):
        page.evaluate(f"window.leftwards = {leftwards}")
        box(page, "msta-class").fill(name)
        page.click("#msta-recorder [data-do=record]")
        page.wait_for_function("document.querySelector('#msta-recorder [role=status]').textContent.startsWith('Done')")
    page.click("#msta-recorder [data-do=close]")
    assert page.locator("#msta-added b").all_inner_texts() == ["rightwards", "leftwards"]
    assert page.locator("#msta-added .msta-unknown").count() == 0
    page.wait_for_function("document.querySelectorAll('#msta-thumbnails .thumbnail-item').length === 4")
    name = f"recorded-{request.node.callspec.params['page']}"
    box(page, "msta-name").fill(name)
    page.get_by_role("button", name="Settings").click()
    box(page, "msta-epochs").fill("2")
    page.click("#msta-train")
    page.wait_for_selector(f".msta-run.finished h3:has-text('{name}')")
    assert "Of 4 clips" in page.locator(".msta-result").inner_text()
    with page.expect_download() as download:
        page.click("#msta-report")
    assert "right</h1>" in Path(download.value.path()).read_text()
    page.click("#msta-onnx")
    page.wait_for_selector("#msta-exported a[download]", state="attached")
    tab(page, "Predict")
    page.get_by_role("button", name="Webcam, live").click()
    page.get_by_text("Click to Access Webcam").click()
    page.locator("#msta-live .button-wrap button").first.click()
    labels = "[...document.querySelectorAll('#msta-now-seen .label')].map(label => label.innerText)"
    page.wait_for_function(f"{labels}.sort().join() === 'leftwards,rightwards'")
    page.locator("#msta-live .button-wrap button").first.click()


def test_the_camera_is_answered_live_and_recorded(page):
    pick(page, "Adapter", "a")
    page.get_by_role("button", name="Webcam, live").click()
    page.get_by_text("Click to Access Webcam").click()
    page.locator("#msta-live .button-wrap button").first.click()
    page.wait_for_selector("#msta-now-seen .msta-bar")
    before = page.locator("#msta-now-seen").inner_text()
    page.wait_for_function("before => document.querySelector('#msta-now-seen').innerText !== before", arg=before)
    page.locator("#msta-live .button-wrap button").first.click()
    tab(page, "Train")
    box(page, "msta-class").fill("something green")
    page.click("#msta-recorder [data-do=open]")
    page.fill("#msta-recorder [name=clips]", "1")
    page.fill("#msta-recorder [name=seconds]", "0.5")
    page.click("#msta-recorder [data-do=record]")
    page.wait_for_selector("#msta-added span:has-text('something green 1 clip')")
    thumbnail = page.locator("#msta-thumbnails img").first
    assert thumbnail.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0


def test_clips_move_to_another_class_and_go(page, folder):
    tab(page, "Train")
    for name in ("left", "right"):
        add_class(page, name, folder)
    page.locator("#msta-thumbnails .thumbnail-item").first.click()
    box(page, "msta-move").fill("Right")
    box(page, "msta-move").press("Enter")
    page.wait_for_selector("#msta-added span:has-text('right 3 clips')")
    assert "left 1 clip" in page.locator("#msta-added").inner_text()
    page.locator("#msta-thumbnails .thumbnail-item").first.click()
    page.wait_for_selector("#msta-remove")
    page.click("#msta-remove")
    page.wait_for_selector("#msta-added b:has-text('left')", state="detached")
    assert page.locator("#msta-thumbnails .thumbnail-item").count() == 3


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/config", {}, 200),
        ("/config", {"Host": "rebound.example"}, 400),
        ("/gradio_api/file=/etc/passwd", {}, 403),
        (f"/gradio_api/file={Path(__file__)}", {}, 403),
    ],
)
def test_what_the_server_gives_away(app, path, headers, status):
    connection = http.client.HTTPConnection(app[0].removeprefix("http://"), timeout=30)
    connection.request("GET", path, headers=headers)
    assert connection.getresponse().status == status
    connection.close()


def test_moments_are_found(page):
    tab(page, "Search")
    page.click("#msta-search")
    page.wait_for_selector(".msta-problem:has-text('what to look for')")
    box(page, "msta-query").fill("a person")
    page.click("#msta-search")
    page.wait_for_selector(".msta-grid figure")
    assert "long.mp4" in page.locator(".msta-grid").inner_text()
    for number in (1, 0):  # each that is clicked plays
        page.locator(".msta-grid figure").nth(number).click()
        page.wait_for_function("number => document.querySelectorAll('#msta-player video').length && "
            "document.querySelector('#msta-player video').currentTime > 0", arg=number)  # fmt: skip
    box(page, "msta-in").fill("/nowhere")
    page.click("#msta-search")
    page.wait_for_selector(".msta-problem:has-text('/nowhere: no folder')")
