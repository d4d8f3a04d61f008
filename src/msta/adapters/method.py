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

    - closed: it answers for the classes it was trained on and no others: its scores do not come from names.
    - usual: settings of a run (dotted name -> value) that the method takes in place of the preset's, which are MSTA's.
    - recipe: the schedule of its authors, of the same form, where theirs can be had here.
    - search: settings worth searching, each from .. to, evenly in the logarithm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    name: ClassVar[str]
    closed: ClassVar[bool] = False
    usual: ClassVar[dict[str, float]] = {"train.lr": 1e-3}
    recipe: ClassVar[dict[str, float]] = {}
    search: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-4, 1e-2)}

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
