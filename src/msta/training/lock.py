"""A lock on the directory of a run: only one process uses it at a time, and others can see whether one does."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msta.errors import MSTAError
from msta.files import take_lock

NAME = "lock"
_PATIENCE = 1.0
"""Seconds to wait for the lock. A process that only checks the lock holds it for a moment."""


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Hold the run's lock, see :func:`msta.files.take_lock`.

    Raises:
        MSTAError: another process has the lock.
    """
    with (run / NAME).open("a+", encoding="utf-8") as file:
        until = time.monotonic() + _PATIENCE
        while not take_lock(file):
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
    """Whether a process holds the lock."""
    try:
        with (run / NAME).open("r+", encoding="utf-8") as file:
            return not take_lock(file)
    except OSError:
        return False


def holder(run: Path) -> dict[str, Any]:
    """Pid and host of the process that has the lock, or had it last."""
    try:
        return dict(json.loads((run / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
