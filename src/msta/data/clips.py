"""Catalog rows -> batches of clips: frame sampling, clip-consistent augmentation, the data loader.

Everything random is a function of (seed, epoch, clip) and does not depend on the number of workers. So a run can be
repeated, and an interrupted run continues as if it had not been interrupted.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import BatchSampler, Dataset, Sampler

from msta.data.catalog import WHOLE, Clip, Span
from msta.data.decode import read_frames
from msta.data.loading import SteadyLoader
from msta.data.order import epoch_order, shard_numbers
from msta.data.times import segment_times, view_times
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import DataError
from msta.notices import notice

Key = tuple[int, int]
"""(epoch, index of the clip)."""


# ---------------------------------------------------------------- frames


def crops(video: Tensor, size: int, count: int) -> Tensor:
    """[..., H, W] -> [count, ..., size, size]: 1 from the centre, or 3 along the longer side."""
    height, width = video.shape[-2:]
    views = []
    for i in range(count):
        along = 0.5 if count == 1 else i / (count - 1)
        top = round((height - size) * (along if height > width else 0.5))
        left = round((width - size) * (along if width >= height else 0.5))
        views.append(video[..., top : top + size, left : left + size])
    return torch.stack(views)


# ---------------------------------------------------------------- augmentation


@dataclass(frozen=True)
class Augmentation:
    """What happens to a training clip, the same for all of its frames.

    ``crop_area``: share of the frame that a random resized crop keeps, from..to. ``jitter``, ``greyscale`` and
    ``flip`` are probabilities; the jitter's strengths (brightness 0.4, contrast 0.4, saturation 0.2, hue 0.1) are those
    of the pipeline the authors started from.
    """

    crop_area: tuple[float, float] = (0.5, 1.0)
    jitter: float = 0.8
    greyscale: float = 0.2
    flip: float = 0.5

    def __call__(self, video: Tensor, size: int) -> Tensor:
        """video [T, 3, H, W] in 0..1 -> [T, 3, size, size]; draws from torch's global generator."""
        return _pipeline(self, size)(video)


@functools.lru_cache(maxsize=4)
def _pipeline(augmentation: Augmentation, size: int) -> Callable[[Tensor], Tensor]:
    import kornia.augmentation as K

    same = {"same_on_batch": True}
    return torch.nn.Sequential(
        K.RandomResizedCrop((size, size), scale=augmentation.crop_area, **same),
        K.ColorJitter(0.4, 0.4, 0.2, 0.1, p=augmentation.jitter, **same),
        K.RandomGrayscale(p=augmentation.greyscale, **same),
        K.RandomHorizontalFlip(p=augmentation.flip, **same),
    )


# ---------------------------------------------------------------- data set


@dataclass(frozen=True)
class ClipFormat:
    """The form in which a backbone takes clips.

    Attributes:
        frames: T, the number of frames.
        size: height and width in pixels.
        mean: mean of pixels in 0..1, per channel; used with ``std`` to normalise.
        std: standard deviation of pixels, per channel.
        fit: how a frame that is not square becomes square: "crop" keeps its proportions and cuts off its ends
            (CLIP), "squash" keeps all of it (ViCLIP).
    """

    frames: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "crop"

    def normalise(self, video: Tensor) -> Tensor:
        """[..., 3, H, W] in 0..1 -> normalised."""
        mean, std = torch.tensor(self.mean)[:, None, None], torch.tensor(self.std)[:, None, None]
        return (video - mean) / std


@dataclass(frozen=True)
class Views:
    """Test views: ``clips`` in time x ``crops`` (1 or 3) in space; probabilities are averaged over them.

    Three crops are cut from the whole frame whatever the format's ``fit``.
    """

    clips: int = 1
    crops: int = 1


ONE_VIEW = Views()


