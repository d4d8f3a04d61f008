"""Where the loop's batches come from: video files, or the prefix cache, which is filled as epochs first need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader

from msta.config import RunConfig
from msta.data.catalog import Catalog
from msta.data.clips import ClipDataset, EpochSampler, Failures, allowed_flip, make_loader
from msta.data.splits import Split
from msta.data.torchcodec_reader import require_torchcodec
from msta.errors import ConfigError, DataError
from msta.evaluation.evaluate import clip_format, views_of
from msta.methods.base import AdaptedModel
from msta.training.features import PrefixCache

Report = Callable[[str, int, int], None]
"""Told, while the cache is filled: of which part, how many clips are done, of how many."""


class Source:
    """The clips of a run, in batches.

    Args:
        config: the run's.
        model: what they are for.
        catalog: classes, some of which forbid the flip.
        split: which clips train, validate and test.
        accelerator: distributes the training clips.
        failures: collects what cannot be read.

    Attributes:
        cache: None if every epoch decodes its clips anew.
    """

    def __init__(
        self,
        config: RunConfig,
        model: AdaptedModel,
        catalog: Catalog,
        split: Split,
        accelerator: Accelerator,
        failures: Failures,
    ) -> None:
        self.config, self.model, self.accelerator, self.failures = config, model, accelerator, failures
        if config.data.decoder == "torchcodec":
            require_torchcodec()
        form = replace(clip_format(model), decoder=config.data.decoder)
        patches = (form.size // model.backbone.video.patch_size) ** 2
        share = config.train.keep_tokens
        augmentation = config.data.augmentation(allowed_flip(config.data.flip, catalog.classes))
        self.datasets = {
            "train": ClipDataset(
                split.train, form, augmentation=augmentation, seed=config.train.seed, repeat=config.cache.views or None,
                keep=(max(1, round(share * patches)), patches) if share < 1 else None,
            ),
            **{
                part: ClipDataset(clips, form, views=config.eval.views())
                for part, clips in (("val", split.val), ("test", split.test))
            },
        }  # fmt: skip
        self.cache = None
        if config.cache.views:
            if model.exact_reference:
                raise ConfigError("cache.views: the exact reference computes everything, every time")
            settings = config.cache
            self.cache = PrefixCache(
                settings.folder(), model, max_gb=settings.max_gb, dtype=settings.dtype, precision=config.train.precision
            )
        self._loaders: dict[str, DataLoader[Any]] = {}
        self._order: EpochSampler | None = None

    def plan(self, epochs: int) -> str | None:
        """What the cache needs, in words; None without one.

        Raises:
            ConfigError: more than it may.
        """
        if self.cache is None:
            return None
        views = min(epochs, self.config.cache.views)
        parts = [(self.datasets[part], views if part == "train" else 1) for part in self.datasets]
        return f"{views} views of every training clip: {self.cache.plan(parts)}"

    def train(self, epoch: int, skip: int, report: Report) -> DataLoader[Any]:
        """The training batches of an epoch, without the ``skip`` clips that were seen already."""
        loader = self._loader("train", epoch, report)
        assert self._order is not None
        self._order.epoch, self._order.skip = epoch, skip
        return loader

    def test(self, part: str, report: Report) -> DataLoader[Any]:
        """The "val" or "test" batches."""
        return self._loader(part, 0, report)

    @torch.no_grad()
    def embeddings(self, views: int) -> tuple[Tensor, Tensor]:
        """Of the training clips that can be read, in order: the mean over ``views`` augmented views [N, D], labels [N].

        Raises:
            DataError: none can be read.
        """
        dataset, model, device = self.datasets["train"], self.model, self.accelerator.device
        sums: dict[int, Tensor] = {}
        labels: dict[int, Tensor] = {}
        keys = [(view, index) for view in range(views) for index in range(len(dataset))]
        for batch in make_loader(dataset, self.config.train.batch_size, self.config.data.workers, keys=keys):
            self.failures.add(batch["failures"])
            with self.accelerator.autocast():
                clips = views_of(batch, model, device)
                if clips is None:
                    continue
                embedded = model.encode_video(clips[0]).float()
            for index, label, embedding in zip(batch["index"].tolist(), batch["label"], embedded, strict=True):
                sums[index] = sums[index] + embedding if index in sums else embedding
                labels[index] = label
        if not sums:
            raise DataError(f"not one of the {len(dataset)} training clips can be read")
        order = sorted(sums)
        return torch.stack([sums[i] for i in order]) / views, torch.stack([labels[i] for i in order]).to(device)

    def _loader(self, part: str, epoch: int, report: Report) -> DataLoader[Any]:
        dataset, train, workers = self.datasets[part], part == "train", self.config.data.workers
        size = self.config.train.batch_size if train else self.config.eval.batch_size
        if self.cache is not None and epoch < self.config.cache.views:
            done = 0

            def progress(clips: int) -> None:
                nonlocal done
                done += clips
                report(part, done, len(dataset))

            self.cache.fill(
                dataset, epoch, self.failures, batch_size=size, workers=workers,
                autocast=self.accelerator.autocast, progress=progress,
            )  # fmt: skip
        if part not in self._loaders:
            if self.cache is not None:
                loader = self.cache.loader(dataset, size, shuffle=train, failures=self.failures)
            else:
                loader = make_loader(dataset, size, workers, shuffle=train)
            if train:
                self._order = cast(EpochSampler, loader.sampler)  # a prepared loader hides it
                loader = self.accelerator.prepare(loader)
            self._loaders[part] = loader
        return self._loaders[part]
