"""A folder with a sub-folder a class, itself or inside ``train/``, ``val/``, ``test/``."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from msta.data.catalog import Catalog, Clip
from msta.data.layouts.options import Options
from msta.data.layouts.parts import SPLIT_NAMES, are_spelled, choose_classes, read_classes
from msta.data.names import class_words
from msta.data.video_file import SYSTEM_FOLDERS, VIDEO_EXTENSIONS, is_system_folder
from msta.errors import DataError
from msta.notices import notice


def read(root: Path, options: Options) -> Catalog:
    """See :func:`msta.data.reading.read_catalog`."""
    if not root.is_dir():
        raise DataError(f"{root}: a file; the layout folder is read from a folder")
    everything = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    children = [name for name in everything if not is_system_folder(name)]
    if skipped := [name for name in everything if name in SYSTEM_FOLDERS]:
        notice(f"{root}: skips {', '.join(skipped)}, the system's own.")
    splits = {name: SPLIT_NAMES[name.lower()] for name in children if name.lower() in SPLIT_NAMES}
    parts: list[tuple[Path, str | None]] = [(root / name, split) for name, split in splits.items()] or [(root, None)]
    if splits and set(children) - set(splits):
        notice(f"{root}: only its split folders are read, not {', '.join(sorted(set(children) - set(splits))[:3])}")
    folders = [
        (part / entry.name, split)
        for part, split in parts
        for entry in sorted(os.scandir(part), key=lambda e: e.name)
        if entry.is_dir() and not is_system_folder(entry.name)
    ]
    if not folders:
        raise DataError(f"{root}: expected a sub-folder for each class, found none")
    ids = sorted({folder.name for folder, _ in folders})
    names = read_classes(root / "classes.csv")
    if names is None:
        classes = tuple(class_words(i) for i in ids)
        labels = {i: label for label, i in enumerate(ids)}
    else:
        classes = tuple(names.values())
        labels = _match_folders(names, ids, root / "classes.csv")
    clips = [Clip(str(file), labels[folder.name], split) for folder, split in folders for file in _videos(folder)]
    empty = sorted({labels[i] for i in ids} - {clip.label for clip in clips})
    if clips and empty:
        raise DataError(f"{root}: no clips for the class {classes[empty[0]]!r}: its folder has no video files")
    spelled = are_spelled(root / "classes.csv")
    return choose_classes(Catalog(str(root), classes, tuple(clips), spelled=spelled), options.labels)


def _match_folders(names: dict[str, str], folders: Sequence[str], file: Path) -> dict[str, int]:
    """Folder -> label. A folder belongs to the row whose id it is called, else to the row with its name."""
    by_id = {key: label for label, key in enumerate(names)}
    by_name = {class_words(name).casefold(): label for label, name in enumerate(names.values())}
    labels = {}
    for folder in folders:
        label = by_id.get(folder, by_name.get(class_words(folder).casefold()))
        if label is None:
            raise DataError(f"{file}: has no row for the folder {folder!r}")
        labels[folder] = label
    return labels


def _videos(folder: Path) -> Iterator[Path]:
    """Video files below a folder, sorted, by extension; anything else is mentioned, hidden files are not."""
    others = []
    for directory, below, files in os.walk(folder, onerror=_raise):
        below[:] = sorted(name for name in below if not is_system_folder(name))
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
