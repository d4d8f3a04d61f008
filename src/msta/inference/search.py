"""Find the moments in a folder of videos that a sentence describes.

An index holds the embedding of every window of every video, as Parquet. A later search reads only the videos that are
new or have changed (by path, size and modification time). A score is the cosine with the embedding of the sentence. All
of them are computed: for a million windows, that is one small matrix product.
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
from urllib.parse import quote

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from msta.adapters.inputs import clip_format
from msta.adapters.model import AdaptedModel
from msta.backbone.checkpoints import tell_of_toy
from msta.data.decode import read_frames
from msta.data.folders import videos_in
from msta.data.video_file import DecodeError
from msta.errors import ConfigError, DataError, as_text, in_short
from msta.evaluation.report import write_page
from msta.files import check_writable, write_parquet
from msta.inference.output import clock
from msta.inference.timeline import WindowEncoder
from msta.inference.windows import Windows, cut_windows
from msta.notices import notice

FORMAT = "msta-index-1"
INDEX = ".msta-index.parquet"  # the default name of the index in the folder


@dataclass(frozen=True)
class Moment:
    """A window of a video, and its cosine with the query."""

    path: str
    start: float
    end: float
    score: float


@dataclass
class Index:
    """The embeddings of N windows."""

    key: str  # of the model and the windows, see :func:`index_key`
    files: dict[str, tuple[int, int]]  # path, relative to the folder -> (size in bytes, modification time in ns)
    paths: list[str]  # [N], the file of each window
    spans: NDArray[np.float64]  # [N, 2], in seconds
    embeddings: NDArray[np.float32]  # [N, D], of length 1
    closed: tuple[str, ...] = ()  # sub-folders that may not be read

    def nearest(self, query: NDArray[np.float32], top: int) -> list[Moment]:
        """The windows nearest to a query [D] of length 1; of overlapping windows only the best."""
        scores = self.embeddings @ query
        found: list[Moment] = []
        for i in np.argsort(-scores, kind="stable"):
            (start, end), path = self.spans[i], self.paths[i]
            if all(m.path != path or m.end <= start + 1e-6 or end <= m.start + 1e-6 for m in found):
                found.append(Moment(path, float(start), float(end), float(scores[i])))
                if len(found) == top:
                    break
        return found


def index_key(model: AdaptedModel, windows: Windows) -> str:
    """A hash of all that an index depends on: backbone, adapter, clip format and windows."""
    digest = hashlib.sha256(model.origin["fingerprint"].encode())
    for name, tensor in sorted(model.adapter_state().items()):
        digest.update(name.encode() + tensor.float().numpy().tobytes())
    digest.update(repr((model.config, clip_format(model), windows.length, windows.stride)).encode())
    return digest.hexdigest()


@torch.no_grad()
def query_embedding(model: AdaptedModel, text: str) -> NDArray[np.float32]:
    """A sentence -> [D], of length 1. Raises ConfigError if it is empty, or the method does not use text."""
    if not text.strip():
        raise ConfigError("search: the sentence is empty; say what to look for")
    if model.config.closed_set:
        raise ConfigError(f"{model.config.name} reads no words; search with another method's adapter, or without one")
    tell_of_toy(model.backbone, [text])
    ids = model.tokenize([text]).to(model.backbone.logit_scale.device)
    return F.normalize(model.encode_text(ids).float(), dim=-1)[0].cpu().numpy()


# ---------------------------------------------------------------- the index


def index_file(model: AdaptedModel, folder: Path, windows: Windows) -> Path:
    """The folder's index of this model and these windows: the first one made has the plain name, others their key."""
    key, plain = index_key(model, windows), folder / INDEX
    if not plain.exists() or _about(plain)["key"] == key:
        return plain
    return folder / f".msta-index-{key[:12]}.parquet"


