"""Batches in order, whatever happens to the processes that decode them.

A decoder that hangs in C cannot be interrupted, only ended with its process. So each decoding process says, in memory
that outlives it, which clip it is at, and a thread of it ends it when that takes too long. The loader then starts new
processes where the batches stopped, without the clip. A process killed from outside is replaced too; a clip that two
of them died on is left out.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from msta.data.order import epoch_order
from msta.errors import MSTAError, in_short
from msta.notices import notice

_TRIES = 5
"""Deaths of decoding processes in a row, without a batch in between, after which it is no accident."""


class StepSampler:
    """One process's clips of an epoch, in batches: every step's clips are dealt out to the processes like cards.

    Which clips a step has depends on (seed, epoch) and ``step_clips`` alone, not on how many processes share them nor
    in how large parts they are read.

    Args:
        count: clips of the data set.
        seed: of the order.
        step_clips: clips of a step, in all processes together.
        batch_size: clips of a batch; no batch has clips of two steps.
        process: this one.
        processes: how many there are.
        shards: see :func:`msta.data.order.epoch_order`.

    Attributes:
        epoch: whose order.
        skip: clips at its start that were seen already, in all processes together.
        batch_size: may change between epochs.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        *,
        step_clips: int,
        batch_size: int,
        process: int = 0,
        processes: int = 1,
        shards: NDArray[np.int64] | None = None,
    ) -> None:
        self.count, self.seed, self.step_clips, self.batch_size = count, seed, step_clips, batch_size
        self.process, self.processes, self.shards = process, processes, shards
        self.epoch = self.skip = 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = epoch_order(self.count, self.seed, self.epoch, self.shards)
        for start in range(self.skip, self.count, self.step_clips):
            own = order[start : start + self.step_clips][self.process :: self.processes]
            for first in range(0, len(own), self.batch_size):
                yield [(self.epoch, int(i)) for i in own[first : first + self.batch_size]]


class SteadyLoader:
    """Batches of a data set of clips, in order.

    Args:
        dataset: takes keys (epoch, clip), has ``clips``, and leaves out those in ``given_up``.
        batches: lists of keys; read anew for every pass.
        collate: samples -> a batch.
        workers: decoding processes, kept from pass to pass; 0: decode here, where nothing can be interrupted.
        timeout: seconds a clip may take in a decoding process; None: for ever.
        stopped: asked after every batch; a pass ends early when it says so.
        sampler: what ``batches`` takes its keys from, for those who set its epoch.
    """

    def __init__(
        self,
        dataset: Any,
        batches: Iterable[list[tuple[int, int]]],
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        workers: int = 0,
        *,
        timeout: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
        sampler: Any = None,
    ) -> None:
        self.dataset, self.batches, self.sampler = dataset, batches, sampler
        self._collate, self._workers, self._timeout, self._stopped = collate, workers, timeout, stopped
        self._loader: DataLoader[Any] | None = None
        self._rest = _Rest(batches)
        self._desks = _Desks(workers)
        self._suspects: set[int] = set()

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        done = deaths = 0
        while True:
            self._rest.done = done
            try:
                for batch in self._open():
                    done, deaths = done + 1, 0
                    yield batch
                    if self._stopped():
                        return
                return
            except RuntimeError as error:
                if "DataLoader worker" not in str(error):
                    raise
                deaths += 1
                self._loader = None
                self._blame(str(error))
                if deaths == _TRIES:
                    raise MSTAError(
                        f"data.workers: decoding processes die again and again, perhaps for want of memory; "
                        f"take fewer, or 0 ({in_short(error)})"
                    ) from None

    def _open(self) -> Iterator[dict[str, Any]]:
        if not self._workers:
            keyed = (self._collate([self.dataset[key] for key in keys]) for keys in self._rest)
            return keyed
        before = signal.getsignal(signal.SIGCHLD)
        if self._loader is None:
            self._desks = _Desks(self._workers)
            self._loader = DataLoader(
                _Guarded(self.dataset),
                batch_sampler=self._rest,  # type: ignore[arg-type]
                num_workers=self._workers,
                collate_fn=self._collate,
                worker_init_fn=functools.partial(_begin, self._desks, self._timeout),
                persistent_workers=True,
            )
        iterator = iter(self._loader)
        if threading.current_thread() is threading.main_thread():
            # torch's handler raises wherever this process is, in the middle of a save perhaps; the loader looks anyway
            signal.signal(signal.SIGCHLD, before)
        return iterator

    def _blame(self, message: str) -> None:
        """Leave out the clips that ran out of time, and those that were in work twice when a process died."""
        dead = {int(pid) for pid in re.findall(r"\d+", message)}
        suspects = set()
        for pid, clip in self._desks.read():
            if clip < 0:
                self.dataset.given_up[-clip - 1] = f"not decoded within {self._timeout:g} s"
            elif clip > 0 and pid in dead:
                suspects.add(clip - 1)
        for clip in suspects & self._suspects:
            self.dataset.given_up[clip] = "the decoding process died on it, twice"
        self._suspects = suspects
        notice(f"A decoding process ended; another one goes on where it stopped ({' '.join(message.split())[:120]})")


class _Rest:
    """The batches that are still to come."""

    def __init__(self, batches: Iterable[list[tuple[int, int]]]) -> None:
        self.batches, self.done = batches, 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return islice(iter(self.batches), self.done, None)


class _Desks:
    """For each decoding process its pid and the clip it is at: number + 1; 0: none; negative: it took too long."""

    def __init__(self, workers: int) -> None:
        self.cells = multiprocessing.RawArray("q", 2 * max(1, workers))

    def read(self) -> list[tuple[int, int]]:
        """(pid, clip) of each."""
        return list(zip(self.cells[::2], self.cells[1::2], strict=True))


class _Desk:
    """A decoding process's own: the main process reads what is on it when the process is gone."""

    def __init__(self, desks: _Desks, worker: int, timeout: float | None) -> None:
        self.cells, self.place, self.timeout = desks.cells, 2 * worker, timeout
        self.since = 0.0
        self.cells[self.place] = os.getpid()
        self.put(None)
        if timeout is not None:
            threading.Thread(target=self._watch, args=(timeout,), daemon=True).start()

    def put(self, clip: int | None) -> None:
        self.since = time.monotonic()
        self.cells[self.place + 1] = 0 if clip is None else clip + 1

    def _watch(self, timeout: float) -> None:
        while True:
            time.sleep(min(1.0, timeout / 4))
            clip = self.cells[self.place + 1]
            if clip > 0 and time.monotonic() - self.since > timeout:
                self.cells[self.place + 1] = -clip
                os._exit(1)


_desk: _Desk | None = None  # of this decoding process


def _begin(desks: _Desks, timeout: float | None, worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; decoding ones must live on while the loop saves its state."""
    global _desk
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _desk = _Desk(desks, worker, timeout)


class _Guarded(Dataset[Any]):
    """A data set that says which clip it is at, in a decoding process."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getitem__(self, key: tuple[int, int]) -> Any:
        assert _desk is not None
        assert get_worker_info() is not None
        _desk.put(key[1])
        sample = self.dataset[key]
        _desk.put(None)
        return sample
