"""Clips that are time ranges of longer videos: the right frames, no others decoded, and never mixed up."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from rich.console import Console
from safetensors.torch import load_file
from video_files import Traffic, frame_number, write_video

import msta
from msta.config import make_config
from msta.data.augment import Augmentation
from msta.data.catalog import Catalog, Clip, write_catalog
from msta.data.clips import ClipDataset, ClipFormat, Failures, make_loader
from msta.data.decode import read_frames
from msta.data.reading import read_catalog
from msta.data.splits import make_split
from msta.data.times import segment_times
from msta.data.video_file import DecodeError
from msta.errors import DataError
from msta.evaluation.evaluate import evaluate_on
from msta.training.loop import train
from msta.training.prefix_cache import PrefixCache

FORM = ClipFormat(4, 32, (0.5,) * 3, (0.25,) * 3)
QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def long(tmp_path_factory) -> dict[str, Path]:
    """250 numbered frames at 25 a second, a key frame every second; "vfr" lasts 20 s, in uneven steps."""
    root = tmp_path_factory.mktemp("long")
    files = {suffix: write_video(root / f"long{suffix}", 250, gop=25) for suffix in (".mp4", ".webm", ".avi")}
    uneven = np.cumsum(np.random.default_rng(0).integers(1, 160, 249)).tolist()
    return files | {"vfr": write_video(root / "vfr.mkv", 250, gop=25, pts=[0, *uneven])}


def numbers(path: Path, choose, within) -> list[int]:
    return [frame_number(f) for f in read_frames(path, choose, within=within)]


@settings(max_examples=25, deadline=None)
@given(start=st.floats(0, 8), length=st.floats(0.1, 9), kind=st.sampled_from([".mp4", ".webm", ".avi", "vfr"]))
def test_a_range_shows_what_the_whole_video_shows_at_those_times(long, start, length, kind):
    told = []

    def choose(seconds: float) -> np.ndarray:
        told.append(seconds)
        return segment_times(seconds, 6)

    found = numbers(long[kind], choose, (start, start + length))
    whole = []
    read_frames(long[kind], lambda seconds: whole.append(seconds) or [0.0])
    assert told == [pytest.approx(min(length, whole[0] - start))]
    assert found == numbers(long[kind], start + segment_times(told[0], 6), (None, None))
    assert found == numbers(long[kind], segment_times(told[0], 6), (start, None))


def test_a_range_decodes_little_more_than_itself(long, monkeypatch):
    traffic = Traffic(monkeypatch)
    assert numbers(long[".mp4"], lambda s: segment_times(s, 4), (8.0, 9.0)) == [203, 209, 215, 221]
    assert traffic.packets <= 5 + 25 + 5  # the first frame, one second, the decoder's delay
    assert traffic.starts == 2


def test_a_range_beyond_the_end_is_refused_and_one_across_it_cut(long):
    with pytest.raises(DecodeError, match=r"would begin at 10 s, but the video ends at 10\.00 s"):
        read_frames(long[".mp4"], [0.0], within=(10.0, 12.0))
    assert numbers(long[".mp4"], lambda s: [0, s - 0.01], (9.0, 50.0)) == [225, 249]


times = st.floats(0, 1e6, allow_subnormal=False)
spans = st.tuples(times | st.none(), times | st.none()).filter(
    lambda t: (t[0] or 0) < (float("inf") if t[1] is None else t[1])
)


@given(given_spans=st.lists(spans, min_size=1, max_size=6, unique=True))
def test_ranges_survive_a_written_catalog(tmp_path_factory, given_spans):
    folder = tmp_path_factory.mktemp("csv")
    clips = tuple(Clip(f"/v/{i % 2}.mp4", i % 3, "train", *span) for i, span in enumerate(given_spans))
    clips = tuple({(c.path, c.start or 0.0, c.end): c for c in clips}.values())  # None and 0.0 begin alike
    write_catalog(folder / "split.csv", "abc", clips)
    assert read_catalog(folder / "split.csv").clips == clips


@given(given_spans=st.lists(spans, min_size=1, max_size=6, unique=True))
def test_every_range_has_a_name_of_its_own(given_spans):
    alike = {(start or 0.0, end) for start, end in given_spans}
    assert len({Clip("v.mp4", 0, None, *span).name for span in given_spans}) == len(alike)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["a.mp4,x,train,0,5", "a.mp4,y,train,0,5"], r"a\.mp4 \[0\.0-5\.0 s\] is listed twice"),
        (["a.mp4,x,train,0,5", "a.mp4,x,test,4,9"], r"a\.mp4 \[4\.0-9\.0 s\] is both in train and in test"),
        (["a.mp4,x,train,0,9", "a.mp4,x,train,1,2", "a.mp4,x,val,3,4"], "is both in train and in val"),
        (["a.mp4,x,train,,", "a.mp4,x,test,4,9"], "is both in train and in test"),
        (["a.mp4,x,train,,", "a.mp4,y,test,,"], r"/a\.mp4 is both in train and in test; take it out of one"),
        (["a.mp4,x,train,5,5"], "a range must begin at 0 s or later, and before it ends"),
        (["a.mp4,x,train,-1,5"], "a range must begin at 0 s or later, and before it ends"),
        (["a.mp4,x,train,one,5"], r"clips\.csv, line 2: expected a time in seconds, got 'one'"),
        (["a.mp4,x,train,nan,5"], r"clips\.csv, line 2: expected a time in seconds, got 'nan'"),
    ],
)
def test_ranges_that_cannot_be_used_say_why(tmp_path, rows, message):
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split,start,end", *rows]))
    with pytest.raises(DataError, match=message):
        read_catalog(tmp_path / "clips.csv")


def test_ranges_of_a_video_side_by_side_are_fine(tmp_path):
    rows = ["path,class,split,start,end", "a.mp4,x,train,0,5", "a.mp4,y,train,1,5", "a.mp4,y,test,5,", "b.mp4,y,,,2.5"]
    (tmp_path / "clips.csv").write_text("\n".join(rows))
    spans = [c.span for c in read_catalog(tmp_path / "clips.csv").clips]
    assert spans == [(0, 5), (1, 5), (5, None), (None, 2.5)]


@given(
    videos=st.integers(4, 12),
    parts=st.integers(1, 4),
    shots=st.sampled_from([None, 1, 2]),
    test=st.booleans(),
    seed=st.integers(0, 9),
)
def test_a_division_never_parts_a_video(videos, parts, shots, test, seed):
    # each video has clips of both classes, as a day's recording would
    clips = [
        Clip(f"{v}.mp4", k % 2, "train" if test else None, k, k + 1.0) for v in range(videos) for k in range(2 * parts)
    ]
    clips += [Clip(f"t{k}.mp4", k, "test", 0.0, 1.0) for k in range(2) if test]
    try:
        made = make_split(
            Catalog("d", ("a", "b"), tuple(clips)), shots=shots, val_fraction=0.3, test_fraction=0.3, seed=seed
        )
    except DataError:  # the training clips need every video
        reject()
    apart = [{c.path for c in part} for part in (made.train, made.val, made.test)]
    assert not apart[0] & apart[1]
    assert not (apart[0] | apart[1]) & apart[2]
    if shots:
        assert Counter(c.label for c in made.train) == {0: shots, 1: shots}


# ---------------------------------------------------------------- a run on ranges


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A video a class and split, four ranges each; one more range begins after its video ends."""
    root = tmp_path_factory.mktemp("data")
    rows = ["path,class,split,start,end"]
    for k, name in enumerate(("push", "pull")):
        for part, split in enumerate(("train", "val", "test")):
            noise = np.random.default_rng((k, part)).integers(0, 256, (50, 5, 5, 3), np.uint8)
            write_video(root / f"{name}{part}.mp4", noise.repeat(8, 1).repeat(8, 2), gop=10)
            rows += [f"{name}{part}.mp4,{name},{split},{i / 2},{i / 2 + 0.5}" for i in range(4)]
    rows.append("push0.mp4,push,train,70,80")
    (root / "clips.csv").write_text("\n".join(rows))
    return root / "clips.csv"


