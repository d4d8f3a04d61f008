"""A sentence -> moments in a folder of videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msta.adapters.model import AdaptedModel
from msta.app.models import Models
from msta.errors import MSTAError
from msta.files import typed_path
from msta.inference.search import INDEX, Moment, key_of, query_embedding, read_index, strips, update_index
from msta.inference.timeline import Windows


@dataclass(frozen=True)
class Found:
    """What a search found.

    Attributes:
        query: the sentence.
        folder: where.
        moments: the nearest first.
        strips: JPEG, three frames of each.
        files: videos in the folder.
        windows: moments there are.
    """

    query: str
    folder: Path
    moments: list[Moment]
    strips: list[bytes]
    files: int
    windows: int


def search(
    models: Models,
    query: str | None,
    folder: str | None,
    adapter: str | None,
    *,
    window: float = 4.0,
    top: int = 12,
    tell: Callable[[int, int, str], None] = lambda number, count, path: None,
) -> Found:
    """Search; the first time, a folder is read.

    Args:
        models: to choose from.
        query: a sentence.
        folder: a path on this computer.
        adapter: its name; None: the backbone as it is.
        window: seconds of a moment.
        top: moments to find.
        tell: called with a number, of how many, and the video that is read into the index next.

    Raises:
        MSTAError: one sentence about what is missing or wrong.
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
    if where.is_dir() and not os.access(where, os.W_OK):  # told now, not when all of it is read
        raise MSTAError(
            f"{where}: cannot be written to, and the index goes there; msta search --index writes elsewhere."
        )
    index = update_index(model, where, _index_file(model, where, windows), windows, tell)
    moments = index.nearest(asked, top)
    return Found(query, where, moments, list(strips(where, moments)), len(index.files), len(index.paths))


def _index_file(model: AdaptedModel, folder: Path, windows: Windows) -> Path:
    """What ``msta search`` made, if it fits; else one of this model and these windows, which the page may change."""
    key, shared = key_of(model, windows), folder / INDEX
    if shared.exists() and read_index(shared).key == key:
        return shared
    return folder / f".msta-index-{key[:12]}.parquet"
