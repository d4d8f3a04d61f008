"""Tables as labelling tools and other people write them."""

from __future__ import annotations

import json
import re
import shutil

import pytest
from video_files import write_video

from msta.data.reading import read_catalog
from msta.errors import ConfigError, DataError
from msta.inference.arguments import read_clips

pytestmark = pytest.mark.usefixtures("every_notice")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, 20, fps=10)
    return path


@pytest.fixture
def root(tmp_path, clip):
    for name in ("a.mp4", "push/b.mp4", "pull/b.mp4", "deep/er/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clip, tmp_path / name)
    return tmp_path


def clips_of(root, name, **options):
    """(path, class, split, start, end) of each clip."""
    catalog = read_catalog(root / name, **options)
    return [(c.path.removeprefix(f"{root}/"), catalog.classes[c.label], c.split, c.start, c.end) for c in catalog.clips]


def write(root, name, content):
    (root / name).write_text(content if isinstance(content, str) else json.dumps(content))


def task(file, *results, **more):
    return {"id": 1, "data": {"video": file, "note": "long"}, "annotations": [{"result": list(results), **more}]}


def choice(*names, **time):
    return {"type": "choices", "from_name": "choice", "to_name": "video", "value": {"choices": list(names), **time}}


def test_label_studios_json(root):
    region = {"type": "labels", "value": {"start": 0.5, "end": 1.5, "labels": ["pull"]}}
    write(root, "t.json", [
        task("/data/upload/3/1a2b3c4d-a.mp4", choice("push")),
        task("/data/local-files/?d=deep/er/c.mp4", region),
        task("s3/er/c.mp4", choice("wave"), was_cancelled=True),
    ])  # fmt: skip
    assert clips_of(root, "t.json") == [("a.mp4", "push", None, None, None), ("deep/er/c.mp4", "pull", None, 0.5, 1.5)]


@pytest.mark.parametrize("name", ["t.json", "t.jsonl", "t.csv"])
def test_label_studios_json_min_and_csv_and_records_of_anybody(root, name, caplog):
    rows = [{"video": "/data/upload/1a2b3c4d-a.mp4", "id": 7, "choice": "push", "annotator": 1, "lead_time": 2.5},
            {"video": "er/c.mp4", "id": 8, "choice": "pull", "annotator": 1}]  # fmt: skip
    text = "\n".join(map(json.dumps, rows))
    if name == "t.csv":
        text = "video,id,choice,annotator,lead_time\n" + "".join(
            ",".join(str(row.get(k, "")) for k in rows[0]) + "\n" for row in rows
        )
    write(root, name, rows if name == "t.json" else text)
    assert [row[:2] for row in clips_of(root, name)] == [("a.mp4", "push"), ("deep/er/c.mp4", "pull")]
    assert "ignores id, annotator, lead_time" in caplog.text
    assert "found by name" in caplog.text


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.json", [task("a.mp4", {"type": "timelinelabels", "value": {"ranges": [{"start": 1, "end": 9}],
                                                                       "timelinelabels": ["push"]}})], "numbers of frames"),
        ("t.json", [{"video": "a.mp4", "videoLabels": [{"ranges": [{"start": 1}], "timelinelabels": ["x"]}]}], "numbers of fr"),
        ("t.json", [task("a.mp4", choice("push", "pull"))], "two labels of one clip, pull and push"),
        ("t.json", {"info": {}, "categories": {}, "items": []}, "Datumaro's form, of single frames; take 'CVAT for video"),
        ("t.json", {"images": [], "annotations": [], "categories": []}, "COCO's form"),
        ("t.json", {"a.mp4": 1}, "expected records with path and label in a list or by file"),
        ("t.json", [1, 2], "expected records with path"),
        ("t.json", "[{", "no valid JSON"),
        ("t.json", [{"clip": "a.mp4", "who": "me"}], "expected a column of paths and one of labels, found 'clip, who'"),
        ("t.csv", 'video,choice\na.mp4,"{""choices"": [""push"", ""pull""]}"\n', "expected one label"),
        ("t.xml", "<annotations><meta/><image id='0'/></annotations>", "'CVAT for images 1.1', of single pictures"),
        ("t.xml", "<VOC><x/></VOC>", "an XML of 'VOC'"),
        ("t.xml", "<annotations>", "no valid XML"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_named_with_what_to_take(root, name, content, words):
    write(root, name, content)
    with pytest.raises(DataError, match=re.escape(words)) as refused:
        read_catalog(root / name)
    assert "\n" not in str(refused.value)
    assert str(root / name) in str(refused.value)


CVAT = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta>
<project><tasks><task><id>4</id><source>a.mp4</source></task><task><id>5</id><source>c.mp4</source></task></tasks></project>
</meta>
<track id="0" label="push" task_id="4"><box frame="5" outside="0"/><box frame="9" outside="0"/><box frame="10" outside="1"/>
</track>
<tag label="pull" frame="3" task_id="5"/><tag label="pull" frame="2" task_id="5"/><tag label="pull" frame="8" task_id="5"/>
</annotations>"""


def test_cvat_for_video(root):
    write(root, "t.xml", CVAT)
    assert clips_of(root, "t.xml") == [
        ("a.mp4", "push", None, 0.5, 1.0),
        ("deep/er/c.mp4", "pull", None, 0.2, 0.4),
        ("deep/er/c.mp4", "pull", None, 0.8, 0.9),
    ]


def test_frames_become_seconds_unless_seconds_are_there(root, caplog):
    write(root, "t.csv", "video_id,start_frame,stop_frame,verb\n")
    with pytest.raises(DataError, match="expected a column of paths"):
        read_catalog(root / "t.csv")
    write(root, "t.csv", "file,start_frame,stop_frame,action\na.mp4,5,15,x\na.mp4,15,,y\n")
    assert [row[3:] for row in clips_of(root, "t.csv")] == [(0.5, 1.5), (1.5, None)]
    write(
        root,
        "s.csv",
        "file,start_frame,start_timestamp,stop_timestamp,action\na.mp4,5,00:00:01,0:01.5,x\na.mp4,5,0,1,y\n",
    )
    assert [row[3:] for row in clips_of(root, "s.csv")] == [(1.0, 1.5), (0.0, 1.0)]
    assert "ignores start_frame" in caplog.text


FOLDS = "clip,label,fold\na.mp4,x,1\npush/b.mp4,y,2\npull/b.mp4,x,2.0\n"


def test_folds_are_asked_about_and_make_a_split(root):
    write(root, "t.csv", FOLDS)
    with pytest.raises(ConfigError, match=r"has the folds 1, 2.*data\.fold=1 tests on that one"):
        read_catalog(root / "t.csv")
    assert [row[2] for row in clips_of(root, "t.csv", fold=2)] == ["train", "test", "test"]
    assert [row[2] for row in clips_of(root, "t.csv", fold="1")] == ["test", "train", "train"]
    assert [row[2] for row in clips_of(root, "t.csv", fold="none")] == [None] * 3
    with pytest.raises(ConfigError, match="has the folds"):
        read_catalog(root / "t.csv", fold=3)
    write(
        root,
        "t.csv",
        FOLDS.replace("fold", "kfold").replace("2.0", "test").replace(",2", ",train").replace(",1", ",val"),
    )
    assert [row[2] for row in clips_of(root, "t.csv")] == ["val", "train", "test"]
    write(root, "t.csv", FOLDS.replace("fold", "other"))
    with pytest.raises(ConfigError, match="has no column fold"):
        read_catalog(root / "t.csv", fold=1)


def test_a_fold_beside_a_split_is_named_as_ignored(root, caplog):
    write(root, "t.csv", "clip,label,fold,subset\na.mp4,x,1,training\npush/b.mp4,y,2,validation\npull/b.mp4,x,2,test\n")
    assert [row[2] for row in clips_of(root, "t.csv")] == ["train", "val", "test"]
    assert "ignores fold" in caplog.text


@pytest.mark.parametrize(
    "a", ["/train/a.mp4", "a", r"C:\Users\me\clips\a.mp4", "gone/a.avi", "/data/upload/0a1b2c3d-a.mp4"]
)
def test_files_that_are_not_where_a_table_says_are_found_by_name(root, a, caplog):
    write(root, "t.csv", f"path,label\n{a},x\nsome/c.mp4,y\nelse/push/b.mp4,y\nother/b.mp4,pull\n")
    assert [row[0] for row in clips_of(root, "t.csv")] == ["a.mp4", "deep/er/c.mp4", "push/b.mp4", "pull/b.mp4"]
    assert "4 paths are not there and were found by name" in caplog.text


def test_of_several_files_none_is_guessed(root):
    write(root, "t.csv", "path,label\ngone.mp4,x\nother/b.mp4,y\n")
    assert [row[0] for row in clips_of(root, "t.csv")] == ["gone.mp4", "other/b.mp4"]


@pytest.mark.parametrize(
    "header", ["path,start,end", "video_path,start_time,end_time", "Filename;from;to", "uri\tt_start\tt_end"]
)
def test_lists_of_clips_to_predict_have_other_headers_too(root, header):
    separator = next(s for s in ",;\t" if s in header)
    write(
        root, "t.csv", f"{header}\n{separator.join(('a.mp4', '0.5', '1'))}\n{separator.join(('push/b.mp4', '', ''))}\n"
    )
    clips, classes = read_clips(root / "t.csv", lambda: pytest.fail("has no labels"))
    assert classes == ()
    assert [(c.path, c.start, c.end) for c in clips] == [
        (str(root / "a.mp4"), 0.5, 1.0), (str(root / "push/b.mp4"), None, None),
    ]  # fmt: skip


def test_the_app_reads_typed_names_as_every_other_way_does(clip):
    from msta.app.clips import add_class

    for typed in ("swipe_left", "swipeLeft", "  swipe-left "):
        assert [name.lower() for name in add_class({}, typed, [str(clip)])] == ["swipe left"]


@pytest.mark.parametrize(
    "content",
    [
        {"a.mp4": "push", "deep/er/c.mp4": "pull"},
        {"push": ["a.mp4"], "pull": ["deep/er/c.mp4"]},
        {"a.mp4": {"label": "push", "fps": 10}, "deep/er/c.mp4": {"label": "pull", "fps": 10}},
        {"clips": [{"file": "a.mp4", "action": "push"}, {"file": "deep/er/c.mp4", "action": "pull"}]},
    ],
    ids=["labels by file", "files by label", "records by file", "a list under a name"],
)
def test_objects_that_say_which_file_has_which_label(root, content):
    write(root, "t.json", content)
    assert clips_of(root, "t.json") == [
        ("a.mp4", "push", None, None, None),
        ("deep/er/c.mp4", "pull", None, None, None),
    ]


def test_a_table_beside_the_only_folder_is_asked_about(root):
    write(root / "deep", "labels.json", {"frames": 20})
    with pytest.raises(DataError, match=r"'er' would be the only class, though labels.json .*--data .*labels.json"):
        read_catalog(root / "deep")
    with pytest.raises(DataError, match="expected records with path and label in a list or by file"):
        read_catalog(root / "deep" / "labels.json")
