"""Results -> what a PACS and an EHR take: DICOM objects and a FHIR Bundle.

The writers are imported when first asked for: they would slow down the start.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import get_args

import pydicom

from app.api.schemas import ObjectKind
from app.problems import Refusal
from app.render.fhir_audit import Requester
from app.render.result import StudyResult

OBJECT_KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)


@dataclass(frozen=True)
class DicomFile:
    """A DICOM file that was made of a result."""

    kind: ObjectKind
    sop_class_uid: str
    sop_instance_uid: str
    data: bytes


def dicom_files(result: StudyResult, kinds: Collection[ObjectKind]) -> list[DicomFile]:
    """The objects of the kinds asked for, the report last: who finds it finds the others.

    Raises ``Refusal`` (``not_dicom``) when an image is not DICOM, or none of the newest exam has
    the identifiers that a result must refer to.
    """
    if not kinds:
        return []
    images = [image for b in result.breasts for exam in b.exams for image in exam.images]
    if any(image.header is None for image in images):
        raise Refusal("not_dicom", "A result in DICOM can only be made of images in DICOM.")
    from app.render.dicom import NoStudyError
    from app.render.secondary_capture import secondary_captures
    from app.render.segmentation import segmentations
    from app.render.sr import structured_report

    made: list[tuple[ObjectKind, bytes]] = []
    try:
        if "sc" in kinds:
            made += [("sc", data) for data in secondary_captures(result)]
        if "seg" in kinds:
            made += [("seg", data) for data in segmentations(result)]
        if "sr" in kinds:
            made.append(("sr", structured_report(result)))
    except NoStudyError:
        raise Refusal("not_dicom", "The files of the newest exam name no study or image.") from None
    return [_described(kind, data) for kind, data in made]


def fhir_json(result: StudyResult, audited: Requester | None = None) -> str:
    """The FHIR R4 Bundle, with an AuditEvent where it is said who asked for the reading."""
    from app.render.fhir import fhir_bundle

    return fhir_bundle(result, audited)


def related(files: Sequence[DicomFile]) -> tuple[bytes, str]:
    """``multipart/related`` body and its media type, as WADO-RS answers (PS3.18 8.6.1.2)."""
    boundary = uuid.uuid4().hex
    parts = [
        b"--%b\r\nContent-Type: application/dicom\r\nContent-Length: %d\r\n\r\n%b\r\n"
        % (boundary.encode(), len(file.data), file.data)
        for file in files
    ]
    body = b"".join(parts) + b"--%b--\r\n" % boundary.encode()
    return body, f'multipart/related; type="application/dicom"; boundary={boundary}'


def _described(kind: ObjectKind, data: bytes) -> DicomFile:
    meta = pydicom.dcmread(BytesIO(data), stop_before_pixels=True).file_meta
    return DicomFile(
        kind, str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID), data
    )
