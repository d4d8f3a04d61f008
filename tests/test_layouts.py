"""The official layouts, on trees written here in each format, with real small videos; and the published lists."""

from __future__ import annotations

import csv
import json
import re
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from conftest import OUTSIDE, needs, tiny
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from video_files import frame_number, write_video

import msta
from msta.config import make_config
from msta.data.catalog import Catalog, Clip, require_files
from msta.data.clips import ClipFormat, Views, read_views
from msta.data.index import index
from msta.data.layouts import LAYOUTS
from msta.data.reading import read_catalog
from msta.data.splits import base_novel, class_sets, make_split, restrict, unseen, write_split
from msta.errors import ConfigError, DataError
from msta.evaluation.evaluate import evaluate_on
from msta.training.loop import train

LISTS = OUTSIDE / "reference" / "splits"
LABELS = OUTSIDE / "reference" / "labels"
needs_lists = needs("reference/splits", "reference/labels")


@pytest.fixture(scope="session")
def videos(tmp_path_factory) -> dict[str, Path]:
    """One small video of each kind: 20 numbered frames, 0.8 s; "long": 250 frames, 10 s, a key frame a second."""
    root = tmp_path_factory.mktemp("videos")
    made = {suffix: write_video(root / f"short{suffix}", 20) for suffix in (".avi", ".mp4", ".webm")}
    return made | {"long": write_video(root / "long.mp4", 250, gop=25)}


def put(source: Path, *targets: Path) -> None:
    for target in targets:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def text(file: Path, *lines: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))
    return file


def told(catalog: Catalog) -> dict[str, tuple[str, str | None]]:
    """File stem -> (class, split)."""
    return {Path(c.path).stem: (catalog.classes[c.label], c.split) for c in catalog.clips}


def one_view(path: str, span=(None, None)) -> list[int]:
    """The numbers of the frames that a test view shows."""
    form = ClipFormat(4, 48, (0.0,) * 3, (1.0,) * 3, fit="squash")
    return [frame_number((f.permute(1, 2, 0) * 255).numpy()) for f in read_views(path, form, Views(), span)[0]]


def decodes(catalog: Catalog) -> bool:
    return all(len(one_view(c.path, c.span)) == 4 for c in catalog.clips)


# ---------------------------------------------------------------- trees in each format


def ucf(root: Path, videos, folders: bool = True) -> Path:
    lists = root / "ucfTrainTestlist"
    text(lists / "classInd.txt", "1 ApplyEyeMakeup", "2 HandstandPushups", "")
    for number in (1, 2):
        train, test = ("g08", "g01") if number == 1 else ("g01", "g08")
        for part, group in (("train", train), ("test", test)):
            label = part == "train"
            text(lists / f"{part}list0{number}.txt", *(
                f"{c}/v_{v}_{group}_c0{i}.avi" + f" {k}" * label
                for k, (c, v) in enumerate((("ApplyEyeMakeup", "ApplyEyeMakeup"), ("HandstandPushups", "HandStandPushups")), 1)
                for i in (1, 2)
            ))  # fmt: skip
    for c, v in (("ApplyEyeMakeup", "ApplyEyeMakeup"), ("HandstandPushups", "HandStandPushups")):
        where = root / "UCF-101" / c if folders else root
        put(videos[".avi"], *(where / f"v_{v}_{g}_c0{i}.avi" for g in ("g01", "g08") for i in (1, 2)))
    return root


@pytest.mark.parametrize("folders", [True, False])
def test_ucf101(tmp_path, videos, folders):
    root = ucf(tmp_path, videos, folders)
    catalog = read_catalog(root)
    assert catalog.classes == ("Apply Eye Makeup", "Handstand Pushups")
    assert told(catalog)["v_HandStandPushups_g08_c01"] == ("Handstand Pushups", "train")
    assert Counter(c.split for c in catalog.clips) == {"train": 4, "test": 4}
    assert decodes(catalog)
    second = read_catalog(root, "ucf101", split_number=2)
    assert {stem for stem, (_, split) in told(second).items() if split == "test"} == {
        stem for stem, (_, split) in told(catalog).items() if split == "train"
    }
    shutil.move(root / "ucfTrainTestlist", root.with_name(f"{root.name} lists"))
    assert read_catalog(root, "ucf101", annotations=root.with_name(f"{root.name} lists")) == catalog


def hmdb(root: Path, videos) -> Path:
    for name in ("brush_hair", "wave"):
        for number in (1, 2, 3):
            tags = [1, 2, 0, 1] if number == 1 else [2, 1, 1, 0]
            lines = [f"{name} clip & {i}_{name}_u.avi {tag} " for i, tag in enumerate(tags)]
            text(root / "testTrainMulti_7030_splits" / f"{name}_test_split{number}.txt", *lines)
        put(videos[".avi"], *(root / "hmdb51_org" / name / f"{name} clip & {i}_{name}_u.avi" for i in range(4)))
    return root


def test_hmdb51(tmp_path, videos):
    catalog = read_catalog(hmdb(tmp_path, videos))
    assert catalog.classes == ("brush hair", "wave")
    splits = {stem.split(" & ")[1][0]: split for stem, (name, split) in told(catalog).items() if name == "wave"}
    assert splits == {"0": "train", "1": "test", "3": "train"}  # 2 has the tag 0: in no split
    assert decodes(catalog)
    assert Counter(c.split for c in read_catalog(tmp_path, split_number=3).clips) == {"train": 4, "test": 2}


def kinetics(root: Path) -> Path:
    head = "label,youtube_id,time_start,time_end,split"
    text(root / "annotations" / "train.csv", head, '"bowling, indoors",-abcdefghij,10,20,train',
         "abseiling,_bcdefghijk,0,10,train", "abseiling,gone4567890,3,13,train")  # fmt: skip
    text(root / "annotations" / "validate.csv", head, "abseiling,cdefghijklm,1,2,validate",
         '"bowling, indoors",defghijklmn,100,110,validate')  # fmt: skip
    text(root / "annotations" / "test.csv", "youtube_id,time_start,time_end,split", "efghijklmno,1,11,test")
    return root


@pytest.mark.parametrize("folders", [True, False])
def test_kinetics_with_missing_videos(tmp_path, videos, folders, caplog):
    root = kinetics(tmp_path)
    names = {"train/bowling, indoors": "-abcdefghij_000010_000020", "train/abseiling": "_bcdefghijk_000000_000010",
             "val/abseiling": "cdefghijklm_000001_000002", "val/bowling, indoors": "defghijklmn_000100_000110"}  # fmt: skip
    for folder, name in names.items():
        put(videos[".mp4"], root / (folder if folders else "") / f"{name}.mp4")
    catalog = read_catalog(root)
    assert catalog.classes == ("abseiling", "bowling, indoors")
    assert told(catalog)["-abcdefghij_000010_000020"] == ("bowling, indoors", "train")
    assert told(catalog)["defghijklmn_000100_000110"] == ("bowling, indoors", "test")
    assert catalog.missing == ("gone4567890_000003_000013",)
    assert any("1 of 5 listed clips are not there" in r.message and "gone4567890" in r.message for r in caplog.records)
    assert all(c.span == (None, None) for c in catalog.clips)
    assert decodes(catalog)


def test_kinetics_as_whole_videos_or_as_clips_called_by_their_id(tmp_path, videos):
    head = "label,youtube_id,time_start,time_end,split"
    text(
        tmp_path / "k.csv",
        head,
        "abseiling,aaaaaaaaaaa,2,4,train",
        "abseiling,aaaaaaaaaaa,6,8,train",
        "bowling,bbbbbbbbbbb,1,3,val",
    )
    put(videos["long"], tmp_path / "aaaaaaaaaaa.mp4", tmp_path / "bbbbbbbbbbb.mp4")
    catalog = read_catalog(tmp_path)
    assert sorted(c.span for c in catalog.clips) == [(1, 3), (2, 4), (6, 8)]
    first = next(c for c in catalog.clips if c.start == 6)
    assert all(150 <= number < 200 for number in one_view(first.path, first.span))
    # the same names on clips that have been cut already: no time range
    (tmp_path / "cut").mkdir()
    text(tmp_path / "cut" / "k.csv", head, "abseiling,aaaaaaaaaaa,200,210,train", "bowling,bbbbbbbbbbb,1,11,val")
    put(videos["long"], tmp_path / "cut" / "aaaaaaaaaaa.mp4", tmp_path / "cut" / "bbbbbbbbbbb.mp4")
    assert {c.span for c in read_catalog(tmp_path / "cut").clips} == {(None, None)}
    text(tmp_path / "cut" / "k.csv", head, "abseiling,aaaaaaaaaaa,200,210,train", "bowling,bbbbbbbbbbb,1,3,val")
    with pytest.raises(DataError, match=r"aaaaaaaaaaa.mp4: a clip, while .*bbbbbbbbbbb.mp4 is a whole video"):
        read_catalog(tmp_path / "cut")


