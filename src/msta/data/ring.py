"""Shared memory that the decoding processes write clips to and the main process copies them from, a clip per slot."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msta.notices import notice


class Ring:
    """Slots of shared memory.

    Python takes the memory from /dev/shm if there is room, else from a file in the folder for temporary files, so it
    works in small containers too. For a CUDA device it is pinned, so that copies to the device are asynchronous.

    Args:
        slots: their number.
        size: bytes per slot.
        device: the device that clips are copied to.

    Attributes:
        memory: all slots; decoding processes need nothing else.
        size: bytes per slot.
    """

    def __init__(self, slots: int, size: int, device: torch.device) -> None:
        self.memory = multiprocessing.RawArray("B", slots * size)
        self.size = size
        self._device = device
        self._free = deque(range(slots))
        self._leaving: deque[tuple[Any, list[int]]] = deque()
        self._pinned = device.type == "cuda" and _pin(self.memory)

    def take(self, count: int) -> list[int]:
        """So many slots, or fewer if there are not enough."""
        while len(self._free) < count and self._leaving:
            copied, slots = self._leaving.popleft()
            copied.synchronize()
            self._free.extend(slots)
        return [self._free.popleft() for _ in range(min(count, len(self._free)))]

    def put_back(self, slots: Sequence[int]) -> None:
        """Slots to use again as soon as the device has made the copies that it was asked for until now."""
        if self._device.type == "cpu":
            self._free.extend(slots)
        elif slots:
            copied = torch.Event(self._device)
            copied.record()
            self._leaving.append((copied, list(slots)))

    def read(self, slot: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """The content of a slot, not copied."""
        return _view(self.memory, slot * self.size, shape)

    def close(self) -> None:
        """Unpin the memory."""
        if self._pinned:
            torch.cuda.synchronize()
            torch.cuda.cudart().cudaHostUnregister(ctypes.addressof(self.memory))
            self._pinned = False


def write(memory: Any, size: int, slot: int, clip: NDArray[np.uint8]) -> bool:
    """In a decoding process: put a clip into a slot of ``size`` bytes. Returns False if it does not fit."""
    if clip.nbytes > size:
        return False
    _view(memory, slot * size, clip.shape)[...] = clip
    return True


def _view(memory: Any, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    return np.frombuffer(memory, np.uint8, math.prod(shape), offset).reshape(shape)


def _pin(memory: Any) -> bool:
    error = torch.cuda.cudart().cudaHostRegister(ctypes.addressof(memory), ctypes.sizeof(memory), 0)
    if int(error) != 0:
        notice(f"The memory for decoded clips cannot be pinned (CUDA error {int(error)}): copies to the card wait.")
    return int(error) == 0
