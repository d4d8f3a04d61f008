"""MMA, the Multi-Modal Adapter (Yang et al., CVPR 2024): MSTA without its temporal up-projection, in more blocks.

    y   = Up_m( ReLU( Shared( ReLU( Down_m( LN1(x) ) ) ) ) )        m in {text, video}
    out = block(x) + scale * y

With d_v, d_t the towers' widths and r the bottleneck's, a block trains 2 r (d_v + d_t) + 2 r + d_v + d_t parameters for
Down and Up and r^2 + r for Shared: 84,320 on ViT-B/16 with r = 32, and 674,560 in blocks 5..12. Settings are those of
the authors' configuration (vit_b16_ep5.yaml). The authors start Up at random; here it starts at zero, as in MSTA.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from msta.adapters.method import MethodConfig
from msta.methods.msta import MSTAConfig


class MMAConfig(MSTAConfig):
    """MSTA's settings with MMA's defaults; ``temporal_kernel`` stays 0.

    Blocks unset: the upper two thirds of each tower (5..12 of 12).
    """

    name: ClassVar[str] = "mma"
    default_overrides: ClassVar[dict[str, float]] = MethodConfig.default_overrides
    paper_overrides: ClassVar[dict[str, float]] = {}
    twelfths_below: ClassVar[int] = 4
    dim: int = Field(32, ge=1)
    scale: float = 0.001
    temporal_kernel: int | None = Field(0, ge=0, le=0)
