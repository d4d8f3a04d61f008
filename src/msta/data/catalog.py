"""Catalog: which clips there are, of which class, in which split. Read from folders or a CSV."""

from __future__ import annotations

import csv
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msta.data.decode import VIDEO_EXTENSIONS
from msta.errors import DataError, is_text
from msta.notices import notice

SPLITS = ("train", "val", "test")
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "valid": "val",
    "test": "test",
}


@dataclass(frozen=True)
class Clip:
    """One labelled video file. ``label`` indexes the catalog's classes; ``split`` is None where none is given."""

    path: str
    label: int
    split: str | None = None


@dataclass(frozen=True)
class Catalog:
    """A data set: class names as text, and clips."""

    source: str
    classes: tuple[str, ...]
    clips: tuple[Clip, ...] = field(repr=False)

    @property
    def has_splits(self) -> bool:
        """Whether the data came with splits of its own."""
        return any(clip.split for clip in self.clips)

    def counts(self) -> list[int]:
        """Clips a class."""
        counter = Counter(clip.label for clip in self.clips)
        return [counter[i] for i in range(len(self.classes))]


def read_catalog(path: str | os.PathLike[str]) -> Catalog:
    """Read a data set.

    Args:
        path: a folder with a sub-folder a class, itself or inside ``train/``, ``val/``, ``test/``; or a CSV with the
            columns path, label and, if there are splits, split (paths relative to the CSV). A ``classes.csv`` with
            ``id,name`` beside the classes says how they are called and in which order: an id is a folder's name or
            the label in the CSV.

    Raises:
        DataError: one line that names the file, folder, line or class at fault.
    """
    path = Path(path).expanduser()
    try:
        if path.is_dir():
            catalog = _read_folder(path)
        elif path.is_file():
            catalog = _read_csv(path)
        else:
            raise DataError(f"{path}: no such folder or CSV file")
    except OSError as error:
        raise DataError(f"{error.filename or path}: {error.strerror}") from error
    except UnicodeError as error:
        raise DataError(f"{path}: no UTF-8 text") from error
    _check(catalog)
    return catalog


def class_text(name: str) -> str:
    """A folder's name as words: ``swipe_left`` -> "swipe left", ``ApplyEyeMakeup`` -> "Apply Eye Makeup"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", re.sub(r"[_\-\s]+", " ", name))
    return words.strip() or name


def _check(catalog: Catalog) -> None:
    if not catalog.clips:
        raise DataError(f"{catalog.source}: no video files in it")
    seen: set[str] = set()
    for name in catalog.classes:
        if name.casefold() in seen:
            raise DataError(f"{catalog.source}: two classes are called {name!r}; text could not tell them apart")
        seen.add(name.casefold())
        if not is_text(name):
            raise DataError(f"{catalog.source}: the class {name!r} is no valid text; rename its folder")
    paths: set[str] = set()
    for clip in catalog.clips:
        if (path := os.path.abspath(clip.path)) in paths:
            raise DataError(f"{catalog.source}: {path} is listed twice")
        paths.add(path)


# ---------------------------------------------------------------- folders


def _read_folder(root: Path) -> Catalog:
    children = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    splits = {name: _SPLIT_NAMES[name.lower()] for name in children if name.lower() in _SPLIT_NAMES}
    parts: list[tuple[Path, str | None]] = [(root / name, split) for name, split in splits.items()] or [(root, None)]
    if splits and set(children) - set(splits):
        notice(f"{root}: only its split folders are read, not {', '.join(sorted(set(children) - set(splits))[:3])}")
    folders = [
        (part / entry.name, split)
        for part, split in parts
        for entry in sorted(os.scandir(part), key=lambda e: e.name)
        if entry.is_dir() and not entry.name.startswith(".")
    ]
    if not folders:
        raise DataError(f"{root}: expected a sub-folder for each class, found none")
    ids = sorted({folder.name for folder, _ in folders})
    names = _read_classes(root / "classes.csv")
    if names is None:
        classes = tuple(class_text(i) for i in ids)
        labels = {i: label for label, i in enumerate(ids)}
    else:
        classes = tuple(names.values())
        labels = _match_folders(names, ids, root / "classes.csv")
    clips = [Clip(str(file), labels[folder.name], split) for folder, split in folders for file in _videos(folder)]
    empty = sorted({labels[i] for i in ids} - {clip.label for clip in clips})
    if clips and empty:
        raise DataError(f"{root}: no clips for the class {classes[empty[0]]!r}: its folder has no video files")
    return Catalog(str(root), classes, tuple(clips))


def _match_folders(names: dict[str, str], folders: Sequence[str], file: Path) -> dict[str, int]:
    """Folder -> label. A folder belongs to the row whose id it is called, else to the row with its name."""
    by_id = {key: label for label, key in enumerate(names)}
    by_name = {class_text(name).casefold(): label for label, name in enumerate(names.values())}
    labels = {}
    for folder in folders:
        label = by_id.get(folder, by_name.get(class_text(folder).casefold()))
        if label is None:
            raise DataError(f"{file}: has no row for the folder {folder!r}")
        labels[folder] = label
    return labels


def _videos(folder: Path) -> Iterator[Path]:
    """Video files below a folder, sorted, by extension; anything else is mentioned, hidden files are not."""
    others = []
    for directory, below, files in os.walk(folder, onerror=_raise):
        below.sort()
        for name in sorted(files):
            if name.startswith("."):
                continue
            if os.path.splitext(name)[1].lower() in VIDEO_EXTENSIONS:
                yield Path(directory) / name
            else:
                others.append(name)
    if others:
        notice(f"{folder}: {len(others)} file(s) that are no video by their extension are left out: {others[0]!r} …")


def _raise(error: OSError) -> None:
    raise error


# ---------------------------------------------------------------- CSV


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every row that is not blank."""
    with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.reader(file)
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _read_classes(path: Path) -> dict[str, str] | None:
    """``classes.csv``: id -> name, in the file's order; None without the file."""
    if not path.is_file():
        return None
    names: dict[str, str] = {}
    for line, row in _rows(path):
        cells = [cell.strip() for cell in row]
        if not names and [cell.lower() for cell in cells] == ["id", "name"]:
            continue
        if len(cells) != 2 or not all(cells):
            raise DataError(f"{path}, line {line}: expected id,name, got {','.join(row)!r}")
        if cells[0] in names:
            raise DataError(f"{path}, line {line}: the id {cells[0]!r} is there twice")
        names[cells[0]] = cells[1]
    if not names:
        raise DataError(f"{path}: no classes in it")
    return names


