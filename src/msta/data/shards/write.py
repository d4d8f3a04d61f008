"""``msta data shard``: a data set as tar files that WebDataset reads too, with an index of where each clip lies.

Clips go to the shards of their split in a seeded order, so neighbours in a shard are not neighbours in the data. A
small file beside a shard lists its contents and shows that it is finished; the next call skips finished shards. At the
end these files become one table, ``clips.parquet``, and ``index.json`` is written last.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress as Bar

from msta.data.catalog import SPLITS, WHOLE, Catalog, Clip, fingerprint, require_files, write_parquet_rows
from msta.data.shards import COLUMNS, FORMAT, INDEX, TABLE
from msta.data.shards.encode import Mode, encode
from msta.data.shards.target import Target
from msta.data.storage import absolute, digest_of
from msta.data.verify import in_processes
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import ConfigError, DataError, Interrupted, MSTAError, as_text
from msta.files import sha256_of

_UNFINISHED = "unfinished.json"


@dataclass(frozen=True)
class Recipe:
    """The settings that, with the clips, decide the bytes of shards.

    Attributes:
        mode: copy the files, or encode them again; None: copy, unless frames are resized or clips are parts of videos.
        short_side: of re-encoded frames, in pixels, at most; None: not resized.
        clips_per_shard: at most; None: as many as ``mb`` allows.
        mb: a shard is closed when it holds so many 10^6 bytes.
        seed: of the order.
    """

    mode: Mode | None = None
    short_side: int | None = None
    clips_per_shard: int | None = None
    mb: float = 256.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.mode == "copy" and self.short_side is not None:
            raise ConfigError("--resize: goes with --reencode; --copy leaves the files as they are")
        if self.short_side is not None and self.short_side < 16:
            raise ConfigError(f"--resize: expected 16 pixels or more, got {self.short_side}")

    def mode_for(self, clips: Sequence[Clip]) -> Mode:
        """The mode, after the choice that None leaves open."""
        parts = self.short_side is not None or any(clip.span != WHOLE for clip in clips)
        return self.mode or ("reencode" if parts else "copy")

    def is_full(self, clips: int, size: int) -> bool:
        """Whether a shard takes no more clips."""
        return clips >= self.clips_per_shard if self.clips_per_shard is not None else size >= self.mb * 1e6


def write_shards(
    catalog: Catalog,
    out: str | os.PathLike[str],
    recipe: Recipe = Recipe(),
    *,
    workers: int | None = None,
    timeout: float = 300.0,
    console: Console | None = None,
) -> dict[str, Any]:
    """Write the clips of a data set into tar files, and an index of them. A second call continues one that was stopped.

    The key of a member is its number. Beside ``KEY.mp4`` (or the extension of the file) there are ``KEY.cls``, the
    label, and ``KEY.json``. A clip that cannot be read is left out, and the index lists it with the reason.

    Args:
        catalog: what to write.
        out: a folder or fsspec URL; new, or that of an earlier call with the same clips and recipe.
        recipe: how to write it.
        workers: processes that read and encode; None: one per processor.
        timeout: seconds that a clip may take.
        console: where progress is shown; None: nowhere.

    Returns:
        The index: "classes", "clips", "splits" and "class_counts", "shards" (file, clips, bytes, sha256 each),
        "left_out" (clip and reason each), "table", "made_of".

    Raises:
        Interrupted: by Ctrl-C; finished shards are kept.
        MSTAError: ``out`` holds something else, a server does not answer, or no clip can be read.
    """
    require_files(catalog)
    target, workers = Target(out), workers or os.cpu_count() or 1
    mode = recipe.mode_for(catalog.clips)
    about = {
        "format": FORMAT,
        "recipe": {**asdict(recipe), "mode": mode},
        "clips": fingerprint(catalog.classes, catalog.clips),
    }
    names = target.names()
    if INDEX in names:
        index: dict[str, Any] = json.loads(target.read(INDEX))
        if index.get("made_of") != about:
            raise MSTAError(f"{target.where}: holds shards of other clips, or of another recipe; choose another name")
        return index
    _claim(target, names, about)
    finished: list[dict[str, Any]] = []
    try:
        with Bar(console=console or Console(quiet=True), transient=True) as bar:
            task = bar.add_task("writing clips", total=len(catalog.clips))
            for split in (None, *SPLITS):
                clips = [clip for clip in catalog.clips if clip.split == split]
                clips = [clips[i] for i in np.random.default_rng(recipe.seed).permutation(len(clips))]
                writer = _Writer(target, catalog.classes, split, clips, recipe, mode, workers, timeout)
                for shard in writer.shards():
                    finished.append(shard)
                    bar.advance(task, shard["next"] - shard["first"])
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after {len(finished)} shards; the same command goes on") from None
    return _finish(target, catalog, about, finished)


def _claim(target: Target, names: Sequence[str], about: dict[str, Any]) -> None:
    """Create the folder, or continue in it if it was created for the same clips and recipe."""
    if _UNFINISHED in names:
        if json.loads(target.read(_UNFINISHED)) != about:
            raise MSTAError(f"{target.where}: holds the beginning of shards of other clips, or of another recipe")
    elif names:
        raise MSTAError(f"{target.where}: exists already, with other contents; choose another name or remove it")
    else:
        target.write(_UNFINISHED, json.dumps(about).encode())


@dataclass(frozen=True)
class _Writer:
    """The shards of one split: its clips, in the order in which they are written, and the recipe."""

    target: Target
    classes: Sequence[str]
    split: str | None
    clips: Sequence[Clip]
    recipe: Recipe
    mode: Mode
    workers: int
    timeout: float

    def shards(self) -> Iterator[dict[str, Any]]:
        """The facts of each shard, when it is finished or was found finished."""
        number, done = 0, 0  # clips
        made: Iterator[tuple[Clip, dict[str, Any]]] | None = None
        while done < len(self.clips):
            name = f"{self.split or 'clips'}-{number:06d}"
            shard = self._finished(name)
            if shard is not None:
                made = None  # what was made ahead is in it
            else:
                made = made or self._made(done)
                shard = self._write(name, done, made)
            yield shard
            number, done = number + 1, shard["next"]

    def _finished(self, name: str) -> dict[str, Any] | None:
        if self.target.size(f"{name}.json") is None:
            return None
        shard: dict[str, Any] = json.loads(self.target.read(f"{name}.json"))
        return shard if self.target.size(shard["file"]) == shard["bytes"] or not shard["clips"] else None

    def _write(self, name: str, first: int, made: Iterator[tuple[Clip, dict[str, Any]]]) -> dict[str, Any]:
        rows: list[list[Any]] = []
        left_out: list[dict[str, str]] = []
        taken = first
        with self.target.writing(f"{name}.tar") as file:
            with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as tar:
                while not self.recipe.is_full(len(rows), tar.offset) and taken < len(self.clips):
                    clip, result = next(made)
                    if "data" in result:
                        rows.append(self._add(tar, f"{taken:09d}", clip, result))
                    else:
                        left_out.append({"clip": clip.name, "reason": result["reason"]})
                    taken += 1
            about = {"file": f"{name}.tar", "clips": len(rows), "bytes": file.stat().st_size, "sha256": sha256_of(file)}
        shard = {**about, "first": first, "next": taken, "left_out": left_out, "rows": rows}
        self.target.write(f"{name}.json", json.dumps(shard).encode())
        return shard

    def _add(self, tar: tarfile.TarFile, key: str, clip: Clip, result: dict[str, Any]) -> list[Any]:
        """Add a clip to a shard. Returns its row of the table."""
        content, name, span = result["data"], f"{key}.{result['extension']}", result["span"]
        offset = tar.offset + tarfile.BLOCKSIZE
        _add_file(tar, name, content)
        about = {"label": clip.label, "class": self.classes[clip.label], "split": clip.split}
        source = {"path": absolute(clip.path), "start": clip.start, "end": clip.end}
        _add_file(tar, f"{key}.cls", str(clip.label).encode())
        _add_file(tar, f"{key}.json", json.dumps({**about, "source": source}).encode())
        return [name, offset, len(content), digest_of(content), clip.label, clip.split, *span, *source.values()]

    def _made(self, first: int) -> Iterator[tuple[Clip, dict[str, Any]]]:
        """The clips from ``first`` on, in order, with their members' content. One chunk is in memory at a time."""
        chunk = 32 * self.workers
        for start in range(first, len(self.clips), chunk):
            clips = self.clips[start : start + chunk]
            jobs = [(number, clip, self.mode, self.recipe.short_side) for number, clip in enumerate(clips)]
            results = dict(in_processes(jobs, self.workers, self.timeout, _encode))

            yield from zip(clips, (results[job] for job in jobs), strict=True)


