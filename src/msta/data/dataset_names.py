"""One name for each of the field's data sets, whatever the spelling in a folder or a table."""

from __future__ import annotations

import re

_ALIASES = {
    "k400": "kinetics400",
    "k600": "kinetics600",
    "k700": "kinetics700",
    "somethingsomethingv2": "ssv2",
    "hmdb": "hmdb51",
    "ucf": "ucf101",
}


def canonical(name: str) -> str:
    """``"UCF-101"`` -> ``"ucf101"``, ``"K400"`` -> ``"kinetics400"``; else letters and digits, in lower case."""
    plain = re.sub(r"[^a-z0-9]", "", name.lower())
    return _ALIASES.get(plain, plain)
