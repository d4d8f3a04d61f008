"""A lock: only one process at a time uses a run's directory, and others can see whether one does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from msta.errors import MSTAError

if sys.platform != "win32":
    import fcntl

NAME = "lock"
_PATIENCE = 1.0
"""Seconds to wait for the lock: a check from outside holds it for a moment."""


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock. The system releases it when this process ends, in whatever way.

    It is a POSIX record lock: unlike flock's it belongs to this process alone, so decoding processes that outlive a
    killed run do not keep it. It works over NFS.

    Raises:
        MSTAError: another process has the lock.
    """
    with (run / NAME).open("a+", encoding="utf-8") as file:
        until = time.monotonic() + _PATIENCE
        while not _take(file):
            if time.monotonic() > until:
                who = holder(run)
                raise MSTAError(
                    f"{run}: process {who.get('pid', '?')} on {who.get('host', '?')} is at work in it; "
                    "wait for it, or stop it"
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def alive(run: Path) -> bool:
    """Whether some process holds the lock."""
    try:
        with (run / NAME).open("r+", encoding="utf-8") as file:
            return not _take(file)
    except OSError:
        return False


def holder(run: Path) -> dict[str, Any]:
    """Pid and host of the process that has the lock, or had it last."""
    try:
        return dict(json.loads((run / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _take(file: IO[str]) -> bool:
    if sys.platform != "win32":  # which has other locks; there nobody is kept out
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True
