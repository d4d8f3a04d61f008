"""``msta train`` as people use it: early ends, no clip wasted, a page at the end, and the same from Python."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from conftest import read_log
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file

import msta
from msta.config import changed, make_config, read_config
from msta.data.catalog import Catalog, Clip
from msta.data.reading import read_catalog
from msta.data.splits import make_folds
from msta.errors import ConfigError, DataError, Interrupted, MSTAError
from msta.evaluation.evaluate import evaluate_on
from msta.evaluation.intervals import wilson
from msta.evaluation.predictions import read_predictions
from msta.training import fit as fit_module
from msta.training.fit import fit
from msta.training.losses import objective
from msta.training.status import describe, read_status

QUIET = Console(quiet=True)
QUICK = ("train.epochs=2", "train.batch_size=4", "data.workers=0", "method.dim=8")


def config(clips: Path, backbone: Path, *overrides: str, shots: int | None = None):
    settings = {"data.path": str(clips), "data.shots": shots, "backbone": str(backbone)}
    return make_config("small", settings, [*QUICK, *overrides])


# ---------------------------------------------------------------- folds


@st.composite
def catalogs(draw):
    """Clips of 2 to 4 classes; some are time ranges of one video."""
    clips = []
    for label in range(draw(st.integers(2, 4))):
        for video in range(draw(st.integers(2, 9))):
            path = f"/clips/{label}-{video}.mp4"
            ranges = draw(st.integers(1, 3))
            spans = [(None, None)] if ranges == 1 else [(float(i), float(i + 1)) for i in range(ranges)]
            clips += [Clip(path, label, None, *span) for span in spans]
    names = tuple(f"class {i}" for i in range(1 + max(c.label for c in clips)))
    return Catalog("somewhere", names, tuple(clips))


@given(catalogs(), st.integers(2, 4), st.integers(0, 9))
def test_every_clip_tests_once_and_no_video_is_on_both_sides(catalog, folds, seed):
    splits = make_folds(catalog, folds, seed)
    assert Counter(c.name for s in splits for c in s.test) == Counter(c.name for c in catalog.clips)
    for split in splits:
        assert not {c.path for c in split.train} & {c.path for c in split.test}
        assert {c.label for c in split.train} == set(range(len(catalog.classes)))
        assert {c.name for c in (*split.train, *split.test)} == {c.name for c in catalog.clips}
    videos = [len({c.path for c in split.test}) for split in splits]
    assert max(videos) - min(videos) <= 1
    assert splits == make_folds(catalog, folds, seed)


def test_a_class_in_one_video_cannot_be_folded():
    clips = (Clip("/a.mp4", 0), Clip("/b.mp4", 0), Clip("/c.mp4", 1, None, 0.0, 1.0), Clip("/c.mp4", 1, None, 1.0, 2.0))
    with pytest.raises(DataError, match="'push' lie in one video"):
        make_folds(Catalog("here", ("hug", "push"), clips), 2, 0)
    four = tuple(replace(c, path=f"/{i}.mp4") for i, c in enumerate(clips))
    with pytest.raises(DataError, match="4 videos cannot be divided into 5 folds"):
        make_folds(Catalog("here", ("hug", "push"), four), 5, 0)


@given(st.integers(0, 60), st.integers(1, 60))
def test_wilson_holds_the_share_and_is_never_empty(right, clips):
    right = min(right, clips)
    low, high = wilson(right, clips)
    assert 0 <= low <= 100 * right / clips + 1e-9
    assert 100 * right / clips - 1e-9 <= high <= 100
    assert high - low > 1
    # the ends are the shares that lie 1.96 standard deviations from what was seen
    for end in (low, high):
        if 1e-6 < end < 100 - 1e-6:
            p = end / 100
            assert abs(right / clips - p) == pytest.approx(1.96 * math.sqrt(p * (1 - p) / clips), rel=1e-6)


# ---------------------------------------------------------------- training on all clips


@pytest.fixture(scope="module")
def folded(moving_clips, tiny_backbone, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("folded") / "run"
    fit(config(moving_clips, tiny_backbone, "train.folds=2"), out, QUIET)
    return out


def test_folds_measure_every_clip_and_the_adapter_trains_on_all(folded, moving_clips):
    every = read_catalog(moving_clips)
    metrics = json.loads((folded / "metrics.json").read_text())
    tested = read_predictions(folded / "predictions" / "test.parquet")
    assert sorted(tested.clips) == sorted(c.name for c in every.clips)
    assert metrics["clips"] == len(every.clips)
    assert metrics["top1"] == pytest.approx(100 * sum(tested.hits) / len(tested.hits))
    assert metrics["interval"][0] <= metrics["top1"] <= metrics["interval"][1]
    assert len(metrics["folds"]) == 2
    assert "2 folds" in metrics["measured"]
    assert metrics["temperature"] > 0
    assert metrics["selected_by"] == "last"
    split = read_catalog(folded / "split.csv")
    assert {c.split for c in split.clips} == {"train"}
    assert len(split.clips) == len(every.clips)
    for number in (1, 2):  # each fold's figure is that of its own model, on clips it did not train on
        run = folded / "measuring" / f"fold-{number}"
        again = evaluate_on(msta.load_adapter(run / "adapter"), run / "split.csv", split="test")
        assert again["top1"] == pytest.approx(metrics["folds"][number - 1])


def test_the_last_training_is_that_of_all_clips_alone(folded, moving_clips, tiny_backbone, tmp_path):
    same = config(moving_clips, tiny_backbone, "train.folds=2")
    fit_module.train(
        same, tmp_path / "alone", QUIET, estimate={"top1": 0.0, "top5": 0.0, "clips": 0, "temperature": 1.0}
    )
    one, other = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (folded, tmp_path / "alone"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_page_says_how_it_was_measured(folded):
    page = (folded / "report.html").read_text()
    metrics = json.loads((folded / "metrics.json").read_text())
    assert f"{metrics['top1']:.1f} % right" in page
    assert "by cross-validation in 2 folds" in page
    assert f"{metrics['interval'][0]:.1f}" in page
    assert "msta predict VIDEO --adapter" in page
    assert page.count("data:image/png") >= 3
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "by cross-validation in 2 folds" in (folded / "adapter" / "README.md").read_text()


def test_a_stopped_run_goes_on_where_it_was(folded, moving_clips, tiny_backbone, tmp_path, monkeypatch):
    settings, out = config(moving_clips, tiny_backbone, "train.folds=2"), tmp_path / "run"
    real, calls = fit_module.train, []

    def stops(config, run, *arguments, **options):
        calls.append(run.name)
        if len(calls) == 2:
            raise Interrupted("stopped")
        return real(config, run, *arguments, **options)

    monkeypatch.setattr(fit_module, "train", stops)
    with pytest.raises(Interrupted, match=f"--resume {out}$"):
        fit(settings, out, QUIET)
    assert not (out / "metrics.json").exists()
    state = read_status(out)
    assert state["state"] != "finished"
    assert "measuring" in "\n".join(describe(state))
    with pytest.raises(ConfigError, match="other settings"):
        fit(config(moving_clips, tiny_backbone, "train.folds=2", "train.epochs=3"), out, QUIET, or_resume=True)
    with pytest.raises(MSTAError, match="holds a run already"):
        fit(settings, out, QUIET)
    fit(settings, out, QUIET, or_resume=True)
    ours, theirs = (json.loads((run / "metrics.json").read_text()) for run in (out, folded))
    assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}
    one, other = (load_file(run / "adapter" / "adapter_model.safetensors") for run in (folded, out))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert fit(settings, out, QUIET, or_resume=True) == ours, "finished already"


def test_refit_trains_on_all_clips_for_the_epochs_that_were_best(moving_clips, tiny_backbone, tmp_path):
    out = tmp_path / "run"
    metrics = fit(config(moving_clips, tiny_backbone, "train.refit=true", "train.epochs=3"), out, QUIET)
    measured = json.loads((out / "measuring" / "held-out" / "metrics.json").read_text())
    assert metrics["top1"] == pytest.approx(measured["top1"])
    assert metrics["temperature"] == measured["temperature"]
    every = len(read_catalog(moving_clips).clips)
    per_epoch = math.ceil(every / 4)
    assert metrics["steps"] == measured["selected_at"]["epoch"] * per_epoch
    assert {c.split for c in read_catalog(out / "split.csv").clips} == {"train"}


def test_what_does_not_go_together(moving_clips, tiny_backbone, tmp_path):
    with pytest.raises(ConfigError, match="--shots"):
        fit(config(moving_clips, tiny_backbone, "train.folds=2", shots=2), tmp_path / "a", QUIET)
    with pytest.raises(DataError, match="cannot be divided into 99 folds"):
        fit(config(moving_clips, tiny_backbone, "train.folds=99"), tmp_path / "a", QUIET)
    with pytest.raises(ConfigError, match="patience"):
        fit(config(moving_clips, tiny_backbone, "train.folds=2", "train.patience=2"), tmp_path / "a", QUIET)
    with pytest.raises(ConfigError, match="train.refit: .* leave --shots out"):
        fit(config(moving_clips, tiny_backbone, "train.refit=true", shots=2), tmp_path / "a", QUIET)
    with pytest.raises(ConfigError, match="train.folds: measures by itself; leave train.refit out"):
        config(moving_clips, tiny_backbone, "train.refit=true", "train.folds=2")
    for overrides, why in (
        (["train.select=last"], "needs validation clips"),
        (["data.val_fraction=0"], "needs validation clips"),
        (["train.eval_every=3"], "is less than train.eval_every"),
    ):
        with pytest.raises(ConfigError, match=f"train.patience: {why}"):
            fit(config(moving_clips, tiny_backbone, "train.patience=2", *overrides, shots=2), tmp_path / "a", QUIET)
    with pytest.raises(ConfigError, match="test-leak"):
        config(moving_clips, tiny_backbone, "train.select=test-leak", "train.refit=true")
    with pytest.raises(ConfigError, match="msta train"):
        fit_module.train(config(moving_clips, tiny_backbone, "train.refit=true"), tmp_path / "b", QUIET)
    assert not list(tmp_path.iterdir())


# ---------------------------------------------------------------- ends


def test_patience_ends_a_training_that_no_longer_improves(moving_clips, tiny_backbone, tmp_path):
    still = ["train.epochs=8", "train.patience=2", "train.lr=1e-12"]  # nothing changes, so the first epoch stays best
    metrics = fit(config(moving_clips, tiny_backbone, *still, shots=2), tmp_path / "run", QUIET)
    epochs = [line["epoch"] for line in read_log(tmp_path / "run") if "val" in line]
    assert metrics["selected_at"]["epoch"] + 2 == epochs[-1] < 8
    assert (tmp_path / "run" / "last" / "adapter_model.safetensors").exists()
    assert msta.load_adapter(tmp_path / "run" / "last").num_trainable()


def test_a_moved_run_with_folds_goes_on_and_may_halve_its_batches(folded, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(folded, moved)
    for gone in ("metrics.json", "measuring/fold-2/metrics.json"):
        (moved / gone).unlink()
    shutil.rmtree(moved / "adapter")
    settings = changed(read_config(moved / "config.yaml"), {"train.auto_batch": True})
    metrics = fit(settings, moved, QUIET, resume=True)
    assert metrics["top1"] == json.loads((folded / "metrics.json").read_text())["top1"]


def test_test_clips_are_watched_without_validation_clips_too(moving_clips, tiny_backbone, tmp_path):
    watched = config(moving_clips, tiny_backbone, "train.watch_test=true", "train.select=last", shots=2)
    fit(watched, tmp_path / "run", QUIET)
    assert [line["epoch"] for line in read_log(tmp_path / "run") if "test" in line] == [1, 2]


def test_a_home_folder_in_a_path_is_found(moving_clips, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fit(config(moving_clips, tiny_backbone, shots=2), Path("~/run"), QUIET)
    assert msta.load_adapter("~/run").num_trainable()
    assert (tmp_path / "run" / "report.html").exists()


def test_stop_after_takes_the_first_steps_of_the_whole_schedule(moving_clips, tiny_backbone, tmp_path):
    for name, overrides in (("whole", []), ("part", ["train.stop_after=2"])):
        four = config(moving_clips, tiny_backbone, "train.epochs=4", "train.select=last", *overrides, shots=2)
        fit(four, tmp_path / name, QUIET)
    whole, part = ([line for line in read_log(tmp_path / run) if "loss" in line] for run in ("whole", "part"))
    assert len(part) * 2 == len(whole)
    assert part == whole[: len(part)]


def test_a_callback_hears_of_each_epoch_and_can_end_it(moving_clips, tiny_backbone, tmp_path):
    heard = []

    def listen(facts):
        heard.append(facts)
        return facts["epoch"] == 2

    done = config(moving_clips, tiny_backbone, "train.epochs=5", shots=2)
    fit(done, tmp_path / "run", QUIET, on_epoch=listen)
    assert [each["epoch"] for each in heard] == [1, 2]
    assert heard[-1]["best"]["epoch"] in (1, 2)
    assert heard[0]["val"]["clips"] > 0
    assert read_status(tmp_path / "run")["epoch"] == 2


def test_a_pipe_gets_a_line_per_epoch(moving_clips, tiny_backbone, tmp_path):
    with (tmp_path / "said").open("w") as file:
        fit(config(moving_clips, tiny_backbone, shots=2), tmp_path / "run", Console(file=file, width=200))
    said = (tmp_path / "said").read_text()
    assert "epoch 1 of 2: loss" in said
    assert "val top-1" in said


def test_a_folder_of_few_clips_is_told_of_folds(moving_clips, tiny_backbone, tmp_path):
    for shots, told in ((None, True), (2, False)):
        with (tmp_path / f"said{shots}").open("w") as file:
            fit(
                config(moving_clips, tiny_backbone, shots=shots),
                tmp_path / f"run{shots}",
                Console(file=file, width=200),
            )
        assert ("--folds" in (tmp_path / f"said{shots}").read_text()) == told


@given(st.floats(0, 0.9), st.integers(2, 5))
def test_label_smoothing_is_the_mean_with_the_even_distribution(share, classes):
    generator = torch.Generator().manual_seed(classes)
    video, text = torch.randn(4, 8, generator=generator), torch.randn(classes, 8, generator=generator)
    labels = torch.arange(4) % classes

    def logits(one, other):
        return one @ other.T

    loss, _ = objective(video, text, labels, logits, [], 1.0, label_smoothing=share)
    log = logits(video, text).log_softmax(-1)
    expected = -(1 - share) * log[range(4), labels] - share * log.mean(1)
    torch.testing.assert_close(loss, expected.mean())
    torch.testing.assert_close(
        objective(video, text, labels, logits, [], 1.0)[0], F.cross_entropy(video @ text.T, labels)
    )


# ---------------------------------------------------------------- Python


def test_python_is_as_easy_as_the_command(moving_clips, tiny_backbone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    quick = {"train.epochs": 1, "data.workers": 0, "method.dim": 8}
    done = msta.train(moving_clips, backbone=tiny_backbone, shots=2, settings=quick, quiet=True)
    assert done.run == Path("runs") / moving_clips.name
    assert done.top1 == json.loads((done.run / "metrics.json").read_text())["top1"]
    assert done.report.exists()
    assert str(done.report) in str(done)
    for what in ("learning", "confusion", "classes", "calibration"):
        assert min(done.plot(what).size) > 100
    with pytest.raises(ConfigError, match="learning, confusion"):
        done.plot("everything")
    clip = read_catalog(done.run / "split.csv").clips[0].path
    answers = msta.predict([clip, tmp_path / "missing.mp4"], done.run)
    assert answers[0].predictions == msta.predict(clip, done.adapter)[0].predictions == done(clip)
    assert answers[0].label == answers[0].predictions[0].label
    assert answers[1].error
    assert answers[1].label is None
    assert msta.evaluate(done.run / "split.csv", done.adapter)["top1"] == pytest.approx(done.top1)
    again = msta.train(moving_clips, backbone=tiny_backbone, shots=2, settings=quick, quiet=True)
    assert again.run == Path("runs") / f"{moving_clips.name}-2"
    assert [p.label for p in msta.predict(clip, backbone=tiny_backbone, labels=["push", "pull"])[0].predictions]
    for wrong, message in (({}, "adapter, or labels"), ({"labels": "push,pull"}, "list of names")):
        with pytest.raises(ConfigError, match=message):
            msta.predict(clip, **wrong)
