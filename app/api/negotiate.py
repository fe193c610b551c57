"""The ``Accept`` header -> the form of the answer (RFC 9110 12.5.1)."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache
from urllib.request import parse_http_list

from python_multipart.multipart import parse_options_header

from app.problems import Refusal


class Form(StrEnum):
    """A form of answer; the value is its media type."""

    JSON = "application/json"
    FHIR = "application/fhir+json"
    REPORT = "application/dicom"  # the structured report alone
    OBJECTS = "multipart/related"  # all DICOM objects asked for, as WADO-RS sends them


# Later ones only if the caller likes them better
_OFFERED = (Form.JSON, Form.FHIR, Form.OBJECTS, Form.REPORT)


@lru_cache(64)  # callers have one or two
def negotiated(accept: str | None) -> Form:
    """The form that the caller likes best. Raises ``Refusal`` (``not_acceptable``)."""
    if not accept or not accept.strip():
        return Form.JSON
    ranges = [_range(part) for part in parse_http_list(accept)]
    liking = {form: _liking(form, ranges) for form in _OFFERED}
    best = max(_OFFERED, key=lambda form: liking[form])
    if liking[best] <= 0:
        raise Refusal("not_acceptable", f"This route answers {', '.join(_OFFERED)}.")
    return best


def _range(text: str) -> tuple[str, dict[str, str], float]:
    """Media range, its parameters, and its quality."""
    name, options = parse_options_header(text.encode("latin-1", "replace"))
    parameters = {k.decode("latin-1"): v.decode("latin-1") for k, v in options.items()}
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 0.0
    return name.decode("latin-1").lower(), parameters, quality


def _liking(form: Form, ranges: list[tuple[str, dict[str, str], float]]) -> float:
    """The quality that the most specific matching range gives to a form; 0 if none matches."""
    found = (-1, 0.0)
    for name, parameters, quality in ranges:
        if name == form:
            if form is Form.OBJECTS and parameters.get("type", Form.REPORT) != Form.REPORT:
                continue
            found = max(found, (2, quality))
        elif name == f"{form.split('/')[0]}/*":
            found = max(found, (1, quality))
        elif name == "*/*":
            found = max(found, (0, quality))
    return found[1]
