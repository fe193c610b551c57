"""What the Open Inference Protocol asks of a service besides predictions: is it live, is it ready,
what does it have."""

from __future__ import annotations

from fastapi import APIRouter, Request

from app.api.errors import documented
from app.api.protocol import (
    BINARY_DATA,
    IMAGE,
    OUTPUTS,
    PIXELS,
    Live,
    ModelMetadata,
    ModelParameters,
    ModelReady,
    Ready,
    ServerMetadata,
    TensorMetadata,
)
from app.api.watch import check_live, check_ready
from app.bundle import Manifest
from app.inference.models import Models
from app.inference.pipeline import Pipeline
from app.inference.sessions import check_working
from app.settings import Settings

router = APIRouter()

_PLATFORM = "onnxruntime_onnx"
_ANY = -1


@router.get("/v2")
async def server(request: Request) -> ServerMetadata:
    """The service, for clients of the Open Inference Protocol."""
    return ServerMetadata(name="mammoseq", version=request.app.version, extensions=[BINARY_DATA])


@router.get("/v2/health/live", responses=documented("not_ready"))
async def live(request: Request) -> Live:
    """As `/healthz/live`, but on the port of the service in any case."""
    check_live(request)
    return Live(live=True)


@router.get("/v2/health/ready", responses=documented("not_ready"))
async def ready(request: Request) -> Ready:
    """As `/healthz/ready`, but on the port of the service in any case."""
    check_ready(request)
    return Ready(ready=True)


@router.get("/v2/models/{name}", responses=documented("unknown_model"))
async def model(request: Request, name: str) -> ModelMetadata:
    """What a model takes and gives."""
    return _described(request, name)


@router.get("/v2/models/{name}/versions/{version}", responses=documented("unknown_model"))
async def model_version(request: Request, name: str, version: str) -> ModelMetadata:
    """What a version of a model takes and gives."""
    return _described(request, name, version)


@router.get("/v2/models/{name}/ready", responses=documented("unknown_model", "not_ready"))
async def model_ready(request: Request, name: str) -> ModelReady:
    """Whether a model can be asked."""
    return _working(request, name)


@router.get(
    "/v2/models/{name}/versions/{version}/ready", responses=documented("unknown_model", "not_ready")
)
async def model_version_ready(request: Request, name: str, version: str) -> ModelReady:
    """Whether a version of a model can be asked."""
    return _working(request, name, version)


def _named(request: Request, name: str, version: str | None) -> Pipeline:
    models: Models = request.app.state.models
    return models.named(name, version)


def _working(request: Request, name: str, version: str | None = None) -> ModelReady:
    check_working(_named(request, name, version).sessions)
    return ModelReady(name=name, ready=True)


def _described(request: Request, name: str, version: str | None = None) -> ModelMetadata:
    settings: Settings = request.app.state.settings
    models: Models = request.app.state.models
    bundle = _named(request, name, version).bundle
    manifest = bundle.manifest
    size = manifest.input
    return ModelMetadata(
        name=manifest.name,
        versions=[
            pipeline.bundle.manifest.version
            for pipeline in models.answering
            if pipeline.bundle.manifest.name == manifest.name
        ],
        platform=_PLATFORM,
        inputs=[
            TensorMetadata(name=IMAGE, datatype="BYTES", shape=[_ANY]),
            TensorMetadata(
                name=PIXELS, datatype="FP32", shape=[_ANY, size.height, size.width, size.channels]
            ),
        ],
        outputs=_outputs(manifest),
        parameters=ModelParameters(
            sha256=bundle.sha256,
            classes=list(manifest.classes),
            positive_class=manifest.positive_class,
            operating_points=[point.name for point in manifest.operating_points],
            default_operating_point=manifest.default_operating_point,
            preprocessing_version=manifest.preprocessing.version,
            value_range=size.value_range,
            max_images=settings.max_images,
        ),
    )


def _outputs(manifest: Manifest) -> list[TensorMetadata]:
    inner = {
        "probabilities": [len(manifest.classes)],
        "heatmap": [manifest.heatmap.rows, manifest.heatmap.columns],
    }
    return [
        TensorMetadata(name=name, datatype=datatype, shape=[_ANY, *inner.get(name, [])])
        for name, datatype in OUTPUTS.items()
    ]
