"""Make a bank: with a language model, from templates, by hand, or from the authors' two files; and write such files."""

from __future__ import annotations

import asyncio
import contextlib
import glob
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from msta.descriptions.bank import KINDS, Described, DescriptionBank, today
from msta.descriptions.endpoint import Endpoint, import_openai
from msta.descriptions.generate import Asking, Patience
from msta.descriptions.labels import read_labels
from msta.descriptions.prompts import SPATIAL_TEMPLATES, VERSION, templates
from msta.errors import ConfigError, DataError, MSTAError
from msta.files import refuse_existing, take_lock

TEMPLATE = "template"
"""The author of sentences that no model has written."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of :func:`describe`.

    Attributes:
        bank: as it is on disk.
        incomplete: class -> why it lacks sentences.
        cost: answers and tokens, in words; None if no model was asked.
    """

    bank: DescriptionBank
    incomplete: dict[str, str]
    cost: str | None = None


def describe(
    classes: Sequence[str], out: Path, to: Endpoint, console: Console, *,
    sentences: int = 4, jobs: int = 8, patience: Patience | None = None,
) -> Outcome:  # fmt: skip
    """Ask a language model for the sentences that the bank lacks. If a call was stopped, the next one continues it.

    Args:
        classes: names.
        out: the file of the bank, new or not. It is written after every answer.
        to: the endpoint to ask.
        console: for the progress bar and the cost line.
        sentences: how many of each kind per class.
        jobs: how many classes are asked about at a time.
        patience: how often and how long to try.

    Raises:
        MSTAError: see :meth:`msta.descriptions.generate.Asking.run`.
    """
    if sentences < 1 or jobs < 1:
        raise ConfigError("--sentences and --jobs: expected at least 1")
    import_openai()
    with _alone(out), Progress(console=console, transient=True) as bar:
        task = bar.add_task("describing", total=len(classes))
        asking = Asking(
            _open(out), classes, sentences, to, lambda changed: changed.save(out), jobs=jobs,
            patience=patience or Patience(), progress=lambda done: bar.update(task, completed=done),
        )  # fmt: skip
        try:
            asyncio.run(asking.run())
        finally:
            if asking.tally.requests:
                console.print(f"{asking.tally.cost()}, from {to.model}", markup=False, highlight=False, soft_wrap=True)
    return Outcome(asking.bank, asking.tally.incomplete, asking.tally.cost())


def describe_by_template(classes: Sequence[str], out: Path, *, sentences: int = 4) -> Outcome:
    """Fill templates with the names of the classes that lack sentences. With them the consistency term works offline.

    Raises:
        ConfigError: there are fewer templates than ``sentences``.
    """
    if not 1 <= sentences <= len(SPATIAL_TEMPLATES):
        raise ConfigError(f"--sentences: there are 1 to {len(SPATIAL_TEMPLATES)} templates, got {sentences}")
    with _alone(out):
        bank = _open(out).with_places(classes)
        for name in classes:
            there, filled = bank.find(name) or Described(), templates(name, sentences)
            if not (there.spatial and there.temporal):
                model = f"{there.model} + {TEMPLATE}" if there.spatial or there.temporal else TEMPLATE
                spatial, temporal = there.spatial or filled[0], there.temporal or filled[1]
                made = Described(spatial, temporal, model, VERSION, today(), there.edited)
                bank = bank.put(bank.called(name), made)
        bank.save(out)
    return Outcome(bank, {})


