"""Labelled clips as a browser gives them -> what ``msta train`` reads."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from msta.data.catalog import Clip, write_catalog
from msta.data.decode import VIDEO_EXTENSIONS
from msta.errors import MSTAError
from msta.files import new_directory, typed_path

Uploaded = Mapping[str, Sequence[str]]
"""Class -> files."""
ZIP_BYTES, ZIP_FILES = 4 * 2**30, 20_000
"""What a zip may unpack to."""


def add_class(uploaded: Uploaded, name: str | None, files: Sequence[str] | None) -> dict[str, list[str]]:
    """``uploaded`` with clips of one more class, or more of one that is there.

    Raises:
        MSTAError: no name, no files, a file that is no video by its name.
    """
    name = " ".join((name or "").split())
    if not name:
        raise MSTAError("Type the class's name: it is what the model reads.")
    if not files:
        raise MSTAError(f"Give clips of {name!r}.")
    for file in files:
        if not _is_video(file):
            raise MSTAError(f"{Path(file).name}: is no video by its name.")
    all_of_them = {key: list(value) for key, value in uploaded.items()}
    known = next((key for key in all_of_them if key.casefold() == name.casefold()), name)
    already = all_of_them.setdefault(known, [])
    already += [file for file in files if file not in already]
    return all_of_them


def from_uploads(uploaded: Uploaded, to: Path) -> Path:
    """Write a catalog of them into the new folder ``to``; return it.

    Raises:
        MSTAError: fewer than two classes, or than two clips of one.
    """
    if len(uploaded) < 2:
        raise MSTAError("Add clips of two classes or more: a classifier needs a choice.")
    for name, files in uploaded.items():
        if len(files) < 2:
            raise MSTAError(f"{name!r} has one clip; every class needs two: one to train on and one to test with.")
    clips = [Clip(file, label) for label, files in enumerate(uploaded.values()) for file in files]
    with new_directory(to) as folder:
        write_catalog(folder / "clips.csv", tuple(uploaded), clips)
    return to / "clips.csv"


def from_zip(archive: str | None, to: Path, *, most_bytes: int = ZIP_BYTES, most_files: int = ZIP_FILES) -> Path:
    """Unpack a zip's videos into a new folder in ``to``; return the folder that has the classes' sub-folders.

    What is no video by its name is left in the archive; nothing is written outside ``to``.

    Raises:
        MSTAError: no zip, damaged, no videos in folders, or more than the limits.
    """
    if not archive:
        raise MSTAError("Give a zip first.")
    name = Path(archive).name
    to = to / Path(archive).stem
    try:
        with zipfile.ZipFile(archive) as packed, new_directory(to) as folder:
            videos = [entry for entry in packed.infolist() if _is_video(entry.filename) and not entry.is_dir()]
            if not any("/" in entry.filename for entry in videos):
                raise MSTAError(f"{name}: has no folder with videos in it; it needs a folder for each class.")
            if len(videos) > most_files:
                raise MSTAError(f"{name}: {len(videos):,} videos; the limit is {most_files:,}.")
            left = most_bytes
            for entry in videos:
                left -= _unpack(packed, entry, folder, left, name, most_bytes)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise MSTAError(f"{name}: cannot be unpacked as a zip ({error}).") from error
    return _with_classes(to)


def from_folder(typed: str | None) -> Path:
    """A folder, or a table of clips, on this computer.

    Raises:
        MSTAError: none is typed, or there is none.
    """
    if not (typed or "").strip():
        raise MSTAError("Type the path of a folder with a sub-folder for each class.")
    path = typed_path((typed or "").strip())
    if not path.exists():
        raise MSTAError(f"{path}: there is no such folder.")
    return path


def _is_video(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in VIDEO_EXTENSIONS and not hidden


def _unpack(packed: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path, left: int, name: str, most: int) -> int:
    """One file, counted as it comes: a header may lie. Returns its bytes."""
    target = folder / entry.filename
    if ".." in target.parts or not target.resolve().is_relative_to(folder.resolve()):
        raise MSTAError(f"{name}: holds {entry.filename!r}, which leads out of it.")
    target.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with packed.open(entry) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            written += len(block)
            if written > left:
                raise MSTAError(f"{name}: unpacks to more than {most / 2**30:.3g} GB.")
            file.write(block)
    return written


def _with_classes(folder: Path) -> Path:
    """Below folders that hold nothing but one folder of folders."""
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir() and any(path.is_dir() for path in inside[0].iterdir()):
        folder = inside[0]
        inside = list(folder.iterdir())
    return folder