@pytest.mark.parametrize("given", ["", "kinetics.json"])
def test_kinetics_own_json(tmp_path, videos, given):
    def entry(label, start, subset):
        return {"annotations": {"label": label, "segment": [start, start + 10]}, "duration": 10.0, "subset": subset}

    listed = {"aaaaaaaaaaa": entry("abseiling", 84.0, "train"), "bbbbbbbbbbb": entry("bowling", 1.0, "train"),
              "ccccccccccc": entry("bowling", 3.0, "validate")}  # fmt: skip
    (tmp_path / "kinetics.json").write_text(json.dumps(listed))
    names = ("aaaaaaaaaaa_000084_000094", "bbbbbbbbbbb_000001_000011", "ccccccccccc_000003_000013")
    put(videos[".mp4"], *(tmp_path / "clips" / f"{name}.mp4" for name in names))
    assert told(read_catalog(tmp_path / given)) == {
        names[0]: ("abseiling", "train"), names[1]: ("bowling", "train"), names[2]: ("bowling", "test"),
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("layout", ["ucf101", "hmdb51", "kinetics", "ssv2", "activitynet"])
def test_official_lists_saved_by_windows_programs(tmp_path, videos, layout, encoding):
    if layout == "kinetics":
        root = kinetics(tmp_path)
        put(
            videos[".mp4"],
            *(root / "train" / f"{c}.mp4" for c in ("-abcdefghij_000010_000020", "_bcdefghijk_000000_000010")),
        )
    else:
        root = {"ucf101": ucf, "hmdb51": hmdb, "ssv2": ssv2, "activitynet": activitynet}[layout](tmp_path, videos)
    expected = told(read_catalog(root))
    for file in root.rglob("*"):
        if file.suffix in (".txt", ".csv", ".json"):
            file.write_text(file.read_text(encoding="utf-8"), encoding=encoding)
    assert told(read_catalog(root)) == expected


def ssv2(root: Path, videos, prefix: str = "") -> Path:
    root.mkdir(exist_ok=True)
    names = {"Holding something next to something": "1", "Approaching something with your camera": "0"}
    (root / f"{prefix}labels.json").write_text(json.dumps(names))
    entries = [
        {"id": "78687", "label": "holding a potato next to vicks", "template": "Holding [something] next to [something]",
         "placeholders": ["a potato", "vicks"]},
        {"id": "42", "label": "approaching a car", "template": "Approaching [something] with your camera",
         "placeholders": ["a car"]},
    ]  # fmt: skip
    (root / f"{prefix}train.json").write_text(json.dumps(entries))
    (root / f"{prefix}validation.json").write_text(json.dumps([{**entries[1], "id": "7"}, {**entries[0], "id": "8"}]))
    put(videos[".webm"], *(root / "20bn-something-something-v2" / f"{i}.webm" for i in (78687, 42, 7, 8)))
    return root


@pytest.mark.parametrize("prefix", ["", "something-something-v2-"])
def test_ssv2(tmp_path, videos, prefix):
    catalog = read_catalog(ssv2(tmp_path, videos, prefix))
    assert catalog.classes == ("Approaching something with your camera", "Holding something next to something")
    assert told(catalog) == {
        "78687": (catalog.classes[1], "train"), "42": (catalog.classes[0], "train"),
        "7": (catalog.classes[0], "test"), "8": (catalog.classes[1], "test"),
    }  # fmt: skip
    assert decodes(catalog)


def activitynet(root: Path, videos) -> Path:
    def entry(subset, *segments):
        return {"duration": 10.0, "subset": subset, "resolution": "320x240", "url": "",
                "annotations": [{"segment": [a, b], "label": name} for a, b, name in segments]}  # fmt: skip

    database = {
        "sJFgo9H6zNo": entry("training", (1.0, 3.0, "Long jump"), (5.0, 11.5, "Long jump"), (1.0, 3.0, "Long jump")),
        "bJFgo9H6zNo": entry("training", (2.0, 2.0, "Shaving"), (0.0, 9.0, "Shaving")),
        "cJFgo9H6zNo": entry("validation", (4.0, 6.0, "Shaving"), (7.0, 9.0, "Long jump")),
        "dJFgo9H6zNo": {"duration": 10.0, "subset": "testing", "annotations": []},
    }
    content = {"version": "VERSION 1.3", "taxonomy": [], "database": database}
    text(root / "activity_net.v1-3.min.json", json.dumps(content))
    put(
        videos["long"],
        root / "train" / "v_sJFgo9H6zNo.mp4",
        root / "train" / "v_bJFgo9H6zNo.mp4",
        root / "cJFgo9H6zNo.mp4",
    )
    return root


def test_activitynet_segments_are_time_ranges(tmp_path, videos, caplog):
    catalog = read_catalog(activitynet(tmp_path, videos))
    assert catalog.classes == ("Long jump", "Shaving")
    assert [(Path(c.path).stem, c.label, c.split, c.span) for c in catalog.clips] == [
        ("v_sJFgo9H6zNo", 0, "train", (1.0, 3.0)), ("v_sJFgo9H6zNo", 0, "train", (5.0, 10.0)),
        ("v_bJFgo9H6zNo", 1, "train", (0.0, 9.0)),
        ("cJFgo9H6zNo", 1, "test", (4.0, 6.0)), ("cJFgo9H6zNo", 0, "test", (7.0, 9.0)),
    ]  # fmt: skip
    assert any("2 segments have no length, or repeat another" in r.message for r in caplog.records)
    for clip in catalog.clips:
        assert all(25 * clip.start <= number < 25 * clip.end for number in one_view(clip.path, clip.span))


def test_a_folder_of_videos_with_lists(tmp_path, videos):
    put(videos[".mp4"], tmp_path / "v" / "val" / "a.mp4", tmp_path / "v" / "b c.mp4", tmp_path / "v" / "deep" / "d.mp4")
    train_list = text(tmp_path / "train.txt", "val/a.mp4 1", "b c.mp4 0")
    test_list = text(tmp_path / "test.txt", "elsewhere/d.mp4 1", "val/gone.mp4 0")
    labels = text(tmp_path / "labels.csv", "id,name", "0,push", "1,hug", "2,kick")
    catalog = read_catalog(tmp_path / "v", labels=labels, train_list=train_list, test_list=test_list)
    assert catalog.classes == ("push", "hug", "kick")
    assert told(catalog) == {"a": ("hug", "train"), "b c": ("push", "train"), "d": ("hug", "test")}
    assert catalog.missing == ("val/gone.mp4",)


def test_of_two_files_called_alike_the_folders_decide(tmp_path, videos):
    put(videos[".mp4"], *(tmp_path / split / name / "1.mp4" for split in ("a", "b") for name in ("hug", "push")))
    rows = text(tmp_path / "train.txt", "b/hug/1.mp4 hug", "a/push/1.mp4 push", "a/hug/1.mp4 hug", "b/push/1.mp4 push")
    catalog = read_catalog(tmp_path, train_list=rows)
    assert [str(Path(c.path).relative_to(tmp_path)) for c in catalog.clips] == [
        "b/hug/1.mp4", "a/push/1.mp4", "a/hug/1.mp4", "b/push/1.mp4"
    ]  # fmt: skip


def test_links_in_a_circle_end(tmp_path, videos):
    root = ucf(tmp_path, videos)
    (root / "UCF-101" / "again").symlink_to(root)
    assert len(read_catalog(root).clips) == 8


def test_labels_choose_and_order_classes(tmp_path, videos):
    root = ucf(tmp_path / "ucf", videos)
    labels = text(tmp_path / "novel.csv", "id,name", "0,HandStandPushups", "1,apply_eye_makeup")
    catalog = read_catalog(root, labels=labels)
    assert catalog.classes == ("HandStandPushups", "apply_eye_makeup")
    assert told(catalog)["v_HandStandPushups_g08_c01"][0] == "HandStandPushups"
    one = text(tmp_path / "one.csv", "0,HandStandPushups")
    twice = text(tmp_path / "twice.csv", "0,HandStandPushups", "1,handstand pushups")
    with pytest.raises(DataError, match="'HandStandPushups' and 'handstand pushups' are one class"):
        read_catalog(root, labels=str(twice))
    shutil.rmtree(root / "UCF-101" / "ApplyEyeMakeup")  # what is not asked for need not be there
    assert read_catalog(root, labels=one).counts() == [4]
    assert read_catalog(root, labels=one).missing == ()


@pytest.mark.parametrize("name", ["ucf101", "hmdb51", "ssv2", "activitynet", "folder"])
def test_a_layout_is_recognised_and_may_be_named(tmp_path, videos, name):
    if name == "folder":
        put(videos[".mp4"], tmp_path / "push" / "1.mp4", tmp_path / "hug" / "2.mp4")
    else:
        {"ucf101": ucf, "hmdb51": hmdb, "ssv2": ssv2, "activitynet": activitynet}[name](tmp_path, videos)
    found = [other for other, layout in LAYOUTS.items() if layout.looks_like(tmp_path)]
    assert found[0] == name
    assert read_catalog(tmp_path) == read_catalog(tmp_path, name)


# ---------------------------------------------------------------- bad input


def change(file: str, old: str, new: str):
    def changed(root: Path) -> None:
        content = (root / file).read_text()
        assert old in content
        (root / file).write_text(content.replace(old, new))

    return changed


def removed(file: str):
    return lambda root: (root / file).unlink()


UCF = "ucfTrainTestlist/"
HMDB = "testTrainMulti_7030_splits/"


@pytest.mark.parametrize(
    ("tree", "spoil", "options", "message"),
    [
        (ucf, lambda root: None, {"split_number": 4}, "no trainlist04.txt; data.split_number may be 1, 2"),
        (ucf, removed(f"{UCF}classInd.txt"), {"layout": "ucf101"}, "no classInd.txt; give the folder of UCF-101's lists"),
        (ucf, change(f"{UCF}trainlist01.txt", "c02.avi 2", "c02.avi 1"), {}, r"trainlist01.txt, line 4: says class 1 .*disagree"),
        (ucf, change(f"{UCF}testlist01.txt", "Handstand", "Foot"), {}, "testlist01.txt, line 3: .* no class of classInd.txt"),
        (ucf, lambda root: text(root / UCF / "testlist01.txt"), {}, "testlist01.txt: no clips in it, so its split would be empty"),
        (ucf, change(f"{UCF}classInd.txt", "2 H", "3 H"), {}, "classInd.txt, line 2: expected 2 and a class"),
        (ucf, change(f"{UCF}testlist01.txt", "g01_c01", "g08_c01"), {}, "v_ApplyEyeMakeup_g08_c01.avi is both in train and in test; take it out"),
        (ucf, lambda root: shutil.rmtree(root / "UCF-101"), {}, "not one of the 8 clips that its lists name is there"),
        (ucf, lambda root: None, {"annotations": Path("/nowhere")}, "/nowhere: no such folder; data.annotations"),
        (ucf, lambda root: None, {"labels": Path("/nowhere.csv")}, "/nowhere.csv: no such file; data.labels"),
        (ucf, lambda root: text(root / "l.csv", "0,Archery"), {"labels": "l.csv"}, "'Archery' is not among the 2 .*disagree"),
        (hmdb, lambda root: None, {"split_number": 5}, r"no \*_test_split5.txt; data.split_number may be 1, 2, 3"),
        (hmdb, removed(f"{HMDB}wave_test_split2.txt"), {"split_number": 2}, "'wave' has lists, but no wave_test_split2.txt"),
        (hmdb, change(f"{HMDB}wave_test_split1.txt", ".avi 2", ".avi 3"), {}, "wave_test_split1.txt, line 2: expected a file and 0, 1 or 2"),
        (hmdb, change(f"{HMDB}wave_test_split1.txt", ".avi 2", ".avi 1"), {}, "wave_test_split1.txt: no clips of the class for the test split"),
        (ssv2, change("train.json", "Holding [something]", "Eating [something]"), {}, "train.json, entry 1: the template 'Eating .*disagree"),
        (ssv2, lambda root: text(root / "validation.json", "[]"), {}, "validation.json: no clips in it"),
        (ssv2, change("train.json", "[{", "{"), {}, "train.json: no valid JSON"),
        (ssv2, change("train.json", '"template"', '"text"'), {}, "train.json, entry 1: expected id and template"),
        (activitynet, change("activity_net.v1-3.min.json", '"subset": "training"', '"subset": "trainees"'), {}, "'sJFgo9H6zNo' lacks"),
        (activitynet, change("activity_net.v1-3.min.json", "[1.0, 3.0]", "[1.0]"), {}, "'sJFgo9H6zNo' lacks"),
    ],
)  # fmt: skip
def test_official_lists_that_cannot_be_used_say_why(tmp_path, videos, tree, spoil, options, message):
    root = tree(tmp_path, videos)
    spoil(root)
    if options.get("labels") == "l.csv":
        options = {"labels": root / "l.csv"}
    with pytest.raises(DataError, match=message) as caught:
        read_catalog(root, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("bowling,_bcdefghijk,0,10,train", "'bowling' here and 'abseiling' in .*train.csv, line 3; the lists disagree"),
        ("bowling,x,10,10,train", "line 5: expected youtube_id, time_start, time_end with the start before the end"),
        ("bowling,x,soon,10,train", "line 5: expected a time in seconds, got 'soon'"),
        ("bowling,x,1,10,dev", "line 5: the split 'dev' is none of"),
        ("bowling", "line 5: expected youtube_id, time_start, time_end"),
    ],
)
def test_kinetics_rows_that_cannot_be_used_say_why(tmp_path, row, message):
    root = kinetics(tmp_path)
    with (root / "annotations" / "train.csv").open("a") as file:
        file.write(row + "\n")
    with pytest.raises(DataError, match=message):
        read_catalog(root)


