"""Notices: what a user should know but need not act on. Each text is logged once per process."""

from __future__ import annotations

import logging
from functools import cache

logger = logging.getLogger("msta")


@cache
def notice(message: str) -> None:
    """Log ``message`` as a warning of the ``msta`` logger, the first time it is given."""
    logger.warning(message)
