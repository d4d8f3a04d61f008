"""Hyper-parameters by validation: every method gets the same number of trials, and the first is its own defaults."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from msta.config import RunConfig
from msta.errors import ConfigError, Interrupted
from msta.evaluation.metrics import accuracy
from msta.evaluation.predictions import read_predictions
from msta.files import write_json
from msta.methods import METHODS
from msta.studies.running import check_same_run
from msta.training.loop import train

Overrides = tuple[str, ...]


def tune(
    method: str, config: Callable[[Overrides], RunConfig], out: Path, console: Console, *,
    trials: int, fixed: Collection[str] = (),
) -> Overrides:  # fmt: skip
    """Train ``trials`` times and keep the settings that are best on the validation clips.

    The settings in the method's ``MethodConfig.search_space`` are varied. The first trial has the method's defaults.
    For the others Optuna's TPE proposes values, with a fixed seed. It gets the trials that ``out`` already has, so that
    a search continues after a stop.

    Args:
        method: its name.
        config: makes the config of a run from overrides, which win over all other settings.
        out: one folder per trial, and search.json.
        console: where the runs print.
        fixed: settings that are not varied.
        trials: how many. None are made if this is 0 or the method has nothing to vary.

    Returns:
        The settings of the best trial; empty if they are the defaults.

    Raises:
        ConfigError: optuna is not installed, or there are no validation clips.
    """
    space = {name: range_ for name, range_ in METHODS[method].search_space.items() if name not in fixed}
    if not trials or not space:
        return ()
    try:
        import optuna
    except ImportError as error:
        raise ConfigError("--trials: a search needs the package optuna: pip install 'msta[search]'") from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    made: list[dict[str, Any]] = []
    for number in range(trials):
        chosen: Overrides = ()
        if number:
            trial = study.ask()
            chosen = tuple(
                f"{name}={trial.suggest_float(name, low, high, log=True):.3g}" for name, (low, high) in space.items()
            )
        console.print(f"\n[bold]{method}, trial {number + 1} of {trials}[/bold]  {' '.join(chosen) or 'defaults'}")
        validated = _run(config(chosen), out / f"trial-{number}", console)
        made.append({"settings": list(chosen), **validated})
        if number:
            study.tell(trial, _value(validated))
    best = max(made, key=_value)  # the first, the defaults, among equals
    write_json(out / "search.json", {"trials": made, "best": best["settings"]})
    return tuple(best["settings"])


def _value(validated: dict[str, Any]) -> float:
    """Top-1, and among equals, which few clips make common, the likelihood: the order of training, as one number."""
    return float(validated["top1"] - 1e-3 * validated["nll"] / (1 + validated["nll"]))


def _run(config: RunConfig, run: Path, console: Console) -> dict[str, float]:
    """The validation figures of the checkpoint that a training would keep."""
    check_same_run(run, config)
    try:
        train(config, run, console, resume=(run / "config.yaml").exists())
    except Interrupted as error:
        raise Interrupted(f"Stopped in {run}, saved. The same command goes on from there.") from error
    kept = run / "predictions" / "val.parquet"
    if not kept.exists():
        raise ConfigError("--trials: without validation clips there is nothing to choose by; set data.val_fraction")
    predictions = read_predictions(kept)
    return accuracy(torch.from_numpy(predictions.probabilities), torch.from_numpy(predictions.labels))
