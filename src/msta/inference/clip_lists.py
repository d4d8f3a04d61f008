"""What ``msta predict --data`` takes: any data set, and lists and folders of videos that nobody has labelled."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from msta.data.catalog import Catalog, Clip
from msta.data.layouts.parts import csv_rows, seconds
from msta.data.storage import beside
from msta.errors import DataError, in_short
from msta.inference.sources import videos_below

UNLABELLED = -1


def read_clips(path: Path, labelled: Callable[[], Catalog]) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """Clips and the names of their classes, none for videos without labels, whose label is then -1.

    Args:
        path: a CSV or Parquet file with a column path, but neither label nor class, and start, end [s] if there are
            any; a folder with videos in it; anything else is read by
        labelled: :func:`msta.data.reading.read_catalog`, with the options that were given.

    Raises:
        DataError: it cannot be read, or there is nothing in it.
    """
    suffix = path.suffix.lower()
    clips: list[Clip] | None = None
    if path.is_file() and suffix == ".csv":
        clips = _from_csv(path)
    elif path.is_file() and suffix in (".parquet", ".pq"):
        clips = _from_parquet(path)
    elif path.is_dir() and any(os.path.isfile(video) and Path(video).parent == path for video in videos_below(path)):
        clips = [Clip(video, UNLABELLED) for video in sorted(videos_below(path))]
    if clips is not None:
        return tuple(clips), ()
    catalog = labelled()
    return catalog.clips, catalog.classes


def _from_csv(path: Path) -> list[Clip] | None:
    """None: it has labels, or no header."""
    rows = csv_rows(path)
    _, first = next(rows, (0, []))
    header = [cell.strip().lower() for cell in first]
    if "path" not in header or {"label", "class"} & set(header):
        return None
    clips = []
    for line, row in rows:
        cells = dict(zip(header, row, strict=False))
        where = f"{path}, line {line}"
        if not cells["path"]:
            raise DataError(f"{where}: no path")
        start, end = (seconds(where, cells.get(name, "")) for name in ("start", "end"))
        clips.append(Clip(beside(path.parent, cells["path"]), UNLABELLED, None, start, end))
    return clips


def _from_parquet(path: Path) -> list[Clip] | None:
    """None: it has labels."""
    import pyarrow
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        if "path" not in names or {"label", "class"} & {name.lower() for name in names}:
            return None
        found = table.read(columns=[name for name in ("path", "start", "end") if name in names]).to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: no Parquet file that can be read ({in_short(error)})") from error
    return [Clip(beside(path.parent, r["path"]), UNLABELLED, None, r.get("start"), r.get("end")) for r in found]
