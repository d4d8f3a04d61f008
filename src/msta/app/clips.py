"""Labelled clips from the browser -> a data set for ``msta train``."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from msta.data.catalog import Catalog, Clip, write_catalog
from msta.data.check import quick_warnings
from msta.data.folders import is_system_folder, is_video
from msta.data.names import read_as_words
from msta.errors import MSTAError
from msta.files import new_directory, typed_path

Uploaded = Mapping[str, Sequence[str]]  # class name -> files
ZIP_BYTES, ZIP_FILES = 4 * 2**30, 20_000
"""The most that a zip may unpack to."""


def class_name(uploaded: Uploaded, typed: str | None) -> str:
    """What was typed, as words, spelled as the class is that is there already. Raises MSTAError if it is empty."""
    name, *_ = read_as_words([" ".join((typed or "").split())], "The class")
    if not name:
        raise MSTAError("Type the name of the class: the model reads it.")
    return next((key for key in uploaded if key.casefold() == name.casefold()), name)


def add_class(uploaded: Uploaded, typed: str | None, files: Sequence[str] | None) -> dict[str, list[str]]:
    """``uploaded`` with the clips of another class, or more clips of a class. Raises MSTAError if some are missing."""
    name = class_name(uploaded, typed)
    if not files:
        raise MSTAError(f"Give clips of {name!r}.")
    for file in files:
        if not is_video(Path(file).name):
            raise MSTAError(f"{Path(file).name}: its name is not that of a video.")
    extended = {key: list(value) for key, value in uploaded.items()}
    own = extended.setdefault(name, [])
    own += [file for file in files if file not in own]
    return extended


def warnings(uploaded: Uploaded) -> list[str]:
    """What will make a bad classifier, as far as it is seen without opening a clip."""
    clips = tuple(Clip(file, label) for label, files in enumerate(uploaded.values()) for file in files)
    found = quick_warnings(Catalog("", tuple(uploaded), clips)) if clips else []
    texts = [warning.text for warning in found]
    for clip in clips:  # nobody knows where uploads are
        texts = [text.replace(clip.path, Path(clip.path).name) for text in texts]
    return texts


def listed(uploaded: Uploaded) -> list[tuple[str, str]]:
    """(class, file) of every clip, class by class: the order of the thumbnails."""
    return [(name, file) for name, files in uploaded.items() for file in files]


def moved(uploaded: Uploaded, index: int, name: str | None) -> dict[str, list[str]]:
    """``uploaded`` with the clip at ``index`` of :func:`listed` in the class ``name``, or removed if that is None.

    Classes without clips go.
    """
    own, moving = listed(uploaded)[index]
    changed = {each: [file for file in files if file != moving] for each, files in uploaded.items()}
    if name is not None:
        at = list(uploaded[own]).index(moving) if name == own else len(changed.get(name, ()))
        changed.setdefault(name, []).insert(at, moving)
    return {each: files for each, files in changed.items() if files}


def from_uploads(uploaded: Uploaded, to: Path) -> Path:
    """Write a catalog into the new folder ``to``, and return its path.

    Raises MSTAError if there are fewer than two classes, or fewer than two clips of a class.
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
    """Unpack the videos of a zip into a new folder in ``to``. Returns the folder with the sub-folders of the classes.

    Files without the name of a video are not unpacked. Nothing is written outside ``to``.

    Raises:
        MSTAError: there is no zip, it is damaged, it has no videos in folders, or it exceeds a limit.
    """
    if not archive:
        raise MSTAError("Give a zip first.")
    name = Path(archive).name
    to = to / Path(archive).stem
    try:
        with zipfile.ZipFile(archive) as packed, new_directory(to) as folder:
            videos = [entry for entry in packed.infolist() if _is_video(entry.filename)]
            if not any("/" in entry.filename for entry in videos):
                raise MSTAError(f"{name}: has no folder with videos in it; it needs a folder for each class.")
            if len(videos) > most_files:
                raise MSTAError(f"{name}: {len(videos):,} videos; the limit is {most_files:,}.")
            if sum(entry.file_size for entry in videos) > most_bytes:  # a file ends where its header says
                raise MSTAError(f"{name}: unpacks to more than {most_bytes / 2**30:.3g} GB.")
            for entry in videos:
                target = folder / entry.filename
                if ".." in target.parts or not target.resolve().is_relative_to(folder.resolve()):
                    raise MSTAError(f"{name}: holds {entry.filename!r}, which leads out of it.")
                packed.extract(entry, folder)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, EOFError) as error:
        raise MSTAError(f"{name}: cannot be unpacked as a zip ({error}).") from error
    return _with_classes(to)


def from_folder(typed: str | None) -> Path:
    """A folder or a table of clips on this computer. Raises MSTAError if it does not exist."""
    if not (typed or "").strip():
        raise MSTAError("Type the path of a folder with a sub-folder for each class.")
    path = typed_path((typed or "").strip())
    if not path.exists():
        raise MSTAError(f"{path}: there is no such folder.")
    return path


def _is_video(name: str) -> bool:
    """Whether a zip's member is a video, and in no system folder; the name of a folder ends in a slash."""
    *folders, file = name.split("/")
    return is_video(file) and not any(is_system_folder(part) for part in folders if part not in (".", ".."))


def _with_classes(folder: Path) -> Path:
    """Go down through folders that hold only one folder of folders."""
    inside = list(folder.iterdir())
    while len(inside) == 1 and inside[0].is_dir() and any(path.is_dir() for path in inside[0].iterdir()):
        folder = inside[0]
        inside = list(folder.iterdir())
    return folder
