"""Catalogs, splits and batches: every clip where it belongs, and everything random a function of (seed, epoch, clip)."""

from __future__ import annotations

import ctypes
import itertools
import logging
import os
import time
import unicodedata
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import kornia.augmentation
import numpy as np
import pytest
import torch
from conftest import OUTSIDE, needs
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import frame_number, numbered_frames, write_video

from msta.data.augment import Augmentation, augment
from msta.data.catalog import Catalog, Clip, write_catalog
from msta.data.clips import (
    ClipDataset,
    ClipFormat,
    Failures,
    Views,
    collate,
    crops,
    make_loader,
    read_views,
    segment_times,
    steady,
    view_times,
)
from msta.data.loading import SteadyLoader, StepSampler
from msta.data.names import class_words
from msta.data.reading import read_catalog
from msta.data.ring import Ring, write
from msta.data.splits import make_split
from msta.errors import DataError
from msta.notices import notice
from msta.settings import DataSettings

FORMAT = ClipFormat(4, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


def tree(root: Path, files: list[str]) -> Path:
    """Empty files, for what reads names only."""
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


# ---------------------------------------------------------------- catalog


def test_a_folder_with_a_sub_folder_a_class(tmp_path):
    tree(
        tmp_path,
        ["swipe_left/b.mp4", "swipe_left/a.AVI", "draw-circle/deep/er/c.webm", "swipe_left/.hidden.mp4", ".git/x.mp4"],
    )
    catalog = read_catalog(tmp_path)
    assert catalog.classes == ("draw circle", "swipe left")
    assert [(Path(c.path).name, c.label, c.split) for c in catalog.clips] == [
        ("c.webm", 0, None), ("a.AVI", 1, None), ("b.mp4", 1, None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("folder", "text"),
    [("swipe_left", "swipe left"), ("ApplyEyeMakeup", "Apply Eye Makeup"), ("a  b", "a b"), ("___", "___")],
)
def test_names_become_text(folder, text):
    assert class_words(folder) == text


def test_a_name_is_the_same_with_its_accents_apart(tmp_path):
    for form, folder in (("NFC", tmp_path / "a"), ("NFD", tmp_path / "b")):
        for name in ("caf\u00e9", "th\u00e9"):
            (folder / unicodedata.normalize(form, name)).mkdir(parents=True)
            (folder / unicodedata.normalize(form, name) / "0.mp4").touch()
    assert read_catalog(tmp_path / "a").classes == read_catalog(tmp_path / "b").classes == ("caf\u00e9", "th\u00e9")


def test_split_folders(tmp_path):
    tree(tmp_path, ["train/push/1.mp4", "train/hug/2.mp4", "validation/push/3.mp4", "test/hug/4.mp4", "notes/x.mp4"])
    catalog = read_catalog(tmp_path)
    assert catalog.classes == ("hug", "push")
    assert {(Path(c.path).stem, c.label, c.split) for c in catalog.clips} == {
        ("1", 1, "train"), ("2", 0, "train"), ("3", 1, "val"), ("4", 0, "test"),
    }  # fmt: skip


def test_classes_csv_wins_over_folder_names(tmp_path):
    tree(tmp_path, ["c1/1.mp4", "c2/2.mp4"])
    (tmp_path / "classes.csv").write_text("id,name\nc2,press the button\nc1,pull the lever\n")
    catalog = read_catalog(tmp_path)
    assert catalog.classes == ("press the button", "pull the lever")
    assert [c.label for c in catalog.clips] == [1, 0]


def test_classes_csv_may_name_more_classes_than_there_are_folders(tmp_path):
    tree(tmp_path, ["a/1.mp4", "c/2.mp4"])
    (tmp_path / "classes.csv").write_text("a,x\nb,y\nc,z\n")
    assert read_catalog(tmp_path).classes == ("x", "y", "z")
    assert read_catalog(tmp_path).counts() == [1, 0, 1]


def test_a_folder_whose_name_is_no_text_is_named(tmp_path):
    os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    tree(tmp_path, ["push/1.mp4"])
    with open(os.fsencode(tmp_path) + b"/caf\xe9/1.mp4", "w"):
        pass
    with pytest.raises(DataError, match="no valid text"):
        read_catalog(tmp_path)


def test_classes_csv_with_numbers_matches_folders_by_name(tmp_path):
    tree(tmp_path, ["pull_lever/1.mp4", "press/2.mp4"])
    (tmp_path / "classes.csv").write_text("0,Pull lever\n1,press\n")
    catalog = read_catalog(tmp_path)
    assert catalog.classes == ("Pull lever", "press")
    assert {Path(c.path).stem: c.label for c in catalog.clips} == {"1": 0, "2": 1}


@pytest.mark.parametrize(
    "rows",
    ["label,name\n0,push\n1,pull\n", "class,name\n0,push\n1,pull\n", "folder,name\n0,push\n1,pull\n",
     "class,label\npush,0\npull,1\n", "class,label\n0,push\n1,pull\n", "push,0\npull,1\n", "id|name\n0|push\n1|pull\n"],
)  # fmt: skip
def test_a_header_of_classes_csv_is_no_class(tmp_path, rows):
    tree(tmp_path, ["0/1.mp4", "1/2.mp4"])
    (tmp_path / "classes.csv").write_text(rows)
    assert read_catalog(tmp_path).classes == ("push", "pull")


def test_a_csv_of_path_and_label(tmp_path):
    (tmp_path / "clips.csv").write_text("path,label,split\na.mp4,push,train\nsub/b.mp4,hug,test\n/abs/c.mp4,push,\n")
    catalog = read_catalog(tmp_path / "clips.csv")
    assert catalog.classes == ("hug", "push")
    assert [(c.path, c.label, c.split) for c in catalog.clips] == [
        (str(tmp_path / "a.mp4"), 1, "train"), (str(tmp_path / "sub/b.mp4"), 0, "test"), ("/abs/c.mp4", 1, None),
    ]  # fmt: skip


def test_a_csv_of_numbers_with_classes_beside_it(tmp_path):
    (tmp_path / "list.csv").write_text("a.mp4,1\nb.mp4,0\n")
    (tmp_path / "classes.csv").write_text("id,name\n0,push\n1,hug\n")
    catalog = read_catalog(tmp_path / "list.csv")
    assert catalog.classes == ("push", "hug")
    assert [c.label for c in catalog.clips] == [1, 0]


odd_names = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@settings(max_examples=40)
@given(names=st.lists(odd_names, min_size=1, max_size=6, unique=True), seed=st.integers(0, 99))
def test_a_written_catalog_reads_back_whatever_the_names(tmp_path_factory, names, seed):
    folder = tmp_path_factory.mktemp("csv")
    classes = ("10", "2", "push-up", "iPhone pull", "shake, 'hands'")
    random = np.random.default_rng(seed)
    paths = {os.path.abspath(folder / "clips" / name) for name in names}
    clips = tuple(Clip(path, int(random.integers(5)), ("train", "val", "test")[i % 3]) for i, path in enumerate(paths))
    write_catalog(folder / "split.csv", classes, clips)
    again = read_catalog(folder / "split.csv")
    assert again.classes == classes
    assert again.clips == clips


@pytest.mark.parametrize(
    ("files", "texts", "message"),
    [
        ([], {}, "expected a sub-folder for each class"),
        (["push/1.mp4", "hug/readme.txt"], {}, "no clips for the class 'hug'"),
        (["push/readme.txt"], {}, "no video files"),
        (["swipe_left/1.mp4", "swipe-left/2.mp4"], {}, "two classes are called 'swipe left'"),
        (["push/1.mp4", "Push/2.mp4"], {}, "two classes are called 'push'"),
        (["push/1.mp4"], {"classes.csv": "id,name\npull,pull\n"}, r"classes\.csv: has no row for the folder 'push'"),
        (
            ["push/1.mp4"],
            {"classes.csv": "id,name\npush,a\npush,b\n"},
            r"classes\.csv, line 3: the id 'push' is there twice",
        ),
        (["push/1.mp4"], {"classes.csv": "id,name\npush\n"}, r"classes\.csv, line 2: expected id,name"),
        (["a/1.mp4", "b/1.mp4"], {"classes.csv": "id,name\na,x\nb,x\n"}, "two classes are called 'x'"),
    ],
)
def test_folders_that_cannot_be_used_say_why(tmp_path, files, texts, message):
    tree(tmp_path, files)
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_catalog(tmp_path)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.mp4,7\n", r"line 1: the label '7' is not among the 2 of classes\.csv"),
        ("a.mp4,-1\n", "line 1: the label '-1'"),
        ("path,label\n", "no clips in it"),
        ("", "no clips in it"),
        ("a.mp4\n", "line 1: expected path,label"),
        ("path,label,split\na.mp4,0,dev\n", "line 2: the split 'dev'"),
        (",0\n", "line 1: no path"),
        ("split,path,label\ntrain,a.mp4\n", "line 2: expected split,path,label"),
        ("a.mp4,0\n./a.mp4,1\n", r"a\.mp4 is listed twice"),
    ],
)
def test_csvs_that_cannot_be_used_say_why(tmp_path, text, message):
    (tmp_path / "classes.csv").write_text("0,push\n1,hug\n")
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(DataError, match=rf"clips\.csv.*{message}"):
        read_catalog(tmp_path / "clips.csv")


