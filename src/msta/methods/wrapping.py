"""What methods share: the choice of blocks, and copies of layers that can be changed without changing the backbone."""

from __future__ import annotations

import copy
from typing import Literal, TypeVar

from torch import nn

from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError

Towers = Literal["video", "text", "both"]
M = TypeVar("M", bound=nn.Module)


def chosen_blocks(backbone: DualEncoder, towers: Towers, first_block: int) -> dict[Literal["video", "text"], range]:
    """The blocks, from 0, of each chosen tower from ``first_block`` on.

    ``first_block`` counts from 1 in the deeper of both towers, which share from the top, as in MSTA.

    Raises:
        ConfigError: the towers are not that deep.
    """
    depths = {name: len(getattr(backbone, name).blocks) for name in ("video", "text")}
    deepest = max(depths.values())
    if not 1 <= first_block <= deepest:
        raise ConfigError(f"method.first_block: {first_block}, but the towers have blocks 1..{deepest}")
    names: tuple[Literal["video", "text"], ...] = ("video", "text")
    return {
        name: range(max(0, first_block - 1 - (deepest - depths[name])), depths[name])
        for name in names
        if towers in (name, "both")
    }


def span(blocks: dict[Literal["video", "text"], range]) -> str:
    """In words: "blocks 1..12 of the video tower"."""
    parts = [f"blocks {r.start + 1}..{r.stop} of the {name} tower" for name, r in blocks.items() if r]
    return " and ".join(parts) or "no block"


def twin(module: M) -> M:
    """A copy of the structure with the same parameters. Replacing a part of the copy leaves the original unchanged."""
    made = copy.copy(module)
    made._parameters = dict(module._parameters)
    made._buffers = dict(module._buffers)
    made._modules = {name: child and twin(child) for name, child in module._modules.items()}
    return made


def own(module: nn.Module, name: str) -> nn.Parameter:
    """Replace a parameter of ``module``, which is in a twin, by a trainable copy, and return the copy."""
    parameter = nn.Parameter(getattr(module, name).detach().clone())
    setattr(module, name, parameter)
    return parameter