@given(data=st.data())
def test_a_message_is_one_short_line_however_long_a_cell_is(tmp_path_factory, videos, data):
    """Everything that a layout reads from a text file, with one or all of its words replaced by a long one."""
    root = tmp_path_factory.mktemp("long")
    tree = data.draw(st.sampled_from([ucf, hmdb, ssv2, activitynet, None]))
    if tree:
        tree(root, videos)
    else:
        kinetics(root)
        text(root / "t.csv", "path,label,split,start,end,fold", "a.mp4,push,train,1,2,1", "b.mp4,pull,test,1,2,1")
        text(root / "t.txt", "a.mp4 push", "b.mp4 pull")
        text(root / "classes.csv", "id,name", "push,x", "pull,y")
    file = data.draw(st.sampled_from(sorted(p for p in root.rglob("*.*") if p.suffix in (".csv", ".txt", ".json"))))
    words = re.findall(r"[\w.]+|[^\w.]+", file.read_text())
    chosen = data.draw(st.sampled_from(range(len(words))) | st.none())
    long = data.draw(st.sampled_from(["x", "7", "y ", "a/"])) * 30_000
    file.write_text(
        "".join(long if i == chosen or (chosen is None and w.isalnum()) else w for i, w in enumerate(words))
    )
    said = []
    for path in (root, root / "t.csv", root / "t.txt"):
        try:
            said += read_catalog(path).classes
        except msta.errors.MSTAError as error:
            said.append(str(error))
    assert all(len(text) < 2000 and "\n" not in text for text in said)


