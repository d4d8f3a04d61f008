"""Starting the app: on this machine, without a network, without telemetry."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from msta.adapters.artefact import Artefact
from msta.app.models import Models, find_adapters
from msta.app.predicting import LIMITS
from msta.app.training import Trainings
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError, MSTAError
from msta.inference.durations import short_names
from msta.inference.guards import is_loopback


def run(
    adapters: Sequence[Path] = (),
    folder: Path | None = None,
    *,
    backbone: str | None = None,
    base: str | None = None,
    search_in: Path | None = None,
    runs: Path = Path("msta-runs"),
    host: str = "127.0.0.1",
    port: int = 7860,
    allow_anyone: bool = False,
    seconds: float = LIMITS["seconds"],
) -> None:
    """Serve the page until Ctrl-C or SIGTERM; a training under way is then stopped, and saved.

    Args:
        adapters: directories, all of one backbone.
        folder: of more of them, each a sub-folder, or of runs.
        backbone: see :func:`msta.load_backbone`; None: the first adapter's, or "toy".
        base: see :func:`msta.load_backbone`.
        search_in: the folder that is offered for a search.
        runs: where trained adapters go.
        host: address to listen on.
        port: 0 for any that is free.
        allow_anyone: listen where others can reach it.
        seconds: of a video that may be given.

    Raises:
        ConfigError: others could reach it; gradio is not installed.
        MSTAError: a folder is not there, an adapter or the backbone cannot be loaded, the port is taken.
    """
    if find_spec("gradio") is None:  # it is imported below, when its settings are made
        raise ConfigError("msta app needs the package gradio: pip install 'msta[app]'")
    if not allow_anyone and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: others could use this computer through the page, which asks for no password; "
            "add --allow-anyone if that is meant"
        )
    for option, needed in (("--adapters", folder), ("--in", search_in)):
        if needed is not None and not needed.is_dir():
            raise MSTAError(f"{option}: {needed} is no folder")
    port = _free_port(host, port)
    named = dict(zip(short_names(adapters), adapters, strict=True)) | (find_adapters(folder) if folder else {})
    with tempfile.TemporaryDirectory(prefix="msta-app-") as scratch:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(scratch) / "uploads")  # read when gradio is imported
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        models = Models(_backbone(list(named.values()), backbone, base), named, runs.absolute())
        trainings = Trainings(models, Path(scratch))
        try:
            _serve(models, trainings, Path(scratch), search_in, host, port, {**LIMITS, "seconds": seconds})
        finally:
            trainings.close()


def _backbone(adapters: Sequence[Path], name: str | None, base: str | None) -> DualEncoder:
    import torch

    if name is None and adapters:
        own = Artefact.read(adapters[0]).backbone
        name, base = own["source"], base or own.get("base")
    loaded = load_backbone(name or "toy", base=base)
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu")


def _serve(
    models: Models,
    trainings: Trainings,
    scratch: Path,
    search_in: Path | None,
    host: str,
    port: int,
    limits: dict[str, float],
) -> None:
    import gradio as gr

    from msta.app.layout import build
    from msta.app.page import Page
    from msta.app.render import read

    font, mono = (gr.themes.Font(name) for name in ("system-ui", "monospace"))  # fetched from nowhere
    theme = gr.themes.Default(primary_hue="blue", font=[font], font_mono=[mono])
    page = build(Page(models, trainings, scratch, search_in.absolute() if search_in else None, limits))
    _, url, _ = page.launch(
        server_name=host, server_port=port, app_kwargs=_only_asked_as(host),
        theme=theme, css=read("app.css"), head=f"<script>{read('app.js')}</script>", footer_links=[],
        share=False, quiet=True, prevent_thread_lock=True, ssr_mode=False, pwa=False, mcp_server=False,
        enable_monitoring=False, run_history=False,
    )  # fmt: skip
    over = threading.Event()

    def leave(number: int, frame: FrameType | None) -> None:
        over.set()

    before = {number: signal.signal(number, leave) for number in (signal.SIGINT, signal.SIGTERM)}
    print(f"The app is on {url} (Ctrl-C ends it)", file=sys.stderr, flush=True)
    try:
        over.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        page.close(verbose=False)


def _only_asked_as(host: str) -> dict[str, Any]:
    """Settings of the server: on loopback it answers to loopback's names alone.

    Else a page from elsewhere, whose name is made to mean 127.0.0.1 once it is open (DNS rebinding), could use the app.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    if not is_loopback(host) or ":" in host:
        return {}
    return {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[host, "127.0.0.1", "localhost"])]}


def _free_port(host: str, port: int) -> int:
    """The port, or any for 0, if nobody has it: Gradio's own words for that speak of other settings than ours."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise MSTAError(f"--host {host} --port {port}: {error.strerror}") from error
        return int(probe.getsockname()[1])
