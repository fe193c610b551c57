"""``POST /predict`` and ``POST /predict/series``: thin routes over the pipeline.

FastAPI describes them; ``app.api.admit`` calls them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel

from app import metrics
from app.api.answers import Outputs, predict_answer, series_answer, study_answer
from app.api.audit import keys_of, noted_of
from app.api.choice import settled
from app.api.described import stated_of
from app.api.errors import documented
from app.api.negotiate import Form
from app.api.options import Options, Wanted, wanted_of
from app.api.respond import written
from app.api.schemas import PredictAnswer, SeriesAnswer, SeriesIn, StudyAnswer
from app.api.shadow import keep_for_shadow
from app.api.uploads import Limits, Upload, parse_file, parse_files, receive, unpacked
from app.imaging.facts import Stated
from app.inference.admission import Admission, Admitted
from app.inference.exams import order_exams, single_exam
from app.inference.pipeline import Encoded, Pipeline, Stopwatch
from app.inference.study import Breast, Ignored, group_by_breast, raise_if_none_left
from app.problems import PROBLEMS, Refusal
from app.render.result import StudyResult
from app.settings import Settings
from app.tracing.spans import span

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
# Problems that neither has, or one of the two; every other may come of both
_LOGIN_CODES = ("login_failed", "login_locked", "provider_unreachable")
_IMAGE_CODES = ("several_files",)
_SERIES_CODES = (
    "invalid_series", "unknown_file", "undescribed_file", "ambiguous_file_name", "no_exam_date",
    "duplicate_exam_date", "mixed_patients", "mixed_breasts", "duplicate_image",
    "too_many_exams", "broken_archive", "nothing_to_read",
)  # fmt: skip


def _documented(*but: str) -> dict[int | str, dict[str, Any]]:
    """What a route may answer: every form of result, and every problem ``but`` those."""
    return _OTHER_FORMS | documented(*(code for code in PROBLEMS if code not in but + _LOGIN_CODES))


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
async def predict(request: Request, options: Annotated[Options, Query()]) -> Response:
    """Score one image: PNG, JPEG, TIFF (8 or 16 bit) or DICOM, as the body, as a file part, or as
    base64 in JSON."""
    noted = noted_of(request)
    chosen: Pipeline = request.state.pipeline
    asked = wanted_of(request, options, chosen)
    settings: Settings = request.app.state.settings
    turn = request.state.admitted.turn
    request.state.model = chosen.model
    with span("receive"):
        received = await receive(request, _limits(settings))
    watch = Stopwatch()

    def work() -> Response:
        files = (parse_file(received) if isinstance(received, bytes) else received).files
        if len(files) > 1:
            raise Refusal("several_files", f"{len(files)} files were sent.")
        contents = [files[0].content]
        pipeline, wanted = settled(request, options, asked, contents)
        noted.look_at(contents)
        image = pipeline.look_at(0, contents[0], Stated(), wanted.terms, turn, watch, alone=True)
        breast = Breast(image.sent.laterality, single_exam(image.sent))

        def answer(result: StudyResult, outputs: Outputs) -> PredictAnswer:
            return predict_answer(result, wanted.pictures, outputs)

        response = written(pipeline, noted, wanted, {0: image}, [breast], [], watch, answer)
        keep_for_shadow(request, wanted, contents, [breast])
        return response

    return await chosen.run(turn, work)


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
async def predict_series(request: Request, options: Annotated[Options, Query()]) -> Response:
    """Score exams over time, in any order.

    Files alone, of a patient: DICOM as multipart, as `multipart/related` as STOW-RS sends it, as
    base64 in JSON, or in a zip archive. They are grouped by breast and exam; what is no mammogram
    is left out with a note; the answer is per breast.

    Or files with a `series` part that says which exam each belongs to: the answer is for that
    breast.
    """
    noted = noted_of(request)
    chosen: Pipeline = request.state.pipeline
    asked = wanted_of(request, options, chosen)
    settings: Settings = request.app.state.settings
    admitted: Admitted = request.state.admitted
    turn, limits = admitted.turn, _limits(settings)
    request.state.model = chosen.model
    with span("receive"):
        body = await receive(request, limits)
    watch = Stopwatch()

    def parse() -> tuple[tuple[Upload, ...], str | None, Pipeline, Wanted]:
        with span("unpack"):
            received = parse_files(body, limits) if isinstance(body, bytes) else body
            files = unpacked(received.files, limits)
        contents = [file.content for file in files]
        return files, received.series, *settled(request, options, asked, contents)

    files, description, pipeline, wanted = await chosen.run(turn, parse, image=False)
    contents = [file.content for file in files]
    stated = stated_of(files, description) if description else [Stated()] * len(files)
    admission: Admission = request.app.state.admission
    admission.hold(admitted, sum(map(len, contents)))
    admission.expect(admitted, len(files))
    seen = await pipeline.look_at_all(contents, stated, wanted.terms, turn, watch)

    def work() -> Response:
        noted.look_at(contents, keys_of(seen))
        if description:
            images = every_image(seen)
            sent = [image.sent for image in images.values()]
            side = next((image.laterality for image in sent if image.laterality), None)
            breasts: Sequence[Breast] = [Breast(side, order_exams(sent))]
            ignored: list[Ignored] = []
        else:
            images, ignored = _sorted_out(seen)
            raise_if_none_left(len(images), ignored)
            breasts, more = group_by_breast([image.sent for image in images.values()])
            ignored = sorted([*ignored, *more], key=lambda note: note.index)
            for note in ignored:
                metrics.IGNORED.labels(note.code).inc()
        _check_length(breasts, settings.max_exams)

        def answer(result: StudyResult, outputs: Outputs) -> BaseModel:
            if description:
                return series_answer(result, wanted.pictures, outputs)
            return study_answer(result, ignored, wanted.pictures, outputs)

        response = written(pipeline, noted, wanted, images, breasts, ignored, watch, answer)
        keep_for_shadow(request, wanted, contents, breasts)
        return response

    return await pipeline.run(turn, work, image=False)


def every_image(seen: Sequence[Encoded | Refusal]) -> dict[int, Encoded]:
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


def _limits(settings: Settings) -> Limits:
    return Limits(settings.max_body_bytes, settings.max_images)