def test_unknown_layouts_and_options_are_refused(tmp_path, videos):
    root = ucf(tmp_path, videos)
    with pytest.raises(ConfigError, match=r"data.layout: 'UCF-101' is none of .*; did you mean ucf101\?"):
        read_catalog(root, "UCF-101")
    with pytest.raises(
        ConfigError, match="data.split_number: goes with the layout ucf101 or hmdb51; .* is read as folder"
    ):
        read_catalog(root / "UCF-101", split_number=2)
    with pytest.raises(ConfigError, match="no option split"):
        read_catalog(root, split=2)
    with pytest.raises(DataError, match=r"the list of its videos, data.train_list and data.test_list"):
        read_catalog(root, "list")


@pytest.mark.parametrize(
    ("line", "message"),
    [("a.mp4", "list.txt, line 2: expected a path and a label"), ("a.mp4 2", "line 2: the label '2' is not among the 2 .*disagree"), ("a.mp4 swipe left", "line 2: a label of several words")],
)  # fmt: skip
def test_lists_that_cannot_be_used_say_why(tmp_path, line, message):
    labels = text(tmp_path / "labels.csv", "id,name", "0,push", "1,hug")
    with pytest.raises(DataError, match=message):
        read_catalog(text(tmp_path / "list.txt", "b.mp4 0", line), labels=labels)
    with pytest.raises(DataError, match="no clips in it, so its split would be empty"):
        read_catalog(text(tmp_path / "list.txt", ""), labels=labels)


