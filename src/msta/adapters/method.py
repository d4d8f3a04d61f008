"""What every method is: a config that says how to adapt a backbone, and does it."""

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

    - closed_set: it scores the classes it was trained on and no others, because its scores do not come from names.
    - default_overrides: settings of a run (dotted name -> value) that replace the preset's, which are MSTA's.
    - paper_overrides: its authors' schedule, in the same form, as far as these settings can express it.
    - search_space: settings worth tuning, each with its lowest and highest value; both are sampled log-uniformly.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    closed_set: ClassVar[bool] = False
    default_overrides: ClassVar[dict[str, float]] = {"train.lr": 1e-3}
    paper_overrides: ClassVar[dict[str, float]] = {}
    search_space: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-4, 1e-2)}

    @property
    def needs_grid(self) -> bool:
        """Whether it must know which patches are neighbours, so that none may be dropped."""
        return False

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuse saved weights that fit by name but were made for another function; most methods have none such.

        Raises:
            CheckpointError: why, and what to do; the caller puts the file's name before it.
        """

    @abstractmethod
    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Build the adapted model. ``backbone`` itself stays frozen and as it was."""