def read_views(path: str, form: ClipFormat, views: Views, span: Span = WHOLE) -> Tensor:
    """A video, or a time range of it, for testing: float [views, T, 3, size, size], normalised.

    Raises:
        DecodeError: the file cannot be read.
    """
    squash = form.fit == "squash" and views.crops == 1
    frames = read_frames(
        path, lambda d: view_times(d, form.frames, views.clips).ravel(), form.size, squash=squash, within=span
    )
    return cut_views(frames, form, views)


def cut_views(frames: NDArray[np.uint8], form: ClipFormat, views: Views) -> Tensor:
    """Frames at :func:`view_times`, uint8 [clips * T, H, W, 3] -> float [views, T, 3, size, size], normalised."""
    video = crops(_to_float(frames), form.size, views.crops)  # [crops, clips*T, 3, size, size]
    return form.normalise(video).flatten(0, 1).unflatten(0, (-1, form.frames))


def read_augmented(path: str, form: ClipFormat, augmentation: Augmentation, seed: int, span: Span = WHOLE) -> Tensor:
    """A video, or a time range of it, for training: float [1, T, 3, size, size], normalised.

    ``seed`` decides frames and augmentation.

    Raises:
        DecodeError: the file cannot be read.
    """
    position = np.random.default_rng(seed).random(form.frames)
    short_side = round(form.size * 256 / 224)  # the field's margin for cropping
    squash = form.fit == "squash"
    frames = read_frames(
        path, lambda d: segment_times(d, form.frames, position), short_side, squash=squash, within=span
    )
    video = _to_float(frames)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        video = augmentation(video, form.size)
    return form.normalise(video)[None]


def _to_float(frames: np.ndarray) -> Tensor:
    """uint8 [T, H, W, 3] -> float [T, 3, H, W] in 0..1."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).contiguous().float() / 255


class ClipDataset(Dataset[dict[str, Any]]):
    """Labelled clips, decoded on demand. A file that cannot be read is a failure in its batch, not an exception.

    Args:
        clips: the clips.
        form: the form in which the backbone takes them.
        augmentation: for training; None gives test views.
        views: test views.
        seed: of the order and the augmentation.
        repeat: augmented views per clip; epoch e shows view e mod ``repeat``. None: a new one every epoch.
        keep: (n, N): a training clip comes with n of its N patches, drawn at random, to go on with. None: with all.

    Attributes:
        given_up: clips that are not tried again, number -> reason (the decoder hung or died).
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        form: ClipFormat,
        *,
        augmentation: Augmentation | None = None,
        views: Views = ONE_VIEW,
        seed: int = 0,
        repeat: int | None = None,
        keep: tuple[int, int] | None = None,
    ) -> None:
        self.clips = clips
        self.form = form
        self.augmentation = augmentation
        self.views = views
        self.seed = seed
        self.repeat = repeat
        self.keep = keep
        self.given_up: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        _, index = key
        clip = self.clips[index]
        if index in self.given_up:
            return {"failure": (clip.name, self.given_up[index])}
        try:
            if self.augmentation is None:
                video = read_views(clip.path, self.form, self.views, clip.span)
            else:
                video = read_augmented(clip.path, self.form, self.augmentation, self.draw(key), clip.span)
        except OutOfReach as error:
            return {"failure": (clip.name, Outage(error.reason))}
        except DecodeError as error:
            return {"failure": (clip.name, error.reason)}
        return {"video": video, "label": clip.label, "index": index, "kept": self._kept(key)}

    @functools.cached_property
    def shards(self) -> NDArray[np.int64] | None:
        """[len(self)], the number of the shard each clip lies in; None if they are files."""
        return shard_numbers([clip.path for clip in self.clips])

    def draw(self, key: Key) -> int:
        """The seed of an augmented view."""
        epoch, index = key
        view = epoch if self.repeat is None else epoch % self.repeat
        return int(np.random.SeedSequence((self.seed, view, index)).generate_state(1)[0])

    def _kept(self, key: Key) -> np.ndarray | None:
        if self.keep is None or self.augmentation is None:
            return None
        n, patches = self.keep
        return np.sort(np.random.default_rng((self.draw(key), 1)).permutation(patches)[:n])


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Samples -> {"video": [B, views, T, 3, H, W], "label": [B], "index": [B], "failures": [(clip, why)], …}.

    Also "kept" [B, n], the patches to go on with, and "tokens" in place of "video" if they come from the prefix cache.
    An entry that no sample has is None. Arrays are NumPy's, so that a worker sends them through its pipe. Tensors would
    go through shared memory; containers have little of it (64 MB in Docker), and a worker that finds it full hangs.
    """
    read = [s for s in samples if "failure" not in s]
    return {
        **{name: _stack([s.get(name) for s in read]) for name in ("video", "tokens", "kept")},
        "label": torch.tensor([s["label"] for s in read], dtype=torch.int64),
        "index": torch.tensor([s["index"] for s in read], dtype=torch.int64),
        "failures": [s["failure"] for s in samples if "failure" in s],
    }


def _stack(parts: Sequence[Any]) -> np.ndarray | None:
    return np.stack(parts) if parts and parts[0] is not None else None


def on_device(batch: dict[str, Any], name: str, device: torch.device) -> Tensor | None:
    """A batch's "video", "tokens" or "kept"; None if it has none, for instance if no file could be read."""
    return None if batch[name] is None else torch.from_numpy(batch[name]).to(device)