def _encode(job: tuple[int, Clip, Mode, int | None]) -> dict[str, Any]:
    """The member of a clip, or the reason why there is none."""
    _, clip, mode, short_side = job
    try:
        made = encode(clip.path, clip.span, mode, short_side)
    except OutOfReach:
        raise
    except DecodeError as error:
        return {"reason": error.reason}
    return {"data": made.content, "extension": made.extension, "span": made.span}


def _add_file(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)  # time 0, nobody's: the same bytes every time
    entry.size = len(content)
    tar.addfile(entry, io.BytesIO(content))


def _finish(target: Target, catalog: Catalog, about: dict[str, Any], finished: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the table and the index, and remove the files that they were made from."""
    if not any(shard["clips"] for shard in finished):
        reason = next(one["reason"] for shard in finished for one in shard["left_out"])
        raise DataError(f"{catalog.source}: not one of its clips can be read; {reason}, for one")
    index = write_index(target, catalog.classes, about, finished)
    for shard in finished:
        target.remove(shard["file"].removesuffix(".tar") + ".json")
        if not shard["clips"]:
            target.remove(shard["file"])
    target.remove(_UNFINISHED)
    return index


def write_index(
    target: Target, classes: Sequence[str], about: dict[str, Any], finished: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Write the table of all clips, and then the index, which makes the shards complete."""
    shards = [shard for shard in finished if shard["clips"]]
    with target.writing(TABLE) as aside:
        write_parquet_rows(aside, COLUMNS, _table_rows(shards))
        table = {"file": TABLE, "sha256": sha256_of(aside)}
    labels = Counter(row[4] for shard in shards for row in shard["rows"])
    splits = Counter(row[5] or "none" for shard in shards for row in shard["rows"])
    index = {
        "format": FORMAT,
        "classes": list(classes),
        "clips": sum(shard["clips"] for shard in shards),
        "splits": dict(splits),
        "class_counts": {name: labels[label] for label, name in enumerate(classes)},
        "table": table,
        "shards": [{key: shard[key] for key in ("file", "clips", "bytes", "sha256")} for shard in shards],
        "left_out": [one for shard in finished for one in shard["left_out"]],
        "made_of": about,
    }
    target.write(INDEX, (json.dumps(index, indent=1) + "\n").encode())
    return index


def _table_rows(shards: Sequence[dict[str, Any]]) -> Iterator[list[Any]]:
    """Rows of :data:`COLUMNS`. Sources that are not UTF-8 are escaped."""
    for number, shard in enumerate(shards):
        for *cells, source, start, end in shard["rows"]:
            yield [number, *cells, as_text(source), start, end]
