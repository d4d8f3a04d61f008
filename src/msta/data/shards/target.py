"""A folder to write shards to: on this machine, or any that fsspec knows."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from msta.data.storage import as_url, beside, filesystem, read_all
from msta.errors import ConfigError
from msta.files import replacing


class Target:
    """A folder, local or remote. What is written appears whole under its name, or not at all."""

    def __init__(self, where: str | os.PathLike[str]) -> None:
        self.url = as_url(where)
        self.where = self.url.rstrip("/") if self.url else os.path.abspath(os.path.expanduser(where))
        if self.url is None:
            os.makedirs(self.where, exist_ok=True)
        elif self.url.startswith(("http://", "https://")):
            raise ConfigError(f"--out: {self.url}: HTTP can be read from, not written to")
        else:
            system, path = filesystem(self.where)
            system.makedirs(path, exist_ok=True)

    def names(self) -> list[str]:
        """What is in it, unhidden."""
        if self.url is None:
            found = os.listdir(self.where)
        else:
            system, path = filesystem(self.where)
            system.invalidate_cache()
            found = [str(name).rstrip("/").rpartition("/")[2] for name in system.ls(path, detail=False)]
        return sorted(name for name in found if not name.startswith("."))

    def size(self, name: str) -> int | None:
        """Of a file, in bytes; None if it is not there."""
        try:
            if self.url is None:
                return os.path.getsize(os.path.join(self.where, name))
            system, path = filesystem(self.where)
            system.invalidate_cache()
            return int(system.size(f"{path}/{name}"))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        """All of a file."""
        return read_all(beside(self.where, name))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A local file to fill, which then becomes ``name``: a rename here, an upload and a rename elsewhere."""
        if self.url is None:
            with replacing(Path(self.where) / name) as aside:
                yield aside
            return
        with tempfile.TemporaryDirectory() as folder:
            aside = Path(folder) / name
            yield aside
            system, path = filesystem(self.where)
            system.put_file(str(aside), f"{path}/.{name}.part")
            system.mv(f"{path}/.{name}.part", f"{path}/{name}")

    def write(self, name: str, content: bytes) -> None:
        """A small file."""
        with self.writing(name) as aside:
            aside.write_bytes(content)

    def remove(self, name: str) -> None:
        """A file that need not be there."""
        with contextlib.suppress(FileNotFoundError):
            if self.url is None:
                os.remove(os.path.join(self.where, name))
            else:
                system, path = filesystem(self.where)
                system.rm_file(f"{path}/{name}")
