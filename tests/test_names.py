"""Class names and tables as people write them: the right words, or one clear line."""

from __future__ import annotations

import json
import logging
import re

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import write_video

from msta.data.layouts.tables import MISSING
from msta.data.names import class_words, is_number, told_by_side
from msta.data.reading import read_catalog
from msta.descriptions.labels import _without_index, named_classes, read_labels
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
        (" -1 ", "-1"),
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
        ("a.csv", "label,name\n0,push\n1,pull it\n"),
        ("a.csv", "class,name\n0,push\n1,pull it\n"),
        ("a.csv", "class,label\npull it,1\npush,0\n"),
        ("a.csv", "action,label\npush,0\npull it,1\n"),
        ("a.csv", "id|name\n0|push\n1|pull it\n"),
        ("a.csv", "\n \nid;name\n0;push\n1;pull it\n"),
        ("a.csv", "sep=;\nid;name\n0;push\n1;pull it\n"),
        ("a.csv", "Klasse\npush\npull it\n"),
        ("a.txt", "labels\npush\npull it\n"),
        ("a.txt", "push 0\npull it 1\n"),
        ("a.txt", "pull it,1\npush,0\n"),
        ("a.txt", "001.push\n002.pull it\n"),
        ("a.json", json.dumps({"model_type": "x", "id2label": {"1": "pull it", "0": "push"}, "label2id": {"push": 0}})),
        ("a.json", json.dumps({"label2id": {"pull it": 1, "push": 0}})),
        ("a.json", json.dumps(["push", "pull it"])),
        ("a.json", json.dumps({"classes": ["push", "pull it"]})),
        ("a.json", json.dumps([{"id": 1, "name": "pull it"}, {"id": 0, "name": "push"}])),
        ("a.json", json.dumps({"categories": [{"label": "push"}, {"label": "pull it"}]})),
        ("a.jsonl", '{"id": 1, "name": "pull it"}\n{"id": 0, "name": "push"}\n'),
        ("data.yaml", "nc: 2\nnames: [push, pull it]\n"),
        ("data.yml", "names:\n  1: pull it\n  0: push\n"),
        ("obj.names", "push\npull it\n"),
        ("labels", "push\npull it\n"),
        ("labels", '["push", "pull it"]'),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_files_of_names(tmp_path, name, content, encoding):
    (tmp_path / name).write_bytes(content.encode(encoding))
    assert named_classes(str(tmp_path / name)) == ("push", "pull it")


BEFORE = ("{0} {1}", "{0} - {1}", "{0}:{1}", "{0}={1}", "[{0}] {1}", "({0}) {1}", "{0:03}.{1}", "{0}\t{1}", "{0}_{1}")
AFTER = ("{1} {0}", "{1},{0}", "{1} - {0}", "{1}: {0}", "{1}={0:02}", "{1} [{0}]", "{1}({0})", "{1}\t{0}")


@given(
    names=st.lists(st.text("bcé) (ี", max_size=5), min_size=2, max_size=12, unique=True),
    form=st.sampled_from(BEFORE + AFTER), first=st.integers(0, 1), random=st.randoms(),
)  # fmt: skip
def test_an_index_beside_each_name_is_none_of_it(names, form, first, random):
    names = [f"a{name}a" for name in names]
    lines = [form.format(i, name) for i, name in enumerate(names, first)]
    random.shuffle(lines)
    assert _without_index(lines) == names


