"""A pool of decoding processes. Each decodes one file at a time, and is replaced if a file has killed it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from msta.data.clips import ClipFormat
from msta.serve.limits import Limits, Refusal

_STREAM_LIMIT = 2**16
_START_SECONDS = 60.0
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "LANG", "SYSTEMROOT", "TMPDIR", "VIRTUAL_ENV")
_FATAL = (asyncio.IncompleteReadError, BrokenPipeError, ConnectionResetError, asyncio.LimitOverrunError, ValueError)


class Workers:
    """A pool of decoding processes.

    Args:
        count: how many processes.
        limits: what a file may cost.
        on_loss: called with "died" or "timeout" when a process must be replaced.
    """

    def __init__(self, count: int, limits: Limits, on_loss: Callable[[str], None] = lambda why: None) -> None:
        self.count, self.limits, self.on_loss = count, limits, on_loss
        self._idle: asyncio.Queue[asyncio.subprocess.Process | None] = asyncio.Queue()
        self._alive: set[asyncio.subprocess.Process] = set()

    async def start(self) -> None:
        """Start all processes."""
        for process in await asyncio.gather(*(self._spawn() for _ in range(self.count))):
            self._idle.put_nowait(process)

    async def stop(self) -> None:
        """End all processes."""
        for process in tuple(self._alive):
            await self._end(process)

    async def decode(self, path: Path, form: ClipFormat) -> NDArray[np.uint8]:
        """The frames of one view of a video: uint8 [T, H, W, 3].

        Raises Refusal if it is not a video (415), is damaged or killed the process (422), or exceeds a limit (413).
        """
        process = await self._idle.get()
        keep: asyncio.subprocess.Process | None = None
        try:
            if process is None:
                process = await self._spawn()
            frames = await asyncio.wait_for(self._ask(process, path, form), self.limits.decode_seconds)
            keep = process
            return frames
        except Refusal:
            keep = process
            raise
        except asyncio.TimeoutError:
            self.on_loss("timeout")
            raise Refusal(422, f"decoding it takes more than {self.limits.decode_seconds:g} s") from None
        except _FATAL:
            self.on_loss("died")
            raise Refusal(422, "decoding it ended its process: it is damaged, or costs too much to decode") from None
        finally:
            if keep is None and process is not None:
                await self._end(process)
            self._idle.put_nowait(keep)  # None: the next one starts a new process

    async def _ask(self, process: asyncio.subprocess.Process, path: Path, form: ClipFormat) -> NDArray[np.uint8]:
        assert process.stdin is not None
        assert process.stdout is not None
        limits = {"seconds": self.limits.seconds, "pixels": self.limits.pixels, "frames": self.limits.frames}
        job = {"path": os.fspath(path), "frames": form.frames, "size": form.size, "squash": form.fit == "squash"}
        process.stdin.write(json.dumps({**job, "limits": limits}).encode() + b"\n")
        await process.stdin.drain()
        header = json.loads(await process.stdout.readuntil(b"\n"))
        if "status" in header:
            raise Refusal(header["status"], header["reason"])
        shape = [int(side) for side in header["shape"]]
        data = await process.stdout.readexactly(int(np.prod(shape)))
        return np.frombuffer(data, np.uint8).reshape(shape).copy()

    async def _spawn(self) -> asyncio.subprocess.Process:
        """Start a process. Of the environment it gets only what it needs to find programs."""
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {"PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "msta.serve.worker",
            str(self.limits.decode_bytes), str(self.limits.decode_seconds),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
            env=environment, limit=_STREAM_LIMIT, start_new_session=True,
        )  # fmt: skip
        self._alive.add(process)
        assert process.stdout is not None
        try:  # a file's time starts when a process is ready to decode it
            await asyncio.wait_for(process.stdout.readuntil(b"\n"), _START_SECONDS)
        except BaseException:
            await self._end(process)
            raise
        return process

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        self._alive.discard(process)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
