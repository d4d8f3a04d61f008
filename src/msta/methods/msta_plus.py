"""MSTA-plus: MSTA's adapters in every block, and narrow ones. Ours, not the paper's.

The paper puts bottlenecks of width 128 into the upper blocks. With few clips those learn the clips by heart, while what
has to change for a new domain lies lower. Here the same adapter (see :mod:`msta.methods.msta`) is in all blocks, with a
bottleneck of 16 and a higher learning rate. With widths d_v, d_t, bottleneck r and kernel k a pair of blocks trains
2 r (d_v + d_t) + 2 r + d_v + d_t + r^2 + r + (k + 1) d_v: 547,392 parameters in all on ViT-B/16, a third of MSTA's.
What is paid for it is the frozen prefix: no block's output can be kept, only the patches'.
The preset ``small`` gives ``msta`` these very settings; under this name they hold with any preset.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from msta.methods.msta import MSTAConfig


class MSTAPlusConfig(MSTAConfig):
    """MSTA's settings with other defaults."""

    name: ClassVar[str] = "msta-plus"
    usual: ClassVar[dict[str, float]] = {"train.lr": 1e-2}
    recipe: ClassVar[dict[str, float]] = {}
    search: ClassVar[dict[str, tuple[float, float]]] = {"train.lr": (1e-3, 3e-2), "method.scale": (0.02, 0.5)}
    first_block: int | None = Field(1, ge=1)
    dim: int = Field(16, ge=1)
    scale: float = 0.1
