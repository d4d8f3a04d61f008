"""What a request may cost, and how it is told that it may not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException

from msta.errors import one_line


@dataclass(frozen=True)
class Limits:
    """Bounds on everything a request can make the service spend.

    Attributes:
        body_bytes: of a request.
        seconds: of video, as its header states them.
        pixels: of a frame.
        frames: of a video.
        concurrent: requests being worked on.
        queue: requests waiting beside them; more are refused.
        decode_seconds: a file may take, by the clock and of a processor.
        decode_bytes: of memory that decoding a file may take.
        request_seconds: from a request's first byte to its answer.
        adapter_bytes: of memory for adapters; those not asked for longest are evicted.
        batch: clips computed together.
    """

    body_bytes: int = 64 * 2**20
    seconds: float = 600.0
    pixels: int = 4096 * 2304
    frames: int = 36_000
    concurrent: int = 64
    queue: int = 192
    decode_seconds: float = 20.0
    decode_bytes: int = 2**30
    request_seconds: float = 60.0
    adapter_bytes: int = 512 * 2**20
    batch: int = 16


class Refusal(HTTPException):
    """A status and the reason, one line."""

    def __init__(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(status, one_line(reason), headers)


def path_under(root: Path | None, asked: str) -> Path:
    """The file that ``asked`` names under ``root``, links followed.

    Raises:
        Refusal: it leads out of the root (403), is no file (404), or there is no root (403).
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
    except (OSError, ValueError, RuntimeError):  # a name too long, with a null character, a circle of links
        raise Refusal(404, "path: no such file") from None
    return found


_ARCHIVES = {b"PK\x03\x04": "zip", b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"Rar!": "rar"}
_ARCHIVES |= {b"7z\xbc\xaf": "7z", b"(\xb5/\xfd": "zstd"}


def refuse_archives(path: Path) -> None:
    """Nothing is ever unpacked.

    Raises:
        Refusal: an archive, by its first bytes (415).
    """
    with path.open("rb") as file:
        start = file.read(8)
    for magic, name in _ARCHIVES.items():
        if start.startswith(magic):
            raise Refusal(415, f"a {name} archive, not a video")
