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
    """A folder, local or remote. Files appear under their names only when they are complete."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        url = as_url(where)
        if url is not None and url.startswith(("http://", "https://")):
            raise ConfigError(f"--out: {url}: HTTP can be read from, not written to")
        self.where = url.rstrip("/") if url else os.path.abspath(os.path.expanduser(where))
        self.system, self.folder = filesystem(self.where) if url else (LocalFileSystem(), self.where)
        self.system.makedirs(self.folder, exist_ok=True)

    def names(self) -> list[str]:
        """The names of its files that are not hidden."""
        self.system.invalidate_cache()
        found = (posixpath.basename(path.rstrip("/")) for path in self.system.ls(self.folder, detail=False))
        return sorted(name for name in found if not name.startswith("."))

    def size(self, name: str) -> int | None:
        """The bytes of a file; None if it does not exist."""
        self.system.invalidate_cache()
        try:
            return int(self.system.size(f"{self.folder}/{name}"))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """The content of a file."""
        return read_bytes(beside(self.where, name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local file to fill. It then becomes ``name``: by a rename here, by an upload and a rename elsewhere."""
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
        """Write a small file."""
        with self.writing(name) as aside:
            aside.write_bytes(content)

    def remove(self, name: str) -> None:
        """Remove a file, which need not exist."""
        with contextlib.suppress(FileNotFoundError):
            self.system.rm_file(f"{self.folder}/{name}")