class EpochSampler(Sampler[Key]):
    """Keys of one epoch, in order or in that of :func:`epoch_order`. The first ``skip`` clips were seen already."""

    def __init__(self, count: int, shuffle: bool, seed: int = 0, shards: NDArray[np.int64] | None = None) -> None:
        self.count = count
        self.shuffle = shuffle
        self.seed = seed
        self.shards = shards
        self.epoch = 0
        self.skip = 0

    def __len__(self) -> int:
        return self.count - self.skip

    def __iter__(self) -> Iterator[Key]:
        shuffled = self.shuffle
        order = epoch_order(self.count, self.seed, self.epoch, self.shards) if shuffled else np.arange(self.count)
        return ((self.epoch, int(i)) for i in order[self.skip :])


def make_loader(
    dataset: ClipDataset,
    batch_size: int,
    workers: int,
    *,
    shuffle: bool = False,
    keys: Sequence[Key] | None = None,
    timeout: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> SteadyLoader:
    """A loader whose ``sampler`` is an :class:`EpochSampler`, or of exactly the samples ``keys``, once.

    ``timeout`` and ``stopped``: see :class:`msta.data.loading.SteadyLoader`.
    """
    sampler: Any = EpochSampler(len(dataset), shuffle, dataset.seed, dataset.shards) if keys is None else keys
    batches: Any = BatchSampler(sampler, batch_size, drop_last=False)
    return SteadyLoader(dataset, batches, collate, workers, timeout=timeout, stopped=stopped, sampler=sampler)


class Outage(str):
    """Why a clip could not be read, if the server is to blame. Such a clip is not left out: the fault may pass."""

    __slots__ = ()


class Failures:
    """Clips that could not be read, by name. Each is reported once when it occurs, and all are listed at the end.

    A server that does not answer is always an error; when it answers again, the run can be resumed.

    Args:
        on_error: "skip" goes on without the file, "fail" raises a :class:`DataError`.
    """

    def __init__(self, on_error: Literal["skip", "fail"] = "skip") -> None:
        self.on_error = on_error
        self.reasons: dict[str, str] = {}

    def add(self, failures: Iterable[tuple[str, str]]) -> None:
        """Take note of a batch's failures."""
        for path, reason in failures:
            if path not in self.reasons:
                self.reasons[path] = reason
                if self.on_error == "fail" or isinstance(reason, Outage):
                    raise DataError(str(DecodeError(path, reason)))
                notice(f"Left out, cannot be read: {DecodeError(path, reason)}")