def test_paths_in_a_list_are_read_as_in_a_table(tmp_path):
    listed = text(tmp_path / "list.txt", "v\\a.mp4 0", "http://host/b.mp4 1", "/c d.mp4 1")
    paths = [str(tmp_path / "v" / "a.mp4"), "http://host/b.mp4", "/c d.mp4"]
    assert [clip.path for clip in read_catalog(listed, names="given").clips] == paths


def test_a_catalog_whose_files_moved_says_so(tmp_path, videos):
    put(videos[".mp4"], *(tmp_path / "clips" / name / f"{i}.mp4" for name in ("push", "hug") for i in range(3)))
    index(read_catalog(tmp_path / "clips"), tmp_path / "clips.parquet")
    (tmp_path / "clips").rename(tmp_path / "moved")
    catalog = read_catalog(tmp_path / "clips.parquet")
    with pytest.raises(
        DataError, match=r"clips.parquet: .*0.mp4 does not exist, nor do 5 other .* \(msta data index\)"
    ):
        require_files(catalog)
    model = msta.attach(msta.random_backbone(tiny()), "zero-shot")
    with pytest.raises(DataError, match="does not exist"):
        evaluate_on(model, tmp_path / "clips.parquet")
    config = make_config("small", {"data.path": tmp_path / "clips.parquet"})
    with pytest.raises(DataError, match="does not exist"):
        train(config, tmp_path / "run", Console(quiet=True))


# ---------------------------------------------------------------- index


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("tree", [ucf, hmdb, ssv2, activitynet])
def test_an_index_reads_back_as_what_it_was_made_of(tmp_path, videos, tree, suffix):
    catalog = read_catalog(tree(tmp_path / "data", videos))
    done = index(catalog, tmp_path / "index" / f"all{suffix}")
    again = read_catalog(tmp_path / "index" / f"all{suffix}")
    assert again.classes == catalog.classes
    assert again.clips == catalog.clips
    assert (done["clips"], done["missing"], done["unreadable"]) == (len(catalog.clips), 0, {})


names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Z"]), min_size=1, max_size=9).filter(
    lambda name: unicodedata.is_normalized("NFC", name)
)
times = st.floats(0, 1e5, allow_subnormal=False)


@example(classes=["{"], spans=[], suffix=".csv")
@settings(max_examples=30, deadline=None)
@given(
    classes=st.lists(names, min_size=1, max_size=4, unique_by=str.casefold),
    spans=st.lists(st.tuples(times, times).filter(lambda t: t[0] < t[1]), max_size=5, unique=True),
    suffix=st.sampled_from([".parquet", ".csv"]),
)
def test_any_names_and_times_survive_an_index(tmp_path_factory, videos, classes, spans, suffix):
    folder = tmp_path_factory.mktemp("index")
    whole = [Clip(str(videos[".mp4"]), len(classes) - 1)]
    ranges = [Clip(str(videos["long"]), i % len(classes), "train", *span) for i, span in enumerate(spans)]
    index(Catalog("made", tuple(classes), tuple(whole + ranges)), folder / f"x{suffix}", workers=1)
    again = read_catalog(folder / f"x{suffix}")
    assert again.classes == tuple(classes)
    assert list(again.clips) == whole + ranges


def test_an_index_states_durations_and_lists_what_is_missing(tmp_path, videos):
    root = activitynet(tmp_path / "data", videos)
    (root / "cJFgo9H6zNo.mp4").unlink()
    text(root / "train" / "v_bJFgo9H6zNo.mp4", "no video")
    done = index(read_catalog(root), tmp_path / "i.parquet")
    rows = pyarrow.parquet.read_table(tmp_path / "i.parquet").to_pylist()
    assert [(r["start"], r["end"], r["duration"], r["frames"]) for r in rows] == [
        (1.0, 3.0, 2.0, 50), (5.0, 10.0, 5.0, 125), (0.0, 9.0, None, None)
    ]  # fmt: skip
    assert done["missing"] == 2
    assert (tmp_path / "i.missing.txt").read_text().splitlines() == [
        "v_cJFgo9H6zNo [4.0-6.0 s]",
        "v_cJFgo9H6zNo [7.0-9.0 s]",
    ]
    assert list(done["unreadable"]) == [str(root / "train" / "v_bJFgo9H6zNo.mp4")]


def test_an_index_overwrites_nothing(tmp_path, videos):
    put(videos[".mp4"], tmp_path / "clips" / "push" / "1.mp4", tmp_path / "clips" / "hug" / "2.mp4")
    catalog = read_catalog(tmp_path / "clips")
    with pytest.raises(ConfigError, match="ends in neither"):
        index(catalog, tmp_path / "x.txt")
    with pytest.raises(ConfigError, match="lies inside the data"):
        index(catalog, tmp_path / "clips" / "x.csv")
    table = text(
        tmp_path / "table" / "clips.csv", *(f"{c.path},{'hug' if c.label else 'push_it'}" for c in catalog.clips)
    )
    with pytest.raises(ConfigError, match="its classes.csv would be taken for the data's own"):
        index(read_catalog(table), tmp_path / "table" / "x.csv")
    assert sorted(read_catalog(table).classes) == ["hug", "push it"]
    text(tmp_path / "classes.csv", "0,other")
    with pytest.raises(ConfigError, match="classes.csv belongs to other data"):
        index(catalog, tmp_path / "x.csv")
    index(catalog, tmp_path / "x.parquet")
    with pytest.raises(msta.errors.MSTAError, match="exists already"):
        index(catalog, tmp_path / "x.parquet")


