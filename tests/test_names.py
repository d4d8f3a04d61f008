"""Class names and tables as people write them: the right words, or one clear line."""

from __future__ import annotations

import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import write_video

from msta.data.names import class_words, is_number, told_by_side
from msta.data.reading import read_catalog
from msta.descriptions.labels import read_labels
from msta.errors import DataError, MSTAError
from msta.inference.arguments import class_names
from msta.notices import notice
from msta.settings import DataSettings


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("swipe_left", "swipe left"),
        ("SwipeLeft", "Swipe Left"),
        ("swipeLeft", "swipe Left"),
        ("draw-a-circle", "draw a circle"),
        ("high-five a friend", "high-five a friend"),
        ("  two   words ", "two words"),
        ("dru\u0308cken", "dr\u00fccken"),
        ("Pushing something from left to right", "Pushing something from left to right"),
        ("_", "_"),
    ],
)
def test_a_name_becomes_words(written, words):
    assert class_words(written) == words


@given(st.text(max_size=12))
def test_words_stay_words(name):
    assert class_words(class_words(name)) == class_words(name)


@pytest.mark.parametrize(
    "name",
    [
        "swipe_left",
        "SwipeRight",
        "turn clockwise",
        "turn cw",
        "rotate_ccw",
        "pan L2R",
        "wipe l/r",
        "move r to l",
        "counter-clockwise",
        "rotateclockwise",
        "LtoR",
        "links wischen",
        "main droite",
        "взмах влево",
        "左に振る",
        "←",
    ],
)
def test_a_name_that_tells_a_side(name):
    assert told_by_side(["push", name]) == [name]
    assert DataSettings(path=".").augmentation(["push", name]).flip == 0
    assert DataSettings(path=".", flip_guard=False).augmentation(["push", name]).flip == 0.5


@pytest.mark.parametrize(
    "name", ["bright light", "cwm", "lord of the ring", "accwt", "wave", "destroy", "swipe l", "linked rings"]
)
def test_a_name_that_tells_none(name):
    assert told_by_side([name]) == []


@pytest.mark.parametrize("pair", [("swipeleft", "swiperight"), ("swipe_l", "swipe_r"), ("swipe L", "swipe R")])
def test_two_names_that_differ_in_the_side_alone(pair):
    assert told_by_side(["wave", *pair, "bright", "lord"]) == list(pair)


def test_numbers():
    assert all(map(is_number, ("0", "03", "-1", "0.0", "1e3"[:1])))
    assert not any(map(is_number, ("a", "3d", "nan", "inf", "", "1_0")))


@pytest.mark.parametrize("text", ["swipe left,swipe up", "swipe_left,swipe_up", "swipe_left; swipe_up"])
def test_labels_on_the_command_line_are_words(text):
    assert class_names(text) == ["swipe left", "swipe up"]


@pytest.mark.parametrize(
    ("text", "says"), [("push", "only one class"), ("push,", "empty"), ("a b,a_b", "read the same")]
)
def test_labels_that_cannot_be(text, says):
    with pytest.raises(MSTAError, match=says):
        class_names(text)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "id,name\n0,push\n1,pull it\n"),
        ("a.csv", "index,label\n0,push\n1,pull_it\n"),
        ("a.csv", "name,id\npush,0\npull_it,1\n"),
        ("a.csv", "id;name\n0;push\n1;pull it\n"),
        ("a.tsv", "id\tname\n0\tpush\n1\tpull it\n"),
        ("a.csv", "id,name,extra\n0,push,x\n1,pull it,y\n"),
        ("a.csv", "0,push\n1,pull it\n"),
        ("a.csv", "label\npush\npull it\n"),
        ("a.txt", "# mine\npush\npull_it\n"),
        ("a.txt", "0 push\n1 pull it\n"),
        ("a.txt", "push;pull it\n"),
        ("a.csv", "push,pull it\n"),
        ("a.json", json.dumps({"names": ["push", "pull it"], "template": "{}", "size": 64})),
        ("a.json", json.dumps({"0": "push", "1": "pull it"})),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_files_of_names(tmp_path, name, content, encoding):
    if name.endswith(".json"):
        encoding = "utf-8"
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert read_labels(tmp_path / name) == ("push", "pull it")


@pytest.fixture
def clips(tmp_path):
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", 4)
    return tmp_path


@pytest.mark.parametrize(
    "header",
    [
        "path,label",
        "video_path,category",
        "video_name,tag",
        "label,clip_path",
        "file;class_name",
        "filename\taction",
        "path , label",
    ],
)
def test_headers_of_tables(clips, header):
    separator = next(s for s in ";\t," if s in header)
    first = header.split(separator)[0].strip()
    rows = [("a.mp4", "go_left"), ("b.mp4", "go_right")]
    if first == "label":
        rows = [row[::-1] for row in rows]
    (clips / "t.csv").write_text("\n".join([header, *(f" {separator} ".join(row) for row in rows)]))
    catalog = read_catalog(clips / "t.csv")
    assert catalog.classes == ("go left", "go right")
    assert [clip.path for clip in catalog.clips] == [str(clips / "a.mp4"), str(clips / "b.mp4")]


