"""The errors a user can meet. The command line prints each as one line."""

from __future__ import annotations

from collections.abc import Callable, Sequence


def one_line(text: str) -> str:
    """``text`` with line breaks and whatever else cannot be printed escaped: file names may hold anything."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def is_text(name: str) -> bool:
    """False for a name with bytes that are no UTF-8, as a file system may hold."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def as_text(name: str) -> str:
    """``name`` for a file that holds text alone: bytes that are no UTF-8, as a file system may hold, are spelt out."""
    return name.encode(errors="backslashreplace").decode()


def in_short(error: object) -> str:
    """Another library's error, or a text from outside, as part of a line of ours: cut after a sentence or a word."""
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
    """Something the user can put right: the message names the file or the setting at fault (exit code 1)."""


class ConfigError(MSTAError):
    """Wrong usage: an unknown setting, a wrong type, a value out of range (exit code 2)."""


class CheckpointError(MSTAError):
    """A backbone or adapter file that cannot be read, or does not fit."""


class Interrupted(MSTAError):
    """A run was stopped and saved; the message says how to go on (exit code 130)."""


class DataError(MSTAError):
    """A data set that cannot be used as it is."""