def test_a_missing_data_set_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such folder or CSV"):
        read_catalog(tmp_path / "nowhere")


# ---------------------------------------------------------------- splits


def catalog_of(counts: list[int], splits: tuple[str | None, ...] = (None,)) -> Catalog:
    clips = [Clip(f"{s}/{k}/{i}", k, s) for s in splits for k, n in enumerate(counts) for i in range(n)]
    return Catalog("data", tuple(f"class {k}" for k in range(len(counts))), tuple(clips))


def split(catalog, shots=None, seed=0, val=0.2, test=0.2):
    return make_split(catalog, shots=shots, val_fraction=val, test_fraction=test, seed=seed)


@given(
    counts=st.lists(st.integers(3, 30), min_size=2, max_size=5),
    shots=st.integers(1, 2) | st.none(),
    seed=st.integers(0, 9),
)
def test_splits_are_disjoint_complete_and_stratified(counts, shots, seed):
    catalog = catalog_of(counts)
    parts = split(catalog, shots, seed)
    everything = [c.path for c in (*parts.train, *parts.val, *parts.test)]
    assert sorted(everything) == sorted(c.path for c in catalog.clips)
    per_class = Counter(c.label for c in parts.train)
    assert set(per_class) == set(range(len(counts)))
    if shots:
        assert set(per_class.values()) == {shots}
    for k in range(len(counts)):
        assert any(c.label == k for c in parts.test)
    assert split(catalog, shots, seed) == parts


