"""Other systems, as far as they can be simulated; outputs and names that are no UTF-8; threads; scripts without a guard."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import tiny
from rich.console import Console
from video_files import moving_squares

import msta
from msta.config import make_config
from msta.inference.predict import _file_names
from msta.training.loop import train

HERE = Path(__file__).parent
ODD = os.fsdecode(b"m\xfcll.mp4")  # no text in UTF-8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """clips/: classes of odd names, one with a file whose name is no text; backbone/."""
    where = tmp_path_factory.mktemp("systems")
    (where / "clips").mkdir()
    moving_squares(where / "clips", {"drücken": -1, "手を振る": 1}, 4)
    first = next((where / "clips" / "drücken").glob("*.mp4"))
    first.rename(first.with_name(ODD))
    msta.random_backbone(tiny()).save(where / "backbone")
    return where


def python(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(HERE), str(Path(msta.__file__).parents[1])])
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, encoding="utf-8", errors="backslashreplace",
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(("system", "encoding"), [("win32", "cp1252"), ("darwin", "ascii")])
def test_every_command_works_on_other_systems_and_with_other_outputs(folder, tmp_path, system, encoding):
    for name in ("clips", "backbone"):
        (tmp_path / name).symlink_to(folder / name)
    done = python(HERE / "elsewhere.py", system, tmp_path, PYTHONIOENCODING=encoding)
    assert "Traceback" not in done.stdout + done.stderr, done.stderr[-3000:]
    codes = next(line for line in done.stdout.splitlines() if line.startswith("codes")).split()[1:]
    assert set(codes) == {"0"}, done.stdout + done.stderr
    assert r"m\udcfcll.mp4" in done.stdout
    assert "serve 2" in done.stdout
    assert "confined processes, which only Linux has" in done.stderr


def test_training_in_a_thread_works_and_says_what_it_lacks(folder, tmp_path, caplog):
    settings = {"data.path": str(folder / "clips"), "data.shots": 2, "backbone": str(folder / "backbone")}
    config = make_config("small", settings, ["data.workers=0", "train.epochs=1", "method.dim=8"])
    raised = []

    def run():
        try:
            train(config, tmp_path / "run", Console(quiet=True))
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised == []
    assert (tmp_path / "run" / "adapter").is_dir()
    assert "runs in a thread: Ctrl-C does not save it" in caplog.text


SCRIPT = """
import multiprocessing, sys
from pathlib import Path
from rich.console import Console
from msta.config import make_config
from msta.data.reading import read_catalog
from msta.data.verify import verify
from msta.errors import MSTAError
from msta.training.loop import train
{guard}
    multiprocessing.set_start_method("spawn", force=True)
    data, backbone, out, what = sys.argv[1:]
    try:
        if what == "verify":
            verify(read_catalog(data), Path(out), workers=1)
        else:
            train(make_config("small", dict([("data.path", data), ("data.shots", 2), ("backbone", backbone)]),
                  ["data.workers=1", "train.epochs=1", "method.dim=8"]), Path(out), Console(quiet=True))
        print("done")
    except MSTAError as error:
        sys.exit("refused: " + str(error))
"""


@pytest.mark.parametrize("what", ["train", "verify"])
@pytest.mark.parametrize("guarded", [True, False])
def test_a_script_without_a_guard_hears_the_right_reason(folder, tmp_path, what, guarded):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.replace("{guard}", 'if __name__ == "__main__":' if guarded else "if True:"))
    done = python(script, folder / "clips", folder / "backbone", tmp_path / "out", what)
    assert "Traceback" not in done.stderr
    refusal = (
        f"refused: {script}: processes that help would run this script again from its first line; "
        'put what it does under if __name__ == "__main__":'
    )
    assert (done.stdout, done.returncode) == (("done\n", 0) if guarded else ("", 1))
    assert guarded or done.stderr.splitlines()[-1] == refusal


def test_documents_of_several_videos_have_names_of_their_own_on_every_system():
    videos = ["x/a.mp4", "x/A.mp4", "x/a.avi", "y/a.mp4", "b.mp4", "c/b.mp4"]
    names = _file_names(videos)
    assert len({name.casefold() for name in names}) == len(videos)
    assert _file_names(["x/a.mp4", "y/a.mp4", "z/c.mp4"]) == ["x_a", "y_a", "c"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_of_windows_change_nothing(folder, tmp_path, end):
    from msta.data.reading import read_catalog
    from msta.descriptions.labels import read_labels

    clips = sorted((folder / "clips").glob("*/*.mp4"), key=str)
    for name, lines in {
        "t.csv": ["path,label", *(f"{clip},{i % 2}" for i, clip in enumerate(clips))],
        "classes.csv": ["id,name", "0,push", "1,pull"],
        "l.txt": [f"{clip} {i % 2}" for i, clip in enumerate(clips)],
        "names.txt": ["push", "pull hard"],
    }.items():
        (tmp_path / name).write_bytes("".join(line + end for line in lines).encode(errors="surrogateescape"))
    assert read_catalog(tmp_path / "t.csv").classes == ("push", "pull")
    assert read_catalog(tmp_path / "l.txt", labels=str(tmp_path / "classes.csv")).classes == ("push", "pull")
    assert [clip.path for clip in read_catalog(tmp_path / "t.csv").clips] == [str(clip) for clip in clips]
    assert read_labels(tmp_path / "names.txt") == ("push", "pull hard")
