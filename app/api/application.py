"""The ASGI application, put together from running models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from typing import Any

from fastapi import FastAPI

from app import metrics
from app.access.entrance import Entrance
from app.api import errors, infer, login, open_inference, page, pixels, predict, service, watch
from app.api.admit import IMAGE_ROUTES, Admit
from app.api.audit import Audit
from app.api.drift import publish
from app.api.ending import CloseAtEnd, told_to_end
from app.api.errors import ProblemBody, documented
from app.api.guard import Guard, is_public
from app.api.observe import Observe
from app.api.processes import shared_folder
from app.api.protect import Protect
from app.api.protocol import InferIn
from app.api.schemas import FileIn, FilesIn, PixelsBody, SeriesIn
from app.api.shadow import Shadow
from app.api.swap import following
from app.api.traces import collector_of
from app.audit.log import log_of
from app.bundle import DISCLAIMER
from app.inference.admission import Admission, Capacity
from app.inference.models import Models
from app.inference.store import REASONS, Store
from app.machine import visible_gpus
from app.problems import PROBLEMS
from app.settings import Settings

VERSION = "0.6.0"
# Of bodies and a header that routes read themselves, and of every problem
_DESCRIBED = (ProblemBody, SeriesIn, FileIn, FilesIn, PixelsBody, InferIn, login.Credentials)
# Either; none is needed where the service is open
_SECURITY = {
    "key": {
        "type": "http",
        "scheme": "bearer",
        "description": "an API key or an access token (docs/security.md)",
    },
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Host-mammoseq",
        "description": "from POST /session; what is not GET needs its `csrf` as X-CSRF-Token, too",
    },
}


def create_application(
    models: Models,
    settings: Settings,
    entrance: Entrance | None = None,
    store: Store | None = None,
) -> FastAPI:
    """Build the application; it stops ``models`` when it shuts down. ``entrance`` is made of the
    settings unless given; a ``store`` is followed. Raises ``AuditError``, ``TracesError``."""
    entrance = entrance or Entrance(settings, shared_folder)
    collector = collector_of(settings, VERSION)

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            stack.enter_context(told_to_end(application, settings.drain_seconds))
            if settings.metrics_port is not None:
                await stack.enter_async_context(watch.listening(application))
            if store is not None:
                log, seconds = application.state.audit, settings.store_seconds
                await stack.enter_async_context(following(store, models, log, seconds))
            yield
            shadow.stop()
            models.stop()
            if collector is not None:
                await asyncio.to_thread(collector.stop)

    application = FastAPI(
        title="Mammoseq",
        version=VERSION,
        description=f"Breast cancer probability and heatmap from mammograms. **{DISCLAIMER}**",
        lifespan=lifespan,
        # The documentation pages would load scripts from elsewhere
        docs_url=None,
        redoc_url=None,
        # An environment variable could otherwise make FastAPI report to a collector
        telemetry={"auto_configure": False},
    )
    application.state.models = models
    application.state.settings = settings
    application.state.admission = Admission(_capacity(settings))
    shadow = Shadow(models, application.state.admission)
    application.state.entrance = entrance
    application.state.audit = log_of(settings, shared_folder)
    if entrance.provider is not None:
        from app.api.oidc import Login  # not above: what it loads takes 15 MB

        application.state.oidc = Login(entrance.provider)
    tokens = None
    if entrance.token_issuer is not None:
        from app.api.tokens import Tokens  # nor this

        tokens = Tokens(entrance.token_issuer)
    application.state.ending = False
    application.include_router(service.router)
    if settings.metrics_port is None:
        application.include_router(watch.router)
    application.include_router(login.router)
    application.include_router(predict.router)
    application.include_router(pixels.router)
    application.include_router(open_inference.router)
    application.include_router(infer.router)
    application.include_router(page.router)
    application.mount("/web", page.files)
    errors.install(application)
    application.add_middleware(Admit, admission=application.state.admission, shadow=shadow)
    application.add_middleware(Guard, entrance=entrance, settings=settings, tokens=tokens)
    application.add_middleware(Audit, log=application.state.audit)
    application.add_middleware(Observe, collector=collector)
    application.add_middleware(Protect)
    application.add_middleware(CloseAtEnd)
    _document(application)
    for pipeline in models.all:
        publish(pipeline)
    metrics.STARTED.labels(VERSION).set_to_current_time()
    metrics.GPU.set(visible_gpus())
    _begin_at_zero()
    return application


def _begin_at_zero() -> None:
    """What alerts ask for is there before it first happens, so that the first time counts."""
    for code in PROBLEMS:
        metrics.PROBLEMS.labels(code)
    for reason in REASONS:
        metrics.MODELS_REFUSED.labels(reason)
    for route in IMAGE_ROUTES:
        for status in ("200", "500"):
            metrics.REQUESTS.labels(route, status)


def _capacity(settings: Settings) -> Capacity:
    return Capacity(
        workers=settings.workers,
        seconds=settings.max_queue_seconds,
        requests=settings.share_of(settings.max_requests),
        bytes=settings.share_of(settings.max_bytes_in_flight),
    )


def _document(application: FastAPI) -> None:
    """Add what the routes refer to, the schemas of a problem, of bodies and of a header, and who
    may come in."""
    generate = application.openapi

    @cache  # anybody may ask for it
    def openapi() -> dict[str, object]:
        schema = generate()
        schemas = schema["components"]["schemas"]
        for model in _DESCRIBED:
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= described.pop("$defs", {}) | {model.__name__: described}
        schema["components"]["securitySchemes"] = _SECURITY
        for path, operations in schema["paths"].items():
            for method, operation in operations.items():
                _guarded(method, operation, public=is_public(path))
        return schema

    application.openapi = openapi  # type: ignore[method-assign]


def _guarded(method: str, operation: dict[str, Any], *, public: bool) -> None:
    """Describe what ``Guard`` asks for and how it refuses."""
    codes = ["wrong_host"] if method == "get" else ["wrong_host", "csrf_failed"]
    if not public:
        operation["security"] = [{name: []} for name in _SECURITY]
        codes += ["login_required", "forbidden", "provider_unreachable", "rate_limited"]
    for status, response in documented(*codes).items():
        operation["responses"].setdefault(str(status), response)
