"""What surrounds the predictions: probes, metrics, the list of models."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app import metrics
from app.api.errors import documented
from app.api.schemas import ModelDescription, ModelList, OperatingPointBody
from app.inference.pipeline import Pipeline
from app.inference.sessions import check_working

router = APIRouter()


@router.get("/healthz/live", responses=documented("not_ready"))
async def live(request: Request) -> dict[str, str]:
    """The process answers, and the device has not failed: from that only a restart helps."""
    pipeline: Pipeline = request.app.state.pipeline
    check_working(pipeline.sessions)
    return {"status": "live"}


@router.get("/healthz/ready", responses=documented("not_ready"))
async def ready(request: Request) -> dict[str, str]:
    """The bundle is verified, the sessions are warm, and the device asked for is in use: the
    service does not start otherwise. And the device has not failed since."""
    pipeline: Pipeline = request.app.state.pipeline
    check_working(pipeline.sessions)
    manifest = pipeline.bundle.manifest
    return {
        "status": "ready",
        "model": f"{manifest.name}/{manifest.version}",
        "provider": pipeline.sessions.provider,
    }


@router.get("/metrics", response_class=Response)
async def prometheus() -> Response:
    """Prometheus metrics."""
    return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@router.get("/v1/models")
async def models(request: Request) -> ModelList:
    """The model in service, with its classes and operating points."""
    pipeline: Pipeline = request.app.state.pipeline
    manifest = pipeline.bundle.manifest
    return ModelList(
        models=[
            ModelDescription(
                name=manifest.name,
                version=manifest.version,
                sha256=pipeline.bundle.sha256,
                classes=list(manifest.classes),
                positive_class=manifest.positive_class,
                preprocessing_version=manifest.preprocessing.version,
                operating_points=[
                    OperatingPointBody(
                        **point.model_dump(include=set(OperatingPointBody.model_fields))
                    )
                    for point in manifest.operating_points
                ],
                default_operating_point=manifest.default_operating_point,
                provider=pipeline.sessions.provider,
                intended_use=manifest.intended_use,
            )
        ]
    )
