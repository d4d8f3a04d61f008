"""W&B, MLflow and other trackers of Accelerate, beside TensorBoard, which a run uses if it is installed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from accelerate.tracking import LOGGER_TYPE_TO_CLASS
from accelerate.utils import LoggerType

from msta.config import RunConfig
from msta.errors import ConfigError
from msta.settings import TrainSettings
from msta.training.processes import Processes


def tracker_names(settings: TrainSettings) -> list[str]:
    """The trackers in the settings.

    Raises:
        ConfigError: Accelerate does not know one, or its package is not installed.
    """
    from accelerate.tracking import get_available_trackers

    known = sorted(set(map(str, LOGGER_TYPE_TO_CLASS)) - {"tensorboard"})
    there = set(map(str, get_available_trackers()))
    for name in settings.trackers:
        if name not in known:
            raise ConfigError(f"train.trackers: {name} is none of {', '.join(known)}")
        if name not in there:
            raise ConfigError(f"train.trackers: {name} is not installed: pip install {name}")
    return [str(LoggerType(name)) for name in settings.trackers]


def start_trackers(processes: Processes, config: RunConfig, out: Path) -> None:
    """Start them, with the project "msta" and the name of the run. A resumed run continues the same W&B run."""
    if not config.train.trackers:
        return
    began = (out / "config.yaml").stat().st_mtime_ns
    number = hashlib.sha256(f"{os.path.abspath(out)} {began}".encode()).hexdigest()[:12]
    options: dict[str, Any] = {
        "wandb": {"name": out.name, "id": number, "resume": "allow", "dir": str(out)},
        "mlflow": {"run_name": out.name},
    }
    wanted = {name: options[name] for name in config.train.trackers if name in options}
    settings = {n: v if isinstance(v, (int, float, str, bool)) else str(v) for n, v in config.flat().items()}
    processes.accelerator.init_trackers("msta", config=settings, init_kwargs=wanted)