def update_index(
    model: AdaptedModel,
    folder: Path,
    file: Path,
    windows: Windows,
    tell: Callable[[int, int, str], None] = lambda number, count, path: None,
) -> Index:
    """Bring the index of a folder up to date, and write it: add new and changed videos, remove deleted ones.

    ``tell`` is called with a number, the number of videos, and the video that is read next. If this is interrupted, the
    index keeps what was read. A video or a sub-folder that cannot be read is reported and left out.

    Raises:
        DataError: there are no videos, or the index cannot be read, or is of another model or other windows.
        MSTAError: the index cannot be written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no folder")
    found = videos_in(folder)
    closed = tuple(path for path in found if os.path.isdir(path))
    current = {}
    for path in found:
        if path in closed or not os.path.exists(path):  # a link may lead nowhere
            notice(f"Left out, cannot be read: {path}")
        else:
            current[os.path.relpath(path, folder)] = _stamp(path)
    if not current:
        raise DataError(f"{folder}: no video files in this folder")
    check_writable(file, "--index puts the index elsewhere")
    key = index_key(model, windows)
    width = model.backbone.architecture.embed_dim
    empty = Index(key, {}, [], np.empty((0, 2)), np.empty((0, width), np.float32))
    index = read_index(file) if file.exists() else empty
    if index.key != key:
        raise DataError(f"{file}: was made by another model or with other windows; name another --index, or remove it")
    index = _without_outdated(index, current)
    index.closed = closed
    new = [path for path in current if path not in index.files]
    parts = [(index.paths, index.spans, index.embeddings)]
    try:
        for number, path in enumerate(new, start=1):
            tell(number, len(new), path)
            try:
                spans, embeddings = _read(model, folder / path, windows)
            except DecodeError as error:
                notice(f"Left out, cannot be read: {error}")
                spans, embeddings = empty.spans, empty.embeddings
            parts.append(([path] * len(spans), spans, embeddings))
            index.files[path] = current[path]
    finally:
        index.paths = [path for paths, _, _ in parts for path in paths]
        index.spans = np.concatenate([spans for _, spans, _ in parts])
        index.embeddings = np.concatenate([embeddings for _, _, embeddings in parts])
        write_index(index, file)
    return index


def _read(model: AdaptedModel, path: Path, windows: Windows) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    encode = WindowEncoder([model])
    spans, embeddings = [], []
    for group in cut_windows(path, clip_format(model), windows):
        embeddings.append(F.normalize(encode(group)[0].float(), dim=-1).cpu().numpy())
        spans += [(window.start, window.end) for window in group]
    return np.array(spans), np.concatenate(embeddings)


def _stamp(path: str) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns


def _without_outdated(index: Index, current: dict[str, tuple[int, int]]) -> Index:
    """The index without the files that were deleted or have changed."""
    files = {path: stamp for path, stamp in index.files.items() if current.get(path) == stamp}
    rows = np.array([path in files for path in index.paths], bool)
    paths = [path for path in index.paths if path in files]
    return Index(index.key, files, paths, index.spans[rows], index.embeddings[rows])


def write_index(index: Index, file: Path) -> None:
    """Write Parquet, with one row per window, and the files and the key in the metadata.

    A name that is no UTF-8 is known again by the files' own names, which are kept as JSON.
    """
    import pyarrow as pa

    width = index.embeddings.shape[1]
    flat = pa.array(index.embeddings.ravel(), pa.float32())
    columns = {
        "path": pa.array([as_text(path) for path in index.paths], pa.string()),
        "start": pa.array(index.spans[:, 0]),
        "end": pa.array(index.spans[:, 1]),
        "embedding": pa.FixedSizeListArray.from_arrays(flat, width),
    }
    about = json.dumps({"format": FORMAT, "key": index.key, "files": index.files})
    table = pa.table(columns).replace_schema_metadata({"msta": about})
    write_parquet(file, table)


def _about(file: Path) -> dict[str, Any]:
    """What an index says of itself, without reading its embeddings. Raises DataError as :func:`read_index` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about: dict[str, Any] = json.loads((pq.read_schema(file).metadata or {})[b"msta"])
        if about["format"] != FORMAT:
            raise DataError(f"{file}: an index of format {about['format']!r}, expected {FORMAT}")
        return {"key": about["key"], "files": about["files"]}
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: no index that msta wrote ({in_short(error)}); remove it") from error


def read_index(file: Path) -> Index:
    """Read what :func:`write_index` wrote. Raises DataError if it is damaged or something else."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        about, table = _about(file), pq.read_table(file)
        embeddings = table["embedding"].combine_chunks()
        names = {as_text(path): path for path in about["files"]}
        return Index(
            about["key"],
            {path: (size, time) for path, (size, time) in about["files"].items()},
            [names[path] for path in table["path"].to_pylist()],
            np.stack([table["start"].to_numpy(), table["end"].to_numpy()], axis=1),
            embeddings.flatten().to_numpy().reshape(len(table), embeddings.type.list_size).copy(),
        )
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: no index that msta wrote ({in_short(error)}); remove it") from error


# ---------------------------------------------------------------- results


def write_found(query: str, folder: Path, moments: Sequence[Moment], index: Index, to: Path) -> None:
    """Write an HTML page with three frames of each moment. A click plays it."""
    pictures = {f"moment{i}": strip for i, strip in enumerate(strips(folder, moments))}
    rows = [
        {"path": m.path, "start": clock(m.start), "end": clock(m.end), "score": m.score, "link": _link(folder, m, to)}
        for m in moments
    ]
    counts = {"files": len(index.files), "windows": len(index.paths)}
    write_page(to, "search.html", pictures, query=query, rows=rows, folder=str(folder), **counts)


def _link(folder: Path, moment: Moment, page: Path) -> str:
    """The address of a moment for a page: relative, so that page and folder can move together."""
    video = os.path.relpath((folder / moment.path).absolute(), page.absolute().parent)
    return f"{quote(os.fsencode(video.replace(os.sep, '/')))}#t={moment.start:.2f},{moment.end:.2f}"


def strips(folder: Path, moments: Sequence[Moment]) -> Iterator[bytes]:
    """Three frames of each moment, side by side, as JPEG."""
    from PIL import Image  # comes with matplotlib

    for m in moments:
        times = m.start + (m.end - m.start) * np.array([1, 3, 5]) / 6
        frames = read_frames(folder / m.path, times, 120)
        stream = io.BytesIO()
        Image.fromarray(np.concatenate(list(frames), axis=1)).save(stream, "JPEG", quality=80)
        yield stream.getvalue()
