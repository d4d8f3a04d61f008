"""A sentence -> moments in a folder of videos."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msta.app.models import Models
from msta.data.shards.encode import h264
from msta.errors import MSTAError
from msta.files import typed_path, write_bytes
from msta.inference.search import Moment, index_file, query_embedding, strips, update_index
from msta.inference.windows import Windows


@dataclass(frozen=True)
class SearchResult:
    """The result of a search."""

    query: str
    folder: Path
    moments: list[Moment]  # the nearest first
    strips: list[bytes]  # JPEG, three frames of each moment
    files: int  # videos in the folder
    windows: int  # moments in the index


def playable(found: SearchResult, number: int, to: Path) -> str:
    """A moment as an MP4 that every browser plays, in the folder ``to``. Raises DecodeError if it cannot be read."""
    moment = found.moments[number]
    to.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(f"{found.folder / moment.path} {moment.start} {moment.end}".encode(errors="surrogateescape"))
    file = to / f"{key.hexdigest()[:16]}.mp4"
    if not file.exists():
        write_bytes(file, h264(str(found.folder / moment.path), (moment.start, moment.end), 360))
    return str(file)


def search(
    models: Models,
    query: str | None,
    folder: str | None,
    adapter: str | None,
    *,
    window: float = 4.0,
    top: int = 12,
    tell: Callable[[int, int, str], None] = lambda number, count, path: None,
) -> SearchResult:
    """Search a folder on this computer. The first search reads all its videos into an index.

    ``adapter`` is its name, or None for the backbone alone; a moment lasts ``window`` seconds; ``tell`` is that of
    :func:`update_index`. Raises MSTAError, with one sentence, if something is missing or wrong.
    """
    query, typed = (query or "").strip(), (folder or "").strip()
    if not query:
        raise MSTAError("Type what to look for: a sentence.")
    if not typed:
        raise MSTAError("Type the path of a folder with videos.")
    where = typed_path(typed)
    model = models.model(adapter)
    asked = query_embedding(model, query)
    windows = Windows(window, window / 2)
    if where.is_dir() and not os.access(where, os.W_OK):  # report this before the videos are read
        raise MSTAError(
            f"{where}: cannot be written to, but the index goes there; msta search --index writes it elsewhere."
        )
    index = update_index(model, where, index_file(model, where, windows), windows, tell)
    moments = index.nearest(asked, top)
    return SearchResult(query, where, moments, list(strips(where, moments)), len(index.files), len(index.paths))
