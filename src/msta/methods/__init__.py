"""Ways to adapt a frozen backbone: one file for each, with one interface (:mod:`msta.adapters.method`)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pydantic import ValidationError

from msta.adapters.artefact import METRICS, Artefact
from msta.adapters.hub import adapter_folder
from msta.adapters.method import MethodConfig
from msta.adapters.model import AdaptedModel
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import CheckpointError, ConfigError, in_short
from msta.files import read_json
from msta.methods.adaptformer import AdaptFormerConfig
from msta.methods.aim import AIMConfig
from msta.methods.bitfit import BitFitConfig
from msta.methods.full import FullConfig, FullTextConfig, FullVideoConfig
from msta.methods.linear_probe import LinearProbeConfig
from msta.methods.lora import LoRAConfig
from msta.methods.mma import MMAConfig
from msta.methods.msta import MSTAConfig
from msta.methods.prompts import PromptsConfig
from msta.methods.st_adapter import STAdapterConfig
from msta.methods.tip_adapter import TipAdapterConfig
from msta.methods.zero_shot import ZeroShotConfig

METHODS: dict[str, type[MethodConfig]] = {
    config.name: config
    for config in (
        MSTAConfig, ZeroShotConfig, LinearProbeConfig, TipAdapterConfig, FullConfig, FullVideoConfig, FullTextConfig,
        BitFitConfig, LoRAConfig, PromptsConfig, AdaptFormerConfig, STAdapterConfig, AIMConfig, MMAConfig,
    )
}  # fmt: skip


def attach(backbone: DualEncoder, method: MethodConfig | str, *, exact_reference: bool = False) -> AdaptedModel:
    """Adapt ``backbone``, which itself stays frozen and unchanged.

    The weights are shared, not copied, except for those that train. If you move the model to a device or precision, the
    backbone's weights move too.

    Args:
        backbone: from :func:`msta.load_backbone` or :func:`msta.random_backbone`.
        method: a config such as ``MSTAConfig(dim=64)``, or a name for its defaults: one of METHODS.
        exact_reference: without the shortcuts of :mod:`msta.backbone.prefix`; slow, used to test them.

    Raises:
        ConfigError: there is no such method, or its settings do not fit the backbone.
        TypeError: ``backbone`` or ``method`` has the wrong type.
    """
    if not isinstance(backbone, DualEncoder):
        raise TypeError(f"attach: backbone: expected what msta.load_backbone gives, got {backbone!r:.60}")
    if not isinstance(method, (str, MethodConfig)):
        raise TypeError(f"attach: method: expected a name or a config such as MSTAConfig(dim=64), got {method!r:.60}")
    model = (method_config(method) if isinstance(method, str) else method).attach(backbone)
    model.exact_reference = exact_reference
    return model


def method_config(name: str, **settings: object) -> MethodConfig:
    """The config of the method called ``name``."""
    if name not in METHODS:
        raise ConfigError(f"no method {name!r}; there are {', '.join(METHODS)}")
    return METHODS[name].model_validate(settings)


def load_adapter(
    directory: str | os.PathLike[str], backbone: DualEncoder | None = None, *, revision: str | None = None
) -> AdaptedModel:
    """Read an adapter's directory and attach it, ready to predict.

    Args:
        directory: a directory that :meth:`AdaptedModel.save` wrote, or a run's, or ``owner/name`` on the Hub.
        backbone: the backbone it was trained on. None: it is loaded from the source that the adapter names.
        revision: a branch, tag or commit on the Hub.

    Raises:
        CheckpointError: there is no adapter, it is damaged or was trained on another backbone, or the Hub refuses.
    """
    return _load(directory, backbone, revision)[0]


def load_adapters(
    directories: Sequence[str | os.PathLike[str]], backbone: DualEncoder | None = None
) -> list[AdaptedModel]:
    """Several adapters of one backbone, which is loaded once: see :func:`load_adapter`."""
    models = []
    for directory in directories:
        model, backbone = _load(directory, backbone)
        models.append(model)
    return models


def _load(
    directory: str | os.PathLike[str], backbone: DualEncoder | None, revision: str | None = None
) -> tuple[AdaptedModel, DualEncoder]:
    """An adapter, and the frozen backbone that it was attached to."""
    folder = adapter_folder(directory, revision)
    artefact = Artefact.read(folder)
    if artefact.method not in METHODS:
        raise CheckpointError(
            f"{directory}: was trained by the method {artefact.method!r}, which is not there (any more); train it "
            f"again by one of {', '.join(METHODS)}"
        )
    source, fingerprint = artefact.backbone["source"], artefact.backbone["fingerprint"]
    if backbone is None:
        try:
            backbone = load_backbone(source, base=artefact.backbone.get("base"))
        except CheckpointError as error:
            raise CheckpointError(
                f"{directory}: its backbone {source} cannot be loaded; if it moved, give it as backbone ({error})"
            ) from error
    if backbone.fingerprint() != fingerprint:
        raise CheckpointError(
            f"{directory}: was trained on the backbone {source} (fingerprint {fingerprint[:12]}); "
            f"{backbone.source} has other weights (fingerprint {backbone.fingerprint()[:12]})"
        )
    try:
        model = attach(backbone, method_config(artefact.method, **artefact.settings))
        model.load_adapter_state(artefact.state)
    except CheckpointError as error:
        raise CheckpointError(f"{directory}: {error}") from error
    except (ConfigError, ValidationError, RuntimeError) as error:
        raise CheckpointError(f"{directory}: its settings and weights do not fit: {in_short(error)}") from error
    model.task, model.temperature = artefact.task, artefact.temperature
    if (folder / METRICS).exists():
        model.metrics = read_json(folder / METRICS, CheckpointError)
    return model.eval(), backbone
