"""Catalog rows -> batches of clips: frame sampling, and the work after decoding, here or on a device.

Everything random is a function of (seed, epoch, clip) and does not depend on the number of workers. So a run can be
repeated, and an interrupted run continues as if it had not been interrupted.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from msta.data.augment import Augmentation, Drawn, augment
from msta.data.catalog import WHOLE, Clip, Span
from msta.data.decode import read_frames
from msta.data.loading import SteadyLoader
from msta.data.order import shard_numbers
from msta.data.times import segment_times, view_times
from msta.data.video_file import DecodeError, OutOfReach
from msta.errors import DataError
from msta.notices import notice

Key = tuple[int, int]
"""(epoch, index of the clip)."""


def crops(frames: NDArray[np.uint8], size: int, count: int) -> NDArray[np.uint8]:
    """[N, H, W, 3] -> [count, N, size, size, 3]: 1 from the centre, or 3 along the longer side."""
    height, width = frames.shape[1:3]
    views = []
    for i in range(count):
        along = 0.5 if count == 1 else i / (count - 1)
        top = round((height - size) * (along if height > width else 0.5))
        left = round((width - size) * (along if width >= height else 0.5))
        views.append(frames[:, top : top + size, left : left + size])
    return np.stack(views)


@dataclass(frozen=True)
class ClipFormat:
    """The clips that a backbone takes.

    Attributes:
        frames: T, the number of frames.
        size: height and width in pixels.
        mean: mean of pixels in 0..1, per channel; used with ``std`` to normalise.
        std: standard deviation of pixels, per channel.
        fit: how a frame becomes a square: "crop" keeps the proportions and cuts off the ends (CLIP), "squash" keeps the
            whole frame (ViCLIP).
    """

    frames: int
    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fit: str = "crop"

    def normalise(self, video: Tensor) -> Tensor:
        """[..., 3, H, W] in 0..1 -> normalised."""
        mean, std = torch.tensor((self.mean, self.std)).to(video.device, non_blocking=True)[..., None, None]
        return (video - mean) / std

    @property
    def margin(self) -> int:
        """Shorter side of a training clip's frames before they are cropped, in pixels: the field's margin."""
        return round(self.size * 256 / 224)


@dataclass(frozen=True)
class Views:
    """Test views: ``clips`` in time x ``crops`` (1 or 3) in space; probabilities are averaged over them.

    Three crops are cut from the whole frame, whatever ``fit`` of the format says.
    """

    clips: int = 1
    crops: int = 1


ONE_VIEW = Views()


def read_views(path: str, form: ClipFormat, views: Views, span: Span = WHOLE) -> Tensor:
    """Read a video, or a time range of it, for testing: float [views, T, 3, size, size], normalised.

    Raises:
        DecodeError: the file cannot be read.
    """
    return cut_views(_test_frames(path, form, views, span), form, views)


def cut_views(frames: NDArray[np.uint8], form: ClipFormat, views: Views) -> Tensor:
    """Frames at :func:`view_times`, uint8 [clips * T, H, W, 3] -> float [views, T, 3, size, size], normalised."""
    return form.normalise(to_float(_cut(frames, form, views)))


def _test_frames(path: str, form: ClipFormat, views: Views, span: Span) -> NDArray[np.uint8]:
    """[clips * T, H, W, 3]."""
    squash = form.fit == "squash" and views.crops == 1
    return read_frames(
        path, lambda d: view_times(d, form.frames, views.clips).ravel(), form.size, squash=squash, within=span
    )


def _cut(frames: NDArray[np.uint8], form: ClipFormat, views: Views) -> NDArray[np.uint8]:
    """[clips * T, H, W, 3] -> [views, T, size, size, 3]."""
    cut = crops(frames, form.size, views.crops)
    return cut.reshape(-1, form.frames, *cut.shape[2:])


def _drawn_frames(
    path: str, form: ClipFormat, augmentation: Augmentation, seed: int, span: Span
) -> tuple[NDArray[np.uint8], Drawn]:
    """The frames of a training clip, cut along the crop that was drawn, [T, h, w, 3]."""
    position = np.random.default_rng(seed).random(form.frames)
    squash = form.fit == "squash"
    frames = read_frames(
        path, lambda d: segment_times(d, form.frames, position), form.margin, squash=squash, within=span
    )
    drawn = augmentation.draw(seed, *frames.shape[1:3])
    left, top, right, bottom = drawn.box
    return frames[:, top:bottom, left:right], drawn


def to_float(frames: NDArray[np.uint8] | Tensor) -> Tensor:
    """uint8 [..., H, W, 3] -> float [..., 3, H, W] in 0..1, on the same device."""
    return torch.as_tensor(frames).movedim(-1, -3).contiguous().float() / 255


def finished(frames: Sequence[Tensor], drawn: Sequence[Drawn | None], form: ClipFormat) -> Tensor:
    """The work after decoding, on the device that has the frames: augment and normalise.

    Args:
        frames: uint8, for each clip its crop [T, h, w, 3], or its test views [views, T, size, size, 3].
        drawn: the augmentation of each clip; None for test views.
        form: the format of the backbone.

    Returns:
        Float [B, views, T, 3, size, size]; a training clip has one view.
    """
    training = [d for d in drawn if d is not None]
    if not training:
        return form.normalise(to_float(torch.stack(list(frames))))
    return form.normalise(augment([to_float(clip) for clip in frames], training, form.size))[:, None]


class ClipDataset(Dataset[dict[str, Any]]):
    """Labelled clips, decoded on demand. A file that cannot be read is a failure in its batch, not an exception.

    Args:
        clips: the clips.
        form: the format of the backbone.
        augmentation: for training; None gives test views.
        views: test views.
        seed: of the order and the augmentation.
        repeat: augmented views per clip; epoch e shows view e mod ``repeat``. None: a new view in every epoch.
        keep: (n, N): only n of the N patches of a training clip, drawn at random, are encoded. None: all.
        finish_on: the device that does :func:`finished`: a sample has uint8 "frames" and what was "drawn" for it. None:
            the decoding process does it, and a sample has a "video".

    Attributes:
        given_up: number of a clip that is not tried again -> reason (the decoder hung or died).
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
        finish_on: torch.device | None = None,
    ) -> None:
        self.clips = clips
        self.form = form
        self.augmentation = augmentation
        self.views = views
        self.seed = seed
        self.repeat = repeat
        self.keep = keep
        self.finish_on = finish_on
        self.given_up: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: Key) -> dict[str, Any]:
        _, index = key
        clip = self.clips[index]
        if index in self.given_up:
            return {"failure": (clip.name, self.given_up[index])}
        drawn = None
        try:
            if self.augmentation is None:
                frames = _cut(_test_frames(clip.path, self.form, self.views, clip.span), self.form, self.views)
            else:
                seed = self.draw(key)
                frames, drawn = _drawn_frames(clip.path, self.form, self.augmentation, seed, clip.span)
        except OutOfReach as error:
            return {"failure": (clip.name, Outage(error.reason))}
        except DecodeError as error:
            return {"failure": (clip.name, error.reason)}
        rest = {"label": clip.label, "index": index, "kept": self._kept(key)}
        if self.finish_on is not None:
            return {"frames": frames, "drawn": drawn, **rest}
        return {"video": finished([torch.from_numpy(frames)], [drawn], self.form)[0], **rest}

    @property
    def clip_bytes(self) -> int:
        """The most bytes of a clip's "frames". A crop is at most a third longer in one direction than in the other."""
        form, views = self.form, self.views.clips * self.views.crops
        one = form.size**2 * views if self.augmentation is None else form.margin * (4 * form.margin // 3 + 2)
        return 3 * form.frames * one

    @functools.cached_property
    def shards(self) -> NDArray[np.int64] | None:
        """[len(self)], the number of each clip's shard; None if the clips are files."""
        return shard_numbers([clip.path for clip in self.clips])

    def draw(self, key: Key) -> int:
        """The seed for an augmented view."""
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

    Also "kept" [B, n], the patches to encode, and "tokens" in place of "video" if they come from the prefix cache.
    Entries that no sample has are None. Arrays are NumPy's.
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


def collate_on(samples: Sequence[dict[str, Any]], form: ClipFormat, device: torch.device) -> dict[str, Any]:
    """Like :func:`collate`, for samples that a device finishes; their "video" is a tensor on that device."""
    batch = collate(samples)
    read = [s for s in samples if "failure" not in s]
    if read:
        frames = [torch.from_numpy(s["frames"]).to(device, non_blocking=True) for s in read]
        batch["video"] = finished(frames, [s["drawn"] for s in read], form)
    return batch


def on_device(batch: dict[str, Any], name: str, device: torch.device) -> Tensor | None:
    """The "video", "tokens" or "kept" of a batch; None if it has none, for instance because no file could be read."""
    return None if batch[name] is None else torch.as_tensor(batch[name]).to(device, non_blocking=True)


def make_loader(
    dataset: ClipDataset, batch_size: int, workers: int, *, keys: Sequence[Key] | None = None, **options: Any
) -> SteadyLoader:
    """A loader of the samples ``keys``, in their order; None: of every clip. See :func:`steady`."""
    keys = [(0, i) for i in range(len(dataset))] if keys is None else keys
    batches = [list(keys[i : i + batch_size]) for i in range(0, len(keys), batch_size)]
    return steady(dataset, batches, batch_size, workers, **options)


def steady(
    dataset: ClipDataset, batches: Iterable[list[Key]], batch_size: int, workers: int, **options: Any
) -> SteadyLoader:
    """A loader of these batches, of at most ``batch_size`` clips; for the options see :class:`SteadyLoader`."""
    device = dataset.finish_on
    if device is None:
        return SteadyLoader(dataset, batches, collate, workers, **options)
    gather = functools.partial(collate_on, form=dataset.form, device=device)
    ring = (batch_size, dataset.clip_bytes, device)
    return SteadyLoader(dataset, batches, gather, workers, ring=ring, **options)


class Outage(str):
    """A clip could not be read because of its server. Such a clip is not left out, because the server may recover."""

    __slots__ = ()


class Failures:
    """Clips that could not be read, by name. Each is reported once when it occurs, and all are listed at the end.

    If a server does not answer, that is always an error. When it answers again, the run can be resumed.

    Args:
        on_error: "skip" goes on without the file, "fail" raises a :class:`DataError`.
    """

    def __init__(self, on_error: Literal["skip", "fail"] = "skip") -> None:
        self.on_error = on_error
        self.reasons: dict[str, str] = {}

    def add(self, failures: Iterable[tuple[str, str]]) -> None:
        """Note the failures of a batch."""
        for path, reason in failures:
            if path not in self.reasons:
                self.reasons[path] = reason
                if self.on_error == "fail" or isinstance(reason, Outage):
                    raise DataError(str(DecodeError(path, reason)))
                notice(f"Left out, cannot be read: {DecodeError(path, reason)}")
