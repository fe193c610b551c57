"""What surrounds the predictions: the state of the service, its model."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter, Request, Response

from app import metrics
from app.api.admit import IMAGE_ROUTES
from app.api.errors import documented
from app.api.schemas import ModelDescription, ModelList, OperatingPointBody, StateBody
from app.bundle import Bundle
from app.inference.models import Models, Role
from app.inference.pipeline import Pipeline
from app.problems import Refusal
from app.settings import Settings

router = APIRouter()


def _of_the_model(media_type: str, kind: str) -> dict[int | str, dict[str, Any]]:
    answer = {"content": {media_type: {"schema": {"type": kind}}}}
    return {200: answer, **documented("not_found")}


@router.get("/state")
async def state(request: Request) -> StateBody:
    """What the service is, and what it has done since its start."""
    pipeline: Pipeline = request.app.state.models.default
    settings: Settings = request.app.state.settings
    totals = metrics.totals(IMAGE_ROUTES)
    return StateBody(
        version=request.app.version,
        model=pipeline.model,
        provider=pipeline.sessions.provider,
        processes=settings.processes,
        workers=settings.workers,
        uptime_seconds=max(0.0, time.time() - totals.started),
        in_flight=totals.in_flight,
        requests=totals.requests,
        images=totals.images,
        busy_seconds=totals.busy_seconds,
    )


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """The models in service, the default first, with their classes and operating points."""
    loaded: Models = request.app.state.models
    return ModelList(models=[_description(one, loaded.roles(one)) for one in loaded.all])


@router.get(
    "/v1/models/{name}/{version}/card",
    response_class=Response,
    responses=_of_the_model("text/markdown", "string"),
)
async def card(request: Request, name: str, version: str) -> Response:
    """The model card of a model in service, Markdown."""
    return Response(_in_service(request, name, version).card, media_type="text/markdown")


@router.get(
    "/v1/models/{name}/{version}/figures",
    response_class=Response,
    responses=_of_the_model("application/json", "object"),
)
async def figures(request: Request, name: str, version: str) -> Response:
    """What was measured of a model in service, for plots and tables."""
    found = _in_service(request, name, version).figures
    if found is None:
        raise Refusal("not_found", "That model comes without figures.")
    return Response(found, media_type="application/json")


def _in_service(request: Request, name: str, version: str) -> Bundle:
    models: Models = request.app.state.models
    for pipeline in models.all:
        manifest = pipeline.bundle.manifest
        if (manifest.name, manifest.version) == (name, version):
            return pipeline.bundle
    raise Refusal("not_found", "Other models are in service; GET /v1/models names them.")


def _description(pipeline: Pipeline, roles: list[Role]) -> ModelDescription:
    manifest = pipeline.bundle.manifest
    return ModelDescription(
        name=manifest.name,
        version=manifest.version,
        roles=roles,
        sha256=pipeline.bundle.sha256,
        classes=list(manifest.classes),
        positive_class=manifest.positive_class,
        preprocessing_version=manifest.preprocessing.version,
        operating_points=[
            OperatingPointBody(**point.model_dump(include=set(OperatingPointBody.model_fields)))
            for point in manifest.operating_points
        ],
        default_operating_point=manifest.default_operating_point,
        provider=pipeline.sessions.provider,
        intended_use=manifest.intended_use,
        trained_on=manifest.data.get("splits", {}).get("train"),
        terms=manifest.data.get("terms"),
    )
