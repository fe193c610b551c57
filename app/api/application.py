"""The ASGI application, put together from a running pipeline."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import metrics
from app.api import errors, page, pixels, predict, service
from app.api.admit import Admit
from app.api.errors import ProblemBody
from app.api.observe import Observe
from app.api.protect import Protect
from app.api.schemas import FileIn, FilesIn, PixelsBody, SeriesIn
from app.bundle import DISCLAIMER
from app.inference.admission import Admission, Capacity
from app.inference.pipeline import Pipeline
from app.settings import Settings

VERSION = "0.4.0"


def create_application(pipeline: Pipeline, settings: Settings) -> FastAPI:
    """Build the application; it stops ``pipeline`` when it shuts down."""

    @asynccontextmanager
    async def lifespan(application: FastAPI) -> AsyncIterator[None]:
        yield
        pipeline.stop()

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
    application.state.pipeline = pipeline
    application.state.settings = settings
    application.state.admission = Admission(_capacity(settings))
    application.include_router(service.router)
    application.include_router(predict.router)
    application.include_router(pixels.router)
    application.include_router(page.router)
    errors.install(application)
    application.add_middleware(Admit, admission=application.state.admission)
    application.add_middleware(Observe)
    application.add_middleware(Protect)
    _document(application)
    manifest = pipeline.bundle.manifest
    metrics.MODEL.labels(
        manifest.name, manifest.version, pipeline.bundle.sha256, pipeline.sessions.provider
    ).set(1)
    metrics.STARTED.labels(VERSION).set_to_current_time()
    return application


def _capacity(settings: Settings) -> Capacity:
    return Capacity(
        workers=settings.workers,
        seconds=settings.max_queue_seconds,
        requests=settings.share_of(settings.max_requests),
        bytes=settings.share_of(settings.max_bytes_in_flight),
    )


def _document(application: FastAPI) -> None:
    """Add what the routes refer to: the schemas of a problem, of bodies and of a header."""
    generate = application.openapi

    def openapi() -> dict[str, object]:
        schema = generate()
        schemas = schema["components"]["schemas"]
        for model in (ProblemBody, SeriesIn, FileIn, FilesIn, PixelsBody):
            described = model.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= described.pop("$defs", {}) | {model.__name__: described}
        return schema

    application.openapi = openapi  # type: ignore[method-assign]
