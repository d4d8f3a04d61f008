"""ActivityNet: a JSON of videos and their segments. A clip is a time range of a long video, v_ID.mp4 or ID.mp4."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msta.data.catalog import Catalog
from msta.data.layouts.parts import Listed, Options, gather, not_empty, places
from msta.data.text_tables import as_utf8
from msta.errors import DataError, in_short
from msta.files import read_json
from msta.notices import notice

FOLDERS = ("annotations", "splits")
_SPLITS = {"training": "train", "train": "train", "validation": "test", "val": "test"}


def looks_like(path: Path) -> bool:
    """Whether the folder has a JSON file with a "database"."""
    return path.is_dir() and _annotations(places(path, None, *FOLDERS)) is not None


def read(root: Path, options: Options) -> Catalog:
    """Classes in alphabetical order. The validation set is read as "test": the labels of the test set are not public.

    Segments are cut off at the end of their video. Empty and repeated segments are left out with a notice.
    """
    where = places(root, options.annotations, *FOLDERS)
    file = _annotations(where)
    if file is None:
        raise DataError(f'{where[0]}: no JSON with a "database"; give the folder of ActivityNet\'s, data.annotations')
    database = read_json(file, DataError).get("database")
    if not isinstance(database, dict):
        raise DataError(f'{file}: expected an object under "database"')
    segments: dict[tuple[str, float, float], tuple[str, str]] = {}
    odd = 0
    for video, entry in database.items():
        split, duration, annotations = _entry(file, video, entry)
        if split is None:
            continue
        for start, end, name in annotations:
            start, end = max(start, 0.0), min(end, duration) if duration else end
            if end <= start or (video, start, end) in segments:
                odd += 1
            else:
                segments[video, start, end] = (name, split)
    not_empty(file, list(segments))
    if odd:
        notice(f"{file}: {odd} segments have no length, or repeat another; they are left out")
    classes = sorted({name for name, _ in segments.values()})
    labels = {name: label for label, name in enumerate(classes)}
    listed = [
        Listed((f"v_{video}", video), labels[name], split, (start, end))
        for (video, start, end), (name, split) in segments.items()
    ]
    return gather(root, classes, listed, options.labels)


def _entry(file: Path, video: str, entry: Any) -> tuple[str | None, float, list[tuple[float, float, str]]]:
    """(split, duration, [(start, end, class)]); the split is None for the test set, which has no annotations."""
    try:
        subset, annotations = str(entry["subset"]).lower(), entry["annotations"]
        split = None if subset.startswith("test") else _SPLITS[subset]
        parts = [(float(a["segment"][0]), float(a["segment"][1]), str(a["label"])) for a in annotations]
        return split, float(entry.get("duration") or 0), parts
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(
            f"{file}: the video {in_short(video)!r} lacks what ActivityNet says of one: subset, annotations of segment "
            "and label"
        ) from error


def _annotations(where: list[Path]) -> Path | None:
    """The newest version, by name, of the files that contain "database" in their first or last thousand characters."""
    for place in where:
        for file in sorted(place.glob("*.json"), reverse=True):
            with file.open("rb") as stream:
                head = stream.read(1000)
                stream.seek(max(0, file.stat().st_size - 1000))
                if b'"database"' in as_utf8(head + stream.read()):
                    return file
    return None
