"""The interface of a method: a config with the settings, whose ``attach`` adapts a backbone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from msta.backbone.dual_encoder import DualEncoder

if TYPE_CHECKING:
    from msta.adapters.model import AdaptedModel


class MethodConfig(BaseModel, ABC):
    """The settings of one way to adapt a backbone. Subclasses add fields and build the model.

    - closed_set: whether it can only score the classes it was trained on, because its scores do not come from names.
    - default_overrides: settings of a run (dotted name -> value) that replace those of the preset, which suit MSTA.
    - paper_overrides: its authors' schedule in the same form, as far as settings can express it.
    - search_space: settings worth tuning, each with its lowest and highest value; both are sampled log-uniformly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    closed_set: ClassVar[bool] = False
    default_overrides: ClassVar[dict[str, float]] = {"train.lr": 1e-3}
    paper_overrides: ClassVar[dict[str, float]] = {}
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-4, 3e-2)}

    @property
    def needs_grid(self) -> bool:
        """Whether it must know which patches are neighbours. Then no patches may be dropped."""
        return False

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse saved weights whose names fit but which were trained for another function. Few methods need this.

        Raises:
            CheckpointError: the message says why, and what to do. The caller puts the file's name before it.
        """

    @abstractmethod
    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Build the adapted model. ``backbone`` itself stays frozen and unchanged: change a view of it."""
