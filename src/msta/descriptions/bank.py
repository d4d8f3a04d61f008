"""DescriptionBank: sentences per class about what is seen (spatial) and what happens (temporal), in one file.

The frozen text tower encodes them. Their embeddings are the anchors that the consistency term pulls the adapted text
embeddings to, see :mod:`msta.descriptions.anchors`. The file is JSON with one sentence per line. The format of the
paper's authors, two files from class index to sentences, can be read and written too.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

from msta.data.names import letters
from msta.errors import DataError, is_text
from msta.files import read_json, write_bytes, write_json
from msta.notices import notice

FORMAT = "msta-descriptions-1"
Kind = Literal["spatial", "temporal"]
KINDS: tuple[Kind, Kind] = ("spatial", "temporal")
Sentences = dict[str, tuple[str, ...]]
"""Class name -> sentences."""


@dataclass(frozen=True)
class Described:
    """The sentences of one class, and their origin.

    Attributes:
        spatial: sentences about what is seen.
        temporal: sentences about what happens, in order.
        model: the author: the name of a language model, or "template"; None if unknown.
        prompt: the version of our prompt that asked for them; None for other prompts.
        date: when they were written, such as 2025-12-31.
        edited: whether somebody has edited them by hand since.
    """

    spatial: tuple[str, ...] = ()
    temporal: tuple[str, ...] = ()
    model: str | None = None
    prompt: str | None = None
    date: str | None = None
    edited: bool = False

    def of(self, kind: Kind) -> tuple[str, ...]:
        """The sentences of a kind."""
        return self.spatial if kind == "spatial" else self.temporal

    def part(self, kinds: Collection[Kind] = KINDS, count: int | None = None) -> Described:
        """A copy with the first ``count`` sentences (None: all) of these kinds, and without the other kinds."""
        spatial, temporal = (self.of(kind)[:count] if kind in kinds else () for kind in KINDS)
        return replace(self, spatial=spatial, temporal=temporal)


@dataclass(frozen=True)
class DescriptionBank:
    """Classes by name, in order.

    Attributes:
        source: the file or files that it came from.
        classes: name -> sentences. A class may lack sentences of a kind, or of both, as long as nobody asks for them.
    """

    source: str
    classes: Mapping[str, Described] = field(default_factory=dict)

    def find(self, name: str) -> Described | None:
        """A class by its name. Case, ``_``, ``-`` and ``CamelCase`` only matter if classes differ in nothing else."""
        return self.classes.get(self.called(name))

    def called(self, name: str) -> str:
        """The name that the bank has for a class, or would have."""
        if name in self.classes:
            return name
        same = [other for other in self.classes if key(other) == key(name)]
        return same[0] if len(same) == 1 else name

    def subset(self, classes: Sequence[str]) -> DescriptionBank:
        """A bank of these classes alone, under these names and in this order.

        Raises:
            DataError: the bank lacks one of them.
        """
        found = {name: self.find(name) for name in classes}
        missing = [name for name, each in found.items() if each is None]
        if missing:
            near = difflib.get_close_matches(missing[0], self.classes, 1)
            raise DataError(
                f"{self.source}: {len(missing)} of {len(classes)} classes are not in it: {missing[0]!r}"
                + (f"; did you mean {near[0]!r}?" if near else "; add them with msta describe")
            )
        return DescriptionBank(self.source, {name: each for name, each in found.items() if each is not None})

    def sentences(self, kind: Kind) -> Sentences | None:
        """Class name -> sentences of a kind; None if no class has one."""
        found = {name: each.of(kind) for name, each in self.classes.items()}
        return found if any(found.values()) else None

    def every(self) -> Iterator[tuple[str, Kind, str]]:
        """(class name, kind, sentence) of all sentences."""
        return ((name, kind, text) for name, each in self.classes.items() for kind in KINDS for text in each.of(kind))

    def complete(self, kinds: Iterable[Kind]) -> DescriptionBank:
        """This bank, if each of its classes has a sentence of each of these kinds.

        Raises:
            DataError: a class lacks sentences.
        """
        for kind in kinds:
            lacking = [name for name, each in self.classes.items() if not each.of(kind)]
            if lacking:
                raise DataError(
                    f"{self.source}: no {kind} sentences for {lacking[0]!r}, one of {len(lacking)} such classes; "
                    "write them with msta describe"
                )
        return self

    def first(self, count: int) -> DescriptionBank:
        """This bank with the first ``count`` sentences of each kind and class."""
        return replace(self, classes={name: each.part(count=count) for name, each in self.classes.items()})

    def counts(self, kind: Kind) -> str | None:
        """In words, how the numbers of sentences differ between classes; None if they do not differ."""
        numbers = {name: len(each.of(kind)) for name, each in self.classes.items()}
        if len(set(numbers.values())) <= 1:
            return None
        ((usual, _),) = Counter(numbers.values()).most_common(1)
        odd = [f"{name!r} has {count}" for name, count in numbers.items() if count != usual]
        return f"{usual} sentences per class, but {', '.join(odd[:3])}{' …' if len(odd) > 3 else ''}"

    def put(self, name: str, described: Described) -> DescriptionBank:
        """A copy of this bank with a class added or replaced."""
        return replace(self, classes={**self.classes, name: described})

    def with_places(self, classes: Iterable[str]) -> DescriptionBank:
        """A copy of this bank with an empty entry for each of these classes that it lacks."""
        lacking = {name: Described() for name in classes if self.find(name) is None}
        return replace(self, classes={**self.classes, **lacking})

    def save(self, path: Path) -> None:
        """Write the bank to a file at once.

        Raises:
            OSError: the file cannot be written.
        """
        classes = {name: asdict(each) for name, each in self.classes.items()}
        text = json.dumps({"format": FORMAT, "classes": classes}, indent=2, ensure_ascii=False)
        write_bytes(path, (text + "\n").encode())

    @classmethod
    def load(cls, path: Path) -> DescriptionBank:
        """Read a bank.

        Raises:
            DataError: the file cannot be read, has another format, or is damaged. The message names file and class.
        """
        content = read_json(path, DataError, unique=True)
        if content.get("format") != FORMAT or not isinstance(content.get("classes"), dict):
            theirs = bool(content) and all(isinstance(value, list) for value in content.values())
            raise DataError(
                f"{path}: one file of the authors' format, not a bank; import it with msta descriptions import"
                if theirs
                else f"{path}: no bank of descriptions: expected format {FORMAT!r}, found {content.get('format')!r}"
            )
        return cls(str(path), {name: _described(path, name, each) for name, each in content["classes"].items()})

    @classmethod
    def read_official(cls, spatial: Path | None, temporal: Path | None, classes: Sequence[str]) -> DescriptionBank:
        """Read one or two files in the authors' format: a JSON object, class index (or name) -> list of sentences.

        Classes may have different numbers of sentences: there is a notice, but no error. (In the authors' K400 file one
        class has a single sentence, the others have eight.)

        Args:
            spatial: file of sentences about what is seen, or None.
            temporal: file of sentences about what happens, or None.
            classes: names in the order of the indices.

        Raises:
            DataError: a file cannot be read or has another format, or a class has no sentences.
        """
        kinds = [{} if path is None else _read_official(path, classes) for path in (spatial, temporal)]
        source = ", ".join(str(p) for p in (spatial, temporal) if p is not None)
        bank = cls(source, {name: Described(kinds[0].get(name, ()), kinds[1].get(name, ())) for name in classes})
        for path, kind in zip((spatial, temporal), KINDS, strict=True):
            if path is not None and (irregular := bank.counts(kind)):
                notice(f"{path}: {irregular}. Accepted.")
        return bank

    def write_official(self, path: Path, kind: Kind, classes: Sequence[str]) -> None:
        """Write the sentences of a kind in the authors' format.

        Args:
            path: the file.
            kind: of the sentences.
            classes: names; the position of a class is its index.

        Raises:
            DataError: the bank lacks a class, or its sentences of this kind.
        """
        chosen = self.subset(classes).complete((kind,))
        write_json(path, {str(i): list(each.of(kind)) for i, each in enumerate(chosen.classes.values())})


def load_descriptions(
    spatial: Path | None,
    temporal: Path | None,
    classes: Sequence[str],
    *,
    bank: Path | None = None,
    kinds: Iterable[Kind] = KINDS,
) -> DescriptionBank | None:
    """The sentences of a run's classes, from a bank or from files in the authors' format.

    Args:
        spatial: see :meth:`DescriptionBank.read_official`.
        temporal: see :meth:`DescriptionBank.read_official`.
        classes: names, in the order of the authors' indices. In a bank they are found by name.
        bank: a bank in place of such files; it may have more classes.
        kinds: the kinds to load.

    Returns:
        None if no file is given.

    Raises:
        DataError: a file cannot be read, or does not fit the classes.
    """
    if bank is not None:
        found = DescriptionBank.load(bank).subset(classes)
        wanted: list[Kind] = [kind for kind in kinds if found.sentences(kind) is not None]
        if not wanted:
            raise DataError(f"{bank}: no sentences in it for these classes; write them with msta describe")
        found.complete(wanted)
    else:
        wanted = list(kinds)
        spatial, temporal = spatial if "spatial" in wanted else None, temporal if "temporal" in wanted else None
        if spatial is None and temporal is None:
            return None
        found = DescriptionBank.read_official(spatial, temporal, classes)
    return replace(found, classes={name: each.part(wanted) for name, each in found.classes.items()})


@functools.lru_cache(1 << 16)
def key(name: str) -> str:
    """A key that all spellings of a class name share, such as "swipe_left" and "Swipe Left", or "ApplyMakeup" and
    "apply makeup".
    """
    return (letters(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)) or name).casefold()


def same_text(sentence: str) -> str:
    """A key that sentences share if they differ only in case, spaces and punctuation."""
    return letters(sentence).casefold() or sentence


def today() -> str:
    """Today's date, as it is written in a bank."""
    return date.today().isoformat()