@given(seed=st.integers(0, 50))
def test_shots_are_nested_and_classes_independent(seed):
    big, small = catalog_of([20, 20, 20]), catalog_of([20, 20])
    sets = {k: {c.path for c in split(big, k, seed).train} for k in (1, 2, 4, 8, 16)}
    assert sets[1] < sets[2] < sets[4] < sets[8] < sets[16]
    assert {c.path for c in split(small, 4, seed).train} == {p for p in sets[4] if not p.startswith("None/2/")}


def test_two_clips_a_class_are_one_to_train_and_one_to_test():
    parts = split(catalog_of([2, 2]))
    assert (len(parts.train), len(parts.val), len(parts.test)) == (2, 0, 2)


@pytest.mark.parametrize("shots", [2, None])
def test_no_validation_if_its_fraction_is_zero(shots):
    assert split(catalog_of([9, 9]), shots, val=0).val == ()


def test_given_splits_are_kept():
    catalog = catalog_of([6, 6], ("train", "val", "test"))
    parts = split(catalog)
    for name in ("train", "val", "test"):
        assert {c.path for c in getattr(parts, name)} == {c.path for c in catalog.clips if c.split == name}
    few = split(catalog, shots=2)
    assert len(few.train) == 4
    assert few.val == parts.val
    assert few.test == parts.test


def test_a_missing_validation_set_comes_out_of_the_training_clips():
    parts = split(catalog_of([10, 10], ("train", "test")))
    assert Counter(c.split for c in parts.val) == {"train": 4}
    assert Counter(c.split for c in parts.test) == {"test": 20}
    few = split(catalog_of([10, 10], ("train", "test")), shots=3)
    assert (len(few.train), len(few.val), len(few.test)) == (6, 6, 20)
    assert not {c.path for c in few.train} & {c.path for c in few.val}


