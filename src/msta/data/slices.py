"""A part of a file or URL, and the errors of reading one."""

from __future__ import annotations

from typing import NamedTuple


class Unreachable(OSError):
    """A server does not answer, or answers only with errors. The clip itself may be fine."""


class Damaged(OSError):
    """Bytes are missing, or differ from those that were written."""


class Slice(NamedTuple):
    """``size`` bytes from ``offset`` on."""

    offset: int
    size: int
