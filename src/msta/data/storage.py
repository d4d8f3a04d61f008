"""Read bytes from a file, a member of a shard, or a URL. The path of a clip is all that a process needs to read it.

A member of a shard is called ``SHARD::NAME#OFFSET+SIZE+DIGEST``: the tar file, the name in it, the place of its bytes,
and the first 16 hexadecimal digits of their SHA-256, which reading compares.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msta.data.http import Damaged, Unreachable, fetch
from msta.errors import ConfigError, in_short
from msta.files import sha256_of

DIGITS = 16
_MEMBER = re.compile(r"(?P<shard>.+)::(?P<name>[^:#]+)#(?P<offset>\d+)\+(?P<size>\d+)\+(?P<digest>[0-9a-f]{16})", re.S)
_URL = re.compile(r"(?!file:)(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/{1,2}(?P<rest>[^/].*)", re.S)


# ---------------------------------------------------------------- names


def as_url(path: str | os.PathLike[str]) -> str | None:
    """``path`` as a URL if it is one, else None. A ``Path`` has lost one of the slashes after the scheme."""
    found = _URL.fullmatch(os.fspath(path))
    return f"{found['scheme']}://{found['rest']}" if found else None


def absolute(path: str | os.PathLike[str]) -> str:
    """The absolute form of ``path``; URLs stay as they are."""
    if isinstance(path, str) and path.startswith("/") and "//" not in path and "/." not in path and path[-1] != "/":
        return path  # as most of a million are
    return as_url(path) or os.path.abspath(path)


def beside(folder: str | os.PathLike[str], name: str) -> str:
    """The path that ``name`` means in a file of ``folder``: an absolute path or a URL stays as it is."""
    if name.startswith("/"):
        return name
    url = as_url(folder)
    return as_url(name) or (f"{url.rstrip('/')}/{name}" if url else os.path.join(folder, name))


def shown(path: str) -> str:
    """``path`` as a message shows it: a member without its place and digest."""
    return path.rpartition("#")[0] if is_member(path) else path


# ---------------------------------------------------------------- members of shards


@dataclass(frozen=True)
class Member:
    """A file inside a tar file: ``size`` bytes from ``offset`` on."""

    shard: str
    name: str
    offset: int
    size: int
    digest: str

    def __str__(self) -> str:
        return f"{self.shard}::{self.name}#{self.offset}+{self.size}+{self.digest}"


def is_member(path: str) -> bool:
    """Whether a path names a member of a shard."""
    return "::" in path and _MEMBER.fullmatch(path) is not None


def member_of(path: str) -> Member | None:
    """The member that a path names; None if the path names none."""
    found = _MEMBER.fullmatch(path) if "::" in path else None
    if found is None:
        return None
    return Member(found["shard"], found["name"], int(found["offset"]), int(found["size"]), found["digest"])


def digest_of(content: bytes) -> str:
    """The digest in a member's path."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def read_member(member: Member) -> bytes:
    """The bytes of a member. If a remote one arrives damaged, it is read up to twice more.

    Raises:
        Damaged: the bytes are not those that were written.
        Unreachable, OSError: they cannot be read.
    """
    for _ in range(3 if as_url(member.shard) else 1):
        content = read_bytes(member.shard, member.offset, member.size)
        if digest_of(content) == member.digest:
            return content
    raise Damaged("damaged: its bytes are not those the index was written for")


# ---------------------------------------------------------------- reading and looking


def exists(path: str) -> bool:
    """Whether there is such a file, or the shard of a member. For a URL this is only known when it is read."""
    member = member_of(path)
    where = member.shard if member else path
    return as_url(where) is not None or os.path.exists(where)


def real(path: str) -> str:
    """The file behind a path after all links; for a member, its path."""
    return path if is_member(path) else os.path.realpath(path)


def size_of(path: str) -> int:
    """Bytes of a file or member.

    Raises:
        OSError: there is no such file.
    """
    member = member_of(path)
    return member.size if member else os.path.getsize(path)


def content_hash(path: str) -> str:
    """A hash of a video's bytes. For a member it is taken from the path, so that nothing is read.

    Raises:
        OSError: there is no such file.
    """
    member = member_of(path)
    if member is not None:
        return member.digest
    return sha256_of(Path(path))


def read_bytes(where: str, start: int = 0, size: int | None = None) -> bytes:
    """``size`` bytes of a file or URL from ``start`` on; None: all that follow.

    Raises:
        Damaged: there are fewer bytes.
        Unreachable, OSError: they cannot be read.
    """
    url = as_url(where)
    if url is None:
        with open(where, "rb") as file:
            file.seek(start)
            content = file.read(-1 if size is None else size)
    elif url.startswith(("http://", "https://")):
        content = fetch(url, start, size)
    else:
        content = _read_filesystem(url, start, None if size is None else start + size)
    if size is not None and len(content) < size:
        raise Damaged(f"truncated: {shown(where)} ends before it does")
    return content


def _read_filesystem(url: str, start: int, end: int | None) -> bytes:
    """Read from s3://, gs:// and others that fsspec knows. Its backends have time-outs of their own."""
    for attempt in range(3):
        system, path = filesystem(url)
        try:
            return bytes(system.cat_file(path, start=start or None, end=end))
        except (FileNotFoundError, PermissionError):
            raise
        except Exception as error:  # whatever the backend calls it
            reason = in_short(error)
            time.sleep(2**attempt)
    raise Unreachable(f"{url}: {reason}")


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of fsspec for a URL, and the path in it.

    Raises:
        ConfigError: the backend for such URLs is not installed.
    """
    import fsspec  # takes a tenth of a second

    try:
        return fsspec.core.url_to_fs(url)  # remembers file systems by process, so that it is safe after a fork
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url}: {in_short(error)}; pip install 'msta[shards]' and fsspec's backend for it"
        ) from error
