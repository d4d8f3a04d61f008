"""``msta data index``: a catalog with the duration and frames of each clip, so that no folder is searched again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from rich.console import Console

from msta.data.catalog import Catalog, Clip, require_files, write_classes, write_parquet_rows, write_rows
from msta.data.decode import VideoInfo, probe
from msta.data.layouts.parts import read_classes, seconds
from msta.data.layouts.tables import CLASSES_KEY
from msta.data.processes import with_bar
from msta.data.storage import absolute
from msta.data.text_tables import csv_rows
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import ConfigError, DataError
from msta.files import refuse_existing, replacing

_AT_ONCE = 4096  # files handed to the threads
COLUMNS = {
    "path": "string", "class": "string", "split": "string", "start": "float64", "end": "float64",
    "duration": "float64", "frames": "int64",
}  # fmt: skip


def index(
    catalog: Catalog,
    out: Path,
    *,
    without: Path | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Open every file once, and write a table that :func:`read_catalog` reads.

    A Parquet file, or a CSV with a ``classes.csv`` beside it. Columns: path (absolute), class, split, start, end,
    duration [s], frames. The last two are those of the clip, from the header of the file, and empty if the file cannot
    be opened. Clips that the annotations list but the folder does not have are written to NAME.missing.txt, beside it.

    Args:
        catalog: what to write.
        out: a new file whose name ends in .parquet or .csv.
        without: a table with the columns path, start, end, whose clips are left out, such as a verification's
            ``broken.csv``.
        workers: files opened at a time; None: one per processor.
        console: where progress is shown; None: nowhere.

    Returns:
        "clips", "files", "classes", "missing", "seconds" (of video), and "unreadable", path -> reason.

    Raises:
        DataError, ConfigError, MSTAError: something cannot be read or written; the message is one line.
    """
    if out.suffix.lower() not in (".parquet", ".pq", ".csv"):
        raise ConfigError(f"--out: {out} ends in neither .parquet nor .csv")
    refuse_existing(out)
    if without is not None:
        catalog = _without(catalog, without)
    require_files(catalog)
    if out.suffix.lower() == ".csv":
        _check_classes_beside(catalog, out)
    files = list(dict.fromkeys(clip.path for clip in catalog.clips))
    found: dict[str, VideoInfo] = {}
    unreadable: dict[str, str] = {}
    probed = zip(files, _probe_all(files, workers), strict=True)
    for path, info in with_bar(probed, "opening files", len(files), console):
        if isinstance(info, VideoInfo):
            found[path] = info
        else:
            unreadable[path] = info
    total = 0.0  # seconds

    def rows() -> Iterator[list[Any]]:
        nonlocal total
        for clip in catalog.clips:
            row = _row(catalog, clip, found.get(clip.path))
            total += row[5] or 0.0
            yield row

    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix.lower() == ".csv":
        with replacing(out.with_name("classes.csv")) as aside:
            write_classes(aside, {name: name for name in catalog.classes})
        with replacing(out) as aside:
            write_rows(
                aside, chain([list(COLUMNS)], (["" if cell is None else cell for cell in row] for row in rows()))
            )
    else:
        try:
            with replacing(out) as aside:
                write_parquet_rows(aside, COLUMNS, rows(), {CLASSES_KEY: json.dumps(catalog.classes).encode()})
        except UnicodeEncodeError as error:
            raise DataError(f"{out}: a path is no UTF-8 text, which Parquet asks for; write a .csv") from error
    if catalog.missing:
        with replacing(out.with_name(f"{out.stem}.missing.txt")) as aside:
            aside.write_text("".join(f"{name}\n" for name in catalog.missing), "utf-8", "surrogateescape")
    return {
        "clips": len(catalog.clips),
        "files": len(files),
        "classes": len(catalog.classes),
        "missing": len(catalog.missing),
        "seconds": round(total, 1),
        "unreadable": unreadable,
    }


def _without(catalog: Catalog, table: Path) -> Catalog:
    if not table.is_file():
        raise DataError(f"{table}: no such file")
    columns: list[str] | None = None
    broken = set()
    for line, row in csv_rows(table):
        if columns is None:
            columns = row
            if "path" not in columns:
                raise DataError(f"{table}, line {line}: expected the columns path, start, end, found {','.join(row)!r}")
            continue
        cells = dict(zip(columns, row, strict=False))
        times = [seconds(f"{table}, line {line}", cells.get(name, "")) for name in ("start", "end")]
        broken.add((cells["path"], *times))
    kept = tuple(clip for clip in catalog.clips if (absolute(clip.path), *clip.span) not in broken)
    if not kept:
        raise DataError(f"{table}: lists every clip of {catalog.source}; none is left")
    return replace(catalog, clips=kept)


def _probe_all(files: Sequence[str], workers: int | None) -> Iterator[VideoInfo | str]:
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        for start in range(0, len(files), _AT_ONCE):
            yield from pool.map(_probe, files[start : start + _AT_ONCE])


def _probe(path: str) -> VideoInfo | str:
    try:
        return probe(path)
    except OutOfReach as error:
        raise DataError(str(error)) from error
    except DecodeError as error:
        return error.reason


def _row(catalog: Catalog, clip: Clip, info: VideoInfo | None) -> list[Any]:
    duration = frames = None
    if info is not None:
        end = info.duration if clip.end is None else min(clip.end, info.duration)
        duration = max(0.0, end - (clip.start or 0.0))
        if info.frames is not None and info.duration:
            frames = round(info.frames * duration / info.duration)
    return [absolute(clip.path), catalog.classes[clip.label], clip.split, *clip.span, duration, frames]


def _check_classes_beside(catalog: Catalog, out: Path) -> None:
    beside, source, place = out.with_name("classes.csv"), absolute(catalog.source), Path(absolute(out))
    if place.is_relative_to(source) or (
        os.path.isfile(source) and place.parent == Path(source).parent and not beside.exists()
    ):
        raise ConfigError(
            f"--out: {out} lies inside the data, where its classes.csv would be taken for the data's own; name another "
            "folder, or a .parquet"
        )
    if beside.exists() and read_classes(beside) != {name: name for name in catalog.classes}:
        raise ConfigError(f"--out: {beside} belongs to other data; choose another folder, or a .parquet")