@pytest.fixture(scope="module")
def backbone(tiny_backbone) -> Path:
    return tiny_backbone


def config(data: Path, backbone: Path, *overrides: str):
    quick = ["train.epochs=2", "train.batch_size=4", "train.warmup_epochs=0", "data.workers=0", "method.dim=8"]
    return make_config("small", {"data.path": data, "backbone": str(backbone)}, [*quick, *overrides])


def test_a_run_on_ranges(data, backbone, tmp_path):
    metrics = train(config(data, backbone), tmp_path / "plain", QUIET)
    assert metrics["clips"] == 8
    gone = f"{data.parent / 'push0.mp4'} [70.0-80.0 s]"  # it alone, not the other ranges of its file
    assert metrics["unreadable"] == {gone: "its clip would begin at 70 s, but the video ends at 2.00 s"}
    rows = read_catalog(tmp_path / "plain" / "split.csv").clips
    assert {(c.path, c.span, c.split) for c in rows} == {(c.path, c.span, c.split) for c in read_catalog(data).clips}
    again = evaluate_on(msta.load_adapter(tmp_path / "plain" / "adapter"), tmp_path / "plain" / "split.csv")
    assert (again["top1"], again["clips"]) == (metrics["top1"], 8)
    cache = [f"cache.path={tmp_path / 'cache'}", "cache.views=2", "cache.dtype=fp32"]
    kept = train(config(data, backbone, *cache), tmp_path / "kept", QUIET)
    assert kept["unreadable"] == metrics["unreadable"]
    one, other = (load_file(tmp_path / run / "adapter" / "adapter_model.safetensors") for run in ("plain", "kept"))
    flat = [np.concatenate([weights[name].numpy().ravel() for name in sorted(one)]) for weights in (one, other)]
    assert flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]) > 0.9999