def test_other_columns_are_used_or_named(clips, caplog):
    notice.cache_clear()
    (clips / "t.csv").write_text(
        "clip_id,clip_path,label,start_time,time_end,subset\n7,a.mp4,x,0.5,1,validation\n8,b.mp4,y,,,test\n"
    )
    with caplog.at_level(logging.WARNING, "msta"):
        catalog = read_catalog(clips / "t.csv")
    assert [(c.split, c.start, c.end) for c in catalog.clips] == [("val", 0.5, 1.0), ("test", None, None)]
    assert "ignores clip_id" in caplog.text
    assert "subset as split" in caplog.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"file,duration\na.mp4,3\n", "found 'file, duration'; understood are path"),
        (b"path,label\na.mp4,\n", "line 2: no label"),
        (b"\x00\x01\x02" * 50, "a binary file"),
    ],
)
def test_tables_that_are_none(clips, content, says):
    (clips / "t.csv").write_bytes(content)
    with pytest.raises(DataError, match=says) as error:
        read_catalog(clips / "t.csv")
    assert len(str(error.value)) < 600


def test_a_video_is_no_table(clips):
    with pytest.raises(DataError, match="a video; the data are a folder"):
        read_catalog(clips / "a.mp4")


def test_floats_meet_their_ids_and_windows_paths_their_files(clips):
    (clips / "in").mkdir()
    (clips / "a.mp4").rename(clips / "in" / "a.mp4")
    (clips / "classes.csv").write_text("id,name\n0,swipe_left\n1,push\n")
    (clips / "t.csv").write_text("path,label\nin\\a.mp4,0.0\nb.mp4,1.0\n")
    catalog = read_catalog(clips / "t.csv")
    assert catalog.classes == ("swipe left", "push")
    assert [(c.path, c.label) for c in catalog.clips] == [(str(clips / "in" / "a.mp4"), 0), (str(clips / "b.mp4"), 1)]


def test_a_spelling_stays_if_it_is_asked_for(clips):
    (clips / "t.csv").write_text("path,label\na.mp4,0\nb.mp4,1\n")
    (clips / "classes.csv").write_text("id,name\n0,swipe_left\n1,push\n")
    assert read_catalog(clips / "t.csv", names="given").classes == ("swipe_left", "push")
    (clips / "classes.csv").write_text("id,spelling\n0,swipe_left\n1,push\n")
    assert read_catalog(clips / "t.csv").classes == ("swipe_left", "push")


def test_cp1252_is_read_with_a_notice(clips, caplog):
    notice.cache_clear()
    (clips / "t.csv").write_bytes("path,label\na.mp4,drücken\nb.mp4,ziehen\n".encode("cp1252"))
    with caplog.at_level(logging.WARNING, "msta"):
        assert read_catalog(clips / "t.csv").classes == ("drücken", "ziehen")
    assert "cp1252" in caplog.text


@pytest.mark.parametrize(
    "junk",
    ["__MACOSX", "@eaDir", "@Transcode", "$RECYCLE.BIN", "lost+found", "FOUND.001", "System Volume Information",
     "Network Trash Folder", "~snapshot"],
)  # fmt: skip
def test_a_systems_own_folders_are_no_classes(tmp_path, junk, caplog):
    notice.cache_clear()
    for folder in ("push", "pull", junk, f"push/{junk}"):
        (tmp_path / folder).mkdir()
        write_video(tmp_path / folder / "a.mp4", 4)
    with caplog.at_level(logging.WARNING, "msta"):
        catalog = read_catalog(tmp_path)
    assert catalog.classes == ("pull", "push")
    assert len(catalog.clips) == 2
    assert f"skips {junk}" in caplog.text


@pytest.mark.parametrize("content", ["id,name\n0,push,x\n", "0,push\n1,pull,x\n", "id,name\n0\n"])
def test_a_row_of_classes_csv_is_no_wider_than_its_header(clips, content):
    (clips / "t.csv").write_text("path,label\na.mp4,0\nb.mp4,1\n")
    (clips / "classes.csv").write_text(content)
    with pytest.raises(DataError, match=r"classes\.csv, line \d: expected id,name"):
        read_catalog(clips / "t.csv")


def test_a_table_that_changes_is_looked_at_again(clips):
    (clips / "t.csv").write_text("path,label\na.mp4,x\nb.mp4,y\n")
    assert read_catalog(clips / "t.csv").classes == ("x", "y")
    (clips / "t.csv").write_bytes("path,label\na.mp4,dr\u00fccken\nb.mp4,y\n".encode("utf-16"))
    assert read_catalog(clips / "t.csv").classes == ("dr\u00fccken", "y")
