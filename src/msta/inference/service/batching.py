"""Dynamic batching: what arrives while a batch is computed makes the next one, whichever adapters it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from torch import Tensor

from msta.inference.shared import Member, SharedBackbone


@dataclass(frozen=True)
class _Request:
    views: Tensor
    member: Member
    answer: asyncio.Future[tuple[Tensor, Tensor]]


class Batcher:
    """Collects requests and has the shared backbone answer them, one batch at a time, in a thread of its own.

    No request waits for company: a batch is what has come by the time the one before is done.

    Args:
        shared: the backbone.
        size: clips in a batch.
        on_batch: called with every batch's size.
    """

    def __init__(self, shared: SharedBackbone, size: int, on_batch: Callable[[int], None] = lambda size: None) -> None:
        self.shared, self.size, self.on_batch = shared, size, on_batch
        self._waiting: asyncio.Queue[_Request] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "compute")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to answer."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; the caller has waited for its answers."""
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def answer(self, views: Tensor, member: Member) -> tuple[Tensor, Tensor]:
        """Views [V, T, 3, H, W], normalised -> probabilities [K] and embeddings [V, D]."""
        future: asyncio.Future[tuple[Tensor, Tensor]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Request(views, member, future))
        return await future

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = [await self._waiting.get()]
            while len(batch) < self.size and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            batch = [request for request in batch if not request.answer.done()]  # given up meanwhile
            if batch:
                self.on_batch(len(batch))
                await loop.run_in_executor(self._thread, self._compute, loop, batch)

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
