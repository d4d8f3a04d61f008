"""A part of a file or URL, and what may be wrong with it."""

from __future__ import annotations

from typing import NamedTuple


class Unreachable(OSError):
    """A server that does not answer, or only with errors: no fault of the clip that is there."""


class Damaged(OSError):
    """Bytes that are missing, or not those that were written."""


class Slice(NamedTuple):
    """``size`` bytes from ``offset`` on."""

    offset: int
    size: int
