"""What layouts share: their options, rows of a CSV, lines of a list, files of classes, and videos found by name."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import takewhile
from pathlib import Path

from msta.data.catalog import WHOLE, Catalog, Clip, Span
from msta.data.folders import Walk
from msta.data.names import is_number, letters
from msta.data.splits import restrict
from msta.data.text_tables import as_columns, csv_rows, open_text, tell_columns
from msta.data.video_file import VIDEO_EXTENSIONS
from msta.errors import DataError, in_short
from msta.notices import notice

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "validation": "val",
    "validate": "val",
    "valid": "val",
    "test": "test",
    "testing": "test",
}
SPLIT_NAMES = {word + end: split for word, split in _SPLIT_WORDS.items() for end in ("", "set", "_set", "-set", " set")}


@dataclass(frozen=True)
class Options:
    """Options of layouts. Each layout takes some of these; a run has them as settings ``data.NAME``. None: not given.

    - split_folders: whether folders called train, val or test are splits (true), or classes (false).
    - fold: for a table with a column fold, the fold to test on; the clips of the others are for training.
    - split_number: the official split, 1, 2 or 3.
    - annotations: the folder of the annotation files, if it is not that of the data.
    - labels: a CSV of ``id,name``. It names the labels in lists and CSVs. For every other layout it selects classes by
      name and orders them; the clips of other classes are left out.
    - train_list, val_list, test_list: lists of "path label", with paths inside the folder of the data.
    """

    split_folders: bool | None = None
    fold: int | str | None = None
    split_number: int | None = None
    annotations: Path | None = None
    labels: Path | None = None
    train_list: Path | None = None
    val_list: Path | None = None
    test_list: Path | None = None

    def given(self) -> list[str]:
        """Names of the options that are set."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


OPTIONS = tuple(field.name for field in fields(Options))