def test_a_run_goes_on_only_with_the_same_ranges(data, backbone, tmp_path):
    rows = (
        data.read_text()
        .replace("push0.mp4,push,train,70,80", "")
        .replace("push1.mp4,push,val", f"{data.parent}/push1.mp4,push,val")
    )
    mine = tmp_path / "mine.csv"
    mine.write_text(
        "\n".join(
            f"{data.parent}/{row}" if i and not row.startswith("/") and row else row
            for i, row in enumerate(rows.split("\n"))
        )
    )
    train(config(mine, backbone), tmp_path / "run", QUIET)
    (tmp_path / "run" / "metrics.json").unlink()
    mine.write_text(mine.read_text().replace("train,0.5,1.0", "train,0.5,0.9"))
    with pytest.raises(DataError, match="are not those the run in .* began with"):
        train(config(mine, backbone), tmp_path / "run", QUIET, resume=True)


@pytest.mark.parametrize("augmentation", [None, Augmentation()])
def test_the_cache_tells_ranges_apart(data, tmp_path, augmentation):
    model = msta.attach(msta.random_backbone(tiny()), msta.MSTAConfig(dim=8))
    cache = PrefixCache(tmp_path, model, max_gb=1)
    path = str(data.parent / "push0.mp4")
    spans = [(None, None), (0.0, 0.5), (0.5, 1.0), (0.5, None), (None, 1.0)]

    def name(clip: Clip) -> str:
        return cache.file(ClipDataset([clip], FORM, augmentation=augmentation), (0, 0)).name

    assert len({name(Clip(path, 0, None, *span)) for span in spans}) == len(spans)
    assert name(Clip(path, 0, "train", 0.5, 1.0)) == name(Clip(path, 1, "test", 0.5, 1.0))


def test_a_batch_holds_each_range_s_own_frames(long):
    clips = [Clip(str(long[".mp4"]), i, None, 2.0 * i, 2.0 * i + 2) for i in range(4)]
    clips.append(Clip(str(long[".mp4"]), 4, None, 11.0, 12.0))
    form = ClipFormat(4, 48, (0.0,) * 3, (1.0,) * 3, fit="squash")
    failures = Failures()
    for batch in make_loader(ClipDataset(clips, form), 5, 0):
        failures.add(batch["failures"])
        shown = [[frame_number(f.transpose(1, 2, 0) * 255) for f in video[0]] for video in batch["video"]]
    assert shown == [[50 * i + n for n in (6, 18, 31, 43)] for i in range(4)]
    assert list(failures.reasons) == [clips[4].name]
    assert json.loads(json.dumps(failures.reasons))
