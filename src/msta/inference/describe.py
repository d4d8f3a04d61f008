"""What ``msta info`` says about the installation, a backbone or an adapter."""

from __future__ import annotations

import platform
from typing import Any

import torch

from msta._version import __version__
from msta.adapters.artefact import CONFIG, adapter_in
from msta.adapters.model import AdaptedModel
from msta.backbone.checkpoints import load_backbone
from msta.backbone.device import device_name
from msta.backbone.dual_encoder import DualEncoder
from msta.config import RunConfig
from msta.errors import ConfigError
from msta.methods import attach, load_adapter


def describe(target: str | None, backbone: str | None = None, base: str | None = None) -> dict[str, Any]:
    """Facts by name.

    Args:
        target: a backbone, or the directory of an adapter or a run. None: the installation, or ``backbone``.
        backbone: the backbone to load an adapter with, if it has moved.
        base: see :func:`load_backbone`.

    Raises:
        CheckpointError: the target is none of these, or cannot be read.
        ConfigError: there are two backbones, or a ``base`` that completes none.
    """
    folder = adapter_in(target) if target is not None else None
    adapted = folder is not None and (folder / CONFIG).exists()
    if base is not None and backbone is None and (target is None or adapted):
        raise ConfigError("--base: completes a file that --backbone names; give both")
    if target is None and backbone is None:
        return {
            "msta": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "device": device_name(),
            "threads": torch.get_num_threads(),
        }
    if folder is None or not adapted:
        if target is not None and backbone is not None:
            raise ConfigError(f"--backbone: {target} is a backbone too; give one of them")
        return _describe_backbone(load_backbone(target or backbone or "", base=base))
    model = load_adapter(folder, load_backbone(backbone, base=base) if backbone else None)
    facts = {"adapter": str(folder), "method": model.config.name, **model.config.model_dump(), **_trained(model)}
    if (task := model.task) is not None:
        template = task.template if isinstance(task.template, str) else " | ".join(task.template)
        facts |= {"classes": ", ".join(task.classes), "template": template}
    return facts | {"backbone": model.origin["source"], "fingerprint": model.origin["fingerprint"][:12]}


def describe_recipe(config: RunConfig) -> dict[str, Any]:
    """What a training with these settings trains in its backbone, and how.

    Raises MSTAError if there is no such backbone, or the method does not fit it.
    """
    model = attach(load_backbone(config.backbone, base=config.base), config.method_config())
    settings = config.flat()
    shown = ("train.epochs", "train.lr", "train.weight_decay", "train.warmup_epochs", "descriptions.alpha",
             "descriptions.per_class")  # fmt: skip
    return {
        "backbone": model.origin["source"],
        "method": model.label,
        **_trained(model),
        "clips per step": config.train.step_clips(1),
        **{name: settings[name] for name in shown},
        "test views (clips x crops)": f"{config.eval.clips} x {config.eval.crops}",
    }


def _trained(model: AdaptedModel) -> dict[str, Any]:
    trained, total = model.num_trainable(), sum(p.numel() for p in model.parameters())
    return {"trained": model.trains, "trained parameters": trained, "share": f"{100 * trained / total:.2f} %"}


def _describe_backbone(backbone: DualEncoder) -> dict[str, Any]:
    a = backbone.architecture
    return {
        "backbone": backbone.source,
        "attention": a.attention,
        "input": f"{a.frames} frames of {a.image_size} x {a.image_size} px, patches of {a.patch_size}",
        "video tower": f"{a.video.layers} blocks of width {a.video.width}",
        "text tower": f"{a.text.layers} blocks of width {a.text.width}, {a.context_length} tokens",
        "embedding": a.embed_dim,
        "backbone parameters": sum(p.numel() for p in backbone.parameters()),
        "temperature": f"{(-backbone.logit_scale).exp().item():.4g}",
        **backbone.origins,
        "fingerprint": backbone.fingerprint()[:12],
    }