def test_classes_that_the_test_clips_lack_are_named(caplog):
    clips = [Clip(f"{k}/{i}", k, "train") for k in range(3) for i in range(3)] + [Clip("t", 0, "test")]
    split(Catalog("some data", ("a", "b", "c"), tuple(clips)))
    assert any("some data: 2 of 3 classes have no test clip, 'b' for one" in r.message for r in caplog.records)


@pytest.mark.parametrize(
    ("catalog", "shots", "message"),
    [
        (catalog_of([5]), None, "only one class"),
        (catalog_of([9, 3]), 4, "class 1' has 3 clips to train on, 4 needed; take fewer shots, add clips or leave the class out"),
        (catalog_of([4, 4]), 4, "no clips are left to test on"),
        (catalog_of([4, 1]), None, "class 1' has 1 clips to train on, 2 needed"),
        (Catalog("data", ("a", "b"), (Clip("x", 0, "train"), Clip("y", 1, "test"))), None, "'b' has 0 clips to train on"),
    ],
)  # fmt: skip
def test_splits_that_cannot_be_made_say_why(catalog, shots, message):
    with pytest.raises(DataError, match=message):
        split(catalog, shots)


@needs("clips")
@pytest.mark.parametrize(("name", "classes", "clips"), [("egogestar", 10, 109), ("ut_interaction", 6, 60)])
def test_the_real_sets(name, classes, clips):
    catalog = read_catalog(OUTSIDE / "clips" / name)
    assert (len(catalog.classes), len(catalog.clips)) == (classes, clips)
    assert all(len({c.label for c in getattr(split(catalog, 4), s)}) == classes for s in ("train", "val", "test"))


# ---------------------------------------------------------------- frames and views


@given(duration=st.floats(0.01, 1e4), frames=st.integers(1, 32), clips=st.integers(1, 10), seed=st.integers(0, 99))
def test_every_segment_gives_one_time(duration, frames, clips, seed):
    edges = np.arange(frames + 1) * duration / frames
    random = segment_times(duration, frames, np.random.default_rng(seed).random(frames))
    for times in (segment_times(duration, frames), random, *view_times(duration, frames, clips)):
        assert (times >= edges[:-1]).all()
        assert (times < edges[1:] * (1 + 1e-9)).all()
    assert np.allclose(view_times(duration, frames, 1)[0], segment_times(duration, frames))
    assert len(np.unique(view_times(duration, frames, clips).round(9))) == clips * frames or duration < 1


def test_crops():
    frames = np.arange(6, dtype=np.uint8)[None, None, :, None] * np.ones((2, 4, 1, 3), np.uint8)
    assert crops(frames, 4, 1).shape == (1, 2, 4, 4, 3)
    assert crops(frames, 4, 1)[0, 0, 0, :, 0].tolist() == [1, 2, 3, 4]
    assert [c[0, 0, 0, 0] for c in crops(frames, 4, 3)] == [0, 1, 2]
    assert [c[0, 0, 0, 0] for c in crops(frames.swapaxes(1, 2), 4, 3)] == [0, 1, 2]


def test_test_views_show_the_right_frames(tmp_path):
    path = str(write_video(tmp_path / "v.mp4", numbered_frames(40, 64, 64)))
    form = ClipFormat(4, 64, (0.0,) * 3, (1.0,) * 3)
    views = read_views(path, form, Views(clips=2, crops=1))
    assert views.shape == (2, 4, 3, 64, 64)
    numbers = [[frame_number((f.permute(1, 2, 0) * 255).numpy()) for f in view] for view in views]
    assert numbers == [[2, 12, 22, 32], [7, 17, 27, 37]]
    assert read_views(path, form, Views(clips=2, crops=3)).shape == (6, 4, 3, 64, 64)


def test_pixels_are_normalised(tmp_path):
    grey = np.full((8, 32, 32, 3), 128, np.uint8)
    video = read_views(str(write_video(tmp_path / "v.mp4", grey)), FORMAT, Views())
    assert torch.allclose(video, torch.tensor((128 / 255 - 0.5) / 0.25), atol=0.06)


