"""The four protocols: zero-shot, few-shot, base-to-novel, supervised. Each is a list of cells, run one by one.

A cell is one model: a run of :func:`train` (or no run, for a model without training) and the test sets that it is
measured on. It is a folder under OUT/runs. Once ``cell.json`` is in it, it is finished, and a second call of the
protocol skips it. :mod:`msta.studies.results` makes all figures from the predictions in these folders.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from msta.adapters.artefact import WEIGHTS, Artefact, adapter_in
from msta.config import RunConfig, make_config
from msta.data.catalog import Catalog, Clip
from msta.data.reading import read_catalog
from msta.data.splits import base_novel, restrict
from msta.descriptions.bank import KINDS, load_descriptions
from msta.errors import ConfigError
from msta.methods import METHODS
from msta.notices import notice
from msta.studies.datasets import READING, DatasetSplit, parse_datasets, refuse_overlap, shared_classes, write_once

FROZEN = "zero-shot"
"""The method without training, which is the baseline of every table."""

FEW_SHOT: tuple[int | None, ...] = (2, 4, 8, 16)
BASE_TO_NOVEL: tuple[int | None, ...] = (16,)
"""Default numbers of shots."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """The part of a request that protocols, comparisons and ablations share.

    Attributes:
        seeds: of splits and training.
        preset: of settings, with one recipe per protocol if it has several; ``overrides`` (key=value) come after it.
        backbone: see :func:`load_backbone`; ``base`` as well.
    """

    seeds: tuple[int, ...] = (0, 1, 2)
    preset: str = "small"
    overrides: tuple[str, ...] = ()
    backbone: str | None = None
    base: str | None = None

    def common(self) -> dict[str, Any]:
        """These settings, to make another request with."""
        return {each.name: getattr(self, each.name) for each in fields(Study)}


@dataclass(frozen=True)
class Request(Study):
    """The request for a protocol.

    Attributes:
        protocol: a name of :data:`PROTOCOLS`.
        data: ``[NAME=]PATH[?setting=value&…]`` each, see :func:`parse_datasets`.
        source: in the same form, the data that zero-shot trains on.
        target: in the same form, the data that zero-shot (and base-to-novel, if the classes are already divided) tests
            on.
        methods: names, the baseline first.
        shots: training clips per class, None for all clips; if empty, the protocol's default.
        adapter: a trained one, which zero-shot measures instead of training.
        second: in the same form, data sets that finished models are also tested on, with all of their classes, to see
            what training made the backbone forget. (Not for closed-set methods, which know no other classes.)
        own: (method, its overrides), after ``overrides``.
    """

    protocol: str
    data: tuple[str, ...] = ()
    source: tuple[str, ...] = ()
    target: tuple[str, ...] = ()
    methods: tuple[str, ...] = (FROZEN, "msta")
    shots: tuple[int | None, ...] | None = None
    adapter: Path | None = None
    second: tuple[str, ...] = ()
    own: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Test:
    """A test set that a finished model is measured on, in addition to that of its own run.

    Attributes:
        set: what it is called in tables: "novel", "second", or nothing.
        dataset: its data set; ``part`` is the division.
        csv: the file; its clips with the split "test" are measured.
        unknown: also measure the same clips with the model's own classes, for which all of them are unknown.
    """

    set: str
    dataset: str
    part: int
    csv: Path
    unknown: bool = False

    @property
    def file(self) -> str:
        """The file of its predictions, in the cell's tests/."""
        return "-".join(filter(None, (self.dataset, str(self.part or ""), self.set))) + ".parquet"

    @property
    def unknown_file(self) -> str:
        """The file of predictions for the same clips with the model's own classes."""
        return f"unknown-{self.file}"


@dataclass(frozen=True)
class Cell:
    """One model and what it is measured on.

    Attributes:
        folder: below OUT/runs.
        method: its name; an adapter's if one is given.
        dataset: with ``part``, what it trains on.
        shots: training clips per class; None: all, or none at all.
        seed: of split and training.
        config: of the run.
        trains: whether a run trains the model. If not, ``adapter`` or the backbone is measured as it is.
        own: the name of the run's own test set in tables; None: it is not in tables.
        tests: the other test sets.
    """

    folder: str
    method: str
    dataset: str
    part: int
    shots: int | None
    seed: int
    config: RunConfig
    trains: bool = True
    adapter: Path | None = None
    own: str | None = ""
    tests: tuple[Test, ...] = ()

    def described(self) -> dict[str, Any]:
        """For protocol.json: which file holds which measurement."""
        measured = []
        if self.own is not None:
            own = {"set": self.own, "dataset": self.dataset, "part": self.part}
            measured.append({**own, "file": "predictions/test.parquet"})
        for test in self.tests:
            found = {"set": test.set, "dataset": test.dataset, "part": test.part, "file": f"tests/{test.file}"}
            measured.append(found)
            if test.unknown:
                measured.append({**found, "set": "unknown", "file": f"tests/{test.unknown_file}"})
        about = {name: getattr(self, name) for name in ("folder", "method", "dataset", "part", "shots", "seed")}
        return {**about, "measured": measured}


