"""Read and write files. Every file is written under another name and then renamed, so nobody reads half a file."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from msta.errors import MSTAError, in_short

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def new_directory(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory to fill. It becomes ``target`` if the block ends without an error, and is removed otherwise.

    Raises:
        MSTAError: ``target`` exists and is not an empty directory.
    """
    target = Path(target)
    refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield aside
        os.chmod(aside, 0o777 & ~_umask())  # mkdtemp makes it private
        if target.is_dir():
            target.rmdir()
        os.replace(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def typed_path(text: str | Path) -> Path:
    """The absolute path that a user typed; ``~`` is the home folder."""
    return Path(os.path.abspath(Path(text).expanduser()))


def check_writable(target: Path, remedy: str) -> None:
    """Check before hours of work that a file can be written.

    Raises:
        MSTAError: it cannot be written; the message ends with ``remedy``.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(None, "a folder")
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise MSTAError(f"{target}: cannot be written ({error.strerror}); {remedy}") from error


def refuse_existing(target: Path) -> None:
    """Raise MSTAError if ``target`` exists, unless it is an empty directory."""
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        kind = "a folder with other contents" if target.is_dir() else "a file"
        raise MSTAError(f"{target}: exists already, as {kind}; choose another name or remove it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write a file to. The file replaces ``target`` at once if the block ends without an error."""
    aside = target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield aside
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def read_json(path: Path, error: type[MSTAError], *, unique: bool = False) -> dict[str, Any]:
    """Read a JSON object from a file.

    Args:
        path: the file.
        error: the type of error to raise.
        unique: refuse an object that has a name twice, instead of taking the last value. For files edited by hand.

    Raises:
        error: one line that names the file.
    """
    content = read_any_json(path, error, unique=unique)
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object")
    return content


def read_any_json(path: Path, error: type[MSTAError], *, unique: bool = False) -> Any:
    """Like :func:`read_json`, but the file may hold a list or another value. It may be UTF-8 or UTF-16."""
    try:
        content = path.read_bytes()
    except OSError as cause:
        raise error(f"{path}: {cause.strerror}") from cause
    return parse_json(path, content, error, unique=unique)


def parse_json(path: Path, content: str | bytes, error: type[MSTAError], *, unique: bool = False) -> Any:
    """The value in the content of a JSON file. Bytes may be UTF-8 or UTF-16.

    Raises:
        error: one line that names the file.
    """
    try:
        return json.loads(content, object_pairs_hook=_unique if unique else None)
    except ValueError as cause:
        raise error(f"{path}: no valid JSON ({in_short(cause)})") from cause


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def write_bytes(target: Path, content: bytes) -> None:
    """Write ``content`` to a file at once. If the disk is full, the OSError names the file."""
    with replacing(target) as aside:
        aside.write_bytes(content)


def write_json(target: Path, data: Any) -> None:
    """Write ``data`` as indented JSON, at once."""
    write_bytes(target, (json.dumps(data, indent=2) + "\n").encode())


def write_parquet(target: Path, table: Any) -> None:
    """Write a pyarrow table as compressed Parquet, at once. The folder is made if necessary."""
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as aside:
        pq.write_table(table, aside, compression="zstd")


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal. The file is read in pieces."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def take_lock(file: IO[Any]) -> bool:
    """Lock an open file. Returns False if another process has locked it.

    The system removes the lock when this process closes the file or ends, however it ends. It is a POSIX record lock.
    Unlike a lock of flock, it belongs to this process alone: processes that it started do not keep it. It works over
    NFS. Windows has no such locks, so there nobody is kept out.
    """
    if sys.platform != "win32":
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def cache_folder(name: str) -> Path:
    """The folder ``name`` for msta in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "msta" / name
