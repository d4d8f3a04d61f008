"""Shards that ``msta data shard`` wrote: their folder or their ``index.json``, on this machine or at any URL."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

from msta.data.catalog import Catalog, Clip
from msta.data.http import Damaged
from msta.data.layouts.parts import Options, choose_classes
from msta.data.shards import FORMAT, INDEX
from msta.data.storage import DIGITS, as_url, beside, read_bytes
from msta.errors import DataError, in_short


def looks_like(path: Path) -> bool:
    """Whether it is an index, or a folder with one. Every URL is treated as shards."""
    file = path if path.name == INDEX else path / INDEX
    return as_url(path) is not None or (file.is_file() and b"msta-shards" in _head(file))


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(200)


def read(path: Path, options: Options) -> Catalog:
    """Read the index, and then the table with the place of each clip. The shards themselves are not read yet."""
    where = as_url(path) or str(path)
    folder = (as_url(path.parent) or str(path.parent)) if path.name == INDEX else where.rstrip("/")
    try:
        index = json.loads(read_bytes(beside(folder, INDEX)))
        if index["format"] != FORMAT:
            raise DataError(f"{where}: shards of format {index['format']!r}, expected {FORMAT}")
        content = read_bytes(beside(folder, index["table"]["file"]))
        if hashlib.sha256(content).hexdigest() != index["table"]["sha256"]:
            raise DataError(f"{beside(folder, index['table']['file'])}: damaged, or not of these shards: wrong SHA-256")
        files = [beside(folder, shard["file"]) for shard in index["shards"]]
        read_bytes(files[0], 0, 512)  # a server that knows no ranges is found out here
        clips = tuple(_clips(content, files))
    except FileNotFoundError as error:
        raise DataError(f"{where}: not all of what msta data shard writes is there ({in_short(error)})") from error
    except Damaged as error:
        raise DataError(f"{where}: {error}") from error
    except OSError as error:
        raise DataError(f"{where}: {in_short(error)}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{where}: no index that msta data shard wrote ({in_short(error)})") from error
    return choose_classes(Catalog(where, tuple(index["classes"]), clips), options.labels)


def _clips(table: bytes, files: list[str]) -> Any:
    import pyarrow.parquet as pq

    columns = ["shard", "name", "offset", "size", "digest", "label", "split", "start", "end"]
    for batch in pq.ParquetFile(io.BytesIO(table)).iter_batches(65536, columns=columns):
        lists = (batch[name].to_pylist() for name in columns)
        for shard, name, offset, size, digest, label, split, start, end in zip(*lists, strict=True):
            assert len(digest) == DIGITS
            yield Clip(f"{files[shard]}::{name}#{offset}+{size}+{digest}", label, split, start, end)
