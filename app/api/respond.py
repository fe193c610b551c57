"""Breasts that were sorted out -> the response, in the form that the caller wants."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from fastapi import Response
from pydantic import BaseModel

from app.api.answers import Outputs, encoded
from app.api.audit import Noted
from app.api.documents import DicomFile, dicom_files, fhir_json, related
from app.api.drift import count_scores
from app.api.negotiate import Form
from app.api.options import Wanted
from app.api.results import Read, study_result
from app.api.schemas import DicomObject
from app.inference.pipeline import Encoded, Pipeline, Stopwatch
from app.inference.study import Breast, Ignored
from app.render.result import StudyResult


def written(
    pipeline: Pipeline,
    noted: Noted,
    wanted: Wanted,
    images: Mapping[int, Encoded],
    breasts: Sequence[Breast],
    ignored: Sequence[Ignored],
    watch: Stopwatch,
    json_answer: Callable[[StudyResult, Outputs], BaseModel],
) -> Response:
    """Read the breasts and write the answer in the form that is wanted. Computes: call it on a
    worker."""
    reads = [
        Read(breast.laterality, images, breast.exams, pipeline.read(images, breast.exams, watch))
        for breast in breasts
    ]
    with watch.stage("render"):
        result = study_result(noted.request_id, pipeline.bundle, wanted.question, reads, ignored)
        noted.result = result
        count_scores(result, pipeline.references)
        files = dicom_files(result, wanted.objects)
        requester = noted.requester if wanted.audit_event else None
        fhir = fhir_json(result, requester) if wanted.fhir else None
        if wanted.form is Form.FHIR:
            assert fhir is not None
            return Response(fhir, media_type=Form.FHIR)
        if wanted.form is Form.OBJECTS:
            content, media_type = related(files)
            return Response(content, media_type=media_type)
        if wanted.form is Form.REPORT:
            return Response(files[0].data, media_type=Form.REPORT)
        answer = json_answer(
            result,
            Outputs(
                dicom=[_described(file) for file in files],
                fhir=json.loads(fhir) if fhir else None,
                timings_ms={},
            ),
        )
    answer = answer.model_copy(update={"timings_ms": watch.milliseconds()})
    return Response(answer.model_dump_json(by_alias=True), media_type=Form.JSON)


def _described(file: DicomFile) -> DicomObject:
    return DicomObject(
        kind=file.kind,
        sop_class_uid=file.sop_class_uid,
        sop_instance_uid=file.sop_instance_uid,
        data=encoded(file.data),
    )
