"""Dynamic batching: requests that arrive while a batch is computed make the next one, whatever their adapters."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from msta.inference.predictor import Predictor
from msta.inference.shared_backbone import SharedBackbone

Answer = tuple[NDArray[np.float64], Tensor]  # probabilities [K], embeddings of the views [V, D]


@dataclass(frozen=True)
class _Request:
    views: Tensor
    adapter: Predictor
    answer: asyncio.Future[Answer]


class Batcher:
    """Collects requests, and lets the shared backbone answer them in batches, in its own threads.

    No request waits for others: when a lane is free, it takes its share of the requests that have arrived. On a CPU the
    cost of a batch is that of its clips, and two lanes use two processors better than one lane that splits each
    matrix product. A batch that runs alone gets all threads.

    Args:
        shared: the backbone.
        size: the most clips in a batch.
        on_batch: called with the size of every batch.
        lanes: batches to compute at a time.
    """

    def __init__(
        self, shared: SharedBackbone, size: int, on_batch: Callable[[int], None] = lambda size: None, lanes: int = 1
    ) -> None:
        self.shared, self.size, self.on_batch, self.lanes = shared, size, on_batch, lanes
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._threads, self._all_threads = ThreadPoolExecutor(lanes, "compute"), torch.get_num_threads()
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0

    def start(self) -> None:
        """Start to answer."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self.lanes)]

    async def stop(self) -> None:
        """Stop. The caller must have received its answers before."""
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def answer(self, views: Tensor, adapter: Predictor) -> Answer:
        """Views [V, T, 3, H, W], normalised -> probabilities [K] and embeddings [V, D]."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Request(views, adapter, future))
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            share = -(-(1 + self._waiting.qsize()) // (self.lanes - self._busy))
            while len(batch) < min(self.size, share) and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [request for request in batch if not request.answer.done()]  # cancelled meanwhile
            if batch:
                self.on_batch(len(batch))
                self._busy += 1
                alone = self._busy == 1 and self._waiting.empty()
                threads = self._all_threads if alone else max(1, self._all_threads // self.lanes)
                try:
                    await loop.run_in_executor(self._threads, self._compute, threads, loop, batch)
                finally:
                    self._busy -= 1

    def _compute(self, threads: int, loop: asyncio.AbstractEventLoop, batch: list[_Request]) -> None:
        torch.set_num_threads(threads)  # for this thread only
        try:
            outcomes: Sequence[Answer | Exception] = self.shared.answer([(r.views, r.adapter) for r in batch])
        except Exception as error:
            if len(batch) > 1:  # one request failed: compute each of them alone
                for request in batch:
                    self._compute(threads, loop, [request])
                return
            outcomes = [error]
        for request, outcome in zip(batch, outcomes, strict=True):
            loop.call_soon_threadsafe(_finish, request, outcome)


def _finish(request: _Request, outcome: Answer | Exception) -> None:
    if request.answer.done():
        return
    if isinstance(outcome, Exception):
        request.answer.set_exception(outcome)
    else:
        request.answer.set_result(outcome)
