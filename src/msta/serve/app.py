"""The routes: a video is checked, decoded in another process, computed in a batch with others, and answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from fastapi import APIRouter, Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel

from msta._version import __version__
from msta.backbone.dual_encoder import DualEncoder
from msta.data.clips import ONE_VIEW, cut_views
from msta.inference.predictor import Prediction, Predictor
from msta.inference.shared_backbone import SharedBackbone
from msta.methods import attach
from msta.serve.adapters import Adapters
from msta.serve.batching import Answer, Batcher
from msta.serve.gate import Gate
from msta.serve.limits import Limits, Refusal, path_under, refuse_archives
from msta.serve.page import page
from msta.serve.workers import Workers

_log = logging.getLogger("msta.serve")
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Classified(BaseModel):
    """The most likely classes of a video, the most likely first."""

    adapter: str
    predictions: list[Prediction]


class Embedded(BaseModel):
    """A video's embedding, of length 1."""

    adapter: str | None
    embedding: list[float]


class AdapterState(BaseModel):
    """An adapter. Its bytes and classes are known while it is loaded."""

    name: str
    loaded: bool
    bytes: int | None = None
    classes: list[str] | None = None


class Health(BaseModel):
    """The state of the service."""

    status: str
    version: str = __version__


class Metrics:
    """The metrics of one service for Prometheus, in their own registry."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("msta_requests", "Answered requests.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "msta_seconds",
            "Seconds by stage: decode, compute, request.",
            ["stage"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.batch = Histogram(
            "msta_batch_clips", "Clips computed together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry
        )
        self.losses = Counter(
            "msta_workers_replaced", "Decoding processes that were replaced.", ["why"], registry=self.registry
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Call ``value`` at every scrape."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        """In Prometheus's text format."""
        return generate_latest(self.registry)


@dataclass
class Service:
    """What the routes use."""

    limits: Limits
    root: Path | None
    adapters: Adapters
    workers: Workers
    batcher: Batcher
    metrics: Metrics
    backbone: Predictor  # without an adapter
    slots: asyncio.Semaphore  # for requests that are processed
    scratch: Path
    ready: bool = False


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


_OF_ALL = (400, 401, 413, 415, 422, 429, 431, 500, 504)
_OF_VIDEOS = _responses(*_OF_ALL, 403, 404, 409)
_OF_ADAPTERS = _responses(*_OF_ALL, 404, 409)
_TEXT: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}


