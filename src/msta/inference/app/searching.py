"""A sentence -> moments in a folder of videos."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from msta.errors import MSTAError
from msta.inference.app.models import Models
from msta.inference.search import INDEX, Moment, query_embedding, strips, update_index
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
    where = Path(os.path.abspath(Path(typed).expanduser()))
    model = models.model(adapter)
    asked = query_embedding(model, query)
    index = update_index(model, where, where / INDEX, Windows(window, window / 2), tell)
    moments = index.nearest(asked, top)
    return Found(query, where, moments, list(strips(where, moments)), len(index.files), len(index.paths))