# ---------------------------------------------------------------- augmentation


def read_augmented(path, form, augmentation, seed):
    return ClipDataset([Clip(path, 0)], form, augmentation=augmentation, seed=seed)[0, 0]["video"]


@pytest.mark.parametrize("seed", range(8))
def test_augmentation_is_the_same_for_all_frames_of_a_clip_and_repeats(tmp_path, seed):
    still = (
        np.repeat(np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8), 8, 0).repeat(6, 1).repeat(6, 2)
    )
    path = str(write_video(tmp_path / "still.mp4", still))
    video = read_augmented(path, FORMAT, Augmentation(), seed)
    assert video.shape == (1, 4, 3, 32, 32)
    assert (video - video[:, :1]).abs().max() < 0.5  # up to what compression leaves between the frames
    torch.rand(3)  # the global generator has no say
    assert torch.equal(read_augmented(path, FORMAT, Augmentation(), seed), video)
    assert not torch.equal(read_augmented(path, FORMAT, Augmentation(), seed + 100), video)


def test_augmentation_leaves_the_global_generator_alone(tmp_path):
    path = str(write_video(tmp_path / "v.mp4", 12))
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    read_augmented(path, FORMAT, Augmentation(), 3)
    assert torch.equal(torch.rand(2), expected)


def augmented(augmentation, video, size, seed=0):
    """Of a float video [T, 3, H, W]."""
    drawn = augmentation.draw(seed, *video.shape[-2:])
    left, top, right, bottom = drawn.box
    return augment([video[..., top:bottom, left:right]], [drawn], size)[0]


def test_the_flip_flips_and_only_then():
    video = torch.rand(4, 3, 32, 32)
    plain = dict(crop_area=(1.0, 1.0), jitter=0, greyscale=0)
    kept = augmented(Augmentation(flip=0, **plain), video, 32)
    flipped = augmented(Augmentation(flip=1, **plain), video, 32)
    assert torch.allclose(flipped, kept.flip(-1), atol=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_greyscale_and_jitter_do_what_they_say(seed):
    video = torch.rand(1, 3, 1, 1).expand(4, 3, 32, 32)
    plain = dict(crop_area=(1.0, 1.0), flip=0)

    def colours(**settings):
        return augmented(Augmentation(**plain, **settings), video, 32, seed)[0, :, 5, 5]

    assert torch.allclose(colours(jitter=0, greyscale=0), video[0, :, 0, 0], atol=1e-5)
    assert colours(jitter=0, greyscale=1).std() < 1e-5
    assert not torch.allclose(colours(jitter=1, greyscale=0), video[0, :, 0, 0], atol=1e-3)


def kornia_pipeline(augmentation, size):
    same = {"same_on_batch": True}
    return torch.nn.Sequential(
        kornia.augmentation.RandomResizedCrop((size, size), scale=augmentation.crop_area, **same),
        kornia.augmentation.ColorJitter(0.4, 0.4, 0.2, 0.1, p=augmentation.jitter, **same),
        kornia.augmentation.RandomGrayscale(p=augmentation.greyscale, **same),
        kornia.augmentation.RandomHorizontalFlip(p=augmentation.flip, **same),
    )


@pytest.mark.parametrize("shape", [(37, 37), (40, 90), (90, 40)])
@pytest.mark.parametrize(
    "augmentation", [Augmentation(), Augmentation((0.1, 0.5), 1, 1, 1), Augmentation((1, 1), 0, 0, 0)]
)
def test_augmentation_is_kornia_s_own_to_the_bit(augmentation, shape):
    pipeline, video = kornia_pipeline(augmentation, 32), torch.rand(3, 3, *shape)
    for seed in range(30):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            expected = pipeline(video)
        assert torch.equal(augmented(augmentation, video, 32, seed), expected)


def test_many_clips_at_once_are_augmented_like_one():
    video, augmentation = torch.rand(3, 3, 37, 50), Augmentation()
    drawn = [augmentation.draw(seed, 37, 50) for seed in range(40)]
    cut = [video[..., d.box[1] : d.box[3], d.box[0] : d.box[2]] for d in drawn]
    alone = torch.stack([augmented(augmentation, video, 32, seed) for seed in range(40)])
    assert torch.allclose(augment(cut, drawn, 32), alone, rtol=0, atol=1e-6)
    assert {len(d.order) for d in drawn} == {0, 4}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("swipe left", 0), ("Right hook", 0), ("turn clockwise", 0), ("turn counter-clockwise", 0), ("stand upright", 0.5),
     ("leftover", 0), ("push", 0.5), ("bright light", 0.5)],
)  # fmt: skip
def test_the_flip_turns_itself_off(name, allowed, caplog):
    notice.cache_clear()
    with caplog.at_level(logging.WARNING, "msta"):
        assert DataSettings(path=".").augmentation(["push", name]).flip == allowed
    assert ("flip is off" in caplog.text) == (allowed == 0)


