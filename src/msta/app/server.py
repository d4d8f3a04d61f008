"""Start the app: on this machine, without a network and without telemetry."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any

from msta.adapters.artefact import Artefact
from msta.adapters.zoo import find_adapters
from msta.app.models import Models
from msta.app.page import QUICK, Page
from msta.app.predicting import LIMITS
from msta.app.render import read
from msta.app.training import Trainings
from msta.backbone.checkpoints import load_backbone
from msta.backbone.dual_encoder import DualEncoder
from msta.errors import ConfigError, MSTAError
from msta.inference.arguments import adapter_names
from msta.inference.serving import FRAME_RATE, is_loopback, listen


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
    """Serve the page until Ctrl-C or SIGTERM. A training is then stopped and saved.

    The arguments are the options of ``msta app``: ``folder`` is its --adapters, ``search_in`` its --in. If ``backbone``
    is None, it is that of the first adapter, or "toy".

    Raises:
        ConfigError: others could reach the app, or gradio is not installed.
        MSTAError: a folder does not exist, an adapter or the backbone cannot be loaded, or the port is taken.
    """
    if find_spec("gradio") is None:  # imported below, after its environment variables are set
        raise ConfigError("msta app needs the package gradio: pip install 'msta[app]'")
    if not allow_anyone and not is_loopback(host):
        raise ConfigError(
            f"--host {host}: others could use this computer through the page, which asks for no password; "
            "add --allow-anyone if you want that"
        )
    for option, needed in (("--adapters", folder), ("--in", search_in)):
        if needed is not None and not needed.is_dir():
            raise MSTAError(f"{option}: {needed} is not a folder")
    with listen(host, port) as free:  # Gradio's own error about a taken port names settings that msta does not have
        port = free.getsockname()[1]
    named = dict(zip(adapter_names(adapters), adapters, strict=True))
    for name, place in find_adapters(folder).items() if folder else ():
        named.setdefault(name, place)
    with tempfile.TemporaryDirectory(prefix="msta-app-") as scratch:
        os.environ["GRADIO_TEMP_DIR"] = str(Path(scratch) / "uploads")  # read when gradio is imported
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        models = Models(_backbone(list(named.values()), backbone, base), named, runs.absolute())
        offered = search_in.absolute() if search_in else None
        limits = {**LIMITS, "seconds": seconds, "frames": max(LIMITS["frames"], seconds * FRAME_RATE)}
        page = Page(models, Trainings(models, Path(scratch)), Path(scratch), offered, limits)
        try:
            _serve(page, host, port)
        finally:
            page.trainings.close()


def _backbone(adapters: Sequence[Path], name: str | None, base: str | None) -> DualEncoder:
    if name is None and adapters:
        own = Artefact.read(adapters[0]).backbone
        name, base = own["source"], base or own.get("base")
    return load_backbone(name or "toy", base=base).placed()


def _serve(page: Page, host: str, port: int) -> None:
    import gradio as gr

    font, mono = (gr.themes.Font(name) for name in ("system-ui", "monospace"))  # system fonts, not downloaded
    theme = gr.themes.Default(primary_hue="blue", font=[font], font_mono=[mono])
    blocks = _build(page)
    _, url, _ = blocks.launch(
        server_name=host, server_port=port, app_kwargs=_host_check(host),
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
        blocks.close(verbose=False)


def _build(page: Page) -> Any:
    """The page with its tabs."""
    import gradio as gr

    from msta.app.predict_tab import predict_tab
    from msta.app.search_tab import search_tab
    from msta.app.train_tab import progress, train_tab

    backbone = escape(Path(str(page.models.backbone.source)).name)
    with gr.Blocks(title="msta", analytics_enabled=False, delete_cache=(3600, 24 * 3600)) as blocks:
        gr.HTML(f'<header class="msta-head"><h1>msta</h1><p>what happens in a video; backbone: {backbone}</p></header>')
        with gr.Tabs():
            with gr.Tab("Predict"):
                predicting = predict_tab(page)
            with gr.Tab("Train"):
                timer, watched = train_tab(page)
            with gr.Tab("Search"):
                searching = search_tab(page)
        shown = [*watched, timer, predicting, searching]
        timer.tick(lambda: progress(page), None, shown, **QUICK)
        blocks.load(lambda: progress(page, arriving=True), None, shown, **QUICK)
    return blocks


def _host_check(host: str) -> dict[str, Any]:
    """Server settings. On loopback the app answers only requests for the names of loopback.

    Otherwise a web page elsewhere could use the app by making its own name resolve to 127.0.0.1 (DNS rebinding).
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    if not is_loopback(host) or ":" in host:
        return {}
    return {"middleware": [Middleware(TrustedHostMiddleware, allowed_hosts=[host, "127.0.0.1", "localhost"])]}
