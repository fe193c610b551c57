"""Study result -> FHIR R4 AuditEvent: that software read these images, for whom and when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC

from app.render.fhir_imaging import DCM, NAMESPACE, Json, images_of
from app.render.result import StudyResult

_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"
_REST = {
    "system": f"{_TERMINOLOGY}/audit-event-type",
    "code": "rest",
    "display": "RESTful Operation",
}
_OPERATION = {
    "system": "http://hl7.org/fhir/restful-interaction", "code": "operation", "display": "operation"
}  # fmt: skip
_APPLICATION = {"system": DCM, "code": "110150", "display": "Application"}
_DESTINATION = {"system": DCM, "code": "110152", "display": "Destination Role ID"}
_SYSTEM_OBJECT = {
    "system": f"{_TERMINOLOGY}/audit-entity-type", "code": "2", "display": "System Object"
}  # fmt: skip
_INPUT = {"system": f"{_TERMINOLOGY}/object-role", "code": "4", "display": "Domain Resource"}
_OUTPUT = {"system": f"{_TERMINOLOGY}/object-role", "code": "3", "display": "Report"}


@dataclass(frozen=True)
class Requester:
    """Who asked for a reading: a name (None where nobody was asked for one) and an address."""

    name: str | None
    address: str | None


def audit_event(
    result: StudyResult, requester: Requester, device: str, outputs: Iterable[str]
) -> Json:
    """The AuditEvent. ``device`` and ``outputs`` are the URNs of the Bundle's entries for the model
    and for what it made. Each image is named by the SHA-256 of its file."""
    caller: Json = {
        "type": {"coding": [_DESTINATION]},
        "who": {"display": "unknown"},
        "requestor": True,
    }
    if requester.name is not None:
        caller["who"] = {"identifier": {"value": requester.name}}
    if requester.address is not None:
        caller["network"] = {"address": requester.address, "type": "2"}  # an IP address
    inputs: list[Json] = [
        {
            "what": {"identifier": {"system": NAMESPACE.urn, "value": image.content_key}},
            "type": _SYSTEM_OBJECT,
            "role": _INPUT,
            "detail": [{"type": "sha256", "valueString": image.content_key}],
        }
        for image in images_of(result.breasts)
        if image.content_key is not None
    ]
    made: list[Json] = [
        {"what": {"reference": output}, "type": _SYSTEM_OBJECT, "role": _OUTPUT}
        for output in outputs
    ]
    return {
        "resourceType": "AuditEvent",
        "type": _REST,
        "subtype": [_OPERATION],
        "action": "E",
        "recorded": result.created.replace(tzinfo=UTC).isoformat(timespec="milliseconds"),
        "outcome": "0",
        "agent": [
            caller,
            {
                "type": {"coding": [_APPLICATION]},
                "who": {"reference": device},
                "requestor": False,
            },
        ],
        "source": {"observer": {"reference": device}},
        "entity": [
            *inputs,
            *made,
            {
                "what": {"identifier": {"value": result.request_id}},
                "type": _SYSTEM_OBJECT,
                "name": "request",
            },
        ],
    }
