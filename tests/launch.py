"""Start several processes of a run, as torchrun would, without paying for the imports each time."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

_PRELOAD = ["msta.training.loop", "msta.cli", "kornia.augmentation", "torch.utils.tensorboard"]


def launch(arguments: list[str], processes: int, log: Path) -> list[BaseProcess]:
    """``msta`` with ``arguments``, so many times; what each prints goes to log.0, log.1 …"""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_PRELOAD)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(processes):
        process = server.Process(target=_main, args=(arguments, rank, processes, port, f"{log}.{rank}"))
        process.start()
        started.append(process)
    return started


def run(arguments: list[str], processes: int, log: Path) -> list[int | None]:
    """:func:`launch`, waited for: exit codes."""
    started = launch(arguments, processes, log)
    for process in started:
        process.join(300)
    return [process.exitcode for process in started]


def _main(arguments: list[str], rank: int, processes: int, port: int, log: str) -> None:
    os.setsid()  # so that a kill takes the decoding processes along
    sys.stdout = sys.stderr = open(log, "a", buffering=1)  # noqa: SIM115
    if processes > 1:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
    sys.argv = ["msta", *arguments]
    import torch

    torch.set_num_threads(1)
    from msta import cli

    cli.console.file = sys.stderr
    cli.main()
