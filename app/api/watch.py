"""What machines watch: probes and metrics, on the port of the service or on one of their own.

Its own port is served by the same event loop as the rest, so that a probe tells of that. Where
several processes serve, each listens on it and the system chooses which one answers.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from app import metrics
from app.api import errors
from app.api.errors import documented
from app.api.observe import Observe
from app.api.processes import PortError
from app.api.protect import Protect
from app.inference.models import Models
from app.inference.sessions import check_working
from app.problems import Refusal
from app.settings import Settings

router = APIRouter()

_BACKLOG = 128  # connections


@router.get("/healthz/live", responses=documented("not_ready"))
async def live(request: Request) -> dict[str, str]:
    """The process answers, and the device has not failed: from that only a restart helps."""
    check_live(request)
    return {"status": "live"}


@router.get("/healthz/ready", responses=documented("not_ready"))
async def ready(request: Request) -> dict[str, str]:
    """The bundle is verified, the sessions are warm, and the device asked for is in use: the
    service does not start otherwise. And the device has not failed since, and the service was not
    told to end."""
    check_ready(request)
    models: Models = request.app.state.models
    default = models.default
    return {"status": "ready", "model": default.model, "provider": default.sessions.provider}


@router.get("/metrics", response_class=Response)
async def prometheus() -> Response:
    """Prometheus metrics."""
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


def check_live(request: Request) -> None:
    """Raise ``Refusal`` (``not_ready``) once only a restart helps."""
    models: Models = request.app.state.models
    for pipeline in models.answering:
        check_working(pipeline.sessions)


def check_ready(request: Request) -> None:
    """Raise ``Refusal`` (``not_ready``) where nothing should be sent."""
    check_live(request)
    if request.app.state.ending:
        raise Refusal("not_ready", "The service was told to end.")


def check_port(settings: Settings) -> None:
    """Raise ``PortError`` if probes and metrics cannot have their port."""
    if settings.metrics_port is not None:
        _bound(settings, settings.metrics_port).close()


@asynccontextmanager
async def listening(application: FastAPI) -> AsyncIterator[None]:
    """Answer on the port of its own, from the state of ``application``, as long as that lives:
    also while what was under way when it was told to end is finished."""
    settings: Settings = application.state.settings
    assert settings.metrics_port is not None
    config = uvicorn.Config(_watched(application), access_log=False, log_config=None)
    config.load()
    clients = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: HttpToolsProtocol(config=config, server_state=clients, app_state={}),
        sock=_bound(settings, settings.metrics_port),
        backlog=_BACKLOG,
    )
    yield
    server.close()
    for client in list(clients.connections):
        client.shutdown()


def _watched(application: FastAPI) -> FastAPI:
    watched = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    watched.state = application.state
    watched.include_router(router)
    errors.install(watched)
    watched.add_middleware(Observe)
    watched.add_middleware(Protect)
    return watched


def _bound(settings: Settings, port: int) -> socket.socket:
    """Raises ``PortError``."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if settings.processes > 1:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((settings.host, port))
    except OSError as error:
        listener.close()
        raise PortError(f"MAMMOSEQ_METRICS_PORT {port}: {error.strerror}") from None
    return listener