# ---------------------------------------------------------------- batches


@pytest.fixture
def clips(tmp_path):
    good = [Clip(str(write_video(tmp_path / f"{i}.mp4", 8)), i % 2) for i in range(4)]
    (tmp_path / "text.mp4").write_text("no video")
    return [*good[:2], Clip(str(tmp_path / "text.mp4"), 0), *good[2:], Clip(str(tmp_path / "gone.mp4"), 1)]


@pytest.mark.parametrize("workers", [0, 2])
def test_unreadable_files_are_failures_not_exceptions(clips, workers):
    loader = make_loader(ClipDataset(clips, FORMAT), 2, workers)
    batches = list(loader)
    assert [b["label"].tolist() for b in batches] == [[0, 1], [0], [1]]
    assert [b["index"].tolist() for b in batches] == [[0, 1], [3], [4]]
    assert [Path(p).name for b in batches for p, _ in b["failures"]] == ["text.mp4", "gone.mp4"]
    failures = Failures()
    for batch in batches:
        failures.add(batch["failures"])
    assert len(failures.reasons) == 2
    with pytest.raises(DataError, match=r"text\.mp4: not a video"):
        Failures("fail").add(batches[1]["failures"])


def test_a_batch_without_a_readable_clip():
    batch = collate([{"failure": ("a", "b")}])
    assert batch["video"] is None
    assert len(batch["label"]) == 0


def test_training_batches_do_not_depend_on_workers(clips):
    def epoch(workers: int, number: int) -> list[np.ndarray]:
        dataset = ClipDataset(clips, FORMAT, augmentation=Augmentation(), seed=3)
        sampler = StepSampler(len(clips), 3, step_clips=3, batch_size=3)
        sampler.epoch = number
        return [b["video"] for b in steady(dataset, sampler, 3, workers)]

    for one, other in zip(epoch(0, 5), epoch(2, 5), strict=True):
        assert np.array_equal(one, other)
    assert not np.array_equal(epoch(0, 5)[0], epoch(0, 6)[0])


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
@pytest.mark.parametrize(("workers", "room"), [(0, 1), (1, 1), (2, 1), (2, 0)])
def test_clips_that_a_device_finishes_are_the_same(clips, augmentation, workers, room, monkeypatch):
    plain = ClipDataset(clips, FORMAT, augmentation=augmentation, views=Views(2, 3))
    there = ClipDataset(clips, FORMAT, augmentation=augmentation, views=Views(2, 3), finish_on=torch.device("cpu"))
    if not room:  # then they come through the pipe
        monkeypatch.setattr(ClipDataset, "clip_bytes", 1)
    loader = make_loader(there, 2, workers)
    for _ in range(3):  # longer than the ring
        for batch, expected in zip(loader, make_loader(plain, 2, 0), strict=True):
            assert torch.allclose(batch["video"], torch.from_numpy(expected["video"]), rtol=0, atol=1e-6)
            assert batch["label"].tolist() == expected["label"].tolist()
            assert batch["failures"] == expected["failures"]


@pytest.mark.parametrize("fit", ["crop", "squash"])
@pytest.mark.parametrize("size", [(64, 64), (160, 48), (48, 160)])
def test_a_clip_fits_its_slot(tmp_path, size, fit):
    path = str(write_video(tmp_path / "v.mp4", np.zeros((8, *size, 3), np.uint8)))
    form = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3, fit)
    for augmentation in (None, Augmentation((1, 1)), Augmentation((0.6, 1))):
        dataset = ClipDataset([Clip(path, 0)], form, augmentation=augmentation, finish_on=torch.device("cpu"))
        for epoch in range(12):
            assert dataset[epoch, 0]["frames"].nbytes <= dataset.clip_bytes