def edit(classes: Sequence[str], out: Path) -> Outcome:
    """Open the bank in the user's editor. Classes that were changed there are marked as edited by hand.

    The editor opens a copy. The copy replaces the bank if it is valid. If not, it is kept, and the next call opens it.

    Args:
        classes: they are added without sentences if the bank lacks them.
        out: the file of the bank; it is made if it does not exist.

    Raises:
        MSTAError: there is no editor, or the edited file is not a valid bank.
    """
    command = shlex.split(os.environ.get("VISUAL") or os.environ.get("EDITOR") or "") or ["vi"]
    if shutil.which(command[0]) is None:
        raise ConfigError(f"no editor {command[0]!r}; name one in the environment variable EDITOR")
    copy = out.with_name(f"{out.stem}.edit{out.suffix}")
    with _alone(out):
        before = _open(out)
        if not copy.exists():
            before = before.with_places(classes)
            if not before.classes:
                raise ConfigError("missing --labels: there is no bank yet, and it needs class names")
            before.save(copy)
        if code := subprocess.call([*command, str(copy)]):
            raise MSTAError(f"{command[0]}: exit code {code}; {out} is as it was")
        try:
            after = DescriptionBank.load(copy)
        except DataError as error:
            raise MSTAError(f"{error}. {out} is as it was; say --edit again to put it right") from error
        for name, each in after.classes.items():
            old = before.classes.get(name, Described())
            if (each.spatial, each.temporal) != (old.spatial, old.temporal):
                after = after.put(name, replace(each, edited=True, date=today()))
        after.save(out)
        copy.unlink()
    bank = DescriptionBank(str(out), after.classes)
    lacking = [name for name, each in bank.classes.items() if not (each.spatial and each.temporal)]
    return Outcome(bank, dict.fromkeys(lacking, "has no sentences of one kind, or of both"))


def import_official(spatial: Path | None, temporal: Path | None, labels: Path, out: Path) -> str:
    """Put the classes of one or two files in the authors' format into a bank, which is made if it does not exist.

    Returns:
        What was done, in words.

    Raises:
        MSTAError: a file cannot be read, or does not fit the labels.
    """
    if spatial is None and temporal is None:
        raise ConfigError("missing --spatial or --temporal")
    read = DescriptionBank.read_official(spatial, temporal, read_labels(labels))
    bank = _open(out)
    for name, each in read.classes.items():
        before = bank.find(name) or each  # keeps the kind that was not given
        seen, happens = (each if spatial else before).spatial, (each if temporal else before).temporal
        bank = bank.put(bank.called(name), replace(each, spatial=seen, temporal=happens))
    bank.save(out)
    counts = [f"{sum(len(e.of(kind)) for e in read.classes.values())} {kind}" for kind in KINDS]
    return f"{len(read.classes)} classes, {' and '.join(counts)} sentences, in {out}"


def export_official(bank: Path, spatial: Path | None, temporal: Path | None, labels: Path | None) -> str:
    """Write the sentences of a bank to one or two files in the authors' format.

    Returns:
        What was done, in words.

    Raises:
        MSTAError: a file exists already, or a class or its sentences are missing.
    """
    targets = [(path, kind) for path, kind in zip((spatial, temporal), KINDS, strict=True) if path is not None]
    if not targets:
        raise ConfigError("missing --spatial or --temporal")
    content = DescriptionBank.load(bank)
    classes = read_labels(labels) if labels is not None else tuple(content.classes)
    for path, _ in targets:
        refuse_existing(path)
    for path, kind in targets:
        content.write_official(path, kind, classes)
    return f"{len(classes)} classes in {' and '.join(str(path) for path, _ in targets)}"


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Let no second process write the bank meanwhile, and remove what a killed process left half-written.

    Raises:
        MSTAError: another process writes it.
    """
    if not out.parent.is_dir():
        raise MSTAError(f"{out}: there is no folder {out.parent}")
    if sys.platform == "win32":  # has no such locks, and removes no open file
        yield
        return
    lock = out.with_name(f".{out.name}.lock")
    with lock.open("w") as file:
        if not take_lock(file):
            raise MSTAError(f"{out}: another msta describe is writing it")
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):  # its owner has just removed it
            raise MSTAError(f"{out}: another msta describe has just written it; try again")
        for left in out.parent.glob(f".{glob.escape(out.name)}.*.part"):
            left.unlink(missing_ok=True)
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _open(out: Path) -> DescriptionBank:
    return DescriptionBank.load(out) if out.exists() else DescriptionBank(str(out))
