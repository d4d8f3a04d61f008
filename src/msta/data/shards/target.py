"""A folder to write shards to: on this machine, or any that fsspec knows."""

from __future__ import annotations

import contextlib
import os
import posixpath
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fsspec.implementations.local import LocalFileSystem

from msta.data.storage import as_url, beside, filesystem, read_bytes
from msta.errors import ConfigError
from msta.files import replacing


class Target:
    """A folder, local or remote. What is written appears whole under its name, or not at all."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        url = as_url(where)
        if url is not None and url.startswith(("http://", "https://")):
            raise ConfigError(f"--out: {url}: HTTP can be read from, not written to")
        self.where = url.rstrip("/") if url else os.path.abspath(os.path.expanduser(where))
        self.system, self.folder = filesystem(self.where) if url else (LocalFileSystem(), self.where)
        self.system.makedirs(self.folder, exist_ok=True)

    def names(self) -> list[str]:
        """What is in it, unhidden."""
        self.system.invalidate_cache()
        found = (posixpath.basename(path.rstrip("/")) for path in self.system.ls(self.folder, detail=False))
        return sorted(name for name in found if not name.startswith("."))

    def size(self, name: str) -> int | None:
        """Of a file, in bytes; None if it is not there."""
        self.system.invalidate_cache()
        try:
            return int(self.system.size(f"{self.folder}/{name}"))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """All of a file."""
        return read_bytes(beside(self.where, name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local file to fill, which then becomes ``name``: a rename here, an upload and a rename elsewhere."""
        if isinstance(self.system, LocalFileSystem):
            with replacing(Path(self.where) / name) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / name
            yield aside
            self.system.put_file(str(aside), f"{self.folder}/.{name}.part")
            self.system.mv(f"{self.folder}/.{name}.part", f"{self.folder}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """A small file."""
        with self.writing(name) as aside:
            aside.write_bytes(content)

    def remove(self, name: str) -> None:
        """A file that need not be there."""
        with contextlib.suppress(FileNotFoundError):
            self.system.rm_file(f"{self.folder}/{name}")
