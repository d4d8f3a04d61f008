"""One walk through folders for every command."""

from __future__ import annotations

import os
import shutil

import pytest
import torch
from conftest import tiny
from video_files import write_video

import msta
from msta import cli
from msta.app.clips import _is_video
from msta.data import folders
from msta.data.folders import videos_in
from msta.data.layouts.parts import VideoFiles
from msta.data.reading import read_catalog
from msta.errors import ConfigError, DataError, MSTAError
from msta.inference import Windows
from msta.inference.arguments import find_videos, read_clips
from msta.inference.search import read_index, update_index

pytestmark = pytest.mark.usefixtures("every_notice")

JUNK = (
    "__MACOSX",
    "@eaDir",
    "$RECYCLE.BIN",
    "$Recycle.Bin",
    "lost+found",
    "#snapshot",
    "System Volume Information",
    ".git",
)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, 6, fps=10)
    return path


@pytest.fixture
def tree(tmp_path, clip):
    """Makes a folder of videos of the names."""

    def make(*names):
        for name in names:
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(clip, tmp_path / "in" / name)
        return tmp_path / "in"

    return make


def closed(monkeypatch, name):
    """A folder that may not be read, for root as well."""
    scan = os.scandir

    def refuse(path="."):
        if os.path.basename(os.fspath(path)) == name:
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)


