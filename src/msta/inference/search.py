"""Find the moments that a sentence describes, in a folder of videos.

An index holds an embedding of every window of every video, as Parquet. It is made once; a search then reads the folder
again only for what is new or has changed (by path, size and time of change). Scores are cosines with the sentence's
embedding, all of them computed: a million windows take a product of a few hundred million numbers, which is no work.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.data.clips import ClipFormat
from msta.data.decode import DecodeError, play, probe, read_frames
from msta.errors import ConfigError, DataError, in_short
from msta.evaluation.report import write_page
from msta.files import replacing
from msta.inference.output import clock
from msta.inference.predictor import batched
from msta.inference.sources import videos_below
from msta.inference.timeline import SeenFrame, Windows, as_far_as_it_goes
from msta.inference.windows import cut
from msta.notices import notice

FORMAT = "msta-index-1"
INDEX = ".msta-index.parquet"
"""Its name in the folder, unless it is given another."""


@dataclass(frozen=True)
class Moment:
    """A window of a video and how near it is to what was asked: a cosine."""

    path: str
    start: float
    end: float
    score: float


@dataclass
class Index:
    """Embeddings of windows.

    Attributes:
        key: what made them; see :func:`key_of`.
        files: path, relative to the folder -> (size in bytes, time of change in ns).
        paths: [N] of the windows' files.
        spans: float64 [N, 2], seconds.
        embeddings: float32 [N, D], of length 1.
    """

    key: str
    files: dict[str, tuple[int, int]]
    paths: list[str]
    spans: NDArray[np.float64]
    embeddings: NDArray[np.float32]

    def nearest(self, query: NDArray[np.float32], top: int) -> list[Moment]:
        """The windows nearest to a query [D] of length 1; of overlapping ones of a video the best."""
        scores = self.embeddings @ query
        found: list[Moment] = []
        for i in np.argsort(-scores, kind="stable"):
            (start, end), path = self.spans[i], self.paths[i]
            if all(m.path != path or m.end <= start + 1e-6 or end <= m.start + 1e-6 for m in found):
                found.append(Moment(path, float(start), float(end), float(scores[i])))
                if len(found) == top:
                    break
        return found


def key_of(model: AdaptedModel, windows: Windows) -> str:
    """What an index depends on: backbone, adapter, the clips it sees, and the windows."""
    digest = hashlib.sha256(model.origin["fingerprint"].encode())
    for name, tensor in sorted(model.adapter_state().items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    digest.update(repr((model.config, clip_format(model), windows.length, windows.stride)).encode())
    return digest.hexdigest()


@torch.no_grad()
def query_embedding(model: AdaptedModel, text: str) -> NDArray[np.float32]:
    """A sentence -> [D], of length 1.

    Raises:
        ConfigError: the method's scores do not come from words.
    """
    if model.config.closed:
        raise ConfigError(f"{model.config.name} reads no words; search with another method's adapter, or without one")
    ids = model.tokenize([text]).to(model.backbone.logit_scale.device)
    return F.normalize(model.encode_text(ids).float(), dim=-1)[0].cpu().numpy()


# ---------------------------------------------------------------- the index


def update_index(
    model: AdaptedModel,
    folder: Path,
    file: Path,
    windows: Windows,
    tell: Callable[[int, int, str], None] = lambda number, count, path: None,
) -> Index:
    """Read what is new or changed in the folder into the index, drop what is gone, and write it.

    ``tell`` is called with a number, of how many, and the video that is read next. What was read is kept even if this
    is interrupted. A video that cannot be read is named and left out.

    Raises:
        DataError: no videos, or the index cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no folder")
    there = {os.path.relpath(path, folder): _stamp(path) for path in sorted(videos_below(folder))}
    if not there:
        raise DataError(f"{folder}: no video files in this folder")
    key = key_of(model, windows)
    index = read_index(file) if file.exists() else None
    if index is not None and index.key != key:
        notice(f"{file}: was made by another model or with other windows; it is made again")
        index = None
    index = _kept(index, there) if index is not None else _empty(key, model.backbone.architecture.embed_dim)
    new = [path for path in there if path not in index.files]
    parts = [(index.paths, index.spans, index.embeddings)]
    try:
        for number, path in enumerate(new, start=1):
            tell(number, len(new), path)
            try:
                spans, embeddings = _read(model, folder / path, windows)
            except DecodeError as error:
                notice(f"Left out, cannot be read: {error}")
                spans, embeddings = np.empty((0, 2)), np.empty((0, index.embeddings.shape[1]), np.float32)
            parts.append(([path] * len(spans), spans, embeddings))
            index.files[path] = there[path]
    finally:
        index.paths = [path for paths, _, _ in parts for path in paths]
        index.spans = np.concatenate([spans for _, spans, _ in parts])
        index.embeddings = np.concatenate([embeddings for _, _, embeddings in parts])
        write_index(index, file)
    return index


