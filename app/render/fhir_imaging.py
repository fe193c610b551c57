"""What a FHIR Bundle says of the images that were read: patient, studies, and names of both.

Of the headers only UIDs, modality, dates and the patient's ID with its issuer leave this module.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator
from typing import Any

from pydicom.dataset import Dataset

from app.imaging.attributes import items, text
from app.render.result import BreastResult, ImageResult, StudyResult

Json = dict[str, Any]

NAMESPACE = uuid.UUID("5d0c3f8e-0b3a-4f2e-9c55-6a1f7b0e2d41")  # of every UUID that is made here
DCM = "http://dicom.nema.org/resources/ontology/DCM"
URI = "urn:ietf:rfc3986"

_MODALITIES = ("MG", "CR", "DX", "CT", "MR", "US")  # any other is given as OT
_UID = re.compile(r"[0-9.]{1,64}")  # PS3.5 9.1


def imaging_studies(images: Iterable[ImageResult], subject: Json) -> dict[str, Json]:
    """ImagingStudy resources by Study Instance UID, each with those of its series and images that
    were read."""
    return {
        uid: _imaging_study(own, subject)
        for uid, own in _by_uid(images, "StudyInstanceUID").items()
    }


def _imaging_study(images: list[ImageResult], subject: Json) -> Json:
    days = [image.facts.exam_time.date() for image in images if image.facts.exam_time]
    series = _by_uid(images, "SeriesInstanceUID")
    return {
        "resourceType": "ImagingStudy",
        "status": "available",
        "subject": subject,
        "started": min(days).isoformat() if days else None,
        "series": [_series(uid, own) for uid, own in series.items()],
        "note": [{"text": "Lists only the images that Mammoseq read."}],
    }


def _series(uid: str, images: list[ImageResult]) -> Json:
    header = images[0].header
    modality = text(header, "Modality") if header is not None else ""
    instances = [
        {"uid": name, "sopClass": {"system": URI, "code": f"urn:oid:{sop_class}"}}
        for name, (image, *_) in _by_uid(images, "SOPInstanceUID").items()
        if (sop_class := _uid(image, "SOPClassUID"))
    ]
    return {
        "uid": uid,
        "modality": {"system": DCM, "code": modality if modality in _MODALITIES else "OT"},
    } | ({"instance": instances} if instances else {})


def study_references(images: Iterable[ImageResult], resolved: bool) -> list[Json]:
    """The studies of ``images`` by UID, and by the entry that describes them if ``resolved``."""
    return [
        {"type": "ImagingStudy", "identifier": study_identifier(uid)}
        | ({"reference": urn_of("ImagingStudy", uid)} if resolved else {})
        for uid in _by_uid(images, "StudyInstanceUID")
    ]


def subject_of(result: StudyResult) -> Json | None:
    """The patient that all images name; None if one does not, or names another: better filed by
    hand than with the wrong patient."""
    first, *others = (_patient(image) for image in images_of(result.breasts))
    if first is None or any(other != first for other in others):
        return None
    return {"type": "Patient", "identifier": first}


def _patient(image: ImageResult) -> Json | None:
    """Patient ID and its issuer (PS3.3 C.7.1.1)."""
    if image.header is None or not (patient_id := _text_of(image.header, "PatientID")):
        return None
    identifier: Json = {"value": patient_id}
    for qualifiers in items(image.header, "IssuerOfPatientIDQualifiersSequence"):
        entity = text(qualifiers, "UniversalEntityID")
        if text(qualifiers, "UniversalEntityIDType") == "ISO" and _UID.fullmatch(entity):
            identifier["system"] = f"urn:oid:{entity}"
    if issuer := _text_of(image.header, "IssuerOfPatientID"):
        identifier["assigner"] = {"display": issuer}
    return identifier


def _text_of(header: Dataset, keyword: str) -> str | None:
    """One text that FHIR can carry; None for any other value."""
    found = text(header, keyword)
    return found if found.isprintable() else None


def _by_uid(images: Iterable[ImageResult], keyword: str) -> dict[str, list[ImageResult]]:
    """The images that have such a UID, in order of it."""
    groups: dict[str, list[ImageResult]] = {}
    for image in images:
        if uid := _uid(image, keyword):
            groups.setdefault(uid, []).append(image)
    return dict(sorted(groups.items()))


def _uid(image: ImageResult, keyword: str) -> str | None:
    """A UID of the header; None where there is none, or something else in its place."""
    found = text(image.header, keyword) if image.header is not None else ""
    return found if _UID.fullmatch(found) else None


def images_of(breasts: Iterable[BreastResult]) -> Iterator[ImageResult]:
    return (image for breast in breasts for exam in breast.exams for image in exam.images)


def image_name(image: ImageResult) -> str:
    """What an image is known by: its SOP Instance UID, else the SHA-256 of its file."""
    name = _uid(image, "SOPInstanceUID") or image.content_key
    assert name is not None
    return name


def urn_of(*what: Any) -> str:
    """A UUID that is always the same for the same ``what``, as a URN."""
    return uuid.uuid5(NAMESPACE, json.dumps(what)).urn


def study_identifier(uid: str) -> Json:
    """A Study Instance UID as FHIR writes it (R4 imagingstudy.html)."""
    return {"system": "urn:dicom:uid", "value": f"urn:oid:{uid}"}
