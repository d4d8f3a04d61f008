"""BitFit (Ben Zaken et al., ACL 2022): the biases train, and nothing else.

Of a block of width d that is 11 d: the two layer norms d each, queries, keys and values 3 d, the attention's output d,
the MLP 4 d and d. With the layer norms before and after the blocks, ViT-B/16 has 102,912 in the video tower and 68,096
in the text tower: 171,008.
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
    """Which biases.

    Args:
        towers: "video", "text" or "both".
        first_block: first block whose biases train, from 1. 1, as in the paper: all, the first layer norm's too, which
            leaves no frozen prefix.
    """

    name: ClassVar[str] = "bitfit"
    towers: Towers = "both"
    first_block: int = Field(1, ge=1)

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Twins of the layers, with biases of their own.

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