# ---------------------------------------------------------------- cells of each protocol


def few_shot(request: Request, out: Path) -> Iterator[Cell]:
    """K clips per class, for several K. One split per seed: the test clips are the same for every K."""
    shots = request.shots or FEW_SHOT
    most = None if None in shots else max(k for k in shots if k)
    second = _tests(request.second, "second", out, "second")
    for part, seed in _each(request.data, "--data", request.seeds):
        csv = _divided(part.read(), out, part, seed, shots=most, request=request)
        for method in request.methods:
            tests = () if METHODS[method].closed_set else second
            for k in (most,) if method == FROZEN else shots:
                config = run_config(request, method, csv, seed, k, part.dataset)
                yield _cell(method, part, seed, config, shots=k, tests=tests)


def supervised(request: Request, out: Path) -> Iterator[Cell]:
    """All training clips; tested on several views unless told otherwise."""
    second = _tests(request.second, "second", out, "second")
    for part, seed in _each(request.data, "--data", request.seeds):
        csv = _divided(part.read(), out, part, seed, shots=None, request=request)
        for method in request.methods:
            config = run_config(request, method, csv, seed, None, part.dataset, {"eval.clips": 4, "eval.crops": 3})
            tests = () if METHODS[method].closed_set else second
            yield _cell(method, part, seed, config, shots=None, tests=tests)


def base_to_novel(request: Request, out: Path) -> Iterator[Cell]:
    """Train on half of the classes, test on both halves. With targets, the data are base and the targets novel."""
    shots = _one(request.shots or BASE_TO_NOVEL, "base-to-novel takes one number of shots")
    given = parse_datasets(request.target, "--target")
    second = _tests(request.second, "second", out, "second")
    for part, seed in _each(request.data, "--data", request.seeds):
        catalog = part.read()
        if given:
            halves = catalog, _matching(given, part).read()
            refuse_overlap([c for c in catalog.clips if c.split in (None, "train")], _tested(halves[1]), part.dataset)
        else:
            base, others = (restrict(catalog, labels) for labels in base_novel(catalog.classes))
            halves = base, others
        csv = _divided(halves[0], out, part, seed, shots=shots, request=request, half="base")
        novel_csv = write_once(out / "data" / part.folder / "novel", replace(halves[1], clips=_tested(halves[1])))
        novel = Test("novel", part.dataset, part.number, novel_csv, unknown=True)
        for method in request.methods:
            tests = () if METHODS[method].closed_set else (novel, *second)
            config = run_config(request, method, csv, seed, shots, part.dataset)
            if not given:
                config = _restrict_descriptions(config, catalog, halves[0], csv.parent)
            yield _cell(method, part, seed, config, shots=shots, own="base", tests=tests)


