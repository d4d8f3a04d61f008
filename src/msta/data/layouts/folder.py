"""A folder with a sub-folder a class, itself or inside ``train/``, ``val/``, ``test/``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msta.data.catalog import Catalog, Clip, class_text
from msta.data.decode import VIDEO_EXTENSIONS
from msta.data.layouts.options import Options
from msta.data.layouts.parts import SPLIT_NAMES, choose_classes, read_classes
from msta.errors import DataError
from msta.notices import notice


def read(root: Path, options: Options) -> Catalog:
    """See :func:`msta.data.reading.read_catalog`."""
    if not root.is_dir():
        raise DataError(f"{root}: a file; the layout folder is read from a folder")
    children = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))
    splits = {name: SPLIT_NAMES[name.lower()] for name in children if name.lower() in SPLIT_NAMES}
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
    names = read_classes(root / "classes.csv")
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
    return choose_classes(Catalog(str(root), classes, tuple(clips)), options.labels)


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
