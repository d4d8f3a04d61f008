"""What was named on a command line -> videos: files, folders, patterns, streams, webcams."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msta.data.decode import VIDEO_EXTENSIONS
from msta.errors import DataError
from msta.inference.live import is_live


def expand(names: Sequence[str]) -> list[str]:
    """Files and streams as they are; a folder is the videos below it, sorted; a pattern is what it matches, sorted.

    A name that is there is never taken for a pattern, and a file that is not there is left to whoever reads it.

    Raises:
        DataError: a folder without videos, a pattern that matches nothing.
    """
    return [video for name in names for video in _expand(name)]


def _expand(name: str) -> Iterator[str]:
    if is_live(name) or os.path.isfile(name):
        yield name
    elif os.path.isdir(name):
        found = sorted(videos_below(name))
        if not found:
            raise DataError(f"{name}: no video files in this folder")
        yield from found
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise DataError(f"{name}: no file is called so")
        for match in matches:
            yield from sorted(videos_below(match)) if os.path.isdir(match) else (match,)
    else:
        yield name


def videos_below(folder: str | os.PathLike[str]) -> Iterator[str]:
    """Video files, by extension, in a folder and those in it; hidden ones are left out."""
    for directory, below, files in os.walk(folder):
        below[:] = [name for name in below if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS:
                yield str(Path(directory) / name)
