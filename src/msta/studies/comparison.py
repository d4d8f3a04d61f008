"""``msta compare``: many methods on the same clips with the same budget, with accuracy and costs.

For each data set and case (few-shot; base-to-novel, if asked for) a search gives each method its settings, chosen by
validation in the first seed's split. Then a protocol of :mod:`msta.studies.protocols` trains and tests all of them on
all seeds. Costs are measured separately, one method at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from msta.backbone.checkpoints import load_backbone
from msta.backbone.prefix import prefix_length
from msta.config import RunConfig
from msta.errors import ConfigError, MSTAError
from msta.files import read_json, write_json
from msta.methods import METHODS, attach
from msta.studies.comparison_report import write_comparison
from msta.studies.datasets import parse_datasets
from msta.studies.protocols import FROZEN, PROTOCOLS, Cell, Request, Study, check
from msta.studies.running import environment, run_protocol
from msta.studies.tuning import Overrides, tune
from msta.training.cost import measure_costs

CASES = ("few-shot", "base-to-novel")
SCHEDULES = ("equal", "own")


@dataclass(frozen=True)
class Comparison(Study):
    """The request for a comparison.

    Attributes:
        data: ``[NAME=]PATH[?setting=value&…]`` each, see :func:`msta.studies.datasets.parse_datasets`.
        methods: names. Zero-shot is added in front, because all others are compared with it.
        cases: of :data:`CASES`.
        shots: training clips per class.
        second: a data set that all models are tested on, too, to see what they forget.
        trials: of the search, per method; 0: no search, each method keeps its defaults.
        schedule: "equal": the preset's epochs for all; "own": each method's own, as its authors trained it, if they
            used AdamW.
        own: (method, its overrides): settings of that method alone, such as the descriptions that MSTA reads.
    """

    data: tuple[str, ...]
    methods: tuple[str, ...]
    cases: tuple[str, ...] = ("few-shot",)
    shots: int = 8
    second: tuple[str, ...] = ()
    trials: int = 8
    schedule: str = "equal"
    own: tuple[tuple[str, tuple[str, ...]], ...] = ()


def compare(asked: Comparison, out: Path, console: Console) -> dict[str, Any]:
    """Search, train, test and measure what is not finished, and report.

    Args:
        asked: which methods, on which data.
        out: CASE/DATASET/ (one protocol each, see :func:`run_protocol`), search/, costs/, comparison.json,
            comparison.md, report.html and PNGs.
        console: where the runs print.

    Returns:
        What is written to ``out``/comparison.json.

    Raises:
        MSTAError: wrong data, files or settings; :class:`Interrupted` after Ctrl-C.
    """
    asked = _with_zero_shot(asked)
    requests = prepare(asked, out, console)
    costs = _costs(asked, requests[0][2], out, console)
    return write_comparison(out, asdict(asked), [(case, dataset) for case, dataset, _ in requests], costs)


def prepare(asked: Comparison, out: Path, console: Console) -> list[tuple[str, str, Request]]:
    """Everything of :func:`compare` but costs and the report: (case, data set, its protocol), which have run.

    Several processes may prepare different data sets in one ``out``.
    """
    asked = _with_zero_shot(asked)
    requests = list(_requests(asked))
    _check(asked, requests, out)
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "asked.json", asdict(asked))
    done = []
    for case, dataset, request in requests:
        found = {m: _settings(asked, request, m, out / "search" / case / dataset / m, console) for m in asked.methods}
        request = replace(request, own=tuple(found.items()))
        console.print(f"\n[bold]{case}, {dataset}[/bold]", highlight=False)
        run_protocol(request, out / case / dataset, console)
        done.append((case, dataset, request))
    return done


def _with_zero_shot(asked: Comparison) -> Comparison:
    return replace(asked, methods=(FROZEN, *(m for m in asked.methods if m != FROZEN)))


def _requests(asked: Comparison) -> Iterator[tuple[str, str, Request]]:
    """(case, data set, its protocol). Parts of one data set belong together."""
    datasets: dict[str, list[str]] = {}
    for text, part in zip(asked.data, parse_datasets(asked.data, "--data"), strict=True):
        datasets.setdefault(part.dataset, []).append(text)
    for case in asked.cases:
        for dataset, texts in datasets.items():
            yield case, dataset, Request(
                case, data=tuple(texts), methods=asked.methods, shots=(asked.shots,), own=asked.own,
                second=tuple(text for text in asked.second if text not in texts), **asked.common(),
            )  # fmt: skip


def _check(asked: Comparison, requests: list[tuple[str, str, Request]], out: Path) -> None:
    """Raise for what is wrong before anything is run."""
    if unknown := [case for case in asked.cases if case not in CASES]:
        raise ConfigError(f"--cases: no {unknown[0]!r}; there are {', '.join(CASES)}")
    if asked.schedule not in SCHEDULES:
        raise ConfigError(f"--schedule: {asked.schedule!r} is none of {', '.join(SCHEDULES)}")
    if len(asked.methods) < 2:
        raise ConfigError("--methods: give at least one beside zero-shot")
    if not requests:
        raise ConfigError("compare takes --data and at least one of --cases")
    for _, _, request in requests:
        check(request)
    before = out / "asked.json"
    if before.exists():
        then, now = read_json(before, MSTAError), json.loads(json.dumps(asdict(asked)))
        for name in ("trials", "schedule", "preset", "overrides", "shots", "backbone", "base", "second"):
            if then.get(name) != now[name]:
                raise MSTAError(f"{out}: was made with {name} {then.get(name)}, now {now[name]}; take another --out")
    elif out.exists() and any(out.iterdir()):
        raise MSTAError(f"{out}: exists already; choose another name")


def _settings(asked: Comparison, request: Request, method: str, out: Path, console: Console) -> Overrides:
    """A method's own overrides: its schedule, if asked for, and what the search found in the first seed's split.

    A method that trains the first layers goes without the prefix cache, which others may have been given.
    """
    recipe = METHODS[method].paper_overrides if asked.schedule == "own" else {}
    own = dict(asked.own).get(method, ())
    given = (*(f"{name}={value}" for name, value in recipe.items()), *own)

    def config(overrides: Overrides) -> RunConfig:
        return _first_cell(replace(request, methods=(method,), own=((method, overrides),)), out).config

    if _keeps_nothing(config(given)):
        given = (*given, "cache.views=0")
    fixed = {override.partition("=")[0] for override in (*asked.overrides, *own)}
    found = tune(method, lambda overrides: config((*given, *overrides)), out, console, trials=asked.trials, fixed=fixed)
    return (*given, *found)


def _keeps_nothing(config: RunConfig) -> bool:
    """Whether a prefix cache is asked for, and the method has no prefix."""
    if not config.cache.views:
        return False
    model = attach(load_backbone(config.backbone, base=config.base), config.method_config())
    return prefix_length(model.backbone.video) is None


def _first_cell(request: Request, out: Path) -> Cell:
    """The protocol's first cell: the first seed's. Its split is written to ``out``/data."""
    return next(iter(PROTOCOLS[request.protocol](replace(request, seeds=request.seeds[:1], second=()), out)))


def _costs(asked: Comparison, request: Request, out: Path, console: Console) -> dict[str, Any]:
    """Method -> its costs on the first data set, measured once for its settings."""
    costs = {}
    for method in asked.methods:
        file = out / "costs" / f"{method}.json"
        config = _first_cell(replace(request, methods=(method,)), out / "costs").config
        known = read_json(file, MSTAError) if file.exists() else {}
        if known.get("settings") != config.flat():
            console.print(f"measuring what {method} costs", highlight=False)
            known = {"settings": config.flat(), "costs": {**measure_costs(config), "environment": environment()}}
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, known)
        costs[method] = known["costs"]
    return costs
