"""A zoo: adapters in a folder, or in a repository on the Hub, with a list of them, zoo.json.

The list has each adapter's name, backbone, classes and figures, and the SHA-256 of its weights, to check copies by.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from msta.adapters.artefact import CONFIG, METRICS, WEIGHTS, Artefact
from msta.adapters.card import HUB_ID
from msta.backbone.published import hub_reason
from msta.errors import CheckpointError, DataError, MSTAError, in_short
from msta.files import new_directory, read_json, sha256_of, write_json

ZOO = "zoo.json"


def find_adapters(folder: Path) -> dict[str, Path]:
    """Name -> directory of the adapters in a folder. Its sub-folders are adapters, or runs of ``msta train``."""
    here = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))}
    return here | {path.parents[1].name: path.parent for path in sorted(folder.glob(f"*/adapter/{CONFIG}"))}


@dataclass(frozen=True)
class Entry:
    """An adapter of a zoo.

    Attributes:
        name: unique in the zoo.
        path: its directory, relative to the zoo's.
        method: with its size.
        backbone: where the backbone is from; ``fingerprint`` identifies it.
        classes: their names.
        top1: percent, on the clips of ``measured``; None if it was not measured.
        clips: how many test clips.
        sha256: of the weights.
    """

    name: str
    path: str
    method: str
    backbone: str
    fingerprint: str
    classes: tuple[str, ...]
    top1: float | None
    clips: int | None
    sha256: str


def write_zoo(folder: Path) -> list[Entry]:
    """List the adapters of a folder in its zoo.json.

    Raises:
        DataError: there are none.
        CheckpointError: one is damaged.
    """
    entries = []
    for name, path in sorted(find_adapters(folder).items()):
        artefact = Artefact.read(path)
        metrics = read_json(path / METRICS, DataError) if (path / METRICS).exists() else {}
        source = artefact.backbone["source"]
        entries.append(
            Entry(
                name, path.relative_to(folder).as_posix(), artefact.label,
                Path(source).name if os.path.isabs(source) else source, artefact.backbone["fingerprint"],
                artefact.task.classes if artefact.task else (), metrics.get("top1"), metrics.get("clips"),
                sha256_of(path / WEIGHTS),
            )
        )  # fmt: skip
    if not entries:
        raise DataError(f"{folder}: no adapters in it, nor runs of msta train")
    write_json(folder / ZOO, {"adapters": [asdict(entry) for entry in entries]})
    return entries


def read_zoo(where: str) -> list[Entry]:
    """The list of a zoo: a folder, or ``owner/name`` on the Hub.

    Raises:
        DataError: there is no list, or it is damaged.
    """
    file = _folder(where, [ZOO]) / ZOO
    if not file.exists():
        raise DataError(f"{where}: no {ZOO} in it; msta zoo make {where} writes one")
    try:
        return [Entry(**{**each, "classes": tuple(each["classes"])}) for each in read_json(file, DataError)["adapters"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{file}: damaged or not ours ({in_short(error)})") from error


def get(where: str, name: str, out: Path) -> Entry:
    """Copy an adapter of a zoo to ``out``, and check its weights.

    Raises:
        MSTAError: the zoo has none of this name, or ``out`` exists.
        CheckpointError: the weights are not those of the list.
    """
    entries = {entry.name: entry for entry in read_zoo(where)}
    if name not in entries:
        raise MSTAError(f"{where}: no adapter {name!r}; there are {', '.join(entries)}")
    entry = entries[name]
    root = _folder(where, [f"{entry.path}/*"]).resolve()
    source = (root / entry.path).resolve()
    if not source.is_relative_to(root) or not (source / WEIGHTS).exists():
        raise CheckpointError(f"{where}: {entry.path}: no adapter is there, although the list names it")
    if sha256_of(source / WEIGHTS) != entry.sha256:
        raise CheckpointError(f"{source / WEIGHTS}: not the weights of the list: damaged, or trained again since")
    with new_directory(out) as folder:
        for file in source.iterdir():
            if file.is_file():
                shutil.copyfile(file, folder / file.name)
    return entry


def _folder(where: str, patterns: list[str]) -> Path:
    """The folder of the zoo: itself, or a copy of those files from the Hub."""
    if os.path.isdir(where) or not HUB_ID.fullmatch(where):
        return Path(where)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(where, allow_patterns=patterns))
    except Exception as error:  # the Hub's errors have no common base
        raise CheckpointError(
            f"{where}: no folder here, and not to be had from the Hub: {hub_reason(error)}"
        ) from error
