"""Graphics cards according to their makers, and the least time that counted work takes on them.

Source: NVIDIA's data sheets (A100, H100 SXM, V100 SXM2, L4, T4) and white papers (GA102 for the RTX 3090, Ada for the
RTX 4090). Rates are dense, those of bf16 with fp32 sums.
"""

from __future__ import annotations

from dataclasses import dataclass

from msta.errors import ConfigError


@dataclass(frozen=True)
class Card:
    """The peaks of a card.

    Attributes:
        low: TFLOP/s in bf16, or in fp16 if it has no bf16.
        tf32: TFLOP/s in TF32; None if it has none.
        fp32: TFLOP/s.
        memory: in 10^9 bytes.
        bandwidth: of the memory, in 10^9 bytes per second.
        bf16: whether it has bf16.
    """

    low: float
    tf32: float | None
    fp32: float
    memory: float
    bandwidth: float
    bf16: bool = True

    def precision(self, wanted: str) -> str:
        """The precision that "auto" means on this card.

        Raises:
            ConfigError: bf16 is wanted, but the card has no bf16.
        """
        if wanted == "bf16" and not self.bf16:
            raise ConfigError("train.precision: this card has no bf16; fp16 is what it has")
        return ("bf16" if self.bf16 else "fp16") if wanted == "auto" else wanted

    def seconds(self, flops: int, moved: int, precision: str, tf32: bool) -> float:
        """The least time: products at the peak rate, plus all other bytes at the bandwidth of the memory."""
        full = self.tf32 if tf32 and self.tf32 else self.fp32
        rate = full if precision == "fp32" else self.low
        return flops / (rate * 1e12) + moved / (self.bandwidth * 1e9)


CARDS = {
    "A100": Card(312, 156, 19.5, 40, 1555),
    "A100-80GB": Card(312, 156, 19.5, 80, 2039),
    "H100": Card(989, 495, 67, 80, 3350),
    "V100": Card(125, None, 15.7, 32, 900, bf16=False),
    "RTX4090": Card(165, 82.6, 82.6, 24, 1008),
    "RTX3090": Card(71, 35.6, 35.6, 24, 936),
    "L4": Card(121, 60, 30.3, 24, 300),
    "T4": Card(65, None, 8.1, 16, 320, bf16=False),
}


def card_named(device: str) -> Card:
    """The card in a name like "cuda:A100", in any spelling.

    Raises:
        ConfigError: there is no card of that name.
    """
    kind, _, name = device.partition(":")
    known = {_plain(card): card for card in CARDS}
    if kind != "cuda" or _plain(name) not in known:
        raise ConfigError(f"--device: a plan is for cuda:CARD, with a CARD among {', '.join(CARDS)}; got {device!r}")
    return CARDS[known[_plain(name)]]


def _plain(name: str) -> str:
    return "".join(filter(str.isalnum, name)).lower()
