"""The backbone, and the adapters that can be chosen for it."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from msta.adapters.artefact import METRICS, written_at
from msta.adapters.model import AdaptedModel
from msta.adapters.zoo import find_adapters
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import MSTAError
from msta.inference.arguments import chosen_threshold
from msta.inference.predictor import Predictor
from msta.methods import attach, load_adapter

_MOST_LOADED = 4  # predictors in memory. The least recently used one is dropped first


class Models:
    """Loads adapters on demand, and keeps the last few in memory.

    Args:
        backbone: frozen. Every adapter is attached to it.
        adapters: name -> directory.
        runs: a folder of runs. Their adapters can be chosen as soon as they are trained.
    """

    def __init__(self, backbone: DualEncoder, adapters: Mapping[str, Path], runs: Path) -> None:
        self.backbone, self.runs = backbone.eval(), runs
        self._given = dict(adapters)
        self._cached = lru_cache(_MOST_LOADED)(lambda name, classes, written: Predictor(self._load(name), classes))
        self._zero_shot = attach(self.backbone, "zero-shot").eval()
        self._lock = threading.Lock()

    def adapters(self) -> dict[str, Path]:
        """Name -> directory of all adapters. If two have the same name, the one given at the start counts."""
        return self._given | {k: path for k, path in find_adapters(self.runs).items() if k not in self._given}

    def predictor(self, name: str | None, classes: Sequence[str] | None = None) -> Predictor:
        """A predictor with an adapter, or with the backbone alone if ``name`` is None.

        ``classes`` may be any names; None means those of the adapter. Raises MSTAError if the adapter does not exist,
        is damaged or belongs to another backbone, or if the classes are missing or given twice.
        """
        written = None if name is None else written_at(self._directory(name))  # another may have taken its place
        with self._lock:  # so that two requests do not load the same adapter
            return self._cached(name, None if classes is None else tuple(classes), written)

    def model(self, name: str | None) -> AdaptedModel:
        """The model of an adapter, or the backbone alone, which needs no classes."""
        return self._zero_shot if name is None else self.predictor(name).model

    def unknown_below(self, name: str | None) -> float | None:
        """The probability below which a clip is of none of the adapter's classes. None if it was not chosen."""
        if name is None:
            return None
        directory = self._directory(name)
        return chosen_threshold(directory) if (directory / METRICS).exists() else None

    def _load(self, name: str | None) -> AdaptedModel:
        if name is None:
            return self._zero_shot
        model = load_adapter(self._directory(name), self.backbone)
        return model.to(self.backbone.logit_scale.device).eval()

    def _directory(self, name: str) -> Path:
        found = self.adapters().get(name)
        if found is None:
            raise MSTAError(f"there is no adapter {name!r} any more")
        return found
