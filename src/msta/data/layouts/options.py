"""The options that tell where the parts of a data set are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Options:
    """Each layout takes some of these; a run has them as ``data.…`` settings. None: not given.

    - split_folders: whether folders called train, val or test are splits (true), or classes (false).
    - fold: of a table with a column fold, the one to test on; the clips of the others are for training.
    - split_number: which of the official splits, 1, 2 or 3.
    - annotations: the folder of the annotation files, if it is not in the data's own.
    - labels: a CSV of ``id,name``. It says what the labels of lists and CSVs mean. For every other layout it selects
      classes by name and orders them; the clips of other classes are left out.
    - train_list, val_list, test_list: lists of "path label", with paths inside the data's folder.
    """

    split_folders: bool | None = None
    fold: int | str | None = None
    split_number: int | None = None
    annotations: Path | None = None
    labels: Path | None = None
    train_list: Path | None = None
    val_list: Path | None = None
    test_list: Path | None = None

    def given(self) -> list[str]:
        """Names of the options that are set."""
        return [field.name for field in fields(self) if getattr(self, field.name) is not None]


OPTIONS = tuple(field.name for field in fields(Options))
