"""What the C library does with memory that is given back."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # mallopt(3)


def keep_freed_memory(keep: bool = True) -> None:
    """Let this process keep the memory of freed tensors for the next ones (Linux with glibc; else nothing happens).

    glibc returns every large block to the system at once and gets it back page by page, zeroed: on a CPU that can be
    a third of a block's training pass. The price is that the process stays as large as it has been. ``keep=False``
    goes back to glibc's defaults.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is None:
        return
    mallopt(_MMAP_MAX, 0 if keep else 65536)
    mallopt(_TRIM_THRESHOLD, 2**31 - 1 if keep else 2**17)
    mallopt(_TOP_PAD, 2**28 if keep else 2**17)