def list_lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, [all but the last word, the last word]) of each line that is not blank; one word gives [word]."""
    with open_text(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield number, line.strip().rsplit(None, 1)


_NAMES = (
    "name", "spelling", "class_name", "classname", "label_name", "class", "label", "category", "action", "text",
    "gesture", "activity", "class_label", "action_label", "names", "class_names", "classes", "labels", "categories",
    "actions", "gestures", "activities", "klasse", "klassen",
)  # fmt: skip
CLASS_COLUMNS = {
    "name": _NAMES,
    "id": ("id", "index", "idx", "class_id", "classid", "class_index", "label_id", "labelid", "number", "key", "folder",
           "dir", "directory", *_NAMES),
}  # fmt: skip
"""The columns of a file of class names, and the names that people give them. A second column of names is the id."""

LONGEST_NAME, LONGEST_PATH = 1000, 4096
"""Characters. What is longer is no class name, or no path."""


def class_table(rows: Sequence[Sequence[str]], needed: int = 2) -> tuple[dict[str, int], bool]:
    """("id" or "name" -> position, whether the first row is a header) of a file of class names.

    A header names ``needed`` columns, among them the name. Without a header the columns are id, name. Either way, if
    the names are numbers and the ids are not, the columns are exchanged.
    """
    found = as_columns(rows[0], CLASS_COLUMNS) or {}
    headed = "name" in found.values() and len(found) >= needed and (len(rows) > 1 or len(rows[0]) > 1)
    at = {column: i for i, column in found.items()} if headed else {"id": 0, "name": 1}
    body = rows[1:] if headed else rows
    if len(at) == 2 and _are_numbers(body, at["name"]) and not _are_numbers(body, at["id"]):
        at = {"id": at["name"], "name": at["id"]}
    return at, headed


def _are_numbers(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(column < len(row) and is_number(row[column]) for row in rows)


def read_classes(path: Path) -> dict[str, str] | None:
    """Read ``classes.csv``: id -> name, in its order; None if there is no file. Headers: :data:`CLASS_COLUMNS`."""
    if not path.is_file():
        return None
    rows = list(csv_rows(path))
    columns, headed = class_table([row for _, row in rows]) if rows else ({}, False)
    width = len(rows[0][1]) if headed else 2
    if headed:
        tell_columns(path, rows[0][1], {i: column for column, i in columns.items()})
    names: dict[str, str] = {}
    for line, row in rows[headed:]:
        cells = {column: row[i].strip() for column, i in columns.items() if i < len(row)}
        if len(row) > width or not (cells.get("id") and cells.get("name")):
            raise DataError(f"{path}, line {line}: expected id,name, got {in_short(','.join(row))!r}")
        if cells["id"] in names:
            raise DataError(f"{path}, line {line}: the id {in_short(cells['id'])!r} is there twice")
        names[cells["id"]] = cells["name"]
    if not names:
        raise DataError(f"{path}: no classes in it")
    return names


def are_spelled(path: Path) -> bool:
    """Whether the names in a ``classes.csv`` keep their spelling: their column is called ``spelling``, not ``name``."""
    if not path.is_file():
        return False
    header = next((row for _, row in csv_rows(path)), [])
    return "spelling" in [cell.strip().lower() for cell in header]


def given_classes(path: Path) -> dict[str, str]:
    """Like :func:`read_classes`, for a file that the user named, which must exist."""
    names = read_classes(path)
    if names is None:
        raise DataError(f"{path}: no such file; data.labels is a CSV of id,name")
    return names


def class_key(name: str) -> str:
    """A key that all spellings of a class name share, such as ``HandStand_Pushups`` and "handstand pushups"."""
    return letters(name).casefold().replace(" ", "") or name


def choose_classes(catalog: Catalog, labels: Path | None) -> Catalog:
    """The classes that a CSV of ``id,name`` lists, in its order and spelling; all classes if there is no CSV.

    Raises:
        DataError: it names a class that the data do not have.
    """
    if labels is None:
        return catalog
    names = list(given_classes(labels).values())
    exact = {name: label for label, name in enumerate(catalog.classes)}
    alike = {class_key(name): label for name, label in exact.items()}
    chosen: list[int] = []
    for name in names:
        label = exact.get(name, alike.get(class_key(name)))
        if label is None:
            raise DataError(
                f"{labels}: the class {in_short(name)!r} is not among the {len(exact)} of {catalog.source}, "
                f"{in_short(', '.join(catalog.classes[:3]))} …; labels and data disagree"
            )
        if label in chosen:
            both = " and ".join(repr(in_short(one)) for one in (names[chosen.index(label)], name))
            raise DataError(f"{labels}: {both} are one class in {catalog.source}")
        chosen.append(label)
    return replace(restrict(catalog, chosen), classes=tuple(names), spelled=True)


def seconds(where: str, text: str) -> float | None:
    """A time in a table; None for an empty cell."""
    if not text.strip():
        return None
    time = 0.0
    try:
        for part in text.split(":"):  # 84.5, 1:24.5, 00:01:24.5
            time = 60 * time + float(part)
    except ValueError:
        time = math.nan
    if not math.isfinite(time):
        raise DataError(f"{where}: expected a time in seconds, got {in_short(text)!r}")
    return time


# ---------------------------------------------------------------- videos found by name


@dataclass(frozen=True)
class Listed:
    """A clip in an annotation file. ``names`` are possible names of its video, with or without folder and extension."""

    names: tuple[str, ...]
    label: int
    split: str | None
    span: Span = WHOLE


class VideoFiles:
    """The video files below a folder, found by name: flat, in split folders or in class folders."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        walk = Walk(root, lambda error: notice(f"{error.filename}: {error.strerror}; the videos in it are not found."))
        for file in walk.videos():
            self._by_stem[_stem(file)].append(file)
        walk.tell()

    def __len__(self) -> int:
        return sum(map(len, self._by_stem.values()))

    def find(self, name: str, folder: str, *, sure: bool = False) -> str | None:
        """The file called ``name``. Of several, one whose path ends in ``name``, else one whose folder is ``folder``.

        If none fits, it is the first. With ``sure`` it is the one that shares most folders with ``name``, or None if
        several do.
        """
        found = self._by_stem.get(_stem(name), [])
        if len(found) < 2:
            return found[0] if found else None
        inner, key = os.path.splitext(os.path.normpath(name))[0], class_key(folder)
        fits = [file for file in found if os.path.splitext(file)[0].endswith(os.sep + inner)] if "/" in name else []
        fits = fits or [f for f in found if class_key(Path(f).parent.name) == key]
        if len(fits) == 1 or not sure:
            return (fits or found)[0]
        shared = {file: _in_common(inner, os.path.splitext(file)[0]) for file in found}
        best = [file for file in found if shared[file] == max(shared.values())]
        return best[0] if len(best) == 1 else None


