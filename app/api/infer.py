"""``POST /v2/models/{name}/infer``: images scored each alone, as the Open Inference Protocol asks.

FastAPI describes it; ``app.api.admit`` calls it.
"""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from app.api.audit import noted_of
from app.api.drift import count_scores
from app.api.errors import documented
from app.api.options import NoOptions, question_of
from app.api.predict import every_image
from app.api.protocol import HEADER_LENGTH, AnswerParameters, InferAnswer
from app.api.results import Read, results_alone
from app.api.tensors import Asked, Output, asked_of, tensor_body
from app.api.uploads import Limits, read_body
from app.imaging.facts import Stated
from app.inference.admission import Admission, Admitted
from app.inference.exams import single_exam
from app.inference.pipeline import Pipeline, Stopwatch, Terms
from app.problems import PROBLEMS, Refusal
from app.render.result import StudyResult
from app.settings import Settings
from app.tracing.spans import span

router = APIRouter()

INFER = "/v2/models/{name}/infer"
INFER_VERSION = "/v2/models/{name}/versions/{version}/infer"

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_HEADER = {
    "description": "bytes of the JSON, where binary tensors follow it",
    "schema": {"type": "integer", "minimum": 0},
}
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The outputs that are wanted, in JSON or behind it",
        "content": {"application/octet-stream": _BINARY},
        "headers": {HEADER_LENGTH: _HEADER},
    }
}
# Problems that it cannot have
_OTHER_CODES = (
    "login_failed", "login_locked", "provider_unreachable", "invalid_multipart", "broken_archive",
    "several_files", "invalid_series", "unknown_file", "undescribed_file", "ambiguous_file_name",
    "no_exam_date", "duplicate_exam_date", "mixed_patients", "mixed_breasts", "duplicate_image",
    "too_many_exams", "nothing_to_read", "not_acceptable", "not_dicom",
)  # fmt: skip
_DESCRIBED: dict[str, Any] = {
    "response_model": InferAnswer,
    "responses": _ANSWER | documented(*(code for code in PROBLEMS if code not in _OTHER_CODES)),
}


def _extra(*names: str) -> dict[str, Any]:
    """Of the description: what the path, a header and the body hold."""
    path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    return {
        "parameters": [*path, {"name": HEADER_LENGTH, "in": "header", **_HEADER}],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferIn"}},
                "application/octet-stream": _BINARY,
            },
        },
    }


@router.post(INFER, openapi_extra=_extra("name"), **_DESCRIBED)
@router.post(INFER_VERSION, openapi_extra=_extra("name", "version"), **_DESCRIBED)
async def infer(request: Request, options: Annotated[NoOptions, Query()]) -> Response:
    """Score images, each alone as `/predict` does: files as BYTES in `image`, or FP32 `pixels`
    that are preprocessed already. JSON, or JSON and binary tensor data behind it."""
    pipeline: Pipeline = request.state.pipeline
    manifest = pipeline.bundle.manifest
    settings: Settings = request.app.state.settings
    admission: Admission = request.app.state.admission
    admitted: Admitted = request.state.admitted
    turn = admitted.turn
    noted = noted_of(request)
    request.state.model = pipeline.model
    _check_plain(request)
    with span("receive"):
        body = await read_body(request, Limits(settings.max_body_bytes, settings.max_images))
    watch = Stopwatch()

    def parse(body: bytes) -> Asked:
        length = request.headers.get(HEADER_LENGTH)
        with span("unpack"):
            asked = asked_of(body, length, manifest.input, settings.max_images)
        noted.look_at(asked.images)
        return asked

    asked = await pipeline.run(turn, partial(parse, body), image=False)
    del body  # its images were copied out of it
    question = question_of(manifest, asked.parameters.operating_point, asked.parameters.target)
    admission.hold(admitted, asked.image_bytes)
    admission.expect(admitted, len(asked.images))
    terms = Terms(
        gate=asked.parameters.gate or settings.gate,
        assumed=Stated(laterality=asked.parameters.laterality),
        long_side=None,
        header=False,
    )
    if asked.pixels is None:
        stated = [Stated()] * len(asked.files)
        seen = await pipeline.look_at_all(asked.files, stated, terms, turn, watch, alone=True)
    else:
        seen = await pipeline.look_at_tensors(asked.pixels, terms, turn, watch)

    def work() -> Response:
        images = every_image(seen)
        reads = []
        for index, image in images.items():
            exams = single_exam(image.sent)
            reading = pipeline.read({index: image}, exams, watch)
            reads.append(Read(image.sent.laterality, images, exams, reading))
        with watch.stage("render"):
            result = results_alone(noted.request_id, pipeline.bundle, question, reads)
            noted.result = result
            count_scores(result, pipeline.references)
            return _written(result, asked)

    return await pipeline.run(turn, work, image=False)


def _check_plain(request: Request) -> None:
    """What unpacks to more than it is would pass by the limits."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal("invalid_request", "Content-Encoding: send the body as it is.")


def _outputs(result: StudyResult) -> dict[str, Output]:
    """Every output, an element or row an image."""
    breasts, classes = result.breasts, result.manifest.classes
    return {
        "probabilities": np.array(
            [[breast.probabilities[name] for name in classes] for breast in breasts], np.float32
        ),
        "calibrated_probability": np.array([b.probability for b in breasts], np.float32),
        "prediction": [breast.label for breast in breasts],
        "warnings": [",".join(code for code, _ in breast.warnings) for breast in breasts],
        "heatmap": np.stack([breast.exams[0].images[0].heatmap for breast in breasts]),
    }


def _written(result: StudyResult, asked: Asked) -> Response:
    outputs = _outputs(result)
    tensors = [
        tensor_body(wanted.name, outputs[wanted.name], binary=wanted.binary)
        for wanted in asked.outputs
    ]
    answer = InferAnswer(
        model_name=result.manifest.name,
        model_version=result.manifest.version,
        id=asked.id,
        parameters=AnswerParameters(
            request_id=result.request_id,
            model_sha256=result.bundle_sha256,
            positive_class=result.manifest.positive_class,
            target_class=result.target_class,
            operating_point=result.operating_point.name,
            threshold=result.operating_point.threshold,
        ),
        outputs=[body for body, _ in tensors],
    )
    text = answer.model_dump_json(exclude_none=True).encode()
    if not any(wanted.binary for wanted in asked.outputs):
        return Response(text, media_type="application/json")
    return Response(
        b"".join([text, *(content for _, content in tensors)]),
        headers={HEADER_LENGTH: str(len(text))},
        media_type="application/octet-stream",
    )