class Slow:
    """Samples that take a while; remembers which were read."""

    def __init__(self):
        self.read = []

    def __getitem__(self, key):
        time.sleep(0.01)
        self.read.append(key[1])
        if key[1] == 13:
            raise DataError("damaged")
        return key[1]


def test_a_thread_reads_ahead_and_changes_nothing():
    data, keys = Slow(), [[(0, 2 * i), (0, 2 * i + 1)] for i in range(6)]
    batches = iter(SteadyLoader(data, keys, tuple, ahead=True))
    assert next(batches) == (0, 1)
    time.sleep(0.2)
    assert data.read == list(range(6))  # the next two, and no more
    assert list(batches) == [(2 * i, 2 * i + 1) for i in range(1, 6)]
    with pytest.raises(DataError, match="damaged"):
        list(SteadyLoader(data, [[(0, 13)]], tuple, ahead=True))


def test_a_ring_gives_no_slot_twice():
    ring = Ring(3, 10, torch.device("cpu"))
    assert sorted(ring.take(2) + ring.take(2)) == [0, 1, 2]
    ring.put_back([1])
    assert ring.take(3) == [1]
    assert write(ring.memory, ring.size, 1, np.arange(6, dtype=np.uint8).reshape(2, 3))
    assert ring.read(1, (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not write(ring.memory, ring.size, 1, np.zeros(11, np.uint8))


class Copies:
    """A device's events, of which none is over before someone waits for it."""

    def __init__(self, device):
        self.waited = False

    def record(self):
        made.append(self)

    def synchronize(self):
        self.waited = True


made: list[Copies] = []


def test_a_slot_is_used_again_when_it_was_copied(monkeypatch):
    monkeypatch.setattr(torch, "Event", Copies)
    made.clear()
    ring = Ring(3, 10, torch.device("xpu"))
    ring.put_back(ring.take(2))
    assert ring.take(1) == [2]
    assert not made[0].waited
    assert ring.take(1) == [0]
    assert made[0].waited


@pytest.mark.parametrize("error", [0, 1])
def test_the_memory_is_pinned_for_a_cuda_card(monkeypatch, error, caplog):
    calls = []
    runtime = SimpleNamespace(
        cudaHostRegister=lambda address, size, flags: calls.append((address, size)) or error,
        cudaHostUnregister=lambda address: calls.append(address),
    )
    monkeypatch.setattr(torch.cuda, "cudart", lambda: runtime)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    notice.cache_clear()
    ring = Ring(3, 10, torch.device("cuda"))
    ring.close()
    address = ctypes.addressof(ring.memory)
    assert calls == [(address, 30)] + [address] * (error == 0)
    assert ("cannot be pinned" in caplog.text) == (error == 1)


@given(count=st.integers(1, 40), epoch=st.integers(0, 5), skip=st.integers(0, 40))
def test_the_sampler_shuffles_by_epoch_and_skips_what_was_seen(count, epoch, skip):
    sampler = StepSampler(count, 1, step_clips=4, batch_size=4)
    sampler.epoch = epoch
    whole = list(itertools.chain.from_iterable(sampler))
    assert sorted(i for _, i in whole) == list(range(count))
    sampler.skip = min(skip, count)
    assert list(itertools.chain.from_iterable(sampler)) == whole[sampler.skip :]


@pytest.mark.parametrize(
    "name", ["with space.mp4", "quo'te\".mp4", "new\nline.mp4", "ünï日本.mp4", "a:b.mp4", "%03d.mp4"]
)
def test_odd_names_are_read(tmp_path, name):
    (tmp_path / "push").mkdir()
    write_video(tmp_path / "plain.mp4", 8)
    os.rename(tmp_path / "plain.mp4", tmp_path / "push" / name)
    catalog = read_catalog(tmp_path)
    assert read_views(catalog.clips[0].path, FORMAT, Views()).shape == (1, 4, 3, 32, 32)