def create_app(
    backbone: DualEncoder,
    adapters: Path,
    *,
    limits: Limits = Limits(),  # noqa: B008
    root: Path | None = None,
    keys: Sequence[str] = (),
    workers: int = 2,
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        backbone: frozen. Every adapter is loaded onto it.
        adapters: a folder with one sub-folder per adapter.
        limits: see :class:`Limits`.
        root: a folder whose videos can be requested by path, without an upload.
        keys: API keys. No keys: everyone may use the service.
        workers: decoding processes.
    """
    shared, metrics = SharedBackbone(backbone), Metrics()
    store = Adapters(backbone, adapters, limits.adapter_bytes)
    service = Service(
        limits,
        root,
        store,
        Workers(workers, limits, lambda why: metrics.losses.labels(why).inc()),
        Batcher(shared, limits.batch, metrics.batch.observe, _lanes(backbone)),
        metrics,
        Predictor(attach(backbone, "zero-shot"), ["video"]),
        asyncio.Semaphore(limits.concurrent),
        Path(tempfile.gettempdir()),
    )
    metrics.watch("msta_adapters_loaded", "Adapters in memory.", lambda: len(store))
    metrics.watch("msta_adapters_bytes", "Memory that adapters take.", store.loaded_bytes)
    metrics.watch("msta_adapters_evicted", "Evictions since the start.", lambda: store.evictions)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="msta-serve-") as scratch:
            service.scratch = Path(scratch)
            await service.workers.start()
            service.batcher.start()
            service.ready = True
            yield
            service.ready = False
            await service.batcher.stop()
            await service.workers.stop()

    app = FastAPI(title="msta", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.add_middleware(Gate, limits=limits, keys=tuple(keys))
    app.middleware("http")(_count)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(Exception, _unexpected_error)
    app.include_router(_router)
    app.include_router(_public)
    for path in ("/", "/docs"):
        app.add_api_route(path, lambda: HTMLResponse(page(app.openapi())), include_in_schema=False)
    _document(app)
    return app


def _lanes(backbone: DualEncoder) -> int:
    """How many batches to compute at a time: two on a CPU with several processors, else one."""
    return min(2, torch.get_num_threads()) if backbone.logit_scale.device.type == "cpu" else 1


# ---------------------------------------------------------------- routes


def _of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Of = Annotated[Service, Depends(_of)]
# Only for the OpenAPI document: the gate checks the key before the body is read.
_BEARER = Depends(HTTPBearer(auto_error=False, description="One of the keys of the service, if it has keys."))
_File = Annotated[UploadFile | None, File()]
_Path = Annotated[str | None, Form(max_length=1000)]
_public = APIRouter()
_router = APIRouter(dependencies=[_BEARER])


def _document(app: FastAPI) -> None:
    """State in the OpenAPI document that a request has either a file or a path, which signatures cannot express.

    An empty field counts as missing, because browsers send it for empty forms.
    """
    file = {"type": "string", "format": "binary", "description": "A video."}
    path = {"type": "string", "maxLength": 1000, "description": "The path of a video under the service's --root."}
    adapter = {"type": "string", "maxLength": 100, "description": "Its name."}
    top = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5, "description": "Classes to answer with."}
    paths = app.openapi()["paths"]
    for route, fields, needed in (
        ("/v1/classify", {"adapter": {**adapter, "minLength": 1}, "top": top}, ["adapter"]),
        ("/v1/embed", {"adapter": adapter}, []),
    ):
        schema = {
            "type": "object",
            "properties": {**fields, "file": file, "path": path},
            "oneOf": [
                {"required": [*needed, "file"], "properties": {"path": {"maxLength": 0}}},
                {"required": [*needed, "path"], "properties": {"path": {"minLength": 1}, "file": False}},
            ],
        }
        body = paths[route]["post"]["requestBody"]
        body["required"], body["content"] = True, {"multipart/form-data": {"schema": schema}}


@_router.post("/v1/classify", responses=_OF_VIDEOS)
async def classify(
    service: Of,
    adapter: Annotated[str, Form(max_length=100)],
    file: _File = None,
    path: _Path = None,
    top: Annotated[int, Form(ge=1, le=1000)] = 5,
) -> Classified:
    """Classify a video."""
    async with service.slots:
        loaded = await service.adapters.get(adapter)
        probabilities, _ = await _answer(service, loaded, file, path)
    return Classified(adapter=adapter, predictions=loaded.rank(probabilities)[:top])


@_router.post("/v1/embed", responses=_OF_VIDEOS)
async def embed(
    service: Of, adapter: Annotated[str | None, Form(max_length=100)] = None, file: _File = None, path: _Path = None
) -> Embedded:
    """Turn a video into an embedding. Similar videos have a high cosine. Without an adapter: by the backbone."""
    async with service.slots:
        loaded = service.backbone if adapter is None else await service.adapters.get(adapter)
        _, views = await _answer(service, loaded, file, path)
    embedding = F.normalize(F.normalize(views.float(), dim=-1).mean(0), dim=-1)
    return Embedded(adapter=adapter, embedding=embedding.tolist())


@_router.get("/v1/adapters", responses=_responses(401, 413, 415, 429, 431, 500))
async def list_adapters(service: Of) -> list[AdapterState]:
    """List all adapters."""
    return [_state(service, name) for name in service.adapters.names()]


@_router.post("/v1/adapters/{name}/load", responses=_OF_ADAPTERS)
async def load_adapter(service: Of, name: str) -> AdapterState:
    """Load an adapter before its first use."""
    await service.adapters.get(name)
    return _state(service, name)


@_router.post("/v1/adapters/{name}/unload", responses=_OF_ADAPTERS)
async def unload_adapter(service: Of, name: str) -> AdapterState:
    """Free the memory of an adapter. On its next use it is loaded again from its folder."""
    if not service.adapters.unload(name) and name not in service.adapters.names():
        raise Refusal(404, f"adapter: no {name[:100]!r}")
    return _state(service, name)


@_public.get("/healthz")
async def healthz() -> Health:
    """Whether the process is alive."""
    return Health(status="ok")


@_public.get("/readyz", responses=_responses(503))
async def readyz(service: Of) -> Health:
    """Whether the service is ready for requests."""
    if not service.ready:
        raise Refusal(503, "not ready")
    return Health(status="ready")


@_router.get("/metrics", responses=_TEXT | _responses(401, 413, 415, 429, 431))
async def metrics(service: Of) -> Response:
    """Metrics for Prometheus."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _state(service: Service, name: str) -> AdapterState:
    if (found := service.adapters.loaded(name)) is None:
        return AdapterState(name=name, loaded=False)
    adapter, size = found
    return AdapterState(name=name, loaded=True, bytes=size, classes=list(adapter.classes))


async def _answer(service: Service, adapter: Predictor, file: UploadFile | None, path: str | None) -> Answer:
    if (file is None) == (path is None):
        raise Refusal(422, "give either file or path")
    with contextlib.ExitStack() as stack:
        if file is not None:
            copy = stack.enter_context(tempfile.NamedTemporaryFile(dir=service.scratch, suffix=".video"))
            await asyncio.to_thread(shutil.copyfileobj, file.file, copy)
            copy.flush()
            video = Path(copy.name)
        else:
            video = path_under(service.root, path or "")
        refuse_archives(video)
        begun = time.perf_counter()
        frames = await service.workers.decode(video, adapter.format)
        service.metrics.seconds.labels("decode").observe(time.perf_counter() - begun)
    begun = time.perf_counter()
    views = await asyncio.to_thread(cut_views, frames, adapter.format, ONE_VIEW)
    answer = await service.batcher.answer(views, adapter)
    service.metrics.seconds.labels("compute").observe(time.perf_counter() - begun)
    return answer


# ---------------------------------------------------------------- errors and metrics


async def _invalid_request(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    if where == "file":
        return JSONResponse({"detail": "file: send it as a file with a name (curl: -F file=@clip.mp4)"}, 422)
    return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)


async def _unexpected_error(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "an internal error of the service; see its log"}, 500)


async def _count(request: Request, handle: Callable[[Request], Awaitable[Response]]) -> Response:
    begun, service, status = time.perf_counter(), _of(request), 500
    try:
        response = await handle(request)
        status = response.status_code
        return response
    finally:
        route = request.scope.get("route")
        service.metrics.requests.labels(getattr(route, "path", "none"), str(status)).inc()
        service.metrics.seconds.labels("request").observe(time.perf_counter() - begun)
