"""What a request may cost, and the refusal of one that costs more."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException

from msta.errors import one_line


@dataclass(frozen=True)
class Limits:
    """Bounds on everything that a request can make the service spend."""

    body_bytes: int = 64 * 2**20  # of a request
    seconds: float = 600.0  # of a video, as its header states them
    pixels: int = 4096 * 2304  # of a frame
    frames: int = 36_000  # of a video
    concurrent: int = 64  # requests that are processed at a time
    queue: int = 192  # requests that wait in addition; more are refused
    decode_seconds: float = 20.0  # to decode a file, both elapsed and processor time
    decode_bytes: int = 2**30  # of memory to decode a file
    request_seconds: float = 60.0  # from the first byte of a request to its answer
    adapter_bytes: int = 512 * 2**20  # of memory for adapters; the least recently used are evicted
    batch: int = 16  # clips computed together


class Refusal(HTTPException):
    """A refused request: its HTTP status, and the reason in one line."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, one_line(reason), headers)


def path_under(root: Path | None, asked: str) -> Path:
    """The file ``asked`` under ``root``, with links followed.

    Raises Refusal if it is outside the root (403), it is not a file (404), or there is no root (403).
    """
    if root is None:
        raise Refusal(403, "path: this service has no folder to read from; upload the file")
    root = root.resolve()
    try:
        found = (root / asked).resolve()
        if ".." in Path(asked).parts or not found.is_relative_to(root):
            raise Refusal(403, "path: leads out of the folder this service may read")
        if not found.is_file():
            raise Refusal(404, "path: no such file")
    except (OSError, ValueError, RuntimeError):  # the name is too long or has a null character, or links form a circle
        raise Refusal(404, "path: no such file") from None
    return found


_ARCHIVES = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"Rar!": "rar"}
_ARCHIVES |= {b"7z\xbc\xaf": "7z", b"(\xb5/\xfd": "zstd"}


def refuse_archives(path: Path) -> None:
    """Raise a Refusal (415) for an archive, known by its first bytes. Nothing is ever unpacked."""
    try:
        with path.open("rb") as file:
            start = file.read(8)
    except OSError:
        raise Refusal(404, "path: no such file") from None  # or none that the service may read
    for magic, name in _ARCHIVES.items():
        if start.startswith(magic):
            raise Refusal(415, f"a {name} archive, not a video")
