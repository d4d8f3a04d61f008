"""The backbone, and the adapters that can be picked on it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path

from msta.adapters.artefact import CONFIG, METRICS
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import DataError, MSTAError
from msta.files import read_json
from msta.inference.predictor import Predictor
from msta.methods import attach, load_adapter

_KEPT = 4
"""Predictors in memory; those not asked for longest go first."""


def find_adapters(folder: Path) -> dict[str, Path]:
    """Name -> adapter, of a folder whose sub-folders are adapters, or runs of ``msta train`` that have one."""
    here = {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))}
    return here | {path.parents[1].name: path.parent for path in sorted(folder.glob(f"*/adapter/{CONFIG}"))}


class Models:
    """Loads what is asked for, and keeps the last few.

    Args:
        backbone: frozen; every adapter is attached to it.
        adapters: name -> directory.
        runs: a folder of runs, whose adapters are there as soon as they are trained.
    """

    def __init__(self, backbone: DualEncoder, adapters: Mapping[str, Path], runs: Path) -> None:
        self.backbone, self.runs = backbone.eval(), runs
        self._given = dict(adapters)
        self._kept: OrderedDict[tuple[str | None, tuple[str, ...] | None], Predictor] = OrderedDict()
        self._plain = attach(self.backbone, "zero-shot").eval()
        self._lock = threading.Lock()

    def adapters(self) -> dict[str, Path]:
        """Name -> directory of all there are; of the same name, the one given at the start."""
        return self._given | {k: path for k, path in find_adapters(self.runs).items() if k not in self._given}

    def predictor(self, name: str | None, classes: Sequence[str] | None = None) -> Predictor:
        """An adapter with its own classes or others.

        Args:
            name: of the adapter; None: the backbone as it is.
            classes: any; None: the adapter's.

        Raises:
            MSTAError: no such adapter, damaged, or of another backbone; no classes, or one twice.
        """
        key = name, None if classes is None else tuple(classes)
        with self._lock:
            if key not in self._kept:
                self._kept[key] = Predictor(self._load(name), classes)
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]

    def model(self, name: str | None) -> AdaptedModel:
        """An adapter, or the backbone as it is, for which no classes are needed."""
        return self._plain if name is None else self.predictor(name).model

    def unknown_below(self, name: str | None) -> float | None:
        """The probability below which an adapter's clips are of none of its classes; None if nobody knows."""
        if name is None:
            return None
        path = self._directory(name) / METRICS
        chosen = read_json(path, DataError).get("unknown_below") if path.exists() else None
        return float(chosen) if isinstance(chosen, int | float) else None

    def _load(self, name: str | None) -> AdaptedModel:
        if name is None:
            return self._plain
        model = load_adapter(self._directory(name), self.backbone)
        return model.to(self.backbone.logit_scale.device).eval()

    def _directory(self, name: str) -> Path:
        found = self.adapters().get(name)
        if found is None:
            raise MSTAError(f"there is no adapter {name!r} any more")
        return found
