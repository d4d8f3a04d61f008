"""The batches of the loop, from video files or from the prefix cache, which an epoch fills when it first needs it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from msta.adapters.inputs import clip_format, views_of
from msta.adapters.model import AdaptedModel
from msta.backbone.device import accelerator_of
from msta.config import RunConfig
from msta.data.catalog import Catalog
from msta.data.clips import ClipDataset, Failures, Key, make_loader, steady
from msta.data.loading import SteadyLoader, StepSampler
from msta.data.splits import Split
from msta.errors import ConfigError, DataError
from msta.training.prefix_cache import PrefixCache
from msta.training.processes import Processes

Report = Callable[[str, int, int], None]
"""Called while the cache is filled, with the part, the number of finished clips, and their total."""


class Source:
    """The share of a run's clips that this process reads, in batches.

    Args:
        config: of the run.
        model: the model that encodes the clips.
        catalog: for its classes, which may forbid the flip.
        split: the clips that train, validate and test.
        processes: the processes of the run.
        failures: collects clips that cannot be read.
        step_clips: clips per training step, of all processes together.
        stopped: whether the run was asked to stop. Passes over clips then end early.

    Attributes:
        cache: None if every epoch decodes its clips anew.
        batch_size: clips per training batch; a change takes effect with the next call of :meth:`train`.
        workers: decoding processes of this process.
    """

    def __init__(
        self,
        config: RunConfig,
        model: AdaptedModel,
        catalog: Catalog,
        split: Split,
        processes: Processes,
        failures: Failures,
        step_clips: int,
        stopped: Callable[[], bool],
    ) -> None:
        self.config, self.model, self.processes, self.failures = config, model, processes, failures
        self.stopped, self.batch_size = stopped, config.train.batch_size
        form = clip_format(model)
        patches = (form.size // model.backbone.video.patch_size) ** 2
        share = config.train.keep_tokens
        augmentation = config.data.augmentation(catalog.classes)
        finish_on = accelerator_of(processes.device)
        self.workers = processes.decoders(config.data.workers)
        self.datasets = {
            "train": ClipDataset(
                split.train, form, augmentation=augmentation, seed=config.train.seed, repeat=config.cache.views or None,
                keep=(max(1, round(share * patches)), patches) if share < 1 else None, finish_on=finish_on,
            ),
            **{
                part: ClipDataset(clips, form, views=config.eval.views(), finish_on=finish_on)
                for part, clips in (("val", split.val), ("test", split.test))
            },
        }  # fmt: skip
        self.cache = None
        if config.cache.views:
            if model.exact_reference:
                raise ConfigError("cache.views: the exact reference computes everything, every time")
            settings = config.cache
            precision: str = config.train.precision
            if config.train.tf32 and precision == "fp32":
                precision = "tf32"
            self.cache = PrefixCache(
                settings.folder(), model, max_gb=settings.max_gb, dtype=settings.dtype, precision=precision
            )
        self._loaders: dict[str, SteadyLoader] = {}
        self._filled: set[tuple[str, int]] = set()
        self._order = StepSampler(
            len(split.train), config.train.seed, step_clips=step_clips, batch_size=self.batch_size,
            process=processes.rank, processes=processes.count, shards=self.datasets["train"].shards,
        )  # fmt: skip

    def plan(self, epochs: int) -> str | None:
        """The needs of the cache, in words; None without a cache.

        Raises:
            ConfigError: it needs more than ``cache.max_gb``.
        """
        if self.cache is None:
            return None
        views = min(epochs, self.config.cache.views)
        parts = [(self.datasets[part], views if part == "train" else 1) for part in self.datasets]
        return f"{views} views of every training clip: {self.cache.plan(parts)}"

    def train(self, epoch: int, skip: int, report: Report) -> SteadyLoader:
        """This process's training batches of an epoch, without the first ``skip`` clips (counted over all processes).

        No batch has clips of two steps. All processes must call this together, once per epoch.
        """
        self._order.epoch, self._order.skip, self._order.batch_size = epoch, skip, self.batch_size
        return self._loader("train", epoch, report)

    def test(self, part: str, report: Report) -> SteadyLoader:
        """The "val" or "test" clips of this process, in batches."""
        return self._loader(part, 0, report)

    def close(self) -> None:
        """End the decoding processes."""
        for loader in self._loaders.values():
            loader.close()

    @torch.no_grad()
    def embeddings(self, views: int) -> tuple[Tensor, Tensor]:
        """Mean embeddings over ``views`` augmented views [N, D], and labels [N], of the readable training clips.

        Raises:
            DataError: no clip can be read.
        """
        dataset, model, device = self.datasets["train"], self.model, self.processes.device
        sums: dict[int, Tensor] = {}
        labels: dict[int, Tensor] = {}
        keys = [(view, index) for view in range(views) for index in self.processes.share(len(dataset))]
        data = self.config.data
        for batch in make_loader(dataset, self.batch_size, self.workers, keys=keys, timeout=data.timeout):
            self.failures.add(batch["failures"])
            with self.processes.accelerator.autocast():
                clips = views_of(batch, model, device)
                if clips is None:
                    continue
                embedded = model.encode_video(clips[0]).float().cpu()
            for index, label, embedding in zip(batch["index"].tolist(), batch["label"], embedded, strict=True):
                sums[index] = sums[index] + embedding if index in sums else embedding
                labels[index] = label
        for others in self.processes.gather((sums, labels, self.failures.reasons)):
            sums |= others[0]
            labels |= others[1]
            self.failures.add(others[2].items())
        if not sums:
            raise DataError(f"not one of the {len(dataset)} training clips can be read")
        order = sorted(sums)
        embeddings = torch.stack([sums[i] for i in order]) / views
        return embeddings.to(device), torch.stack([labels[i] for i in order]).to(device)

    def _loader(self, part: str, epoch: int, report: Report) -> SteadyLoader:
        dataset, data = self.datasets[part], self.config.data
        if self.cache is not None and (part, view := epoch % self.config.cache.views) not in self._filled:
            self._fill(self.cache, part, view, report)
            self._filled.add((part, view))
        if part not in self._loaders:
            size, own = self.config.eval.batch_size, self.processes.share(len(dataset))
            keys: list[Key] = [(0, i) for i in own] if part != "train" else []
            chunks = [keys[i : i + size] for i in range(0, len(keys), size)]
            batches = self._order if part == "train" else chunks
            if self.cache is not None:
                self._loaders[part] = self.cache.loader(dataset, batches, self.failures, self.stopped)
            else:
                self._loaders[part] = steady(
                    dataset, batches, self.batch_size if part == "train" else size, self.workers, timeout=data.timeout,
                    stopped=self.stopped,
                )  # fmt: skip
        return self._loaders[part]

    def _fill(self, cache: PrefixCache, part: str, epoch: int, report: Report) -> None:
        dataset, train, done = self.datasets[part], part == "train", 0
        share = self.processes.share(len(dataset))

        def progress(clips: int) -> None:
            nonlocal done
            done += clips
            report(part, done, len(share))

        cache.fill(
            dataset, epoch, self.failures, batch_size=self.batch_size if train else self.config.eval.batch_size,
            workers=self.workers, autocast=self.processes.accelerator.autocast, progress=progress,
            share=share, timeout=self.config.data.timeout, stopped=self.stopped,
        )  # fmt: skip
        for others in self.processes.gather(self.failures.reasons):  # what one could not read, the others must not miss
            self.failures.add(others.items())
