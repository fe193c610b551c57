"""Study result -> FHIR R4 Bundle: what an EHR keeps of the reading, for a person to verify.

The elements in use are the same in R4 (4.0.1) and in R4B, whose models check the Bundle here. It is
a transaction of conditional creates, and the same reading has the same identifiers, so posting it
twice stores it once. A probability is never turned into an assessment category.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from datetime import UTC, date
from typing import Any

from app.bundle import DISCLAIMER
from app.render.fhir_audit import Requester, audit_event
from app.render.fhir_imaging import (
    DCM,
    NAMESPACE,
    Json,
    image_name,
    images_of,
    imaging_studies,
    study_identifier,
    study_references,
    subject_of,
    urn_of,
)
from app.render.result import BreastResult, ExamResult, StudyResult

_SYSTEM = NAMESPACE.urn  # of the codes and identifiers that are Mammoseq's own
_LOINC = "http://loinc.org"
_SNOMED = "http://snomed.info/sct"
_HL7 = "http://terminology.hl7.org/CodeSystem"

_PROBABILITY_OF_CANCER = {"system": DCM, "code": "111047", "display": "Probability of cancer"}
_CAD_REPORT = {"system": DCM, "code": "111036", "display": "Mammography CAD Report"}
_IMAGING_REPORT = {"system": _LOINC, "code": "18748-4", "display": "Diagnostic imaging study"}
_RADIOLOGY = [
    {"system": f"{_HL7}/v2-0074", "code": "RAD", "display": "Radiology"},
    {"system": _LOINC, "code": "LP29684-5", "display": "Radiology"},
]
_IMAGING = {"system": f"{_HL7}/observation-category", "code": "imaging", "display": "Imaging"}
_UNKNOWN = {"system": f"{_HL7}/data-absent-reason", "code": "unknown", "display": "Unknown"}
_NOT_APPLICABLE = {
    "system": f"{_HL7}/data-absent-reason",
    "code": "not-applicable",
    "display": "Not Applicable",
}
_BY_SOFTWARE = {
    "system": f"{_HL7}/v3-ObservationValue",
    "code": "AIAST",
    "display": "Artificial Intelligence asserted",
}
_SOFTWARE = {"system": _SNOMED, "code": "706689003", "display": "Application program software"}
_BREASTS = {
    "L": {"system": _SNOMED, "code": "80248007", "display": "Left breast"},
    "R": {"system": _SNOMED, "code": "73056007", "display": "Right breast"},
    None: {"system": _SNOMED, "code": "76752008", "display": "Breast"},
}


def fhir_bundle(result: StudyResult, audited: Requester | None = None) -> str:
    """The Bundle as JSON: Device, ImagingStudy, an Observation per breast, DiagnosticReport, and
    an AuditEvent where it is said who asked for the reading.

    Of the headers it holds UIDs, modality, dates and, where all images name the same one, the
    patient's ID with its issuer. Without that there is no ``subject``, and the studies, which FHIR
    does not allow without one, are only referred to by UID.
    """
    from fhir.resources.R4B.bundle import Bundle  # loaded when first asked for

    subject = subject_of(result)
    studies = imaging_studies(images_of(result.breasts), subject) if subject else {}
    readings = {_reading_urn(result, breast): breast for breast in result.breasts}
    report = urn_of("DiagnosticReport", *readings)
    entries = [
        _entry(_device_urn(result), _own(result.bundle_sha256), _device(result)),
        *(
            _entry(urn_of("ImagingStudy", uid), study_identifier(uid), study)
            for uid, study in studies.items()
        ),
        *(
            _entry(urn, _own(_bare(urn)), _observation(result, breast, subject))
            for urn, breast in readings.items()
        ),
        _entry(report, _own(_bare(report)), _report(result, list(readings), subject)),
    ]
    if audited is not None:
        event = audit_event(result, audited, _device_urn(result), [*readings, report])
        entries.append(_event_entry(event))
    bundle = Bundle.model_validate(
        {
            "resourceType": "Bundle",
            "type": "transaction",
            "timestamp": _created(result),
            "entry": entries,
        }
    )
    return str(bundle.model_dump_json())


def _entry(full_url: str, identifier: Json, resource: Json) -> Json:
    """Create the resource unless there is one with its identifier (R4 http.html#ccreate)."""
    present = {name: value for name, value in resource.items() if value}
    return {
        "fullUrl": full_url,
        "resource": present | {"identifier": [identifier]},
        "request": {
            "method": "POST",
            "url": resource["resourceType"],
            "ifNoneExist": f"identifier={identifier['system']}|{identifier['value']}",
        },
    }


def _event_entry(event: Json) -> Json:
    """Create it each time: an AuditEvent has no identifier, and each reading is one more."""
    return {
        "fullUrl": uuid.uuid4().urn,
        "resource": event,
        "request": {"method": "POST", "url": event["resourceType"]},
    }


def _own(value: str) -> Json:
    return {"system": _SYSTEM, "value": value}


def _bare(urn: str) -> str:
    """The UUID alone: servers replace a ``fullUrl`` wherever they find it, also in identifiers."""
    return urn.removeprefix("urn:uuid:")


# what the reading says


def _device(result: StudyResult) -> Json:
    return {
        "resourceType": "Device",
        "status": "active",
        "manufacturer": "Mammoseq",
        "deviceName": [{"name": result.manifest.name, "type": "model-name"}],
        "type": {"coding": [_SOFTWARE]},
        "version": [{"value": result.manifest.version}],
        "note": [{"text": DISCLAIMER}],
    }


def _observation(result: StudyResult, breast: BreastResult, subject: Json | None) -> Json:
    manifest, point = result.manifest, result.operating_point
    notes = [
        DISCLAIMER,
        "Made by software; no person has verified it.",
        "The probability holds at the prevalence of the data that it was calibrated on.",
        f"Operating point {point.name}: "
        f"sensitivity {_measured(point.sensitivity, point.sensitivity_interval)}, "
        f"specificity {_measured(point.specificity, point.specificity_interval)}; "
        f"measured on {point.measured_on}.",
        *(f"{code}: {detail}" for code, detail in breast.warnings),
    ]
    return {
        "resourceType": "Observation",
        "meta": {"security": [_BY_SOFTWARE]},
        "status": "preliminary",
        "category": [{"coding": [_IMAGING]}],
        "code": {
            "coding": [_PROBABILITY_OF_CANCER],
            "text": f"Probability of cancer (calibrated, class {manifest.positive_class})",
        },
        "subject": subject,
        "effectiveDateTime": _newest([breast]),
        "issued": _created(result),
        "valueQuantity": _percent(breast.probability),
        "interpretation": [{"text": _interpretation(result, breast)}],
        "note": [{"text": note} for note in notes],
        "bodySite": {"coding": [_BREASTS[breast.laterality]]},
        "device": {"reference": _device_urn(result)},
        "derivedFrom": study_references(images_of([breast]), resolved=subject is not None),
        "component": [
            _component("threshold", "Threshold", valueQuantity=_percent(point.threshold)),
            _component("sensitivity", "Sensitivity", valueQuantity=_percent(point.sensitivity)),
            _component("specificity", "Specificity", valueQuantity=_percent(point.specificity)),
            _component(
                "class",
                "Class reached, not a finding",
                valueString=breast.label,
            ),
            *(
                component
                for number, exam in enumerate(breast.exams, 1)
                for component in _of_exam(number, len(breast.exams), exam)
            ),
        ],
    }


def _of_exam(number: int, of: int, exam: ExamResult) -> tuple[Json, Json, Json]:
    """Date, probability after it and change by it: always three, so that they stay in step."""
    name = f"Exam {number} of {of}"
    day: Json = (
        {"valueDateTime": exam.date.isoformat()}
        if exam.date
        else {"dataAbsentReason": {"coding": [_UNKNOWN]}}
    )
    change: Json = (
        {"valueQuantity": _percent(exam.change)}
        if number > 1
        else {"dataAbsentReason": {"coding": [_NOT_APPLICABLE]}}
    )
    return (
        _component("exam-date", f"{name}: date", **day),
        _component(
            "exam-probability-after",
            f"{name}: probability of cancer after it",
            valueQuantity=_percent(exam.probability_after),
        ),
        _component(
            "exam-change",
            f"{name}: change of the probability by it, in percentage points",
            **change,
        ),
    )


def _component(code: str, text: str, **value: Any) -> Json:
    return {"code": {"coding": [{"system": _SYSTEM, "code": code}], "text": text}, **value}


def _report(result: StudyResult, readings: list[str], subject: Json | None) -> Json:
    newest = [image for breast in result.breasts for image in breast.exams[-1].images]
    sentences = [_sentence(result, breast) for breast in result.breasts]
    return {
        "resourceType": "DiagnosticReport",
        "meta": {"security": [_BY_SOFTWARE]},
        "status": "preliminary",
        "category": [{"coding": _RADIOLOGY}],
        "code": {
            "coding": [_CAD_REPORT, _IMAGING_REPORT],
            "text": "Mammograms read by software, not verified",
        },
        "subject": subject,
        "effectiveDateTime": _newest(result.breasts),
        "issued": _created(result),
        "result": [{"reference": reading} for reading in readings],
        "imagingStudy": study_references(newest, resolved=subject is not None),
        "conclusion": " ".join([*sentences, "No person has verified this.", DISCLAIMER]),
    }


def _sentence(result: StudyResult, breast: BreastResult) -> str:
    name = {"L": "Left breast", "R": "Right breast", None: "Breast, side unknown"}
    return (
        f"{name[breast.laterality]}: calibrated probability of {result.manifest.positive_class} "
        f"{_text(breast.probability)}, {_interpretation(result, breast)}."
    )


def _interpretation(result: StudyResult, breast: BreastResult) -> str:
    point = result.operating_point
    side = "at or above" if breast.positive else "below"
    return f"{side} the threshold of {_text(point.threshold)} (operating point {point.name})"


def _measured(value: float, interval: tuple[float, float]) -> str:
    return f"{_text(value)} (interval {_text(interval[0])} to {_text(interval[1])})"


def _text(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"


def _percent(fraction: float) -> Json:
    value = round(100 * fraction, 4) + 0.0  # never -0.0
    return {"value": value, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%"}


def _newest(breasts: Iterable[BreastResult]) -> str | None:
    days: list[date] = [day for breast in breasts if (day := breast.exams[-1].date)]
    return max(days).isoformat() if days else None


def _created(result: StudyResult) -> str:
    return result.created.replace(tzinfo=UTC).isoformat(timespec="seconds")


def _device_urn(result: StudyResult) -> str:
    return urn_of("Device", result.bundle_sha256)


def _reading_urn(result: StudyResult, breast: BreastResult) -> str:
    """The same for the same model, operating point, breast, exam dates and images."""
    exams = [
        (str(exam.date), sorted(image_name(image) for image in exam.images))
        for exam in breast.exams
    ]
    return urn_of(
        "Observation", result.bundle_sha256, result.operating_point.name, breast.laterality, exams
    )