def test_parquet_may_call_its_columns_as_a_csv_may(tmp_path, caplog):
    columns = {"video": ["a.mp4", "b.mp4"], "action": ["push", "hug"], "subset": ["train", "test"], "note": ["", ""]}
    pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
    clips = read_catalog(tmp_path / "x.parquet").clips
    assert [(Path(c.path).name, c.label, c.split) for c in clips] == [("a.mp4", 1, "train"), ("b.mp4", 0, "test")]
    assert "takes video as path, action as label, subset as split and ignores note" in caplog.text


def test_parquet_that_cannot_be_used_says_why(tmp_path):
    with pytest.raises(DataError, match="no Parquet file"):
        read_catalog(text(tmp_path / "x.parquet", "path,label"))
    for columns, message in (
        ({"thing": ["a"], "class": ["b"]}, "expected the columns path and class, found thing, class"),
        ({"path": ["a", None], "class": ["b", "c"]}, "row 2: no path"),
        ({"path": ["a"], "class": ["b"], "split": ["dev"]}, "row 1: the split 'dev'"),
        ({"path": ["a"], "class": ["b"], "start": [3.0], "end": [2.0]}, "a range must begin"),
        ({"path": ["a"], "class": ["b"], "start": ["x"]}, "row 1: expected a time"),
        ({"path": [], "class": []}, "no clips in it"),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "y.parquet")
        with pytest.raises(DataError, match=message):
            read_catalog(tmp_path / "y.parquet")


# ---------------------------------------------------------------- sets of classes


@given(n=st.integers(2, 40), data=st.data())
def test_halves_are_halves(n, data):
    classes = [f"class {i}" for i in range(n)]
    base, novel = base_novel(classes)
    assert base + novel == tuple(range(n))
    assert len(base) - len(novel) == n % 2
    counts = data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    base, novel = base_novel(classes, counts)
    assert sorted(base + novel) == list(range(n))
    assert len(base) - len(novel) == n % 2
    assert max(counts[k] for k in novel) <= min(counts[k] for k in base)


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=6, unique=True))
def test_restricting_keeps_each_clip_s_class(labels):
    clips = tuple(Clip(f"{k}/{i}", k, "train", 0.0, 1.0) for i in range(3) for k in range(6))
    catalog = Catalog("data", tuple("abcdef"), clips, ("gone",))
    chosen = restrict(catalog, labels)
    assert chosen.classes == tuple("abcdef"[k] for k in labels)
    expected = {c.path: catalog.classes[c.label] for c in clips if c.label in labels}
    assert {c.path: chosen.classes[c.label] for c in chosen.clips} == expected
    with pytest.raises(DataError, match="different labels below 6"):
        restrict(catalog, [*labels, labels[0]])


def test_class_sets_repeat_and_differ():
    labels = unseen(("a", "B", "c", "d", "e"), ("b", "x"))
    assert labels == (0, 2, 3, 4)
    sets = class_sets(labels, 3, 5, seed=1)
    assert sets == class_sets(labels, 3, 5, seed=1) != class_sets(labels, 3, 5, seed=2)
    assert all(len(s) == 3 and set(s) <= set(labels) and list(s) == sorted(s) for s in sets)
    assert len(set(sets)) > 1
    with pytest.raises(DataError, match="5 classes asked for, there are 4"):
        class_sets(labels, 5, 1, seed=0)


def test_a_written_split_is_the_one_a_run_would_make(tmp_path, videos):
    put(videos[".mp4"], *(tmp_path / "d" / name / f"{i}.mp4" for name in "abc" for i in range(5)))
    catalog = read_catalog(tmp_path / "d")
    done = write_split(catalog, tmp_path / "s", "base", shots=2, val_fraction=0.2, test_fraction=0.2, seed=3)
    assert done == {"classes": 2, "train": 4, "val": 2, "test": 4}
    again = read_catalog(tmp_path / "s" / "split.csv")
    made = make_split(restrict(catalog, (0, 1)), shots=2, val_fraction=0.2, test_fraction=0.2, seed=3)
    assert again.clips == made.all()
    with pytest.raises(ConfigError, match="'old' is none of all, base, novel"):
        write_split(catalog, tmp_path / "t", "old", shots=2, val_fraction=0.2, test_fraction=0.2, seed=3)


# ---------------------------------------------------------------- the published lists


def names_of(file: str) -> tuple[str, ...]:
    with (LABELS / file).open(newline="") as stream:
        return tuple(row[1] for row in list(csv.reader(stream))[1:])


def published(folder: str, name: str, labels: str) -> Catalog:
    return read_catalog(LISTS / folder / name, labels=LABELS / labels)


