"""The directory of a run before the first step: new, or that of an earlier run with the same data and settings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msta.config import RunConfig, read_config
from msta.data.catalog import Catalog, fingerprint, write_catalog
from msta.data.reading import read_catalog
from msta.data.splits import Split
from msta.errors import ConfigError, DataError, Interrupted, MSTAError, is_text
from msta.files import new_directory, refuse_existing
from msta.training.processes import Processes
from msta.training.status import StatusFile
from msta.training.trackers import start_trackers


def refuse_run(out: Path, data: Path) -> None:
    """Raise if no run may be made in ``out``: it must be new, and outside the data."""
    if not is_text(str(out)):
        raise ConfigError(f"--out: {str(out)!r} is no valid text")
    if (out / "config.yaml").exists() and (out / "split.csv").exists():
        raise MSTAError(
            f"{out}: holds a run already; go on with it by msta train --resume {out}, or choose another name"
        )
    refuse_existing(out)
    if Path(os.path.abspath(out)).is_relative_to(data):
        raise ConfigError(f"--out: {out} lies inside the data, where it would be taken for a class")


def check_same_settings(out: Path, config: RunConfig) -> None:
    """Raise unless the run in ``out`` has these settings. The data are compared by their clips, as they may move."""
    if _compared(read_config(out / "config.yaml")) != _compared(config):
        raise ConfigError(f"{out}: its run has other settings, see its config.yaml; --resume takes them as they are")


def _compared(config: RunConfig) -> dict[str, str]:
    settings = {name: json.dumps(value) for name, value in config.flat().items()}  # tuples become lists
    return {name: value for name, value in settings.items() if name not in ("data.path", "train.auto_batch")}


def open_run(out: Path, config: RunConfig, catalog: Catalog, split: Split) -> None:
    """Make the directory, and write the settings and the split."""
    with new_directory(out) as folder:
        (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
        write_catalog(folder / "split.csv", catalog.classes, split.all())


def check_same_split(out: Path, catalog: Catalog, split: Split) -> None:
    """Raise unless the data still give the split of the run's beginning."""
    if fingerprint((), read_catalog(out / "split.csv").clips) != fingerprint((), split.all()):
        raise DataError(f"{catalog.source}: its clips are not those the run in {out} began with (see its split.csv)")


@contextmanager
def reported(out: Path, config: RunConfig, processes: Processes) -> Iterator[StatusFile]:
    """The status file of the run, in which the end of the run is noted."""
    status = StatusFile(out if processes.main else None, config.train.prometheus)
    start_trackers(processes, config, out)
    try:
        yield status
        status.tell(now=True, ended="finished", phase="finished")
    except (Interrupted, KeyboardInterrupt):
        status.tell(now=True, ended="stopped")
        raise
    except Exception as error:
        status.tell(now=True, ended="failed", errors=[str(error) or type(error).__name__])
        raise
    finally:
        processes.accelerator.end_training()
