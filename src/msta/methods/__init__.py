"""Ways to adapt a frozen backbone: one file each, one interface (base.py)."""

from __future__ import annotations

from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError
from msta.methods.base import AdaptedModel, MethodConfig
from msta.methods.full import FullConfig
from msta.methods.msta import MSTAConfig
from msta.methods.zero_shot import ZeroShotConfig

METHODS: dict[str, type[MethodConfig]] = {c.name: c for c in (MSTAConfig, ZeroShotConfig, FullConfig)}


def attach(backbone: DualEncoder, method: MethodConfig | str) -> AdaptedModel:
    """Adapt ``backbone``, which itself stays frozen and unchanged.

    Args:
        backbone: from :func:`msta.load_backbone` or :func:`msta.random_backbone`.
        method: a config such as ``MSTAConfig(dim=64)``, or a name for its defaults: "msta", "zero-shot", "full".

    Raises:
        ConfigError: no such method, or settings that do not fit the backbone.
    """
    return (method_config(method) if isinstance(method, str) else method).attach(backbone)


def method_config(name: str, **settings: object) -> MethodConfig:
    """The config of the method called ``name``."""
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name].model_validate(settings)