def zero_shot(request: Request, out: Path) -> Iterator[Cell]:
    """Train on the source's classes (or take an adapter, or the backbone as it is), test on other data sets."""
    shots = _one(request.shots, "zero-shot takes one number of shots, or all clips")
    targets = parse_datasets(request.target, "--target")
    tests = _tests(request.target, "target", out)
    catalogs = [read_catalog(test.csv) for test in tests]
    if request.adapter is not None:
        artefact = Artefact.read(request.adapter)
        origin = artefact.backbone
        request = replace(
            request, backbone=request.backbone or origin["source"], base=request.base or origin.get("base")
        )
    untrained = run_config(request, FROZEN, tests[0].csv, 0, None, targets[0].dataset)
    as_it_is = Cell(FROZEN, FROZEN, "", 0, None, 0, untrained, trains=False, own=None, tests=tests)
    if FROZEN in request.methods or not (request.source or request.adapter):
        yield as_it_is
    if request.adapter is not None:
        weights = hashlib.sha256((adapter_in(request.adapter) / WEIGHTS).read_bytes()).hexdigest()[:12]
        yield replace(
            as_it_is, folder=f"adapter-{weights}", method=f"{artefact.label} adapter", adapter=request.adapter
        )
    trained = [method for method in request.methods if method != FROZEN]
    if not request.source and trained and not request.adapter:
        notice("No --source to train on: the backbone is measured as it is.")
    for part, seed in _each(request.source, "--source", request.seeds):
        source = part.read()
        csv = _divided(source, out, part, seed, shots=shots, request=request)
        for target, catalog in zip(targets, catalogs, strict=True):
            refuse_overlap(_trained(csv), catalog.clips, f"{part.dataset} and {target.dataset}")
            if shared := shared_classes(source, catalog):
                some = ", ".join(shared[:3]) + (" …" if len(shared) > 3 else "")
                notice(
                    f"{part.dataset} and {target.dataset} share {len(shared)} of {len(catalog.classes)} classes "
                    f"({some}): for those the test is not zero-shot."
                )
        for method in trained:
            config = run_config(request, method, csv, seed, shots, part.dataset)
            yield _cell(method, part, seed, config, shots=shots, own=None, tests=tests)


PROTOCOLS: dict[str, Callable[[Request, Path], Iterator[Cell]]] = {
    "zero-shot": zero_shot,
    "few-shot": few_shot,
    "base-to-novel": base_to_novel,
    "supervised": supervised,
}


def check(request: Request) -> None:
    """Which options go with which protocol.

    Raises:
        ConfigError: an option does not go with it, or is missing.
    """
    if request.protocol not in PROTOCOLS:
        raise ConfigError(f"no protocol {request.protocol!r}; there are {', '.join(PROTOCOLS)}")
    transfer = request.protocol == "zero-shot"
    if transfer and (request.data or not request.target):
        raise ConfigError("zero-shot takes --target, what is tested on, and --source, what is trained on; no --data")
    if not transfer and (request.source or request.adapter or not request.data):
        raise ConfigError(f"{request.protocol} takes --data; --source and --adapter go with zero-shot")
    if request.target and request.protocol not in ("zero-shot", "base-to-novel"):
        raise ConfigError(f"{request.protocol} takes no --target")
    if request.second and transfer:
        raise ConfigError("zero-shot takes no --second; every --target is tested on")
    if request.shots and request.protocol == "supervised":
        raise ConfigError("supervised trains on all clips; --shots go with the other protocols")
    if request.adapter and request.source:
        raise ConfigError("--adapter is trained already; leave --source out")
    for name, values in (("methods", request.methods), ("seeds", request.seeds), ("shots", request.shots or (1,))):
        if not values:
            raise ConfigError(f"--{name}: give at least one")
        if len(set(values)) < len(values):  # type: ignore[arg-type]
            raise ConfigError(f"--{name}: one is given twice in {', '.join(map(str, values))}")
    if any(k is not None and k < 1 for k in request.shots or ()) or any(seed < 0 for seed in request.seeds):
        raise ConfigError("--shots are 1 or more, --seeds 0 or more")
    for method in request.methods:
        if method not in METHODS:
            raise ConfigError(f"no method {method!r}; there are {', '.join(METHODS)}")
        if METHODS[method].closed_set and transfer:
            raise ConfigError(f"{method} answers for the classes it was trained on alone: it cannot be transferred")
    fixed = {"data.path", "data.shots", "data.seed", "train.seed", "method", "method.name", "backbone", "base"}
    for methods, overrides in ((request.methods, request.overrides), *(((m,), own) for m, own in request.own)):
        if missing := set(methods).difference(request.methods):
            raise ConfigError(f"settings for {', '.join(missing)}, which is not among the methods")
        for override in overrides:
            name = override.partition("=")[0]
            reading = name.removeprefix("data.")
            if reading != name and reading in READING:
                raise ConfigError(f"{name} is a data set's own: write it behind its path, 'PATH?{reading}=…'")
            if override.replace(" ", "") == "eval.keep=nothing":
                raise ConfigError("eval.keep: the report is made from the predictions; keep predictions or embeddings")
            if name in fixed:
                raise ConfigError(f"{name} is the protocol's to set; see msta protocol --help for the option")
            inner = name.removeprefix("method.")
            if inner != name and not any(inner in METHODS[method].model_fields for method in methods):
                raise ConfigError(f"no setting {name} of {', '.join(methods)}")


