"""Batches in order, whatever happens to the processes that decode them.

A decoder that hangs in C code can only be ended with its process. So each decoding process writes to shared memory
which clip it decodes and since when. If that takes too long, the main process ends it and starts another one for its
batches, without the clip. A process that was killed is replaced too. A clip during which two processes died is left
out. Each process has its own pipe: in a queue that all share, as in torch's loader, the rest of a dead process's
message would be waited for without end. Clips that an accelerator finishes travel in a ring of shared memory instead
(:mod:`msta.data.ring`). The main process says which slots a batch may use. A slot is used again when its clip was
copied to the device, or when the process that might write to it has ended.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from msta.data.order import epoch_order
from msta.data.processes import check_main_guard
from msta.data.ring import Ring, write
from msta.errors import MSTAError
from msta.notices import notice

_TRIES = 5
"""So many deaths of decoding processes in a row, without a batch between them, are not an accident."""
_AHEAD = 2
"""Batches that a process is given at a time, or that a thread reads ahead."""


class StepSampler:
    """The clips of one process in an epoch, in batches. The clips of a step are dealt out to the processes like cards.

    Which clips a step has depends on (seed, epoch) and ``step_clips`` alone, and not on the number of processes or the
    size of their batches.

    Args:
        count: clips of the data set.
        seed: of the order.
        step_clips: clips per step, of all processes together.
        batch_size: clips per batch; no batch has clips of two steps.
        process: the number of this process.
        processes: how many there are.
        shards: see :func:`msta.data.order.epoch_order`.

    Attributes:
        epoch: decides the order.
        skip: clips at the start of the epoch that were used already, by all processes together.
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


Keys = list[tuple[int, int]]
Samples = list[dict[str, Any]]


@dataclass(frozen=True)
class _Job:
    """A batch to decode: its pass, its number in the pass, and the slots that its clips may use."""

    of_pass: int
    number: int
    keys: Keys
    slots: list[int]


@dataclass
class _Worker:
    """A decoding process: its pipe, its jobs, and the clip that it decodes (number + 1; 0: none) since when."""

    process: BaseProcess
    pipe: Connection
    desk: Any
    jobs: deque[_Job] = field(default_factory=deque)

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def end(self) -> None:
        self.kill()
        self.pipe.close()


