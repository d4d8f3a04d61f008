"""Something-Something v2: labels.json, train.json and validation.json with templates; videos as 12345.webm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from msta.data.catalog import Catalog
from msta.data.layouts.parts import Listed, Options, first_file, gather, not_empty, places
from msta.errors import DataError, in_short
from msta.files import read_any_json, read_json

FOLDERS = ("labels", "annotations")
_PREFIXES = ("", "something-something-v2-")  # as they have been handed out over the years


def looks_like(path: Path) -> bool:
    """Whether the folder has these files."""
    where = places(path, None, *FOLDERS) if path.is_dir() else []
    return _file(where, "labels") is not None and _file(where, "train") is not None


def read(root: Path, options: Options) -> Catalog:
    """Classes in the order of labels.json: the templates without their brackets. The validation set is read as "test".

    The list of the test set has no labels, and the field reports on the validation set.
    """
    where = places(root, options.annotations, *FOLDERS)
    index = _file(where, "labels")
    if index is None:
        raise DataError(f"{where[0]}: no labels.json; give the folder of Something-Something's lists, data.annotations")
    numbers = read_json(index, DataError)
    if not all(str(number).isdecimal() for number in numbers.values()):
        raise DataError(f"{index}: expected class -> number")
    classes = sorted(numbers, key=lambda name: float(numbers[name]))
    labels = {name: label for label, name in enumerate(classes)}
    listed: list[Listed] = []
    for part, split in (("train", "train"), ("validation", "test")):
        file = _file(where, part)
        if file is None:
            if part == "train":
                raise DataError(f"{index.parent}: no train.json")
            continue
        entries = read_any_json(file, DataError)
        if not isinstance(entries, list):
            raise DataError(f"{file}: expected a list of clips")
        clips = [_clip(file, number, entry, split, labels) for number, entry in enumerate(entries, 1)]
        not_empty(file, clips)
        listed += clips
    return gather(root, classes, listed, options.labels)


def _clip(file: Path, number: int, entry: Any, split: str, labels: dict[str, int]) -> Listed:
    if not isinstance(entry, dict) or not {"id", "template"} <= entry.keys():
        raise DataError(f"{file}, entry {number}: expected id and template, got {str(entry)[:80]!r}")
    name = str(entry["template"]).replace("[", "").replace("]", "")
    if name not in labels:
        raise DataError(
            f"{file}, entry {number}: the template {in_short(name)!r} is not in labels.json; the files disagree"
        )
    return Listed((str(entry["id"]),), labels[name], split)


def _file(where: list[Path], part: str) -> Path | None:
    return first_file(where, *(f"{prefix}{part}.json" for prefix in _PREFIXES))
