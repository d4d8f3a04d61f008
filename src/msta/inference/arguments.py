"""What a user names on a command line -> seconds, names, thresholds, videos and clips."""

from __future__ import annotations

import glob
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from msta.adapters.artefact import METRICS, adapter_in
from msta.adapters.hub import adapter_folder
from msta.data.catalog import Catalog, Clip
from msta.data.folders import is_system_folder, is_video, videos_in
from msta.data.layouts.tables import beside_table, columns_of, times_in
from msta.data.reading import check_range
from msta.data.text_tables import csv_rows, tell_columns
from msta.descriptions.labels import named_classes
from msta.errors import ConfigError, DataError, in_short
from msta.files import read_json
from msta.inference.live import is_live
from msta.inference.onnx_predictor import export_in
from msta.notices import notice

_UNITS = {"": 1.0, "s": 1.0, "ms": 0.001, "m": 60.0, "min": 60.0}
UNLABELLED = -1
_OF_CLIPS = ("path", "label", "start", "end", "duration")


def parse_seconds(text: str, option: str) -> float:
    """ "2s", "500ms", "1.5", "2m" -> seconds. Raises ConfigError for anything else."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)\s*([a-z]*)", text.strip().lower())
    if not found or found[2] not in _UNITS:
        raise ConfigError(f"{option}: expected a time such as 2s or 500ms, got {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def adapter_names(adapters: Sequence[Path]) -> list[str]:
    """Short names of adapters: the folders of their runs if these differ, else their paths.

    Raises ConfigError if one is given twice.
    """
    adapters = [adapter_in(adapter) for adapter in adapters]
    if len(set(adapters)) < len(adapters):
        raise ConfigError(f"--adapter: {next(a for a in adapters if adapters.count(a) > 1)} is given twice")
    names = [(a.parent if a.name == "adapter" else a).name for a in adapters]
    return names if len(set(names)) == len(names) and all(names) else [str(a) for a in adapters]


def class_names(text: str) -> list[str]:
    """The classes to choose among, see :func:`named_classes`. Raises what it does, and ConfigError for one alone."""
    names = named_classes(text)
    if len(names) < 2:
        raise ConfigError(f"--labels: there is only one class, {names[0]!r}; give two or more")
    return list(names)


def unknown_threshold(text: str, adapter: Path | None) -> float:
    """The confidence below which a clip is of no known class: a number, or "val", the one that the training chose.

    Raises ConfigError if it is neither, or if the adapter was trained without validation clips.
    """
    if text == "val":
        if adapter is None:
            raise ConfigError(
                "--unknown-below val: goes with --adapter, whose validation clips chose it; give a number"
            )
        if export_in(adapter) is not None:
            raise ConfigError(f"--unknown-below val: {adapter} is exported, without the threshold; give a number")
        if (chosen := chosen_threshold(adapter)) is None:
            raise ConfigError(f"--unknown-below val: {adapter} was trained without validation clips; give a number")
        return chosen
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise ConfigError(f"--unknown-below: expected a probability from 0 to 1, or val, got {text!r}")
    return value


def chosen_threshold(adapter: Path) -> float | None:
    """The threshold that the training of an adapter chose, or None. Raises DataError if metrics.json is missing."""
    chosen = read_json(adapter_folder(adapter) / METRICS, DataError).get("unknown_below")
    return float(chosen) if isinstance(chosen, int | float) else None


# ---------------------------------------------------------------- videos


def find_videos(names: Sequence[str]) -> list[str]:
    """Files, folders, patterns, streams and webcams -> videos.

    A folder gives all videos in it and a pattern all files that match it, sorted. An existing file is never taken for
    a pattern. A file that does not exist is kept, and reading it is an error.

    Raises:
        DataError: a folder has no videos, or a pattern matches nothing.
    """
    return [video for name in names for video in _find(name)]


def _find(name: str) -> Iterator[str]:
    if is_live(name) or os.path.isfile(name):
        yield name
    elif os.path.isdir(name):
        videos = videos_in(name)
        if not videos:
            raise DataError(f"{name}: no video files in this folder")
        yield from videos
    elif glob.has_magic(name):
        matches = sorted(match for match in glob.glob(name, recursive=True) if not _in_a_system_folder(match, name))
        if not matches:
            raise DataError(f"{name}: no file matches")
        each = (videos_in(match) if os.path.isdir(match) else [match] for match in matches)
        found: dict[str, str] = {}  # ** matches a file, and the folders that it is in
        for video in (video for videos in each for video in videos):
            found.setdefault(os.path.normpath(video), video)
        yield from found.values()
    else:
        yield name


def _in_a_system_folder(match: str, pattern: str) -> bool:
    """Whether a system's own folder, which the pattern does not name, holds a file or is it."""
    named = Path(pattern).parts
    system = [part for part in Path(match).parts if is_system_folder(part) and part not in named]
    if system:
        notice(f"{pattern}: skips {system[0]}, the system's own.")
    return bool(system)