def _read_csv(path: Path) -> Catalog:
    names = _read_classes(path.parent / "classes.csv") if path.name != "classes.csv" else None
    columns = ["path", "label", "split"]  # split may be missing
    rows: list[tuple[int, dict[str, str]]] = []
    for line, row in _rows(path):
        header = [cell.strip().lower() for cell in row]
        if not rows and "path" in header and "label" in header:
            columns = header
            continue
        if not rows and len(header) > 1 and header[1] in ("label", "class"):
            raise DataError(f"{path}, line {line}: expected the columns path,label, found {','.join(row)!r}")
        cells = dict(zip(columns, row, strict=False))
        if len(row) > len(columns) or not {"path", "label"} <= cells.keys():
            raise DataError(f"{path}, line {line}: expected {','.join(columns)}, separated by commas, got {row}")
        rows.append((line, cells))
    if not rows:
        raise DataError(f"{path}: no clips in it")
    if names is None:
        found = sorted({row["label"].strip() for _, row in rows}, key=_numbers_in_order)
        if all(label.isdecimal() for label in found):
            notice(f"{path}: labels are numbers and there is no classes.csv beside it; prompts will say the numbers.")
        names = {label: class_text(label) for label in found}
    clips = [_csv_clip(path, line, row, names) for line, row in rows]
    return Catalog(str(path), tuple(names.values()), tuple(clips))


def _csv_clip(file: Path, line: int, row: dict[str, str], names: dict[str, str]) -> Clip:
    ids, texts = list(names), list(names.values())
    label = row["label"].strip()
    if label in names:
        index = ids.index(label)
    elif label in texts:
        index = texts.index(label)
    else:
        raise DataError(f"{file}, line {line}: the label {label!r} is not among the {len(ids)} of classes.csv")
    split = row.get("split", "").strip().lower()
    if split and split not in _SPLIT_NAMES:
        raise DataError(f"{file}, line {line}: the split {split!r} is none of {', '.join(SPLITS)}")
    if not row["path"]:
        raise DataError(f"{file}, line {line}: no path")
    return Clip(str(file.parent / row["path"]), index, _SPLIT_NAMES[split] if split else None)


def _numbers_in_order(label: str) -> tuple[int, str]:
    return (int(label), "") if label.isdecimal() else (1 << 62, label)


def write_catalog(path: Path, classes: Sequence[str], clips: Sequence[Clip]) -> None:
    """Write what :func:`read_catalog` takes back: a CSV with absolute paths, and ``classes.csv`` beside it."""

    def write(file: Path, rows: Iterable[Sequence[object]]) -> None:
        with file.open("w", newline="", encoding="utf-8", errors="surrogateescape") as stream:
            csv.writer(stream).writerows(rows)

    write(path.with_name("classes.csv"), [("id", "name"), *enumerate(classes)])
    write(path, [("path", "label", "split"), *((os.path.abspath(c.path), c.label, c.split or "") for c in clips)])
