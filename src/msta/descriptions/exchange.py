"""``msta descriptions import`` and ``export``: between a bank and the authors' two files."""

from __future__ import annotations

from pathlib import Path

from msta.descriptions.bank import KINDS, DescriptionBank
from msta.descriptions.labels import read_labels
from msta.errors import ConfigError
from msta.files import refuse_existing


def import_official(spatial: Path | None, temporal: Path | None, labels: Path, out: Path) -> str:
    """Put the classes of one or two files of the authors' into a bank, which is made if need be.

    Returns:
        What was done, in words.

    Raises:
        MSTAError: files that cannot be read, or do not fit the labels.
    """
    if spatial is None and temporal is None:
        raise ConfigError("missing --spatial or --temporal")
    read = DescriptionBank.read_official(spatial, temporal, read_labels(labels))
    bank = DescriptionBank.load(out) if out.exists() else DescriptionBank(str(out))
    for name, each in read.classes.items():
        bank = bank.put(bank.called(name), each)
    bank.save(out)
    counts = [f"{sum(len(e.of(kind)) for e in read.classes.values())} {kind}" for kind in KINDS]
    return f"{len(read.classes)} classes, {' and '.join(counts)} sentences, in {out}"


def export_official(bank: Path, spatial: Path | None, temporal: Path | None, labels: Path | None) -> str:
    """Write a bank's sentences to one or two files of the authors' format.

    Returns:
        What was done, in words.

    Raises:
        MSTAError: a file exists, a class or its sentences are missing.
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