# ---------------------------------------------------------------- clips


def read_clips(
    path: Path, read_labelled: Callable[[], Catalog], layout: str | None = None
) -> tuple[tuple[Clip, ...], tuple[str, ...]]:
    """The clips to predict, and the names of their classes. Clips without labels have label -1 and no class names.

    Args:
        path: a CSV or Parquet file with a column path, but without label or class, and optionally start and end [s];
            or a folder with videos directly in it. Anything else is a labelled data set.
        read_labelled: reads the data set.
        layout: of a labelled data set, if the user has said so.

    Raises:
        DataError: it cannot be read, or there is nothing in it.
    """
    suffix = path.suffix.lower()
    clips: list[Clip] | None = None
    if layout is not None:
        pass
    elif path.is_file() and suffix == ".csv":
        clips = _clips_from_csv(path)
    elif path.is_file() and suffix in (".parquet", ".pq"):
        clips = _clips_from_parquet(path)
    elif path.is_dir() and any(is_video(entry.name) and entry.is_file() for entry in os.scandir(path)):
        clips = [Clip(video, UNLABELLED) for video in videos_in(path)]
    if clips is not None:
        return tuple(clips), ()
    catalog = read_labelled()
    return catalog.clips, catalog.classes


def _clips_from_csv(path: Path) -> list[Clip] | None:
    """None if the file has labels or no header."""
    rows = csv_rows(path)
    _, first = next(rows, (0, []))
    columns = {i: column for i, column in columns_of(first).items() if column in _OF_CLIPS}
    if "path" not in columns.values() or "label" in columns.values():
        return None
    tell_columns(path, first, columns)
    clips = []
    for line, row in rows:
        cells = {column: row[i] for i, column in columns.items() if i < len(row)}
        clips.append(_clip(path, f"line {line}", cells))
    return clips


def _clips_from_parquet(path: Path) -> list[Clip] | None:
    """None if the file has labels."""
    import pyarrow
    import pyarrow.parquet as pq

    try:
        table = pq.ParquetFile(path)
        names = table.schema_arrow.names
        columns = {c: names[i] for i, c in columns_of(names).items() if c in _OF_CLIPS}
        if "path" not in columns or "label" in columns:
            return None
        read = table.read(columns=list(columns.values())).to_pylist()
        rows = [{column: row[name] for column, name in columns.items()} for row in read]
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: cannot be read as a Parquet file ({in_short(error)})") from error
    return [_clip(path, f"row {number}", cells) for number, cells in enumerate(rows, 1)]


def _clip(table: Path, place: str, cells: Mapping[str, Any]) -> Clip:
    """The clip in a row of a table. Raises DataError if it has no path, or a range that cannot be."""
    where = f"{table}, {place}"
    texts = {column: "" if cell is None else str(cell) for column, cell in cells.items()}
    if not texts.get("path", "").strip():
        raise DataError(f"{where}: no path")
    clip = Clip(beside_table(table, texts["path"]), UNLABELLED, None, *times_in(where, texts))
    check_range(where, clip)
    return clip
