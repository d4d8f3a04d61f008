"""BitFit (Ben Zaken et al., ACL 2022): only the biases train.

A block of width d has 11 d of them: d in each of the two layer norms, 3 d in queries, keys and values, d in the
attention's output, 4 d and d in the MLP. With the layer norms before and after the blocks, ViT-B/16 has 102,912 in the
video tower and 68,096 in the text tower: 171,008.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.methods.wrapping import Towers, chosen_blocks, own, span, twin


class BitFitConfig(MethodConfig):
    """Which biases train.

    Args:
        towers: "video", "text" or "both".
        first_block: first block whose biases train, from 1. With 1, as in the paper, all biases train, including those
            of the first layer norm, so there is no frozen prefix.
    """

    name: ClassVar[str] = "bitfit"
    towers: Towers = "both"
    first_block: int = Field(1, ge=1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Replace the layers by twins that have their own biases.

        Raises:
            ConfigError: ``first_block`` beyond the towers.
        """
        view, adapter = backbone.view(), nn.ModuleDict()
        blocks = chosen_blocks(backbone, self.towers, self.first_block)
        for name, chosen in blocks.items():
            tower = getattr(view, name)
            layers: dict[str, nn.Module] = {}
            for index in chosen:
                tower.blocks[index] = twin(tower.blocks[index])
                layers |= {f"blocks.{index}.{n}": layer for n, layer in tower.blocks[index].named_modules()}
            ends = ("ln_final",) if name == "text" else ("ln_pre", "ln_post") if self.first_block == 1 else ("ln_post",)
            for end in ends:
                if (norm := getattr(tower, end)) is not None:
                    layers[end] = twin(norm)
                    setattr(tower, end, layers[end])
            adapter[name] = nn.ParameterDict(
                {
                    n.replace(".", "-"): own(layer, "bias")
                    for n, layer in layers.items()
                    if getattr(layer, "bias", None) is not None
                }
            )
        trains = f"the biases in {span(blocks)}, and of the layer norms around them"
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains, frozen="all weights")