def class_of(catalog: Catalog) -> dict[str, str]:
    root = Path(catalog.source).parent
    return {str(Path(c.path).relative_to(root)): catalog.classes[c.label] for c in catalog.clips}


FULL = {
    "hmdb_splits": ("hmdb_51_labels.csv", ("val1.txt", "val2.txt", "val3.txt"), (1530, 1530, 1530), 51),
    "ucf_splits": ("ucf_101_labels.csv", ("val1.txt", "val2.txt", "val3.txt"), (3783, 3734, 3696), 101),
    "k400_splits": ("kinetics_400_labels.csv", ("val.txt",), (19877,), 400),
    "ssv2_splits": ("ssv2_labels.csv", ("validation.txt",), (24777,), 174),
}
HALVES = {
    "hmdb_splits": ("hmdb_51", 26, 25, 780, 750),
    "ucf_splits": ("ucf_101", 51, 50, 2088, 1695),
    "k400_splits": ("kinetics_400", 200, 200, 9944, 9933),
    "ssv2_splits": ("ssv2_174", 87, 87, 17562, 7215),
}


@needs_lists
@pytest.mark.parametrize("folder", FULL)
def test_published_test_lists_are_read_to_their_counts(folder):
    labels, files, counts, classes = FULL[folder]
    for file, count in zip(files, counts, strict=True):
        catalog = published(folder, file, labels)
        lines = (LISTS / folder / file).read_text().split("\n")
        assert len(catalog.clips) == count == sum(bool(line) for line in lines)
        assert catalog.classes == names_of(labels)
        assert len(catalog.classes) == classes == sum(n > 0 for n in catalog.counts())


@needs_lists
@pytest.mark.parametrize("folder", ["hmdb_splits", "ucf_splits", "ssv2_splits"])
@pytest.mark.parametrize("shots", [2, 4, 8, 16])
def test_published_few_shot_lists_have_k_clips_of_every_class(folder, shots):
    labels, files, _, classes = FULL[folder]
    catalog = published(folder, f"train1_few_shot_{shots}.txt", labels)
    assert catalog.counts() == [shots] * classes
    tested = class_of(published(folder, files[0], labels))
    assert not tested.keys() & class_of(catalog).keys()


@needs_lists
@pytest.mark.parametrize("folder", HALVES)
def test_published_halves_agree_with_the_full_lists(folder):
    name, base, novel, base_clips, novel_clips = HALVES[folder]
    labels, files, *_ = FULL[folder]
    everything = class_of(published(folder, files[0], labels))
    halves = {}
    for half, classes, clips in (("base", base, base_clips), ("novel", novel, novel_clips)):
        catalog = published(f"base2novel_splits/{folder}", f"{half}_val.txt", f"{name}_{half}_labels.csv")
        assert (len(catalog.classes), len(catalog.clips)) == (classes, clips)
        assert min(catalog.counts()) > 0
        halves[half] = class_of(catalog)
        assert all(everything[path] == its for path, its in halves[half].items())
    assert halves["base"].keys() | halves["novel"].keys() == everything.keys()
    assert not set(halves["base"].values()) & set(halves["novel"].values())
    for seed in (1, 2, 3):
        train = published(f"base2novel_splits/{folder}", f"fs_base_s{seed}_train.txt", f"{name}_base_labels.csv")
        assert train.counts() == [16] * base


@needs_lists
def test_our_halves_by_frequency_are_the_published_ones_of_hmdb_51():
    classes = names_of("hmdb_51_labels.csv")
    counts = published("hmdb_splits", "train1_few_shot_16.txt", "hmdb_51_labels.csv").counts()  # as many of each: 70
    base, novel = base_novel(classes, counts)
    assert tuple(classes[k] for k in base) == names_of("hmdb_51_base_labels.csv")
    assert tuple(classes[k] for k in novel) == names_of("hmdb_51_novel_labels.csv")


@needs_lists
def test_the_published_base_half_of_ucf_101_is_ordered_by_frequency_as_ours():
    published_order = names_of("ucf_101_base_labels.csv")
    train = published("base2novel_splits/ucf_splits", "base_train.txt", "ucf_101_base_labels.csv")
    counts = dict(zip(train.classes, train.counts(), strict=True))
    everything = names_of("ucf_101_labels.csv")
    base, _ = base_novel(everything, [counts.get(name, 0) for name in everything])
    assert tuple(everything[k] for k in base) == published_order


@needs_lists
@pytest.mark.parametrize(("number", "clips"), [(1, 14084), (2, 13978), (3, 14136)])
def test_published_zero_shot_sets_of_kinetics_600(number, clips):
    catalog = published("k600_splits", f"ZS_split{number}_K600_eval.txt", f"ZS_split{number}_K600.csv")
    assert (len(catalog.classes), len(catalog.clips)) == (160, clips)
    assert min(catalog.counts()) > 0
    every = names_of("kinetics_600_labels.csv")
    new = {every[k] for k in unseen(every, names_of("kinetics_400_labels.csv"))}
    assert set(catalog.classes) <= new
    assert len(class_sets(sorted(range(len(new))), 160, 3, seed=0)[0]) == len(catalog.classes)