def _each(texts: Sequence[str], option: str, seeds: Sequence[int]) -> Iterator[tuple[DatasetSplit, int]]:
    for part in parse_datasets(texts, option):
        for seed in seeds:
            yield part, seed


def _one(shots: Sequence[int | None] | None, why: str) -> int | None:
    if shots is not None and len(shots) > 1:
        raise ConfigError(f"--shots: {why}, got {', '.join(map(str, shots))}")
    return shots[0] if shots else None


def _cell(method: str, part: DatasetSplit, seed: int, config: RunConfig, *, shots: int | None, **rest: Any) -> Cell:
    shots = None if method == FROZEN else shots
    folder = f"{part.folder}/{method}" + (f"-{shots}shot" if shots else "") + f"/seed{seed}"
    return Cell(folder, method, part.dataset, part.number, shots, seed, config, **rest)


def run_config(
    request: Request, method: str, csv: Path, seed: int, shots: int | None, dataset: str,
    defaults: dict[str, Any] | None = None,
) -> RunConfig:  # fmt: skip
    """The settings of one run on ``dataset``.

    Embeddings are kept for the map. ``method.*`` applies to the methods that have the setting.
    """
    settings = {
        "eval.keep": "embeddings", **(defaults or {}), "data.path": str(csv), "data.shots": shots,
        "backbone": request.backbone, "base": request.base, "train.seed": seed,
    }  # fmt: skip
    known = METHODS[method].model_fields
    own = [
        o for o in (*request.overrides, *dict(request.own).get(method, ()))
        if not o.startswith("method.") or o.partition("=")[0].removeprefix("method.") in known
    ]  # fmt: skip
    return make_config(request.preset, settings, own, method=method, protocol=request.protocol, dataset=dataset)


def _divided(
    catalog: Catalog, out: Path, part: DatasetSplit, seed: int, *, shots: int | None, request: Request, half: str = ""
) -> Path:
    """Make the split of a seed, unless the data bring it, and write it down; no clip may be on two sides."""
    data = run_config(request, FROZEN, Path("."), seed, shots, part.dataset).data
    split = data.model_copy(update={"shots": shots, "seed": seed}).split(catalog)
    for name in ("val", "test"):
        refuse_overlap(split.train, getattr(split, name), f"{catalog.source} (train and {name})")
    folder = out / "data" / part.folder / "-".join(filter(None, (half, f"seed{seed}")))
    return write_once(folder, replace(catalog, clips=split.all()))


def _tested(catalog: Catalog) -> tuple[Clip, ...]:
    """The clips a model that never saw any of them is tested on: the test split, or all if there is none."""
    chosen = [c for c in catalog.clips if c.split == "test"] or list(catalog.clips)
    return tuple(replace(c, split="test") for c in chosen)


def _tests(texts: Sequence[str], option: str, out: Path, name: str = "") -> tuple[Test, ...]:
    """Data sets to test on, among all of their classes; written down in data/."""
    made = []
    for part in parse_datasets(texts, f"--{option}"):
        catalog = part.read()
        csv = write_once(out / "data" / part.folder / option, replace(catalog, clips=_tested(catalog)))
        made.append(Test(name, part.dataset, part.number, csv))
    return tuple(made)


def _trained(csv: Path) -> list[Clip]:
    return [c for c in read_catalog(csv).clips if c.split == "train"]


def _matching(given: Sequence[DatasetSplit], part: DatasetSplit) -> DatasetSplit:
    """The novel classes that belong to some base classes: the only ones, or those of the same name and number."""
    if len(given) == 1:
        return given[0]
    for target in given:
        if (target.dataset, target.number) == (part.dataset, part.number):
            return target
    raise ConfigError(f"--target: none is called {part.dataset!r}; name data and targets alike, NAME=PATH")


def _restrict_descriptions(config: RunConfig, whole: Catalog, base: Catalog, folder: Path) -> RunConfig:
    """Descriptions of all classes, cut to the base classes, in files that are named by their content."""
    given = config.descriptions
    bank = load_descriptions(given.spatial, given.temporal, whole.classes)
    if bank is None:
        return config
    own, files = bank.subset(base.classes), dict[str, Path]()
    for kind in KINDS:
        if (sentences := own.sentences(kind)) is not None:
            content = hashlib.sha256(json.dumps(list(sentences.items())).encode()).hexdigest()[:8]
            files[kind] = folder / f"{kind}-{content}.json"
            own.write_official(files[kind], kind, base.classes)
    return config.model_copy(update={"descriptions": given.model_copy(update=files)})
