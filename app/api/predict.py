"""``POST /predict`` and ``POST /predict/series``: thin routes over the pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from app import metrics
from app.api.answers import Read, Wanted, predict_answer, series_answer
from app.api.errors import documented
from app.api.schemas import PredictAnswer, SeriesAnswer, SeriesIn
from app.api.uploads import Upload, is_multipart, read_body, read_form
from app.inference.exams import order_exams, single_exam
from app.inference.pipeline import Pipeline, Stated, Stopwatch
from app.inference.sessions import ExamReading
from app.problems import Refusal
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
                "description": "JSON; not needed for DICOM files that carry dates",
                "contentMediaType": "application/json",
                "contentSchema": {"$ref": "#/components/schemas/SeriesIn"},
                "example": SeriesIn.model_json_schema()["examples"][0],
            },
        },
    },
    "encoding": {"series": {"contentType": "application/json"}},
}
_IMAGE_CODES = (
    "empty_file", "unsupported_format", "broken_image", "several_frames", "no_pixels",
    "unsupported_transfer_syntax", "unsupported_photometric", "unsupported_depth",
    "no_breast_found", "blank_image", "image_too_small", "colour_image", "breast_cut_off",
    "saturated_image", "not_a_mammogram", "unfamiliar_image", "too_many_pixels",
    "too_many_images", "body_too_large", "overloaded", "internal_error", "invalid_request",
    "invalid_multipart", "unknown_operating_point", "unknown_class", "not_found",
    "method_not_allowed",
)  # fmt: skip
_SERIES_CODES = (
    "invalid_series", "unknown_file", "undescribed_file", "ambiguous_file_name", "no_exam_date",
    "duplicate_exam_date", "mixed_patients", "mixed_breasts", "duplicate_image",
    "too_many_exams",
)  # fmt: skip


async def _wanted(
    request: Request,
    operating_point: Annotated[
        str | None, Query(description="name of an operating point; the model's default if left out")
    ] = None,
    target: Annotated[
        str | None, Query(description="class whose evidence is mapped; the positive one by default")
    ] = None,
    overlay: Annotated[
        Literal["jpeg", "png", "none"], Query(description="picture of map over mammogram")
    ] = "jpeg",
    overlay_long_side: Annotated[
        int | None, Query(ge=64, le=8192, description="of the overlay, pixels")
    ] = None,
    map: Annotated[bool, Query(description="whether to answer the plain map")] = True,
) -> Wanted:
    settings: Settings = request.app.state.settings
    manifest = request.app.state.pipeline.bundle.manifest
    point = manifest.operating_point(operating_point)
    if point is None:
        raise Refusal(
            "unknown_operating_point",
            f"The model has: {', '.join(p.name for p in manifest.operating_points)}.",
        )
    if target is not None and target not in manifest.classes:
        raise Refusal("unknown_class", f"The model has: {', '.join(manifest.classes)}.")
    return Wanted(
        operating_point=point,
        target_class=manifest.classes.index(target or manifest.positive_class),
        overlay=None if overlay == "none" else overlay,
        overlay_long_side=overlay_long_side or settings.overlay_long_side,
        map=map,
    )


@router.post(
    "/predict",
    response_model=PredictAnswer,
    responses=documented(*_IMAGE_CODES, "no_file", "several_files"),
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
            },
        }
    },
)
async def predict(request: Request, wanted: Annotated[Wanted, Depends(_wanted)]) -> Response:
    """Score one image: PNG, JPEG, TIFF (8 or 16 bit) or DICOM, as the body or as a file part."""
    settings: Settings = request.app.state.settings
    pipeline: Pipeline = request.app.state.pipeline
    with _admitted(request, settings):
        if is_multipart(request):
            form = await read_form(request, settings.max_body_bytes, settings.max_images)
            if len(form.files) > 1:
                raise Refusal("several_files", f"{len(form.files)} files were sent.")
            data = form.files[0].content if form.files else None
        else:
            data = await read_body(request, settings.max_body_bytes) or None
        if data is None:
            raise Refusal("no_file", "The request holds no image.")
        watch = Stopwatch()
        prepared = await pipeline.prepare([data], [Stated()], watch)
        exams = single_exam(prepared[0].sent)

        def answer(reading: ExamReading) -> str:
            read = Read(request.state.request_id, prepared, exams, reading)
            return predict_answer(pipeline.bundle, read, wanted, watch).model_dump_json(
                by_alias=True
            )

        return _json(await pipeline.read(prepared, exams, watch, answer))


@router.post(
    "/predict/series",
    response_model=SeriesAnswer,
    responses=documented(*_IMAGE_CODES, *_SERIES_CODES, "no_file"),
    openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": _SERIES_PARTS}}
    },
)
async def predict_series(request: Request, wanted: Annotated[Wanted, Depends(_wanted)]) -> Response:
    """Score the exams of one breast over time.

    Send the images as file parts and a JSON part `series` that gives each exam's date and files;
    or DICOM files alone, whose dates, views and sides are read from them. Any order will do.
    """
    settings: Settings = request.app.state.settings
    pipeline: Pipeline = request.app.state.pipeline
    with _admitted(request, settings):
        if not is_multipart(request):
            raise Refusal("invalid_multipart", "A series is sent as multipart/form-data.")
        form = await read_form(request, settings.max_body_bytes, settings.max_images)
        if not form.files:
            raise Refusal("no_file", "The request holds no image.")
        if len(form.files) > settings.max_images:
            raise Refusal("too_many_images", f"At most {settings.max_images} are accepted.")
        description = form.fields.get("series")
        stated = _stated(form.files, description) if description else [Stated()] * len(form.files)
        watch = Stopwatch()
        prepared = await pipeline.prepare([file.content for file in form.files], stated, watch)
        exams = order_exams([image.sent for image in prepared])
        if len(exams) > settings.max_exams:
            raise Refusal(
                "too_many_exams",
                f"The series has {len(exams)} exams; at most {settings.max_exams} are accepted.",
            )

        def answer(reading: ExamReading) -> str:
            read = Read(request.state.request_id, prepared, exams, reading)
            return series_answer(pipeline.bundle, read, wanted, watch).model_dump_json(
                by_alias=True
            )

        return _json(await pipeline.read(prepared, exams, watch, answer))


def _stated(files: Sequence[Upload], description: str) -> list[Stated]:
    """What the ``series`` part says of each file, in the order of the files."""
    try:
        series = SeriesIn.model_validate_json(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "series"
        raise Refusal("invalid_series", f"{where}: {first['msg']}") from None
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


def _json(content: str) -> Response:
    return Response(content, media_type="application/json")