@pytest.mark.parametrize(
    "lines",
    [
        ["finger 1", "finger 2"],  # the names would be one
        ["1 finger", "2 finger"],
        ["route 66", "area 51"],
        ["push:1", "pull:1"],
        ["3d print", "2d draw"],
        ["0.5", "1.7"],
        ["push 0", "pull"],
        ["ताली", "तेल"],
    ],
)
def test_a_number_that_is_no_index_stays(lines):
    assert _without_index(lines) == lines


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.pbtxt", b"item {\n id: 1\n}\n", "one class name per line, found 'item {'"),
        ("a.xml", b"<a>\n</a>\n", "one class name per line, found '<a>'"),
        ("a.xlsx", b"PK\x03\x04\0\0\0\x08" * 9, "a binary file"),
        ("a.yaml", b"names: [push", "no valid YAML"),
        ("a.yaml", b"push\npull\n", "expected class names: a list"),
        ("a.json", b"[[1]]", "expected class names: a list"),
        ("gone.names", None, "No such file"),
        ("", None, "an empty name in ''; give names, or a file"),
        ("a.txt", b"x" * 100_000, "too long"),
    ],
)
def test_what_is_no_list_of_names_is_refused(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(MSTAError, match=re.escape(says)) as error:
        named_classes(str(tmp_path / name) if name else "")
    assert len(str(error.value)) < 1000


def test_as_many_names_as_you_like_may_be_typed():
    assert len(named_classes(",".join(f"class number {'x' * i}" for i in range(200)))) == 200


def test_a_table_of_clips_is_no_table_of_names(clips):
    (clips / "t.csv").write_text("name,label\na.mp4,push\nb.mp4,pull\n")
    assert read_labels(clips / "t.csv") == ("pull", "push")
    (clips / "t.csv").write_text("name,label\na,push\nb,pull\nc,pull\n")
    assert read_labels(clips / "t.csv") == ("pull", "push")


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
        (b"path,label\na.mp4,\n", "line 2: no label; write one"),
        *(
            (f"path,label\nb.mp4,x\na.mp4,{word}\n".encode(), f"line 3: no label but {word}")
            for word in sorted(MISSING)
        ),
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


def test_equal_numbers_are_one_label_and_others_are_not(clips):
    rows = ["0", "0.0", "1.00", "01", "-1", "12345678901234567890", "12345678901234567891"]
    (clips / "t.csv").write_text("path,label\n" + "".join(f"{i}.mp4,{row}\n" for i, row in enumerate(rows)))
    catalog = read_catalog(clips / "t.csv")
    assert catalog.classes == ("-1", "0", "01", "12345678901234567890", "12345678901234567891")
    assert [clip.label for clip in catalog.clips] == [1, 1, 2, 2, 0, 3, 4]
    (clips / "t.txt").write_text("a.mp4 0\nb.mp4 1\nc.mp4 0.0\n")
    assert [clip.label for clip in read_catalog(clips / "t.txt").clips] == [0, 1, 0]


def test_what_stands_for_an_empty_cell_may_be_a_class_if_a_file_names_it(clips, caplog):
    (clips / "t.csv").write_text("path,label\na.mp4,NA\nb.mp4,x\n")
    (clips / "classes.csv").write_text("id,name\nNA,North America\nx,x\n")
    assert read_catalog(clips / "t.csv").classes == ("North America", "x")
    (clips / "classes.csv").unlink()
    (clips / "t.csv").write_text("path,label\na.mp4,None\nb.mp4,none\nc.mp4,x\n")
    with caplog.at_level(logging.WARNING, "msta"), pytest.raises(DataError, match="two classes are called 'none'"):
        read_catalog(clips / "t.csv")
    assert "None, which Python writes for an empty cell, is a class" in caplog.text


def write_table(file, **columns):
    """Write a table as CSV, JSON records or Parquet."""
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    if file.suffix == ".parquet":
        pyarrow.parquet.write_table(pyarrow.table(columns), file)
    elif file.suffix == ".json":
        file.write_text(json.dumps(rows))
    else:
        lines = [columns, *(["" if cell is None else str(cell) for cell in row.values()] for row in rows)]
        file.write_text("\n".join(map(",".join, lines)))


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
@pytest.mark.parametrize("column", ["class_name", "action", "class"])
def test_a_column_of_one_name_per_number_names_the_classes(clips, suffix, column, caplog):
    def read(*rows):
        notice.cache_clear()
        write_table(clips / f"t.{suffix}", **dict(zip(("path", "label", column), zip(*rows, strict=True), strict=True)))
        catalog = read_catalog(clips / f"t.{suffix}")
        return [catalog.classes[clip.label] for clip in catalog.clips], catalog.classes

    a, b, c = ("a.mp4", 10, "pull_it"), ("b.mp4", 9, "push"), ("c.mp4", 10, "pull_it")
    assert read(a, b, c) == (["pull it", "push", "pull it"], ("push", "pull it"))
    assert "numbers" not in caplog.text
    assert read(a, b, ("c.mp4", 10, "lift"))[1] == ("9", "10")  # two names
    assert read(a, ("b.mp4", 9, "pull_it"))[1] == ("9", "10")  # one name for two
    assert f"ignores {column}" in caplog.text


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_a_duration_tells_the_end(clips, suffix, caplog):
    def read(**columns):
        write_table(clips / f"t.{suffix}", path=["a.mp4", "b.mp4"], label=["x", "y"], **columns)
        return [clip.span for clip in read_catalog(clips / f"t.{suffix}").clips]

    assert read(start=[0.5, None], duration=[0.25, 2]) == [(0.5, 0.75), (None, 2.0)]
    assert read(start=[0.5, None], length=[None, 1.0]) == [(0.5, None), (None, 1.0)]
    assert read(start=[0.5, 1], end=[1.0, 2], duration=[9, 9]) == [(0.5, 1.0), (1.0, 2.0)]
    assert read(duration=[9, 9]) == [(None, None)] * 2  # of the file, for people
    assert "ignores" not in caplog.text


def test_a_spelling_stays_if_it_is_asked_for(clips):
    (clips / "t.csv").write_text("path,label\na.mp4,0\nb.mp4,1\n")
    (clips / "classes.csv").write_text("id,name\n0,swipe_left\n1,push\n")
    assert read_catalog(clips / "t.csv", names="given").classes == ("swipe_left", "push")
    (clips / "classes.csv").write_text("id,spelling\n0,swipe_left\n1,push\n")
    assert read_catalog(clips / "t.csv").classes == ("swipe_left", "push")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", "path,label\na.mp4,drücken\nb.mp4,ziehen\n"),
        ("t.csv", "sep=;\npath;label\na.mp4;drücken\nb.mp4;ziehen\n"),
        ("t.csv", "\npath|label\na.mp4|drücken\nb.mp4|ziehen\n"),
        ("t.json", '[{"path": "a.mp4", "label": "drücken"}, {"path": "b.mp4", "label": "ziehen"}]'),
        ("t.jsonl", '{"path": "a.mp4", "label": "drücken"}\n{"path": "b.mp4", "label": "ziehen"}\n'),
    ],
)
def test_a_table_is_read_in_any_encoding(clips, name, content, encoding, caplog):
    notice.cache_clear()
    (clips / name).write_bytes(content.encode(encoding))
    with caplog.at_level(logging.WARNING, "msta"):
        assert read_catalog(clips / name).classes == ("drücken", "ziehen")
    assert ("cp1252" in caplog.text) == (encoding == "cp1252")


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
