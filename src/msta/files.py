"""Writing files so that a reader never meets half of one: write aside, then rename."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from msta.errors import MSTAError

if sys.platform != "win32":
    import fcntl


@contextlib.contextmanager
def new_directory(target: str | os.PathLike[str]) -> Iterator[Path]:
    """A directory to fill; it appears as ``target`` when the block ends without an error, and not at all otherwise.

    Raises:
        MSTAError: ``target`` exists and is no empty directory.
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
    """What somebody typed as a path, from anywhere; ``~`` is the home."""
    return Path(os.path.abspath(Path(text).expanduser()))


def check_writable(target: Path, remedy: str) -> None:
    """Find out before hours of work whether a file can be written.

    Raises:
        MSTAError: it cannot; the line ends with the remedy.
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
    """Raise unless ``target`` is free: absent, or an empty directory."""
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        kind = "a folder with other contents" if target.is_dir() else "a file"
        raise MSTAError(f"{target}: exists already, as {kind}; choose another name or remove it")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """A path to write one file to; it replaces ``target`` in one move when the block ends without an error."""
    aside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        yield aside
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def read_json(path: Path, error: type[MSTAError], *, unique: bool = False) -> dict[str, Any]:
    """The JSON object in a file.

    Args:
        path: of the file.
        error: to raise.
        unique: refuse an object that has a name twice, as one edited by hand may have, instead of losing the first.

    Raises:
        error: one line that names the file.
    """
    content = read_any_json(path, error, unique=unique)
    if not isinstance(content, dict):
        raise error(f"{path}: expected a JSON object")
    return content


def read_any_json(path: Path, error: type[MSTAError], *, unique: bool = False) -> Any:
    """Like :func:`read_json`, of a file that may hold a list or another value."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique if unique else None)
    except OSError as cause:
        raise error(f"{path}: {cause.strerror}") from cause
    except ValueError as cause:
        raise error(f"{path}: no valid JSON ({cause})") from cause


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} is there twice")
    return found


def write_bytes(target: Path, content: bytes) -> None:
    """``content``, written aside and renamed. Serialised before: a full disk is then an OSError that names the file."""
    with replacing(target) as aside:
        aside.write_bytes(content)


def write_json(target: Path, data: Any) -> None:
    """``data`` as indented JSON, written aside and renamed."""
    write_bytes(target, (json.dumps(data, indent=2) + "\n").encode())


def write_parquet(target: Path, table: Any) -> None:
    """A pyarrow table, compressed, written aside and renamed. Its folder is made."""
    import pyarrow.parquet as pq

    target.parent.mkdir(parents=True, exist_ok=True)
    with replacing(target) as aside:
        pq.write_table(table, aside, compression="zstd")


def sha256_of(file: Path) -> str:
    """Of a file's content, read a piece at a time."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def take_lock(file: IO[Any]) -> bool:
    """Lock an open file if nobody else has; the system unlocks it when this process closes it or ends, in whatever way.

    It is a POSIX record lock: unlike flock's it belongs to this process alone, so processes that it started and that
    outlive it do not keep the lock. It works over NFS. Windows has no such locks: there nobody is kept out.
    """
    if sys.platform != "win32":
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True


def cache_folder(name: str) -> Path:
    """The folder called so of msta's in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "msta" / name
