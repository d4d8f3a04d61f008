"""Read ranges of files over HTTP, from servers that drop, delay and truncate. Nothing is lost silently or hangs.

An answer that breaks off is continued where it stopped. A request is given up if several attempts in a row bring no
byte, or if it takes too long in total.
"""

from __future__ import annotations

import functools
import os
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from msta.errors import ConfigError, DataError, in_short


class Unreachable(OSError):
    """A server does not answer, or answers only with errors. The clip itself may be fine."""


class Damaged(OSError):
    """Bytes are missing, or differ from what was written."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds.

    ``stall`` is for a connection or the next byte. ``total`` is for a request with all its attempts; it is less than
    ``data.timeout`` of a data loader, which would blame the clip. So many ``attempts`` in a row may bring nothing, and
    ``pause`` is the wait after the first, which doubles each time.
    """

    stall: float = 20.0
    total: float = 90.0
    attempts: int = 6
    pause: float = 0.5


PATIENCE = Patience()
_BLOCK = 1 << 16
_FOR_EVER = {401: "not authorised", 403: "forbidden", 404: "not found", 410: "gone"}


class _Again(Exception):
    """An attempt failed, but the next one may succeed."""


def fetch(url: str, start: int = 0, size: int | None = None) -> bytes:
    """The content of a URL from byte ``start`` on: ``size`` bytes, or all that follow.

    Raises:
        Unreachable: the server did not give it in time.
        Damaged: the file ends too early.
        OSError: the file does not exist, or access is denied.
        DataError: the server does not support ranges.
    """
    patience = PATIENCE
    deadline = time.monotonic() + patience.total
    content = bytearray()
    fruitless = 0
    while True:
        before = len(content)
        try:
            for block in _attempt(url, start + before, None if size is None else start + size, deadline):
                content += block
            return bytes(content)
        except _Again as error:
            reason = str(error)
        fruitless = fruitless + 1 if len(content) == before else 0
        pause = patience.pause * 2 ** max(0, fruitless - 1)
        if fruitless >= patience.attempts or time.monotonic() + pause > deadline:
            how = f"{fruitless} attempts in a row brought nothing" if fruitless >= patience.attempts else "too slow"
            raise Unreachable(f"{url}: {how}; the last: {reason}")
        time.sleep(pause)


def _attempt(url: str, start: int, end: int | None, deadline: float) -> Iterator[bytes]:
    """The blocks from ``start`` to ``end``, or to the end of the file, as far as this answer goes."""
    headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if start or end is not None else {}
    headers["Accept-Encoding"] = "identity"  # a range of something compressed would be another one
    with _answer(url, headers) as answer:
        total = _check(url, answer, start, ranged="Range" in headers)
        if end is None:
            end = total
        while end is None or start < end:
            if time.monotonic() > deadline:
                raise _Again("too slow")
            block = answer.read1(_BLOCK if end is None else min(_BLOCK, end - start))
            if not block:
                break
            start += len(block)
            yield block
    if end is not None and start < end:
        raise _Again(f"the answer broke off {end - start} bytes early")


def _check(url: str, answer: Any, start: int, *, ranged: bool) -> int | None:
    """The size of the whole file, if the headers of the answer say it.

    Raises:
        _Again, Damaged, OSError, DataError: the answer is not what was asked for.
    """
    if answer.status in _FOR_EVER:
        raise FileNotFoundError(f"{url}: {_FOR_EVER[answer.status]} (HTTP {answer.status})")
    if answer.status == 416:
        raise Damaged(f"truncated: {url} ends before byte {start}")
    if answer.status == 200 and not ranged:
        length = answer.headers.get("Content-Length", "")
        return int(length) if length.isdecimal() else None
    if answer.status == 200:
        raise DataError(
            f"{url}: its server knows no ranges (Python's http.server does not), so that each clip would cost a whole "
            "shard; take another server, or copy the shards here"
        )
    if answer.status != 206:
        raise _Again(f"HTTP {answer.status}")
    stated = str(answer.headers.get("Content-Range", "")).removeprefix("bytes ")
    total = stated.partition("/")[2]
    if stated.partition("-")[0] != str(start):
        raise _Again(f"another range than asked for: {stated!r}")
    return int(total) if total.isdecimal() else None


@contextmanager
def _answer(url: str, headers: dict[str, str]) -> Iterator[Any]:
    """The server's answer. Every failure on the way is an :class:`_Again`."""
    place = urlsplit(url)
    proxy = None if urllib.request.proxy_bypass(place.hostname or "") else urllib.request.getproxies().get(place.scheme)
    pool, urllib3 = _pool(os.getpid(), proxy)
    try:
        answer = pool.request(
            "GET", url, headers=headers, preload_content=False, timeout=PATIENCE.stall,
            retries=urllib3.Retry(total=None, connect=0, read=0, status=0, other=0, redirect=5),
        )  # fmt: skip
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise _Again(in_short(getattr(error, "reason", None) or error)) from error
    try:
        yield answer
    except (urllib3.exceptions.HTTPError, TimeoutError, ConnectionError) as error:
        raise _Again(in_short(error)) from error
    finally:
        # What is left of an answer is not wanted: without this the connection would be given to the next request.
        if answer.length_remaining == 0:
            answer.release_conn()
        else:
            answer.close()


@functools.lru_cache(maxsize=1)
def _pool(process: int, proxy: str | None) -> tuple[Any, Any]:
    """Open connections of this process alone: a forked process must not share them."""
    try:
        import urllib3
    except ImportError as error:
        raise ConfigError("reading over HTTP: urllib3 is not installed; pip install 'msta[shards]'") from error
    return urllib3.ProxyManager(proxy) if proxy else urllib3.PoolManager(), urllib3
