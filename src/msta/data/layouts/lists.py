"""Lists of "path label", in which ActionCLIP, ViFi-CLIP and later papers publish their splits."""

from __future__ import annotations

from pathlib import Path

from msta.data.catalog import Catalog, Clip
from msta.data.folders import is_video
from msta.data.layouts.parts import Listed, Options, gather, given_classes, list_lines, not_empty
from msta.data.layouts.tables import Labels, beside_table, classes_of
from msta.data.names import class_words
from msta.errors import DataError, in_short


def looks_like(path: Path) -> bool:
    """Whether a file is a list, by its name and first line. A folder is only read by lists that the user names."""
    if not path.is_file() or path.suffix.lower() not in (".txt", ".list", ".lst"):
        return False
    _, words = next(list_lines(path), (0, [""]))
    return "," not in words[-1]


def read(path: Path, options: Options) -> Catalog:
    """Read one list, with paths relative to it and no splits; or a folder of videos with ``train_list`` and so on.

    Labels are numbers or names; ``labels`` gives the names for numbers. In a folder the videos are found by name
    anywhere. For a single list it is not checked that the files exist.
    """
    lists = {"train": options.train_list, "val": options.val_list, "test": options.test_list}
    if path.is_dir() and not any(lists.values()):
        raise DataError(f"{path}: a folder; give the list of its videos, data.train_list and data.test_list")
    if path.is_file() and any(lists.values()):
        raise DataError(f"{path}: a file; with data.train_list and the like the data are the folder of the videos")
    given: dict[str | None, Path] = {split: file for split, file in lists.items() if file}
    given = given or {None: path}
    rows = [(file, split, *row) for split, file in given.items() for row in _rows(file)]
    if options.labels is not None:
        names = given_classes(options.labels)
    else:
        found = classes_of(rows[0][0], {(label, "") for *_, label in rows})
        names = {label: class_words(label) for label in found}
    labels = Labels(names, str(options.labels))
    listed = [
        Listed((name,), labels.of(f"{file}, line {line}", label), split) for file, split, line, name, label in rows
    ]
    classes = tuple(names.values())
    if path.is_file():
        clips = tuple(Clip(beside_table(path, one.names[0]), one.label) for one in listed)
        return Catalog(str(path), classes, clips, spelled=options.labels is not None)
    return gather(path, classes, listed)


def _rows(file: Path) -> list[tuple[int, str, str]]:
    """(line number, path, label)."""
    rows = []
    for line, words in list_lines(file):
        if len(words) != 2:
            raise DataError(f"{file}, line {line}: expected a path and a label, got {in_short(words[0])!r}")
        if is_video(words[0].split()[0]) and not is_video(words[0]):
            raise DataError(f"{file}, line {line}: a label of several words; write numbers, with data.labels, or a CSV")
        rows.append((line, words[0], words[1]))
    not_empty(file, rows)
    return rows
