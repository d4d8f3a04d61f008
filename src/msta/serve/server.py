"""Starting the service, and ending it: on SIGTERM it takes no more requests, answers those it has, and goes."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError, MSTAError
from msta.inference.guards import is_loopback
from msta.serve.app import create_app
from msta.serve.gate import HEADER_BYTES
from msta.serve.limits import Limits

KEYS_VARIABLE = "MSTA_API_KEYS"


def read_keys(file: Path | None) -> list[str]:
    """API keys: a file of one a line, # begins a remark; else the environment's MSTA_API_KEYS, separated by commas.

    Raises:
        MSTAError: the file cannot be read, or holds none; a key with characters a header cannot carry.
    """
    if file is None:
        keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    else:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as error:
            raise MSTAError(f"{file}: cannot be read as a file of keys ({error})") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise MSTAError(f"{file}: holds no key")
    for key in keys:
        if not key.isascii() or not key.isprintable() or " " in key or len(key) < 16:
            raise MSTAError(f"{file or KEYS_VARIABLE}: a key needs 16 or more printable ASCII characters, no spaces")
    return keys


def serve(
    backbone: DualEncoder,
    adapters: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    root: Path | None = None,
    keys: list[str],
    allow_anyone: bool = False,
    workers: int | None = None,
    limits: Limits = Limits(),  # noqa: B008
) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Args:
        backbone: frozen.
        adapters: a folder with a sub-folder an adapter.
        host: address to listen on. One that others can reach needs keys.
        port: 0 for any that is free.
        root: see :func:`create_app`.
        keys: see :func:`read_keys`.
        allow_anyone: listen to others without keys all the same.
        workers: decoding processes; None: one less than processors.
        limits: see :class:`Limits`.

    Raises:
        ConfigError: others could reach a service without keys.
        MSTAError: a folder is not there, the port is taken.
    """
    for option, folder in (("--adapters", adapters), ("--root", root)):
        if folder is not None and not folder.is_dir():
            raise MSTAError(f"{option}: {folder} is no folder")
    if not keys and not allow_anyone and not is_loopback(host):
        raise ConfigError(f"--host {host}: others can reach it; give --keys, or --allow-anyone")
    workers = workers or max(1, (os.cpu_count() or 2) - 1)
    app = create_app(backbone, adapters, limits=limits, root=root, keys=keys, workers=workers)
    listening = _listen(host, port)
    print(f"Serving on http://{host}:{listening.getsockname()[1]} (documentation: /docs)", file=sys.stderr, flush=True)
    config = uvicorn.Config(
        app, http="h11", h11_max_incomplete_event_size=HEADER_BYTES, log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=int(limits.request_seconds) + 1, timeout_keep_alive=5,
        limit_concurrency=4 * (limits.concurrent + limits.queue),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _leave)  # uvicorn drains, then lets the signal pass: to this
    uvicorn.Server(config).run(sockets=[listening])


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(0)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # TCP by name: only then does asyncio turn Nagle off, which would hold every answer back for 40 ms
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen()  # who comes before all is ready waits
    except OSError as error:
        raise MSTAError(f"--host {host} --port {port}: {error.strerror}") from error
    return listening