def _in_common(a: str, b: str) -> int:
    """The number of last parts that two paths share."""
    pairs = zip(reversed(Path(a).parts), reversed(Path(b).parts), strict=False)
    return len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))


def _stem(name: str) -> str:
    stem, extension = os.path.splitext(os.path.basename(name))
    return stem if extension.lower() in VIDEO_EXTENSIONS else stem + extension


def gather(
    root: Path, classes: Sequence[str], listed: Iterable[Listed], labels: Path | None = None,
    files: VideoFiles | None = None,
) -> Catalog:  # fmt: skip
    """Find the files of the listed clips. Clips without a file become ``missing`` of the catalog.

    Args:
        root: the folder of the videos.
        classes: all classes of the data set.
        listed: in the order of the annotation files.
        labels: see :func:`choose_classes`.
        files: the video files below ``root``, if they are known already.

    Raises:
        DataError: no clip has a file.
    """
    files = VideoFiles(root) if files is None else files
    # The classes are chosen before the files are looked for: what is not wanted need not be there.
    every = list(listed)
    stand_in = tuple(Clip(str(i), one.label) for i, one in enumerate(every))
    chosen = choose_classes(Catalog(str(root), tuple(classes), stand_in), labels)
    clips, missing, known = [], [], set()
    for clip in chosen.clips:
        one = every[int(clip.path)]
        folder = classes[one.label]
        path = next((file for name in one.names if (file := files.find(name, folder))), None)
        if path is None:
            missing.append(Clip(one.names[0], clip.label, None, *one.span).name)
        elif (known_as := (path, clip.label, one.split, one.span)) not in known:  # lists repeat themselves
            known.add(known_as)
            clips.append(Clip(path, clip.label, one.split, *one.span))
    if not clips:
        example = f", {in_short(missing[0])} for one" if missing else ""
        raise DataError(
            f"{root}: not one of the {len(missing)} clips that its lists name is there{example}; {len(files)} "
            "other video files are. Give the folder that holds the videos, and that of the lists as data.annotations"
        )
    return Catalog(str(root), chosen.classes, tuple(clips), tuple(missing), chosen.spelled)


# ---------------------------------------------------------------- annotation files


def places(root: Path, annotations: Path | None, *folders: str) -> list[Path]:
    """Folders that may hold the annotation files: the given one, else that of the data and ``folders`` inside it.

    Raises:
        DataError: the folder that was given does not exist.
    """
    if annotations is not None:
        if not annotations.is_dir():
            raise DataError(f"{annotations}: no such folder; data.annotations holds the annotation files")
        return [annotations]
    return [place for place in (root, *(root / name for name in folders)) if place.is_dir()]


def first_file(where: Sequence[Path], *names: str) -> Path | None:
    """The first of ``names`` that is in one of the places."""
    return next((file for place in where for name in names if (file := place / name).is_file()), None)


def not_empty(file: Path, listed: Sequence[object]) -> None:
    """Refuse a list without clips.

    Raises:
        DataError: the list is empty.
    """
    if not listed:
        raise DataError(f"{file}: no clips in it, so its split would be empty; fetch the file again")