def _described(path: Path, name: str, content: Any) -> Described:
    if not isinstance(content, dict):
        raise DataError(f"{path}: the class {name!r}: expected an object with spatial and temporal")
    unknown = content.keys() - Described.__dataclass_fields__.keys()
    if unknown:
        raise DataError(f"{path}: the class {name!r}: nothing is called {sorted(unknown)[0]!r} there")
    for kind in KINDS:
        sentences = content.get(kind, [])
        if not _are_sentences(sentences):
            raise DataError(f"{path}: the class {name!r}: {kind}: expected a list of sentences, none of them empty")
    for entry in ("model", "prompt", "date"):
        if not isinstance(content.get(entry), str | None):
            raise DataError(f"{path}: the class {name!r}: {entry}: expected a text or null")
    if not isinstance(content.get("edited", False), bool):
        raise DataError(f"{path}: the class {name!r}: edited: expected true or false")
    return Described(**{**content, **{kind: tuple(content.get(kind, ())) for kind in KINDS}})


def _are_sentences(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(s, str) and s.strip() and is_text(s) for s in content)


def _read_official(path: Path, classes: Sequence[str]) -> Sentences:
    content = read_json(path, DataError)
    sentences: Sentences = {}
    for index, name in enumerate(classes):
        found = content.get(str(index), content.get(name))
        if not found or not _are_sentences(found):
            raise DataError(f"{path}: no list of sentences for class {index}, {name!r}")
        sentences[name] = tuple(found)
    if len(content) != len(classes):
        raise DataError(f"{path}: has {len(content)} classes, the data {len(classes)}; indices would not match")
    return sentences
