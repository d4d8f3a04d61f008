"""Long work on many files: the number of decoding processes, a check before they start, and a progress bar."""

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
    """The number of decoding processes for one of several computing processes on this machine.

    It is ``wanted``, unless that is None: then 1 on a CPU, because computing needs the rest, and on an accelerator the
    process's share of the cores minus one.
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
        method: the start method; None: the system's default. A forked process does not run the script.

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
    """The items, counted by a progress bar on ``console``; None: no bar."""
    return track(items, doing, total, console=console or Console(quiet=True), transient=True)
