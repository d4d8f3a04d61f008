"""The prefix cache: the output of the frozen blocks for each clip, computed once and kept on disk.

An augmented view of a clip is a function of (seed, view, clip). With V views, epoch e reads view e mod V again.
Decoding it and running the frozen blocks a second time would give the same numbers. There is one file per view, in
NumPy's format. A file is written to another name and renamed, so a kill or a second process never leaves half a file.
Reading maps it into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from msta.adapters.model import AdaptedModel
from msta.backbone.prefix import pack_tokens, prefix_length, tensors_per_sequence
from msta.data.catalog import WHOLE
from msta.data.clips import ClipDataset, Failures, Key, collate, make_loader, on_device
from msta.data.loading import SteadyLoader
from msta.data.storage import content_hash
from msta.errors import ConfigError, DataError, in_short
from msta.files import replacing

DType = Literal["fp16", "fp32"]
_NUMPY: dict[str, Any] = {"fp16": np.float16, "fp32": np.float32}


class PrefixCache:
    """A folder of prefix outputs.

    Args:
        root: the folder, which is made if necessary. Several runs may share it, even at the same time.
        model: its frozen blocks make the outputs.
        max_gb: the most that the folder may hold.
        dtype: of the numbers on disk.
        precision: in which the frozen blocks compute; it changes the numbers.
    """

    def __init__(
        self, root: Path, model: AdaptedModel, *, max_gb: float, dtype: DType = "fp16", precision: str = "fp32"
    ) -> None:
        length = prefix_length(model.backbone.video)
        if length is None:
            raise ConfigError(f"cache.views: {model.config.name} trains the first layers, so there is nothing to keep")
        self.root, self.model, self.max_gb, self.dtype = root, model, max_gb, dtype
        self.parts = tensors_per_sequence(model.backbone.video)
        adapted = type(model.backbone.video.blocks[length]).__name__ if self.parts > 1 else None  # whose frozen part
        self.settings = {
            "backbone": model.origin["fingerprint"], "blocks": length, "frozen_output": adapted, "dtype": dtype,
            "in": precision,
        }  # fmt: skip
        self._hashes: dict[str, str] = {}

    def file(self, dataset: ClipDataset, key: Key) -> Path:
        """The file of a view. Its name is a hash of the clip's content and of everything done to it.

        Raises:
            OSError: the clip no longer exists.
        """
        clip = dataset.clips[key[1]]
        if clip.path not in self._hashes:
            self._hashes[clip.path] = content_hash(clip.path)
        how: dict[str, Any] = {"form": asdict(dataset.form), "views": asdict(dataset.views)}
        if dataset.augmentation is not None:
            how = {"form": asdict(dataset.form), "augmentation": asdict(dataset.augmentation)}
            how |= {"seed": dataset.draw(key), "keep": dataset.keep}
        if clip.span != WHOLE:
            how["span"] = clip.span
        whole = json.dumps([self.settings, self._hashes[clip.path], how], sort_keys=True)
        name = hashlib.sha256(whole.encode()).hexdigest()
        return self.root / name[:2] / f"{name}.npy"

    def bytes_per_view(self, dataset: ClipDataset) -> int:
        """Bytes on disk; a test clip counts once with all its views."""
        tower, form = self.model.backbone.video, dataset.form
        patches = (form.size // tower.patch_size) ** 2
        if dataset.augmentation is not None and dataset.keep is not None:
            patches = dataset.keep[0]
        tokens = form.frames * patches
        if tower.class_embedding is not None:
            tokens += 1 if tower.attention == "joint" else form.frames
        views = 1 if dataset.augmentation is not None else dataset.views.clips * dataset.views.crops
        return views * self.parts * tokens * tower.shape.width * np.dtype(_NUMPY[self.dtype]).itemsize

    def plan(self, parts: Sequence[tuple[ClipDataset, int]]) -> str:
        """What a run needs, in words, before it starts. ``parts``: (data set, number of epochs that differ) each.

        Raises:
            ConfigError: the folder would hold more than ``max_gb``, with what it holds already.
        """
        needed = missing = 0
        for dataset, epochs in parts:
            each = self.bytes_per_view(dataset)
            for index in range(len(dataset)):
                for epoch in range(epochs):
                    needed += each
                    with contextlib.suppress(OSError):
                        missing += each * (not self.file(dataset, (epoch, index)).exists())
        held = sum(file.stat().st_size for file in self.root.glob("*/*.npy"))
        if held + missing > self.max_gb * 1e9:
            raise ConfigError(
                f"cache.max_gb: the run needs {needed / 1e9:.2f} GB, {missing / 1e9:.2f} of it new; {self.root} holds "
                f"{held / 1e9:.2f}, may hold {self.max_gb:g}. Allow more, take fewer cache.views, or empty the folder"
            )
        return f"{needed / 1e9:.2f} GB in {self.root}, {missing / 1e9:.2f} of it to be computed"

    def fill(
        self,
        dataset: ClipDataset,
        epoch: int,
        failures: Failures,
        *,
        batch_size: int,
        workers: int,
        autocast: Callable[[], contextlib.AbstractContextManager[Any]] = contextlib.nullcontext,
        progress: Callable[[int], None] = lambda clips: None,
        share: Iterable[int] | None = None,
        timeout: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        """Compute what ``epoch`` needs and the folder lacks. If it was stopped, a second call continues it.

        ``share``: the numbers of the clips of this process; None: all.
        """
        own = range(len(dataset)) if share is None else share
        lacking = [(epoch, i) for i in own if not self._has(dataset, (epoch, i))]
        if not lacking:
            return
        device = self.model.backbone.logit_scale.device
        for batch in make_loader(dataset, batch_size, workers, keys=lacking, timeout=timeout, stopped=stopped):
            failures.add(batch["failures"])
            video = on_device(batch, "video", device)
            if video is None:
                continue
            with autocast():
                tokens = self.model.video_prefix(video.flatten(0, 1), on_device(batch, "kept", device))
            whole = pack_tokens(tokens, video.shape[0] * video.shape[1]).unflatten(0, video.shape[:2])
            kept = whole.float().cpu().numpy().astype(_NUMPY[self.dtype])
            for index, views in zip(batch["index"].tolist(), kept, strict=True):
                self._write(self.file(dataset, (epoch, index)), views)
            progress(len(video))

    def loader(
        self,
        dataset: ClipDataset,
        batches: Iterable[list[Key]],
        failures: Failures,
        stopped: Callable[[], bool] = lambda: False,
    ) -> SteadyLoader:
        """A loader of these batches, like that of the data set, but with "tokens" in place of "video"."""
        return SteadyLoader(_Kept(self, dataset, failures), batches, collate, ahead=True, stopped=stopped)

    def _has(self, dataset: ClipDataset, key: Key) -> bool:
        try:
            return self.file(dataset, key).exists()
        except OSError:
            return False  # decoding will say what is wrong with the clip

    @staticmethod
    def _write(file: Path, tokens: np.ndarray) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as aside, aside.open("wb") as stream:
            np.save(stream, tokens)
            stream.flush()
            os.fsync(stream.fileno())


class _Kept(Dataset[dict[str, Any]]):
    """The samples of a ClipDataset, from the cache."""

    def __init__(self, cache: PrefixCache, dataset: ClipDataset, failures: Failures) -> None:
        self.cache, self.dataset, self.failures = cache, dataset, failures
        self.clips = dataset.clips

    def __getitem__(self, key: Key) -> dict[str, Any]:
        clip = self.dataset.clips[key[1]]
        if clip.name in self.failures.reasons:
            return {"failure": (clip.name, self.failures.reasons[clip.name])}
        file = self.cache.file(self.dataset, key)
        try:
            tokens = np.load(file, mmap_mode="r")
        except (ValueError, EOFError) as error:
            raise DataError(f"{file}: damaged ({in_short(error)}); without it the clip is computed again") from error
        return {"tokens": tokens.astype(np.float32), "label": clip.label, "index": key[1]}
