"""Start ``msta``, or several processes of a run as torchrun would, without paying for the imports each time."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
from multiprocessing.process import BaseProcess
from pathlib import Path

_PRELOAD = ["msta.training.loop", "msta.cli", "kornia.augmentation", "torch.utils.tensorboard"]


def run_msta(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with what it prints, as ``subprocess.run`` has it."""
    arguments = [str(word) for word in words]
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder) / "out", Path(folder) / "err"
        process = _server().Process(
            target=_command, args=(arguments, os.fspath(cwd or Path.cwd()), dict(os.environ), out, err)
        )
        process.start()
        process.join(600)
        return subprocess.CompletedProcess(arguments, process.exitcode, out.read_text(), err.read_text())


def _command(arguments: list[str], cwd: str, environment: dict[str, str], out: Path, err: Path) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in ((1, out), (2, err)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["msta", *arguments]
    from msta import cli

    cli.main()


def _server() -> multiprocessing.context.ForkServerContext:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(_PRELOAD)
    return server


def launch(arguments: list[str], processes: int, log: Path) -> list[BaseProcess]:
    """``msta`` with ``arguments``, so many times; what each prints goes to log.0, log.1 …"""
    server = _server()
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
