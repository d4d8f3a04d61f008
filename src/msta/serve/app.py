"""The routes: what comes in is checked, decoded elsewhere, computed with others, and answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from fastapi import Depends, FastAPI, File, Form, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from pydantic import BaseModel
from torch import Tensor

from msta._version import __version__
from msta.backbone.dual_encoder import DualEncoder
from msta.data.clips import ONE_VIEW, cut_views
from msta.inference.shared import Member, SharedBackbone
from msta.methods import attach
from msta.serve.adapters import Adapters
from msta.serve.batching import Batcher
from msta.serve.gate import Gate
from msta.serve.limits import Limits, Refusal, path_under, refuse_archives
from msta.serve.metrics import Metrics
from msta.serve.workers import Workers

_log = logging.getLogger("msta.serve")


class Problem(BaseModel):
    """Why a request was refused, in one line."""

    detail: str


class Prediction(BaseModel):
    """A class and how likely it is."""

    label: str
    probability: float


class Classified(BaseModel):
    """The most likely classes of a video, the most likely first."""

    adapter: str
    predictions: list[Prediction]


class Embedded(BaseModel):
    """A video's embedding, of length 1."""

    adapter: str | None
    embedding: list[float]


class AdapterState(BaseModel):
    """An adapter; bytes and classes are known while it is loaded."""

    name: str
    loaded: bool
    bytes: int | None = None
    classes: list[str] | None = None


class Health(BaseModel):
    """Of the service."""

    status: str
    version: str = __version__


@dataclass
class Service:
    """What the routes work with."""

    limits: Limits
    root: Path | None
    adapters: Adapters
    workers: Workers
    batcher: Batcher
    metrics: Metrics
    plain: Member
    working: asyncio.Semaphore
    scratch: Path
    ready: bool = False


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Problem} for status in statuses}


_OF_ALL = (400, 401, 413, 415, 422, 429, 431, 500, 504)
_OF_VIDEOS = _responses(*_OF_ALL, 403, 404, 409)
_OF_ADAPTERS = _responses(*_OF_ALL, 404, 409)


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
        backbone: frozen; every adapter is loaded onto it.
        adapters: a folder with a sub-folder an adapter.
        limits: see :class:`Limits`.
        root: the folder whose files may be named in place of an upload; None: none.
        keys: API keys; none: everyone may come.
        workers: decoding processes.
    """
    shared, metrics = SharedBackbone(backbone), Metrics()
    store = Adapters(shared, adapters, limits.adapter_bytes)
    service = Service(
        limits,
        root,
        store,
        Workers(workers, limits, lambda why: metrics.losses.labels(why).inc()),
        Batcher(shared, limits.batch, metrics.batch.observe, _lanes(backbone)),
        metrics,
        Member(attach(backbone, "zero-shot"), ["video"]),
        asyncio.Semaphore(limits.concurrent),
        Path(tempfile.gettempdir()),
    )
    metrics.watch("msta_adapters_loaded", "Adapters in memory.", lambda: len(store))
    metrics.watch("msta_adapters_bytes", "Memory they take.", store.loaded_bytes)
    metrics.watch("msta_adapters_evicted", "Since the start.", lambda: store.evictions)

    @contextlib.asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        with tempfile.TemporaryDirectory(prefix="msta-serve-") as scratch:
            service.scratch = Path(scratch)
            await service.workers.start()
            service.batcher.start()
            service.ready = True
            yield
            service.ready = False
            await service.batcher.stop()
            await service.workers.stop()

    app = FastAPI(title="msta", version=__version__, lifespan=life, redoc_url=None, swagger_ui_oauth2_redirect_url=None)
    app.state.service = service
    app.add_middleware(Gate, limits=limits, keys=tuple(keys))
    app.middleware("http")(_count)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Exception, _unforeseen)
    _add_routes(app)
    _document(app)
    return app


def _lanes(backbone: DualEncoder) -> int:
    """Batches to compute at a time: one, but two on a CPU with processors enough."""
    return min(2, torch.get_num_threads()) if backbone.logit_scale.device.type == "cpu" else 1


# ---------------------------------------------------------------- routes


def _of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Of = Annotated[Service, Depends(_of)]
# For the document: the key itself is checked by the gate, before a byte of the body is read.
_BEARER = Depends(HTTPBearer(auto_error=False, description="One of the service's keys, if it asks for any."))
_File = Annotated[UploadFile | None, File()]
_Path = Annotated[str | None, Form(max_length=1000)]


def _add_routes(app: FastAPI) -> None:
    app.post("/v1/classify", responses=_OF_VIDEOS, dependencies=[_BEARER])(classify)
    app.post("/v1/embed", responses=_OF_VIDEOS, dependencies=[_BEARER])(embed)
    app.get("/v1/adapters", responses=_responses(401, 413, 415, 429, 431, 500), dependencies=[_BEARER])(list_adapters)
    app.post("/v1/adapters/{name}/load", responses=_OF_ADAPTERS, dependencies=[_BEARER])(load_adapter)
    app.post("/v1/adapters/{name}/unload", responses=_OF_ADAPTERS, dependencies=[_BEARER])(unload_adapter)
    app.get("/healthz")(healthz)
    app.get("/readyz", responses=_responses(503))(readyz)
    told: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {}}}}
    app.get("/metrics", responses=told | _responses(401, 413, 415, 429, 431), dependencies=[_BEARER])(metrics)


def _document(app: FastAPI) -> None:
    """Say in the OpenAPI document that a request has a file or a path, which signatures cannot.

    An empty field is none, as forms of browsers send it.
    """
    file = {"type": "string", "format": "binary", "description": "A video."}
    path = {"type": "string", "maxLength": 1000, "description": "Of a video under the service's --root."}
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


async def classify(
    service: Of,
    adapter: Annotated[str, Form(max_length=100)],
    file: _File = None,
    path: _Path = None,
    top: Annotated[int, Form(ge=1, le=1000)] = 5,
) -> Classified:
    """Say what happens in a video."""
    async with service.working:
        member = await service.adapters.get(adapter)
        probabilities, _ = await _answer(service, member, file, path)
    best = probabilities.argsort(descending=True)[:top].tolist()
    ranked = [Prediction(label=member.classes[i], probability=float(probabilities[i])) for i in best]
    return Classified(adapter=adapter, predictions=ranked)


async def embed(
    service: Of,
    adapter: Annotated[str | None, Form(max_length=100)] = None,
    file: _File = None,
    path: _Path = None,
) -> Embedded:
    """Turn a video into numbers: those of similar videos point the same way. Without an adapter: by the backbone."""
    async with service.working:
        member = service.plain if adapter is None else await service.adapters.get(adapter)
        _, views = await _answer(service, member, file, path)
    embedding = F.normalize(F.normalize(views.float(), dim=-1).mean(0), dim=-1)
    return Embedded(adapter=adapter, embedding=embedding.tolist())


async def list_adapters(service: Of) -> list[AdapterState]:
    """All adapters there are."""
    return [_state(service, name) for name in service.adapters.names()]


async def load_adapter(service: Of, name: str) -> AdapterState:
    """Load an adapter before it is asked for."""
    await service.adapters.get(name)
    return _state(service, name)


async def unload_adapter(service: Of, name: str) -> AdapterState:
    """Free an adapter's memory. It is loaded again when asked for, from what is in its folder then."""
    if not service.adapters.unload(name) and name not in service.adapters.names():
        raise Refusal(404, f"adapter: no {name[:100]!r}")
    return _state(service, name)


