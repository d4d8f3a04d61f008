"""The errors that a user can see. The command line prints each as one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def one_line(text: str) -> str:
    """``text`` with line breaks and other unprintable characters escaped. File names may hold any character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_text(name: str) -> bool:
    """Whether a file name is valid text. On Linux a name may hold bytes that are not UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    """``name`` as valid text: bytes that are not UTF-8 are escaped."""
    return name.encode(errors="backslashreplace").decode()


def in_short(error: object) -> str:
    """Another library's error, or another long text, as part of one line: cut after a sentence or a word."""
    text = " ".join(str(error).split())
    if len(text) > 300:
        text = text[:300]
        end = max(text.rfind(". ") + 1, text.rfind(" ", 240), 240 if " " not in text[240:] else 0)
        text = f"{text[:end].rstrip()} …"
    return text or type(error).__name__


def few(names: Sequence[str], show: Callable[[str], str] = str) -> str:
    """The first three of the names, and how many more there are: "a, b, c and 2 more"."""
    return ", ".join(map(show, names[:3])) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


class MSTAError(Exception):
    """An error that the user can correct. The message names the file or the setting at fault (exit code 1)."""


class ConfigError(MSTAError):
    """Wrong usage: an unknown setting, a wrong type, a value out of range (exit code 2)."""


class CheckpointError(MSTAError):
    """A file of a backbone or adapter cannot be read, or does not fit."""


class Interrupted(MSTAError):
    """A run was stopped and saved. The message says how to continue it (exit code 130)."""


class DataError(MSTAError):
    """A data set cannot be used as it is."""
