"""The processes of a run: their numbers, and how they communicate. A single process is the simplest case."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor

from msta.backbone.device import best_device
from msta.data.processes import decoders
from msta.errors import ConfigError, Interrupted, MSTAError
from msta.notices import notice
from msta.settings import TrainSettings

T = TypeVar("T")

_PATIENCE = timedelta(hours=1)
"""How long a process waits for the others, which may decode for longer. A dead process is noticed at once."""
_BUCKET = 1 << 24
"""Numbers per message (64 MB), so that the gradients of a large model are not copied all at once."""


class Processes:
    """This process among those of the run, which ``torchrun`` or ``accelerate launch`` started.

    Attributes:
        accelerator: device, precision, trackers.
        rank: the number of this process, from 0.
        count: the number of processes.
    """

    def __init__(self, settings: TrainSettings, **options: Any) -> None:
        AcceleratorState._reset_state(reset_partial_state=True)  # one process may run several precisions, one by one
        mixed = {"fp32": "no"}.get(settings.precision, settings.precision)
        wait = InitProcessGroupKwargs(timeout=_PATIENCE)
        device, several = best_device(), _several()
        if device.type == "cpu" and (several or torch.accelerator.is_available()):
            options["cpu"] = True  # or Accelerate takes each process for the only one, or an accelerator
        elif device.index is not None and not several:
            torch.accelerator.set_device_index(device.index)
        try:
            self.accelerator = Accelerator(mixed_precision=mixed, kwargs_handlers=[wait], **options)
        except ValueError as error:
            what = f"train.precision: {settings.precision} does not work on this machine"
            raise ConfigError(f"{'the processes do not find each other' if several else what}: {error}") from error
        set_tf32(self.device, settings.tf32)
        self.rank, self.count = self.accelerator.process_index, self.accelerator.num_processes
        if not self.main:
            logging.getLogger("msta").setLevel(logging.ERROR)  # what is to be said, the main process says

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """The device that this process computes on."""
        return self.accelerator.device

    def decoders(self, wanted: int | None) -> int:
        """Decoding processes for this process, see :func:`msta.data.processes.decoders`."""
        return decoders(self.device, wanted, _number("LOCAL_WORLD_SIZE", self.count))

    def share(self, total: int) -> range:
        """The share of this process in so many things, which are dealt out like cards: shares differ by one at most."""
        return range(self.rank, total, self.count)

    def slice(self, total: int) -> slice:
        """The share of this process in so many things, as one slice."""
        return slice(self.rank * total // self.count, (self.rank + 1) * total // self.count)

    def all_reduce_numbers(self, values: Sequence[float]) -> list[float]:
        """The sum of each number over the processes."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        self.all_reduce(tensor)
        return list(tensor.tolist())

    def any_rank(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return self.all_reduce_numbers([flag])[0] > 0

    def all_reduce(self, tensor: Tensor) -> None:
        """Add the tensors of the other processes to this one, in place."""
        if self.count > 1:
            self._together(lambda: dist.all_reduce(tensor))

    def gather(self, thing: T) -> list[T]:
        """The objects of all processes, by rank. Tensors must be on the CPU."""
        if self.count == 1:
            return [thing]
        things: list[Any] = [None] * self.count
        self._together(lambda: dist.all_gather_object(things, thing))
        return things

    def barrier(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)

    def all_reduce_gradients(self, parameters: Sequence[torch.nn.Parameter]) -> int:
        """Add up gradients over the processes, in a few large pieces, which are the same in every step.

        If a parameter has no gradient in one process, it counts as zero there. If it has none in any process, it keeps
        none, so that the optimizer does not change it, as in a single process.

        Returns:
            Bytes that each process sent.
        """
        if self.count == 1 or not parameters:
            return 0
        device = parameters[0].device
        used = torch.tensor([p.grad is not None for p in parameters], dtype=torch.float32, device=device)
        self.all_reduce(used)
        there = [p for p, count in zip(parameters, used.tolist(), strict=True) if count]
        sent = 4 * len(used)
        while there:
            bucket = [there.pop(0)]
            size = bucket[0].numel()
            while there and size + there[0].numel() <= _BUCKET:
                size += there[0].numel()
                bucket.append(there.pop(0))
            flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in bucket])
            self.all_reduce(flat)
            sent += flat.numel() * flat.element_size()
            for p, gradient in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
                p.grad = gradient.view_as(p)
        return sent

    @contextlib.contextmanager
    def alike(self) -> Iterator[None]:
        """If every process has an error in this block, the main process reports it, and the others end silently."""
        try:
            yield
        except MSTAError as error:
            raise self.common(error) from error

    def common(self, error: MSTAError) -> BaseException:
        """The error to raise if it occurs in all processes, so that it is reported once."""
        code = {ConfigError: 2, Interrupted: 130}.get(type(error), 1)
        return error if self.main else SystemExit(code)

    def _together(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except RuntimeError as error:
            if not self.main:
                raise SystemExit(1) from error
            raise MSTAError(
                "another process of this run has ended, see what it says; msta train --resume goes on from the last "
                "saved step"
            ) from error


def _several() -> bool:
    """Whether a launcher started this process as one of several. What one left for a single process is dropped, and so
    is what would make Accelerate divide the model.

    Raises:
        ConfigError: the launcher's variables are no numbers, or some are missing.
    """
    for name in ("DEEPSPEED", "FSDP", "MEGATRON_LM"):
        if os.environ.pop(f"ACCELERATE_USE_{name}", "false").lower() not in ("", "0", "false"):
            notice(f"ACCELERATE_USE_{name} is ignored: every process holds the whole model.")
    if os.environ.pop("ACCELERATE_TORCH_DEVICE", ""):
        notice("ACCELERATE_TORCH_DEVICE is ignored: MSTA_DEVICE chooses the device.")
    if _number("WORLD_SIZE", 1) <= 1:
        for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
            os.environ.pop(name, None)
        return False
    if lacking := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]:
        raise ConfigError(
            f"the environment variable WORLD_SIZE asks for several processes, but {' and '.join(lacking)} "
            f"{'is' if len(lacking) == 1 else 'are'} not set: start them with torchrun, or unset WORLD_SIZE"
        )
    return True


def _number(name: str, default: int) -> int:
    """An environment variable that is a number; the default if it is empty or not set."""
    text = os.environ.get(name, "").strip()
    if text and not text.isdecimal():
        raise ConfigError(f"the environment variable {name} is {text!r}, not a number; unset it")
    return int(text or default)


def set_tf32(device: torch.device, allowed: bool) -> None:
    """Allow or forbid a CUDA card to round the factors of fp32 products and convolutions to TF32."""
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed
