"""LoRA (Hu et al., ICLR 2022), by the library peft: W x + b + (alpha / r) * B (A x), with B zero at the start.

A: r x inputs, B: outputs x r, for each of the chosen linear layers. Queries, keys and values are one layer here. They
share one A, and B has 3 d rows: 4 d r parameters per block of width d, 491,520 in both towers of ViT-B/16 with r = 8.
The paper adapts only queries and values of language models.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator
from torch import nn

from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError
from msta.methods.wrapping import Towers, chosen_blocks, span, twin

_WHERE = {"qkv": "attn.qkv", "proj": "attn.proj", "fc1": "mlp.fc1", "fc2": "mlp.fc2"}


class LoRAConfig(MethodConfig):
    """Which layers are adapted, and the rank.

    Args:
        rank: r.
        alpha: the update is scaled by alpha / r.
        modules: any of "qkv", "proj" (the attention's), "fc1" and "fc2" (the MLP's).
        towers: "video", "text" or "both".
        first_block: first adapted block, from 1. Those below it are a frozen prefix.
    """

    name: ClassVar[str] = "lora"
    rank: int = Field(8, ge=1)
    alpha: int = Field(8, ge=1)
    modules: tuple[Literal["qkv", "proj", "fc1", "fc2"], ...] = Field(("qkv",), min_length=1)
    towers: Towers = "both"
    first_block: int = Field(1, ge=1)

    @field_validator("modules", mode="before")
    @classmethod
    def _listed(cls, modules: Any) -> Any:
        return modules.split(",") if isinstance(modules, str) else modules

    def attach(self, backbone: DualEncoder) -> AdaptedModel:
        """Have peft insert its layers into twins of the chosen blocks.

        Raises:
            ConfigError: peft is not installed, or ``first_block`` lies beyond the towers.
        """
        try:
            from peft import LoraConfig, inject_adapter_in_model
        except ImportError as error:
            raise ConfigError("method: lora needs the package peft: pip install 'msta[lora]'") from error
        view, adapter = backbone.view(), nn.ModuleDict()
        blocks = chosen_blocks(backbone, self.towers, self.first_block)
        layers = [_WHERE[module] for module in dict.fromkeys(self.modules)]
        for name, chosen in blocks.items():
            tower, adapters = getattr(view, name), nn.ModuleDict()
            for index in chosen:
                block = twin(tower.blocks[index])
                config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=layers)
                tower.blocks[index] = inject_adapter_in_model(config, block)
                pairs = {layer.split(".")[1]: block.get_submodule(layer) for layer in layers}
                adapters[str(index + 1)] = nn.ModuleDict(
                    {n: nn.ModuleDict({"A": p.lora_A["default"], "B": p.lora_B["default"]}) for n, p in pairs.items()}
                )
            adapter[name] = adapters
        trains = f"updates of rank {self.rank} to {', '.join(dict.fromkeys(self.modules))} in {span(blocks)}"
        return AdaptedModel(self, adapter, view, origin=backbone, trains=trains)