def _read(model: AdaptedModel, path: Path, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    form: ClipFormat = clip_format(model)
    windows = windows.fitted(probe(path).duration)
    shown = as_far_as_it_goes(play(path, form.size, squash=form.fit == "squash"))
    spans, embeddings = [], []
    whole = cut(shown, windows.length, windows.stride, form.frames, lambda picture: SeenFrame(picture, form))
    for group in batched(whole, windows.batch):
        clips = torch.stack([torch.stack([frame.pixels for frame in window.frames]) for window in group])
        with torch.inference_mode():
            embedded = model.encode_video(clips.to(model.backbone.logit_scale.device))
        embeddings.append(F.normalize(embedded.float(), dim=-1).cpu().numpy())
        spans += [(window.start, window.end) for window in group]
    return np.array(spans), np.concatenate(embeddings)


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _empty(key: str, width: int) -> Index:
    return Index(key, {}, [], np.empty((0, 2)), np.empty((0, width), np.float32))


def _kept(index: Index, there: dict[str, tuple[int, int]]) -> Index:
    """Without the files that are gone or have changed."""
    files = {path: stamp for path, stamp in index.files.items() if there.get(path) == stamp}
    rows = np.array([path in files for path in index.paths], bool)
    paths = [path for path in index.paths if path in files]
    return Index(index.key, files, paths, index.spans[rows], index.embeddings[rows])


def write_index(index: Index, file: Path) -> None:
    """As Parquet: a row a window; files and key in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    width = index.embeddings.shape[1]
    flat = pa.array(index.embeddings.ravel(), pa.float32())
    columns = {
        "path": pa.array(index.paths, pa.string()),
        "start": pa.array(index.spans[:, 0]),
        "end": pa.array(index.spans[:, 1]),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
    }
    about = json.dumps({"format": FORMAT, "key": index.key, "files": index.files})
    table = pa.table(columns).replace_schema_metadata({"msta": about})
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as aside:
        pq.write_table(table, aside, compression="zstd")


def read_index(file: Path) -> Index:
    """Raises:
    DataError: damaged, or not ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(file)
        about: dict[str, Any] = json.loads((table.schema.metadata or {})[b"msta"])
        if about["format"] != FORMAT:
            raise DataError(f"{file}: an index of format {about['format']!r}, expected {FORMAT}")
        embeddings = table["embedding"].combine_chunks()
        return Index(
            about["key"],
            {path: (size, time) for path, (size, time) in about["files"].items()},
            table["path"].to_pylist(),
            np.stack([table["start"].to_numpy(), table["end"].to_numpy()], axis=1),
            embeddings.flatten().to_numpy().reshape(len(table), embeddings.type.list_size).copy(),
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: no index that msta wrote ({in_short(error)}); remove it") from error


# ---------------------------------------------------------------- what is shown


def write_found(query: str, folder: Path, moments: Sequence[Moment], index: Index, to: Path) -> None:
    """Write a page with three frames of each moment."""
    pictures = {f"moment{i}": strip for i, strip in enumerate(strips(folder, moments))}
    rows = [{"path": m.path, "start": clock(m.start), "end": clock(m.end), "score": m.score} for m in moments]
    counts = {"files": len(index.files), "windows": len(index.paths)}
    write_page(to, "search.html", pictures, query=query, rows=rows, folder=str(folder), **counts)


def strips(folder: Path, moments: Sequence[Moment]) -> Iterator[bytes]:
    """Three frames of each moment, side by side, as JPEG."""
    from PIL import Image  # comes with matplotlib

    for m in moments:
        times = m.start + (m.end - m.start) * np.array([1, 3, 5]) / 6
        frames = read_frames(folder / m.path, times, 120)
        stream = io.BytesIO()
        Image.fromarray(np.concatenate(list(frames), axis=1)).save(stream, "JPEG", quality=80)
        yield stream.getvalue()
