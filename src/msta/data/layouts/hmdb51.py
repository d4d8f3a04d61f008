"""HMDB-51: brush_hair_test_split1.txt and so on, lines of "file.avi tag": 1 is training, 2 is test, 0 is left out."""

from __future__ import annotations

import re
from pathlib import Path

from msta.data.catalog import Catalog
from msta.data.layouts.parts import Listed, Options, gather, list_lines, not_empty, places
from msta.data.names import class_words
from msta.errors import DataError, in_short

FOLDERS = ("testTrainMulti_7030_splits", "test_train_splits/testTrainMulti_7030_splits", "test_train_splits",
           "annotations", "splits")  # fmt: skip
_TAGS = {"0": None, "1": "train", "2": "test"}
_NAME = re.compile(r"(.+)_test_split(\d+)\.txt")


def looks_like(path: Path) -> bool:
    """Whether the folder has these lists."""
    return path.is_dir() and any(any(place.glob("*_test_split1.txt")) for place in places(path, None, *FOLDERS))


def read(root: Path, options: Options) -> Catalog:
    """Classes in alphabetical order, as words; split ``split_number``, by default 1."""
    number = options.split_number or 1
    where = places(root, options.annotations, *FOLDERS)
    files: dict[int, dict[str, Path]] = {}
    for place in where:
        for file in sorted(place.glob("*_test_split*.txt")):
            if parts := _NAME.fullmatch(file.name):
                files.setdefault(int(parts[2]), {}).setdefault(parts[1], file)
    if number not in files:
        there = ", ".join(map(str, sorted(files)))
        hint = f"data.split_number may be {there}" if there else "give the folder of HMDB-51's lists, data.annotations"
        raise DataError(f"{where[0]}: no *_test_split{number}.txt; {hint}")
    classes = sorted({name for split in files.values() for name in split})
    if lacking := [name for name in classes if name not in files[number]]:
        raise DataError(f"{where[0]}: the class {lacking[0]!r} has lists, but no {lacking[0]}_test_split{number}.txt")
    listed: list[Listed] = []
    for label, name in enumerate(classes):
        file = files[number][name]
        clips = [(line, words) for line, words in list_lines(file)]
        not_empty(file, clips)
        for line, words in clips:
            if len(words) != 2 or words[1] not in _TAGS:
                raise DataError(
                    f"{file}, line {line}: expected a file and 0, 1 or 2, got {in_short(' '.join(words))!r}"
                )
            if split := _TAGS[words[1]]:
                listed.append(Listed((f"{name}/{words[0]}",), label, split))
    for split in ("train", "test"):
        with_clips = {one.label for one in listed if one.split == split}
        if without := [name for label, name in enumerate(classes) if label not in with_clips]:
            raise DataError(f"{files[number][without[0]]}: no clips of the class for the {split} split")
    return gather(root, [class_words(name) for name in classes], listed, options.labels)