async def healthz() -> Health:
    """Whether the process lives."""
    return Health(status="ok")


async def readyz(service: Of) -> Health:
    """Whether requests should be sent here."""
    if not service.ready:
        raise Refusal(503, "not ready")
    return Health(status="ready")


async def metrics(service: Of) -> Response:
    """Counters, for Prometheus."""
    return PlainTextResponse(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _state(service: Service, name: str) -> AdapterState:
    found = service.adapters.loaded(name)
    if found is None:
        return AdapterState(name=name, loaded=False)
    member, size = found
    return AdapterState(name=name, loaded=True, bytes=size, classes=list(member.classes))


# ---------------------------------------------------------------- a video's way


async def _answer(service: Service, member: Member, file: UploadFile | None, path: str | None) -> tuple[Tensor, Tensor]:
    if (file is None) == (path is None):
        raise Refusal(422, "give file or path, one of them")
    with contextlib.ExitStack() as stack:
        if file is not None:
            video = await asyncio.to_thread(_keep, file, stack.enter_context(_scratch_file(service.scratch)))
        else:
            video = path_under(service.root, path or "")
        refuse_archives(video)
        begun = time.perf_counter()
        frames = await service.workers.decode(video, member.format)
        service.metrics.seconds.labels("decode").observe(time.perf_counter() - begun)
    begun = time.perf_counter()
    views = await asyncio.to_thread(cut_views, frames, member.format, ONE_VIEW)
    answer = await service.batcher.answer(views, member)
    service.metrics.seconds.labels("compute").observe(time.perf_counter() - begun)
    return answer


@contextlib.contextmanager
def _scratch_file(folder: Path) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".video") as file:
        yield Path(file.name)


def _keep(upload: UploadFile, target: Path) -> Path:
    with target.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return target


# ---------------------------------------------------------------- errors and counts


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "request"
    if where == "file":
        return JSONResponse({"detail": "file: send it as a file with a name (curl: -F file=@clip.mp4)"}, 422)
    return JSONResponse({"detail": f"{where}: {first['msg']}"}, 422)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    _log.error("%s %s", request.method, request.url.path, exc_info=error)
    return JSONResponse({"detail": "an error of the service's own; its log has more"}, 500)


async def _count(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
    begun, service, status = time.perf_counter(), _of(request), 500
    try:
        response = await go_on(request)
        status = response.status_code
        return response
    finally:
        route = request.scope.get("route")
        service.metrics.requests.labels(getattr(route, "path", "none"), str(status)).inc()
        service.metrics.seconds.labels("request").observe(time.perf_counter() - begun)
