"""Dynamic batching: what arrives while a batch is computed makes the next one, whichever adapters it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from msta.inference.shared import Member, SharedBackbone


@dataclass(frozen=True)
class _Request:
    views: Tensor
    member: Member
    answer: asyncio.Future[tuple[Tensor, Tensor]]


class Batcher:
    """Collects requests and has the shared backbone answer them, a batch a lane, in threads of its own.

    No request waits for company: a batch is what has come by the time a lane is free, shared out among those that are.
    On a CPU a batch costs what its clips cost, and two lanes keep two processors busier than one lane that splits every
    product in two; a batch that has no other beside it gets all threads.

    Args:
        shared: the backbone.
        size: clips in a batch.
        on_batch: called with every batch's size.
        lanes: batches at a time.
    """

    def __init__(
        self,
        shared: SharedBackbone,
        size: int,
        on_batch: Callable[[int], None] = lambda size: None,
        lanes: int = 1,
    ) -> None:
        self.shared, self.size, self.on_batch, self.lanes = shared, size, on_batch, lanes
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._threads, self._all_threads = ThreadPoolExecutor(lanes, "compute"), torch.get_num_threads()
        self._tasks: list[asyncio.Task[None]] = []
        self._busy = 0

    def start(self) -> None:
        """Begin to answer."""
        self._tasks = [asyncio.create_task(self._run()) for _ in range(self.lanes)]

    async def stop(self) -> None:
        """Stop; the caller has waited for its answers."""
        for task in self._tasks:
            task.cancel()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def answer(self, views: Tensor, member: Member) -> tuple[Tensor, Tensor]:
        """Views [V, T, 3, H, W], normalised -> probabilities [K] and embeddings [V, D]."""
        future: asyncio.Future[tuple[Tensor, Tensor]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Request(views, member, future))
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            share = -(-(1 + self._waiting.qsize()) // (self.lanes - self._busy))
            while len(batch) < min(self.size, share) and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [request for request in batch if not request.answer.done()]  # given up meanwhile
            if batch:
                self.on_batch(len(batch))
                self._busy += 1
                alone = self._busy == 1 and self._waiting.empty()
                threads = self._all_threads if alone else max(1, self._all_threads // self.lanes)
                try:
                    await loop.run_in_executor(self._threads, self._compute_with, threads, loop, batch)
                finally:
                    self._busy -= 1

    def _compute_with(self, threads: int, loop: asyncio.AbstractEventLoop, batch: list[_Request]) -> None:
        torch.set_num_threads(threads)  # of this thread's products alone
        self._compute(loop, batch)

    def _compute(self, loop: asyncio.AbstractEventLoop, batch: list[_Request]) -> None:
        try:
            answers = self.shared.answer([(request.views, request.member) for request in batch])
        except Exception as error:
            if len(batch) == 1:
                loop.call_soon_threadsafe(_fail, batch[0], error)
                return
            for request in batch:  # one of them is at fault: the others must not pay for it
                self._compute(loop, [request])
            return
        for request, answer in zip(batch, answers, strict=True):
            loop.call_soon_threadsafe(_settle, request, answer)


def _settle(request: _Request, answer: tuple[Tensor, Tensor]) -> None:
    if not request.answer.done():
        request.answer.set_result(answer)


def _fail(request: _Request, error: Exception) -> None:
    if not request.answer.done():
        request.answer.set_exception(error)
