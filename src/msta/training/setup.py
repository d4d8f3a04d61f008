"""From a config to the clips, descriptions and model of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from msta.adapters.model import AdaptedModel
from msta.adapters.task import Task
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.config import RunConfig
from msta.data.catalog import Catalog, require_files
from msta.data.check import tell_quickly
from msta.data.decode import probe
from msta.data.splits import Split, every_clip
from msta.data.storage import as_url
from msta.data.video_file import DecodeError, OutOfReach
from msta.descriptions.bank import DescriptionBank
from msta.errors import ConfigError, DataError
from msta.methods import attach
from msta.notices import notice


@dataclass(frozen=True)
class Setup:
    """The data, backbone and model of a config. ``backbone`` is frozen, and ``model`` shares its weights.

    The schedule of the learning rate is made for ``epochs``; training ends after ``last_epoch`` of them.
    """

    catalog: Catalog
    split: Split
    bank: DescriptionBank | None
    backbone: DualEncoder
    model: AdaptedModel
    epochs: int
    last_epoch: int
    steps_per_epoch: int


def set_up(config: RunConfig, step_clips: int) -> Setup:
    """Read the data, load the backbone, and attach the method, whose random start depends on ``train.seed``.

    ``step_clips``: clips per step, of all processes together.

    Raises:
        MSTAError: wrong data, files or settings.
    """
    data, settings = config.data, config.train
    catalog = data.read()
    require_files(catalog)
    if len(catalog.classes) < 2:
        raise DataError(
            f"{catalog.source}: there is only one class, {catalog.classes[0]!r}, and training needs two; if a table "
            "or JSON file names the classes, give that file as the data"
        )
    split = every_clip(catalog) if settings.on_all_clips else data.split(catalog)
    tell_quickly(catalog)
    _require_readable(catalog, split)
    bank = config.descriptions.load(catalog.classes)
    if bank is None:
        notice(
            "No descriptions are given (descriptions.bank=FILE; msta describe writes one): the consistency term is off."
        )
    torch.manual_seed(settings.seed)
    backbone = load_backbone(config.backbone, base=config.base)
    patch = backbone.architecture.patch_size
    if data.size and data.size % patch:
        raise ConfigError(f"data.size: {data.size} is no multiple of the backbone's patch size {patch}")
    model = attach(backbone, config.method_config(), exact_reference=settings.exact_reference)
    for tower in (model.backbone.video, model.backbone.text):
        tower.checkpointing = settings.checkpointing
    source = bank.source if bank else None
    if settings.keep_tokens < 1:
        model.check_dropping()
    model.task = Task(catalog.classes, data.template, data.frames, data.size, data.fit, source)
    model.prepare(len(catalog.classes), len(split.train))
    epochs = settings.epochs if model.num_trainable() else 0
    if epochs and settings.patience is not None:
        if settings.select == "last" or not (split.val or settings.select == "test-leak"):
            raise ConfigError("train.patience: needs validation clips to choose by, and there are none; leave it out")
        if settings.patience < settings.eval_every:
            raise ConfigError("train.patience: is less than train.eval_every, so no training would get better in time")
    return Setup(
        catalog, split, bank, backbone, model, epochs=epochs, last_epoch=min(epochs, settings.stop_after or epochs),
        steps_per_epoch=math.ceil(len(split.train) / step_clips),
    )  # fmt: skip


def _require_readable(catalog: Catalog, split: Split) -> None:
    """Refuse a class without a readable training clip, because training would ignore the class.

    Raises:
        DataError: it names the class and the reason why its first clip cannot be read.
    """
    reasons: dict[int, str] = {}
    readable: set[int] = set()
    for clip in split.train:
        if clip.label not in readable:
            if as_url(clip.path) is not None:  # what a server has is met when it is read
                return
            try:
                probe(clip.path)
                readable.add(clip.label)
            except OutOfReach:
                readable.add(clip.label)  # nothing is known against it
            except DecodeError as error:
                reasons.setdefault(clip.label, str(error))
    for label in sorted(reasons.keys() - readable) if readable else ():
        raise DataError(
            f"{catalog.source}: not one training clip of the class {catalog.classes[label]!r} can be read "
            f"({reasons[label]}); mend its files or take the class out"
        )