class SteadyLoader:
    """Batches of a data set of clips, in order.

    Args:
        dataset: takes keys (epoch, clip), has ``clips``, and leaves out those in ``given_up``.
        batches: lists of keys; iterated anew in every pass.
        collate: samples -> a batch, in this process.
        workers: decoding processes, kept from pass to pass; 0: decode here, where nothing can be interrupted.
        ring: (clips, bytes, device): the "frames" of samples come in slots of so many bytes, for batches of so many
            clips, and ``collate`` copies them to the device. A clip without a slot, or all if None, use the pipe.
        ahead: without workers, a thread reads the next batches meanwhile. It helps if clips are read, not decoded.
        timeout: seconds that a clip may take in a decoding process; None: no limit.
        stopped: called after every batch; a pass ends early if it returns True.
    """

    def __init__(
        self,
        dataset: Any,
        batches: Iterable[Keys],
        collate: Callable[[Sequence[Any]], dict[str, Any]],
        workers: int = 0,
        *,
        ring: tuple[int, int, torch.device] | None = None,
        ahead: bool = False,
        timeout: float | None = None,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.dataset, self.batches = dataset, batches
        self._collate, self._count, self._timeout, self._stopped = collate, workers, timeout, stopped
        self._sizes, self._ahead = ring, ahead
        self._ring: Ring | None = None
        self._workers: list[_Worker] = []
        self._owner = os.getpid()
        self._passes = self._deaths = 0
        self._suspect: int | None = None
        if workers:
            check_main_guard()

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        passing = self._in_processes() if self._count else self._in_a_thread() if self._ahead else self._here()
        for batch in passing:
            yield batch
            if self._stopped():
                return

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """End the decoding processes. The next pass would start new ones."""
        if self._owner != os.getpid():  # a copy, in a process that was forked from the owner's: not its own workers
            return
        for worker in self._workers:  # pipes close themselves, perhaps before this: closing them here could hit another
            worker.kill()
        self._workers = []
        if self._ring is not None:
            self._ring.close()
        self._ring = None

    def _here(self) -> Iterator[dict[str, Any]]:
        return map(self._read, self.batches)

    def _in_a_thread(self) -> Iterator[dict[str, Any]]:
        coming: deque[Future[dict[str, Any]]] = deque()
        with ThreadPoolExecutor(1) as thread:
            for keys in self.batches:
                coming.append(thread.submit(self._read, keys))
                if len(coming) > _AHEAD:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _read(self, keys: Keys) -> dict[str, Any]:
        return self._collate([self.dataset[key] for key in keys])

    def _in_processes(self) -> Iterator[dict[str, Any]]:
        self._passes += 1
        if self._sizes and self._ring is None:
            clips, size, device = self._sizes
            self._ring = Ring((_AHEAD * self._count + 1) * clips, size, device)
        self._workers += [self._start() for _ in range(self._count - len(self._workers))]
        coming = iter(enumerate(self.batches))
        done: dict[int, tuple[_Job, Samples]] = {}
        given = handed = 0
        more = True
        try:
            while True:
                while more and handed - given < _AHEAD * self._count:
                    job = next(coming, None)
                    if job is None:
                        more = False
                    else:
                        slots = self._ring.take(len(job[1])) if self._ring else []
                        worker = min(self._workers, key=lambda worker: len(worker.jobs))
                        self._hand(worker, _Job(self._passes, *job, slots))
                        handed += 1
                if not more and given == handed:
                    return
                while given not in done:
                    done |= {job.number: (job, samples) for job, samples in self._receive()}
                yield self._finish(*done.pop(given))
                given += 1
        finally:
            for left, _ in done.values():
                self._put_back(left)

    def _finish(self, job: _Job, samples: Samples) -> dict[str, Any]:
        for slot, sample in zip(job.slots, samples, strict=False):
            if self._ring and "shape" in sample:
                sample["frames"] = self._ring.read(slot, sample.pop("shape"))
        batch = self._collate(samples)
        self._put_back(job)
        return batch

    def _put_back(self, job: _Job) -> None:
        if self._ring:
            self._ring.put_back(job.slots)

    def _receive(self) -> Iterator[tuple[_Job, Samples]]:
        """Wait for finished batches of this pass, and replace processes that died or take too long."""
        patience = None if self._timeout is None else min(1.0, self._timeout / 4)
        ready = wait([worker.pipe for worker in self._workers], patience)
        for worker in list(self._workers):
            if worker.pipe in ready:
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    self._replace(worker, None)
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                job = worker.jobs.popleft()
                self._deaths = 0
                if job.of_pass == self._passes:
                    yield job, answer
                else:  # it was wanted by a pass that ended early
                    self._put_back(job)
            elif self._timeout and worker.desk[0] and time.monotonic() - worker.desk[1] > self._timeout:
                self._replace(worker, f"not decoded within {self._timeout:g} s")

    def _replace(self, worker: _Worker, why: str | None) -> None:
        """Give the jobs of a process to a new one, without the clip if it took too long or two processes died on it."""
        worker.end()
        clip = int(worker.desk[0]) - 1
        if clip >= 0 and (why or clip == self._suspect):
            self.dataset.given_up[clip] = why or "the decoding process died on it, twice"
        self._suspect = clip
        self._deaths += 1
        how = f"exit code {worker.process.exitcode}"
        if self._deaths == _TRIES:
            raise MSTAError(
                f"data.workers: decoding processes die again and again ({how}), perhaps for want of memory; take fewer"
            )
        notice(f"A decoding process ended ({how}); another one goes on where it stopped")
        new = self._start()
        self._workers[self._workers.index(worker)] = new
        for job in worker.jobs:
            self._hand(new, job)

    def _hand(self, worker: _Worker, job: _Job) -> None:
        worker.jobs.append(job)
        with contextlib.suppress(OSError):  # it is dead, which receiving will notice
            worker.pipe.send((job.keys, job.slots, self.dataset.given_up))

    def _start(self) -> _Worker:
        here, there = multiprocessing.Pipe()
        desk = multiprocessing.RawArray("d", 2)
        ring = (self._ring.memory, self._ring.size) if self._ring else None
        process = multiprocessing.Process(
            target=_serve, args=(there, self.dataset, desk, ring), name="msta decoding", daemon=True
        )
        process.start()
        there.close()  # the process alone has it, so that its death ends the pipe
        return _Worker(process, here, desk)


def _serve(pipe: Connection, dataset: Any, desk: Any, ring: tuple[Any, int] | None) -> None:
    """In a decoding process: keys -> samples, until the main process ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the loop must be able to save its state
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    torch.set_num_threads(1)
    try:
        while True:
            keys, slots, dataset.given_up = pipe.recv()
            samples = []
            for key, slot in itertools.zip_longest(keys, slots):
                desk[1], desk[0] = time.monotonic(), key[1] + 1
                sample = dataset[key]
                if ring and slot is not None and "frames" in sample and write(*ring, slot, sample["frames"]):
                    sample["shape"] = sample.pop("frames").shape
                samples.append(sample)
                desk[0] = 0
            pipe.send(samples)
    except (EOFError, OSError):
        return
    except Exception as error:
        pipe.send(error)
