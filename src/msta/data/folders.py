"""Folders of videos: every command walks through them in the same way, and says what is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from msta.data.video_file import VIDEO_EXTENSIONS
from msta.errors import DataError, few
from msta.notices import notice

_SYSTEM_FOLDER = re.compile(
    r"[.@$].*|[#~](recycle|snapshot)|__macosx|__pycache__|recycle[dr]|found\.\d{3}|lost\+found|lost\.dir"
    r"|system volume information|network trash folder|temporary items|thevolumesettingsfolder",
    re.I,
)
"""Folders that systems and servers create among those of a user: Windows with $, a NAS with @, # or ~."""


def is_system_folder(name: str) -> bool:
    """Whether a folder is hidden or belongs to the system, so that it is not a class."""
    return bool(_SYSTEM_FOLDER.fullmatch(name))


def is_video(name: str) -> bool:
    """Whether the extension is that of a video, and the file is not hidden."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS


class Walk:
    """A walk through folders and their sub-folders. Call :meth:`tell` at the end.

    Hidden and system folders are left out. Links to folders are followed last, and each folder is read once.
    """

    def __init__(self, root: str | os.PathLike[str], on_error: Callable[[OSError], None] | None = None) -> None:
        self.root = os.fspath(root)
        self.on_error = on_error or self._refuse  # about a folder that may not be read
        self.skipped: list[str] = []
        self.circles: list[str] = []

    def folders(self, folder: str | os.PathLike[str] | None = None) -> list[str]:
        """The names of the folders in the root, or in another folder, sorted."""
        found = [entry for entry in self._entries(os.fspath(folder or self.root)) if self._is_open(entry)]
        self.circles += [entry.path for entry in found if self._leads_back(entry.path)]
        return [entry.name for entry in found if entry.path not in self.circles]

    def files(self, folder: str | os.PathLike[str] | None = None) -> Iterator[str]:
        """The files below the root or another folder. Those of a folder are sorted and come before its sub-folders."""
        start = os.fspath(folder or self.root)
        folders, links, seen = [start], list[str](), set[str]()
        while folders or links:
            directory = folders.pop() if folders else links.pop(0)
            real = os.path.realpath(directory)
            if real in seen or (directory != start and self._leads_back(directory)):
                self.circles.append(directory)
                continue
            seen.add(real)
            below: list[str] = []
            for entry in self._entries(directory):
                if self._is_open(entry):
                    (links if entry.is_symlink() else below).append(entry.path)
                elif entry.name.startswith("."):
                    self.skipped += [entry.name] if is_video(entry.name.lstrip(".")) else []
                elif not _is_folder(entry):
                    yield entry.path
            folders += reversed(below)

    def videos(self, folder: str | os.PathLike[str] | None = None) -> Iterator[str]:
        """The files of :meth:`files` that are videos by their extension."""
        return (file for file in self.files(folder) if is_video(os.path.basename(file)))

    def tell(self) -> None:
        """Give a notice of what was left out."""
        if names := list(dict.fromkeys(self.skipped)):
            notice(f"{self.root}: skips {few(names)}, the system's own or hidden.")
        if circles := list(dict.fromkeys(self.circles)):
            notice(f"{self.root}: {few(circles)}: links to folders that are read anyway are not followed.")

    def _entries(self, folder: str) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as entries:
                return sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            error.filename = error.filename or folder
            self.on_error(error)
            return []

    def _is_open(self, entry: os.DirEntry[str]) -> bool:
        if not _is_folder(entry):
            return False
        if is_system_folder(entry.name):
            self.skipped.append(entry.name)
            return False
        return True

    def _leads_back(self, folder: str) -> bool:
        """Whether a folder is a link to the root, or to one above it."""
        return Path(os.path.realpath(self.root)).is_relative_to(os.path.realpath(folder))

    @staticmethod
    def _refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: {error.strerror}") from error


def videos_in(folder: str | os.PathLike[str]) -> list[str]:
    """The videos in a folder and its sub-folders, sorted, and then the sub-folders that may not be read.

    If such a sub-folder is read as a video, that gives the error.
    """
    closed: list[str] = []
    walk = Walk(folder, lambda error: closed.append(str(Path(error.filename))))
    found = sorted([str(Path(file)) for file in walk.videos()] + closed)
    walk.tell()
    return found


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
