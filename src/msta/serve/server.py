"""Start the service, and end it on SIGTERM: it accepts no more requests, answers those it has, and exits."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType

import uvicorn

from msta.backbone.dual_encoder import DualEncoder
from msta.data.text_tables import open_text
from msta.errors import ConfigError, DataError, MSTAError
from msta.inference.serving import is_loopback, listen
from msta.notices import notice
from msta.serve.app import create_app
from msta.serve.gate import HEADER_BYTES
from msta.serve.limits import Limits

KEYS_VARIABLE = "MSTA_API_KEYS"


def check_system() -> None:
    """Refuse systems that cannot confine the processes that decode.

    Raises:
        ConfigError: it is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise ConfigError("msta serve: decodes files of strangers in confined processes, which only Linux has")


def read_keys(file: Path | None) -> list[str]:
    """API keys, from a file with one per line (# starts a comment), else from MSTA_API_KEYS, separated by commas.

    Raises MSTAError if the file cannot be read or has no keys, or a key has characters that a header cannot carry.
    """
    if file is None:
        keys = [key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip()]
    else:
        try:
            with open_text(file) as stream:
                lines = stream.read().splitlines()
        except (OSError, ValueError, DataError) as error:
            raise MSTAError(f"{file}: cannot be read as a file of keys ({error})") from error
        keys = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not keys:
            raise MSTAError(f"{file}: has no keys")
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

    The arguments are the options of ``msta serve``, and those of :func:`create_app`.

    Raises:
        ConfigError: others could reach a service without keys.
        MSTAError: a folder does not exist, or the port is taken.
    """
    for option, folder in (("--adapters", adapters), ("--root", root)):
        if folder is not None and not folder.is_dir():
            raise MSTAError(f"{option}: {folder} is not a folder")
    if not keys and not allow_anyone and not is_loopback(host):
        raise ConfigError(f"--host {host}: others can reach it; give --keys, or --allow-anyone")
    workers = workers or max(1, (os.cpu_count() or 2) - 1)
    app = create_app(backbone, adapters, limits=limits, root=root, keys=keys, workers=workers)
    if not app.state.service.adapters.names():
        notice(
            f"--adapters: no adapter is in {adapters} yet; until a sub-folder has one (a run of msta train will do), "
            "the service can only embed"
        )
    listening = listen(host, port)
    address = f"[{host}]" if ":" in host else host
    print(
        f"Serving on http://{address}:{listening.getsockname()[1]} (documentation: /docs)", file=sys.stderr, flush=True
    )
    config = uvicorn.Config(
        app, http="h11", h11_max_incomplete_event_size=HEADER_BYTES, log_level="warning", access_log=False,
        server_header=False, timeout_graceful_shutdown=int(limits.request_seconds) + 1, timeout_keep_alive=5,
        limit_concurrency=4 * (limits.concurrent + limits.queue),
    )  # fmt: skip
    signal.signal(signal.SIGTERM, _exit)  # uvicorn finishes its requests, then raises the signal again
    uvicorn.Server(config).run(sockets=[listening])


def _exit(number: int, frame: FrameType | None) -> None:
    sys.exit(0)
