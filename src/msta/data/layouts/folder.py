"""A folder with one sub-folder per class, itself or inside ``train/``, ``val/``, ``test/``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from msta.data.catalog import Catalog, Clip
from msta.data.folders import Walk, is_video
from msta.data.layouts.parts import SPLIT_NAMES, Options, are_spelled, choose_classes, read_classes
from msta.data.names import class_words
from msta.errors import ConfigError, DataError, in_short
from msta.notices import notice

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".parquet")


def read(root: Path, options: Options) -> Catalog:
    """See :func:`msta.data.reading.read_catalog`."""
    if not root.is_dir():
        raise DataError(f"{root}: a file; the layout folder is read from a folder")
    walk = Walk(root)
    splits = _split_folders(walk, options.split_folders)
    parts: list[tuple[Path, str | None]] = [(root / name, split) for name, split in splits.items()] or [(root, None)]
    folders = [(part / name, split) for part, split in parts for name in walk.folders(part)]
    if not folders:
        raise DataError(f"{root}: expected a sub-folder for each class, found none")
    ids = sorted({folder.name for folder, _ in folders})
    if len(ids) == 1:
        _refuse_tables(root, ids[0])
    names = read_classes(root / "classes.csv")
    if names is None:
        classes = tuple(class_words(i) for i in ids)
        labels = {i: label for label, i in enumerate(ids)}
    else:
        classes = tuple(names.values())
        labels = _match_folders(names, ids, root / "classes.csv")
    clips = [Clip(str(file), labels[folder.name], split) for folder, split in folders for file in _videos(walk, folder)]
    walk.tell()
    empty = sorted({labels[i] for i in ids} - {clip.label for clip in clips})
    if clips and empty:
        raise DataError(f"{root}: no clips for the class {classes[empty[0]]!r}: its folder has no video files")
    spelled = are_spelled(root / "classes.csv")
    return choose_classes(Catalog(str(root), classes, tuple(clips), spelled=spelled), options.labels)


def _refuse_tables(root: Path, folder: str) -> None:
    """Refuse a table beside the only folder, because the table probably has the labels."""
    tables = sorted(file.name for file in root.iterdir() if file.suffix.lower() in _TABLES)
    if others := [name for name in tables if name != "classes.csv"]:
        raise DataError(
            f"{root}: {folder!r} would be the only class, though {in_short(', '.join(others))} beside it may have the "
            f"labels; give the table itself, --data {root / others[0]}, or another folder"
        )


def _match_folders(names: dict[str, str], folders: Sequence[str], file: Path) -> dict[str, int]:
    """Folder -> label. A folder belongs to the row whose id is its name, else to the row whose name is its name."""
    by_id = {key: label for label, key in enumerate(names)}
    by_name = {class_words(name).casefold(): label for label, name in enumerate(names.values())}
    labels = {}
    for folder in folders:
        label = by_id.get(folder, by_name.get(class_words(folder).casefold()))
        if label is None:
            raise DataError(f"{file}: has no row for the folder {folder!r}")
        labels[folder] = label
    return labels


def _split_folders(walk: Walk, wanted: bool | None) -> dict[str, str]:
    """The folders of the root that are splits -> their splits; empty if the folders are classes.

    Raises:
        ConfigError: it could be either.
    """
    children = walk.folders()
    splits = {name: SPLIT_NAMES[name.lower()] for name in children if name.lower() in SPLIT_NAMES}
    others = [name for name in children if name not in splits]
    if wanted is False or not splits:
        return {}
    if wanted is None and (others or not any(walk.folders(Path(walk.root, name)) for name in splits)):
        with_clips = [name for name in others if next(walk.videos(Path(walk.root, name)), None)]
        one = next(iter(splits))
        plain = not any(walk.folders(Path(walk.root, name)) for name in splits)  # clips right in it, as in a class
        if (with_clips or not others) and (plain or len(set(splits.values())) == 1):
            beside = f"beside {', '.join(with_clips[:3])}" if with_clips else "without folders in it"
            raise ConfigError(
                f"{walk.root}: is {one!r}, {beside}, a class or a split? data.split_folders=false reads it as a class, "
                "data.split_folders=true as the folder of a split"
            )
    if others:
        notice(f"{walk.root}: only its split folders are read, not {', '.join(others[:3])}; data.split_folders=false "
               "reads all as classes.")  # fmt: skip
    return splits


def _videos(walk: Walk, folder: Path) -> Iterator[Path]:
    """Video files below a folder, by extension. Other files are mentioned in a notice, unless they are hidden."""
    others = []
    for file in map(Path, walk.files(folder)):
        if is_video(file.name):
            yield file
        elif not file.name.startswith("."):
            others.append(file.name)
    if others:
        notice(f"{folder}: {len(others)} file(s) that are no video by their extension are left out: {others[0]!r} …")
