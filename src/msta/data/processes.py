"""Long work over many files: how many processes decode, a check before they start, and a progress bar."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console
from rich.progress import track

from msta.errors import MSTAError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def decoders(device: torch.device, wanted: int | None = None, processes: int = 1) -> int:
    """Decoding processes for one of so many processes on this machine that compute on such a device.

    As many as are ``wanted``; if nobody says: on a CPU 1, since computing needs the rest, else its share of the cores,
    less one for itself.
    """
    if wanted is not None:
        return wanted
    if device.type == "cpu":
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // processes - 1)


def check_main_guard(method: str | None = None) -> None:
    """Refuse to start processes that would run the user's script again from its first line.

    Args:
        method: how they are started; None: as the system does by default. A forked process does not read the script.

    Raises:
        MSTAError: the script has no ``if __name__ == "__main__":``.
    """
    default = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    main = sys.modules["__main__"]
    script = getattr(main, "__file__", None)
    if (method or default) == "fork" or script is None or main.__spec__ is not None or hasattr(sys, "ps1"):
        return
    try:
        guarded = b"__name__" in Path(script).read_bytes()
    except OSError:  # no file, as in frozen programs
        return
    if not guarded:
        raise MSTAError(
            f"{script}: processes that help would run this script again from its first line; "
            'put what it does under if __name__ == "__main__":'
        )


def with_bar(items: Iterable[T], doing: str, total: int, console: Console | None) -> Iterable[T]:
    """The items, while a progress bar on ``console`` counts them; None: without one."""
    return track(items, doing, total, console=console or Console(quiet=True), transient=True)
