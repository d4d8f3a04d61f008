"""The command line: parse, call one function, print. No logic."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import NoReturn

# For their commands, in the order of msta --help.
from msta.cli import adapt, use, zoo, data, descriptions, study  # noqa: F401  # isort: skip
from msta.cli.options import app, console, say
from msta.errors import ConfigError, Interrupted, MSTAError, one_line

__all__ = ["app", "console", "main"]


def main() -> None:
    """Run the command line. Exit codes: 0 success, 1 failure, 2 wrong usage, 130 interrupted."""
    logging.getLogger("msta").addHandler(_Notices())
    os.environ["MPLBACKEND"] = "agg"  # pictures are saved, not shown; a notebook's backend may not be installed here
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding lacks is escaped
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except Interrupted as error:
        _fail(error, 130)
    except ConfigError as error:
        _fail(error, 2)
    except MSTAError as error:
        _fail(error, 1)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except OSError as error:
        _fail(f"{error.filename or 'error'}: {error.strerror or error}", 1)


class _Notices(logging.Handler):
    """Notices go above the progress bar, each on a line of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """One notice."""
        say(record.getMessage())


def _fail(message: object, code: int) -> NoReturn:
    """One line on standard error."""
    print(f"msta: {one_line(str(message))}", file=sys.stderr)
    sys.exit(code)