def run(monkeypatch, *arguments):
    """The command line -> the exit code."""
    monkeypatch.setattr("sys.argv", ["msta", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0


def every_way(root):
    """The files that each command finds, as relative paths."""
    found = {
        "predict": find_videos([str(root)]),
        "a pattern": find_videos([f"{root}/*"]),
        "data": [clip.path for clip in read_catalog(root).clips],
        "lists": [file for files in VideoFiles(root)._by_stem.values() for file in files],
        "bulk": [clip.path for clip in read_clips(root, lambda: read_catalog(root))[0]],
    }
    model = msta.attach(msta.random_backbone(tiny()), "zero-shot").eval()
    found["search"] = [
        str(root / path) for path in update_index(model, root, root.parent / "i", Windows(1.0, 1.0)).files
    ]
    return {way: sorted(os.path.relpath(path, root) for path in paths) for way, paths in found.items()}


@pytest.mark.parametrize("junk", JUNK)
def test_no_command_reads_a_systems_folders_and_each_says_so(tree, junk, caplog):
    root = tree("push/a.mp4", "pull/b.mp4", f"{junk}/c.mp4", f"push/{junk}/d.mp4", "pull/._b.mp4")
    assert set(map(tuple, every_way(root).values())) == {("pull/b.mp4", "push/a.mp4")}
    assert f"skips {junk}" in caplog.text
    assert "._b.mp4" in caplog.text
    assert not _is_video(f"x/{junk}/d.mp4")


def test_links_to_folders_are_followed_by_every_command_but_not_in_circles(tree, tmp_path, caplog):
    root = tree("push/a.mp4", "pull/b.mp4")
    (tmp_path / "far" / "deep").mkdir(parents=True)
    shutil.copy(root / "push" / "a.mp4", tmp_path / "far" / "deep" / "c.mp4")
    (root / "push" / "more").symlink_to(tmp_path / "far")
    (tmp_path / "far" / "deep" / "up").symlink_to(tmp_path / "far")
    (root / "pull" / "home").symlink_to(root)
    (root / "pull" / "self").symlink_to(root / "pull" / "self")
    (root / "back").symlink_to(tmp_path)
    found = every_way(root)
    del found["a pattern"]  # names the link
    assert set(map(tuple, found.values())) == {("pull/b.mp4", "push/a.mp4", "push/more/deep/c.mp4")}
    for link in ("back", "home", "up"):
        assert f"/{link}" in caplog.text


def test_a_class_may_be_a_link(tree, tmp_path):
    root = tree("push/a.mp4")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(root / "push" / "a.mp4", tmp_path / "elsewhere" / "b.mp4")
    (root / "pull").symlink_to(tmp_path / "elsewhere")
    assert read_catalog(root).classes == ("pull", "push")


@pytest.mark.parametrize("where", ["push/closed", "closed", "pull/a/closed"])
def test_a_folder_that_may_not_be_read_is_an_error_line_after_the_rest(tree, where, monkeypatch, capsys, tmp_path):
    root = tree("push/a.mp4", "pull/b.mp4", f"{where}/c.mp4")
    msta.random_backbone(tiny()).save(tmp_path / "backbone")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    closed(monkeypatch, "closed")
    assert run(monkeypatch, "predict", root, "--labels", "push,pull", "--backbone", tmp_path / "backbone") == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == sorted(str(root / x) for x in ("pull/b.mp4", "push/a.mp4", where))
    assert f"{where}: Permission denied" in "".join(lines)
    assert run(monkeypatch, "search", "x", "--in", root, "--backbone", tmp_path / "backbone", "--window", "1s") == 1
    out, error = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert f"{where}" in error
    with pytest.raises(DataError, match="closed: Permission denied"):
        read_catalog(root)
    with pytest.raises(DataError, match="closed: Permission denied"):
        read_catalog(root / "closed" if where == "closed" else root)


@pytest.mark.parametrize("name", ["train", "val", "test", "Training", "valid"])
def test_a_class_called_as_a_split_beside_others_is_asked_about(tree, name):
    root = tree(f"{name}/a.mp4", "bus/b.mp4", "car/c.mp4")
    with pytest.raises(
        ConfigError, match=rf"is '{name}', beside bus, car, a class or a split\? data.split_folders=false"
    ):
        read_catalog(root)
    assert sorted(read_catalog(root, split_folders=False).classes) == sorted(["bus", "car", name])
    with pytest.raises(DataError, match="a sub-folder for each class"):
        read_catalog(root, split_folders=True)


def test_split_folders_stay_what_they_were(tree, caplog):
    root = tree("train/push/a.mp4", "train/pull/b.mp4", "test/push/c.mp4", "test/pull/d.mp4", "spare/push/e.mp4")
    catalog = read_catalog(root)
    assert [clip.split for clip in catalog.clips] == ["test", "test", "train", "train"]
    assert "not spare" in caplog.text
    assert len(read_catalog(root, split_folders=False).classes) == 3
    shutil.rmtree(root / "test")
    shutil.rmtree(root / "spare")
    (root / "lists").mkdir()  # no videos: no class
    assert read_catalog(root).classes == ("pull", "push")


@pytest.mark.parametrize(
    ("train", "test"), [("training_set", "test_set"), ("trainset", "Testset"), ("train set", "testing")]
)
def test_a_split_may_be_called_a_set(tree, train, test):
    root = tree(f"{train}/push/a.mp4", f"{train}/pull/b.mp4", f"{test}/push/c.mp4", f"{test}/pull/d.mp4")
    catalog = read_catalog(root)
    assert catalog.classes == ("pull", "push")
    assert sorted(str(clip.split) for clip in catalog.clips) == ["test", "test", "train", "train"]


def test_two_classes_called_as_splits_are_asked_about(tree):
    root = tree("train/a.mp4", "test/b.mp4")
    with pytest.raises(ConfigError, match="a class or a split"):
        read_catalog(root)
    assert read_catalog(root, split_folders=False).classes == ("test", "train")


def test_search_says_what_it_cannot_write_before_it_reads(tree, tmp_path, monkeypatch):
    root = tree("a.mp4")
    (tmp_path / "file").write_text("")
    model = msta.attach(msta.random_backbone(tiny()), "zero-shot").eval()
    monkeypatch.setattr("msta.inference.search._read", lambda *_: pytest.fail("reads before it knows"))
    for file in (tmp_path / "file" / "i.parquet", tmp_path, "/proc/i.parquet"):
        with pytest.raises(MSTAError, match=r"cannot be written \(.*; --index"):
            update_index(model, root, folders.Path(file), Windows(1.0, 1.0))


def test_names_that_are_no_text_are_indexed_and_found_again(tree, tmp_path):
    odd = os.fsdecode(b"m\xfcde/\xff.mp4")
    root = tree("a.mp4", odd)
    model = msta.attach(msta.random_backbone(tiny()), "zero-shot").eval()
    index = update_index(model, root, tmp_path / "i", Windows(1.0, 1.0))
    assert set(index.paths) == {"a.mp4", odd}
    assert read_index(tmp_path / "i").paths == index.paths
    assert videos_in(root) == [str(root / "a.mp4"), str(root / odd)]
