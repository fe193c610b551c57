"""The ``Accept`` header and the form of the answer."""

from __future__ import annotations

import pytest

from app.api.negotiate import Form, negotiated
from app.problems import Refusal


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Form.JSON),
        ("", Form.JSON),
        ("*/*", Form.JSON),
        ("application/*", Form.JSON),
        ("text/html,application/xhtml+xml,*/*;q=0.8", Form.JSON),
        ("application/json", Form.JSON),
        ("APPLICATION/JSON; charset=utf-8", Form.JSON),
        ("application/fhir+json", Form.FHIR),
        ("application/fhir+json; fhirVersion=4.0", Form.FHIR),
        ("application/dicom", Form.REPORT),
        ('multipart/related; type="application/dicom"', Form.OBJECTS),
        ('multipart/related; type="application/dicom"; transfer-syntax=*', Form.OBJECTS),
        ("multipart/related", Form.OBJECTS),
        ("application/json;q=0.5, application/fhir+json", Form.FHIR),
        ("application/dicom;q=0.2, application/json;q=0.9", Form.JSON),
        ("application/json;q=0, */*", Form.FHIR),
        ('multipart/related; type="image/jpeg", application/json;q=0.1', Form.JSON),
    ],
)
def test_form_that_the_caller_likes_best_is_chosen(accept: str | None, form: Form) -> None:
    assert negotiated(accept) is form


@pytest.mark.parametrize(
    "accept",
    [
        "text/html",
        "application/dicom+json",
        'multipart/related; type="image/jpeg"',
        "application/json;q=0",
        "application/json;q=much",
        ";",
        ",,,",
        "\xff/\xff",
    ],
)
def test_form_that_there_is_not_is_refused(accept: str) -> None:
    with pytest.raises(Refusal) as caught:
        negotiated(accept)
    assert caught.value.code == "not_acceptable"
