"""``POST /predict`` and ``POST /predict/series``: thin routes over the pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ValidationError

from app import metrics
from app.api.answers import Outputs, encoded, predict_answer, series_answer, study_answer
from app.api.documents import DicomFile, dicom_files, fhir_json, related
from app.api.errors import documented
from app.api.negotiate import Form
from app.api.options import Wanted, wanted
from app.api.results import Read, study_result
from app.api.schemas import DicomObject, PredictAnswer, SeriesAnswer, SeriesIn, StudyAnswer
from app.api.uploads import Limits, Upload, first_fault, parse_file, parse_files, receive, unpacked
from app.inference.exams import order_exams, single_exam
from app.inference.pipeline import Encoded, Pipeline, Stated, Stopwatch
from app.inference.study import Breast, Ignored, group_by_breast, raise_if_none_left
from app.problems import PROBLEMS, Refusal
from app.render.result import StudyResult
from app.settings import Settings

router = APIRouter()

_BINARY = {"schema": {"type": "string", "format": "binary"}}
_FILE_PART = {
    "schema": {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
}
_SERIES_PARTS = {
    "schema": {
        "type": "object",
        "required": ["files"],
        "properties": {
            "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
            "series": {
                "type": "string",
                "description": "JSON that makes the files exams of one breast; without it, sides, "
                "views and dates are read from the files and the answer is per breast",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/SeriesIn"},
                "example": SeriesIn.model_json_schema()["examples"][0],
            },
        },
    },
    "encoding": {"series": {"contentType": "application/json"}},
}
_OTHER_FORMS: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            Form.FHIR.value: {"schema": {"type": "object", "description": "FHIR R4 Bundle"}},
            Form.OBJECTS.value: {
                "schema": {"type": "string", "format": "binary"},
            },
            Form.REPORT.value: {"schema": {"type": "string", "format": "binary"}},
        }
    }
}
# Problems that only one of the two routes has; every other may come of both
_IMAGE_CODES = ("several_files",)
_SERIES_CODES = (
    "invalid_series", "unknown_file", "undescribed_file", "ambiguous_file_name", "no_exam_date",
    "duplicate_exam_date", "mixed_patients", "mixed_breasts", "duplicate_image",
    "too_many_exams", "broken_archive", "nothing_to_read",
)  # fmt: skip


def _documented(*but: str) -> dict[int | str, dict[str, Any]]:
    """What a route may answer: every form of result, and every problem ``but`` those."""
    return _OTHER_FORMS | documented(*(code for code in PROBLEMS if code not in but))


@router.post(
    "/predict",
    response_model=PredictAnswer,
    responses=_documented(*_SERIES_CODES),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _FILE_PART,
                "application/dicom": _BINARY,
                "image/png": _BINARY,
                "image/jpeg": _BINARY,
                "image/tiff": _BINARY,
                "application/octet-stream": _BINARY,
                "application/json": {"schema": {"$ref": "#/components/schemas/FileIn"}},
            },
        }
    },
)
async def predict(request: Request, wanted: Annotated[Wanted, Depends(wanted)]) -> Response:
    """Score one image: PNG, JPEG, TIFF (8 or 16 bit) or DICOM, as the body, as a file part, or as
    base64 in JSON."""
    settings: Settings = request.app.state.settings
    pipeline: Pipeline = request.app.state.pipeline
    with _admitted(request, settings):
        received = await receive(request, _limits(settings))
        if isinstance(received, bytes):
            body = received
            received = await pipeline.run(lambda: parse_file(body))
        if len(received.files) > 1:
            raise Refusal("several_files", f"{len(received.files)} files were sent.")
        watch = Stopwatch()
        (image,) = await pipeline.look_at(
            [received.files[0].content], [Stated()], wanted.assumed, wanted.gate, watch
        )
        if isinstance(image, Refusal):
            raise image
        sent = image.prepared.sent
        breast = Breast(sent.laterality, single_exam(sent))

        def answer(result: StudyResult, outputs: Outputs) -> PredictAnswer:
            return predict_answer(result, wanted.pictures, outputs)

        return await _answered(request, wanted, {0: image}, [breast], [], watch, answer)


@router.post(
    "/predict/series",
    response_model=SeriesAnswer | StudyAnswer,
    responses=_documented(*_IMAGE_CODES),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": _SERIES_PARTS,
                "multipart/related": _BINARY,
                "application/zip": _BINARY,
                "application/dicom": _BINARY,
                "application/json": {"schema": {"$ref": "#/components/schemas/FilesIn"}},
            },
        }
    },
)
async def predict_series(request: Request, wanted: Annotated[Wanted, Depends(wanted)]) -> Response:
    """Score exams over time, in any order.

    Files alone, of a patient: DICOM as multipart, as `multipart/related` as STOW-RS sends it, as
    base64 in JSON, or in a zip archive. They are grouped by breast and exam; what is no mammogram
    is left out with a note; the answer is per breast.

    Or files with a `series` part that says which exam each belongs to: the answer is for that
    breast.
    """
    settings: Settings = request.app.state.settings
    pipeline: Pipeline = request.app.state.pipeline
    limits = _limits(settings)
    with _admitted(request, settings):
        received = await receive(request, limits)
        if isinstance(received, bytes):
            body = received
            received = await pipeline.run(lambda: parse_files(body, limits))
        packed, description = received.files, received.series
        files = await pipeline.run(lambda: unpacked(packed, limits))
        stated = _stated(files, description) if description else [Stated()] * len(files)
        watch = Stopwatch()
        seen = await pipeline.look_at(
            [file.content for file in files], stated, wanted.assumed, wanted.gate, watch
        )
        if description:
            images = _all(seen)
            sent = [image.prepared.sent for image in images.values()]
            side = next((image.laterality for image in sent if image.laterality), None)
            breasts: Sequence[Breast] = [Breast(side, order_exams(sent))]
            ignored: list[Ignored] = []
        else:
            images, ignored = _sorted_out(seen)
            raise_if_none_left(len(images), ignored)
            breasts, more = group_by_breast([image.prepared.sent for image in images.values()])
            ignored = sorted([*ignored, *more], key=lambda note: note.index)
            for note in ignored:
                metrics.IGNORED.labels(note.code).inc()
        _check_length(breasts, settings.max_exams)

        def answer(result: StudyResult, outputs: Outputs) -> BaseModel:
            if description:
                return series_answer(result, wanted.pictures, outputs)
            return study_answer(result, ignored, wanted.pictures, outputs)

        return await _answered(request, wanted, images, breasts, ignored, watch, answer)


async def _answered(
    request: Request,
    wanted: Wanted,
    images: dict[int, Encoded],
    breasts: Sequence[Breast],
    ignored: Sequence[Ignored],
    watch: Stopwatch,
    json_answer: Callable[[StudyResult, Outputs], BaseModel],
) -> Response:
    """Read the breasts and write the answer in the form that is wanted, in the pool."""
    pipeline: Pipeline = request.app.state.pipeline

    def work() -> tuple[bytes | str, str]:
        reads = [
            Read(
                breast.laterality, images, breast.exams, pipeline.read(images, breast.exams, watch)
            )
            for breast in breasts
        ]
        with watch.stage("render"):
            result = study_result(
                request.state.request_id,
                pipeline.bundle,
                wanted.question,
                reads,
                ignored,
                with_headers=bool(wanted.objects) or wanted.fhir,
            )
            files = dicom_files(result, wanted.objects)
            fhir = fhir_json(result) if wanted.fhir else None
            if wanted.form is Form.FHIR:
                assert fhir is not None
                return fhir, Form.FHIR
            if wanted.form is Form.OBJECTS:
                return related(files)
            if wanted.form is Form.REPORT:
                return files[0].data, Form.REPORT
            answer = json_answer(
                result,
                Outputs(
                    dicom=[_described(file) for file in files],
                    fhir=json.loads(fhir) if fhir else None,
                    timings_ms={},
                ),
            )
        answer = answer.model_copy(update={"timings_ms": watch.milliseconds()})
        return answer.model_dump_json(by_alias=True), Form.JSON

    content, media_type = await pipeline.run(work)
    return Response(content, media_type=media_type)


def _described(file: DicomFile) -> DicomObject:
    return DicomObject(
        kind=file.kind,
        sop_class_uid=file.sop_class_uid,
        sop_instance_uid=file.sop_instance_uid,
        data=encoded(file.data),
    )


def _all(seen: Sequence[Encoded | Refusal]) -> dict[int, Encoded]:
    """Every image, by its index. Raises the first ``Refusal``, naming the image."""
    images: dict[int, Encoded] = {}
    for index, image in enumerate(seen):
        if isinstance(image, Refusal):
            raise _named(index, image, len(seen))
        images[index] = image
    return images


def _sorted_out(seen: Sequence[Encoded | Refusal]) -> tuple[dict[int, Encoded], list[Ignored]]:
    """The images, and a note for each file that is left out. Raises ``Refusal`` for a file that
    must not be."""
    images: dict[int, Encoded] = {}
    ignored: list[Ignored] = []
    for index, image in enumerate(seen):
        if isinstance(image, Encoded):
            images[index] = image
        elif PROBLEMS[image.code].left_out:
            ignored.append(Ignored(index, image.code, image.detail))
        else:
            raise _named(index, image, len(seen))
    return images, ignored


def _named(index: int, refusal: Refusal, files: int) -> Refusal:
    if files == 1:
        return refusal
    return Refusal(refusal.code, f"Image {index}: {refusal.detail}")


def _check_length(breasts: Sequence[Breast], most: int) -> None:
    longest = max(len(breast.exams) for breast in breasts)
    if longest > most:
        raise Refusal(
            "too_many_exams", f"The series has {longest} exams; at most {most} are accepted."
        )


def _stated(files: Sequence[Upload], description: str) -> list[Stated]:
    """What the ``series`` part says of each file, in the order of the files."""
    try:
        series = SeriesIn.model_validate_json(description)
    except ValidationError as error:
        raise Refusal("invalid_series", first_fault(error)) from None
    place = {file.name: i for i, file in enumerate(files)}
    if len(place) < len(files):
        raise Refusal("ambiguous_file_name", "Two file parts have the same name.")
    dates = [exam.date for exam in series.exams]
    if len(set(dates)) < len(dates):
        raise Refusal("duplicate_exam_date", "Two exams of the series have the same date.")
    stated: dict[int, Stated] = {}
    for number, exam in enumerate(series.exams):
        views: Sequence[str | None] = exam.views or [None] * len(exam.files)
        if len(views) != len(exam.files):
            raise Refusal("invalid_series", f"exams.{number}: one view per file is needed.")
        for name, view in zip(exam.files, views, strict=True):
            if name not in place:
                raise Refusal("unknown_file", f"exams.{number} names a file that was not sent.")
            if place[name] in stated:
                raise Refusal("invalid_series", f"exams.{number}: a file is named twice.")
            stated[place[name]] = Stated(exam.date, series.laterality, view)
    missing = [i for i in range(len(files)) if i not in stated]
    if missing:
        raise Refusal("undescribed_file", f"File {missing[0]} of the request is in no exam.")
    return [stated[i] for i in range(len(files))]


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_body_bytes, settings.max_images)


@contextmanager
def _admitted(request: Request, settings: Settings) -> Iterator[None]:
    """Count the request in flight, or refuse it when there are too many."""
    state: Any = request.app.state
    if state.in_flight >= settings.max_requests:
        raise Refusal("overloaded", "Too many requests are in flight; try again shortly.")
    state.in_flight += 1
    metrics.IN_FLIGHT.set(state.in_flight)
    try:
        yield
    finally:
        state.in_flight -= 1
        metrics.IN_FLIGHT.set(state.in_flight)
