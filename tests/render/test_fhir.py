"""Study result -> FHIR Bundle: valid R4, of one patient or of none, and no word too much."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from app.bundle import DISCLAIMER, Bundle
from app.imaging.decode import decode
from app.imaging.facts import Laterality
from app.imaging.preprocess import Crop
from app.render.fhir import fhir_bundle
from app.render.result import BreastResult, ExamResult, ImageResult, StudyResult
from tests.pictures import DECODABLE, breast, dicom, png, real_dicom

R4 = json.loads((Path(__file__).parents[1] / "data" / "fhir-r4-elements.json").read_text())
MAX_PIXELS = 1 << 20
PICTURE = breast(60, 40)


def image(data: bytes) -> ImageResult:
    """As the service reads ``data``; crop and heatmap are not what FHIR tells of."""
    _, facts = decode(data, MAX_PIXELS, frozenset({"other_modality"}))
    header = None
    if facts.format == "dicom":
        header = pydicom.dcmread(BytesIO(data))
        del header.PixelData
    heatmap = np.zeros((16, 10), np.float32)
    crop = Crop(0, 0, facts.columns, facts.rows, flipped=False)
    key = hashlib.sha256(data).hexdigest()
    return ImageResult(0, header, facts, None, crop, False, heatmap, key)


def exam(*files: bytes, day: date | None = None, after: float = 0.4, change: float = 0.1) -> Any:
    images = tuple(map(image, files))
    times = [one.facts.exam_time for one in images if one.facts.exam_time]
    return ExamResult(day or (times[0].date() if times else None), 0, after, change, images)


def reading(
    *exams: ExamResult, side: Laterality | None = "L", probability: float = 0.5432, **other: Any
) -> BreastResult:
    positive = probability >= 0.34225612734643324
    read = BreastResult(
        laterality=side,
        probabilities={"no_cancer": 1 - probability, "malignant": probability},
        probability=probability,
        probability_before=0.3,
        positive=positive,
        label="malignant" if positive else "no_cancer",
        scale=1.0,
        exams=exams,
        warnings=(),
    )
    return dataclasses.replace(read, **other)


def study(bundle: Bundle, *breasts: BreastResult, point: str | None = None) -> StudyResult:
    operating_point = bundle.manifest.operating_point(point)
    assert operating_point is not None
    return StudyResult(
        request_id="01J9Z3M6Q2",
        created=datetime(2026, 11, 24, 14, 5, 6, 789, UTC),
        manifest=bundle.manifest,
        bundle_sha256=bundle.sha256,
        operating_point=operating_point,
        target_class=bundle.manifest.positive_class,
        breasts=breasts,
    )


def mammogram(number: int = 1, **tags: Any) -> bytes:
    """An image of study 2.25.1, series 2.25.2; ``number`` is part of its own UID."""
    uids = {"StudyInstanceUID": "2.25.1", "SeriesInstanceUID": "2.25.2"}
    return dicom(PICTURE, **(uids | {"SOPInstanceUID": f"2.25.3.{number}"} | tags))


def two_breasts_and_a_prior(bundle: Bundle) -> StudyResult:
    prior = mammogram(9, StudyInstanceUID="2.25.8", StudyDate="20220105")
    left = reading(
        exam(prior, after=0.2, change=-0.03),
        exam(mammogram(1), mammogram(2, ViewPosition="MLO"), after=0.5432, change=0.3432),
        warnings=(("long_gap", "More than three years lie between two exams."),),
    )
    right = reading(exam(mammogram(3, ImageLaterality="R")), side="R", probability=0.1)
    return study(bundle, left, right)


def from_pictures(bundle: Bundle) -> StudyResult:
    return study(bundle, reading(exam(png(PICTURE)), side=None))


def without_patient(bundle: Bundle) -> StudyResult:
    return study(bundle, reading(exam(mammogram(PatientID=""))))


def real(bundle: Bundle) -> StudyResult:
    return study(bundle, reading(exam(real_dicom("explicit"))))


STUDIES = [two_breasts_and_a_prior, from_pictures, without_patient, real]
every_study = pytest.mark.parametrize("made", STUDIES, ids=lambda made: made.__name__)


def resources(result: StudyResult, kind: str) -> list[dict[str, Any]]:
    entries = json.loads(fhir_bundle(result))["entry"]
    return [e["resource"] for e in entries if e["resource"]["resourceType"] == kind]


def only(result: StudyResult, kind: str) -> dict[str, Any]:
    (resource,) = resources(result, kind)
    return resource


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Every JSON object in ``value``."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, (dict, list)):
            yield from objects(inner)


def texts(value: Any) -> list[str]:
    strings = (v for inner in objects(value) for v in inner.values() if isinstance(v, str))
    return list(strings)


def components(observation: dict[str, Any], code: str) -> list[dict[str, Any]]:
    return [c for c in observation["component"] if c["code"]["coding"][0]["code"] == code]


# valid R4


def r4_faults(path: str, value: dict[str, Any]) -> Iterator[str]:
    """What ``value`` has that R4 4.0.1 does not define at ``path``, or lacks that it requires."""
    defined = {element: r4_names(element) for element in R4 if element.rpartition(".")[0] == path}
    for element, spellings in defined.items():
        if R4[element]["min"] and not spellings.keys() & value.keys():
            yield f"{element} is required"
    known = {name: (e, kind) for e, names in defined.items() for name, kind in names.items()}
    for name in sorted(value.keys() - {"resourceType"}):
        if name in known:
            yield from r4_value_faults(*known[name], value[name])
        else:
            yield f"{path}.{name} is not of R4"


def r4_names(element: str) -> dict[str, str]:
    """How JSON may spell an element, with the type that each spelling means."""
    name = element.rpartition(".")[2]
    return {name.replace("[x]", kind[0].upper() + kind[1:]): kind for kind in R4[element]["types"]}


def r4_value_faults(element: str, kind: str, value: Any) -> Iterator[str]:
    row = R4[element]
    targets = row.get("targets", ["Resource"])
    if isinstance(value, list) != (row["max"] == "*"):
        yield f"{element} may be there {row['max']} times"
    for one in value if isinstance(value, list) else [value]:
        if "codes" in row and one not in row["codes"]:
            yield f"{element} must not be {one}"
        if isinstance(one, dict):
            if "type" in one and "Resource" not in targets and one["type"] not in targets:
                yield f"{element} must not refer to {one['type']}"
            inner = {"Resource": one.get("resourceType", ""), "BackboneElement": element}
            yield from r4_faults(inner.get(kind, kind), one)


@every_study
def test_bundle_has_only_what_r4_defines_and_all_that_it_requires(
    made: Any, bundle: Bundle
) -> None:
    assert list(r4_faults("Bundle", json.loads(fhir_bundle(made(bundle))))) == []


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"status": None}, "Observation.status is required"),
        ({"status": "done"}, "Observation.status must not be done"),
        ({"triggeredBy": []}, "Observation.triggeredBy is not of R4"),
        ({"note": {"text": "x"}}, "Observation.note may be there * times"),
        ({"code": {"concept": {}}}, "CodeableConcept.concept is not of R4"),
        (
            {"derivedFrom": [{"type": "Patient"}]},
            "Observation.derivedFrom must not refer to Patient",
        ),
    ],
)
def test_check_against_r4_sees_what_is_wrong(change: Any, fault: str, bundle: Bundle) -> None:
    observation = only(real(bundle), "Observation") | change
    present = {name: value for name, value in observation.items() if value is not None}
    assert list(r4_faults("Observation", present)) == [fault]


@every_study
def test_bundle_survives_a_round_trip_through_the_models(made: Any, bundle: Bundle) -> None:
    from fhir.resources.R4B.bundle import Bundle as Model

    text = fhir_bundle(made(bundle))
    assert json.loads(Model.model_validate_json(text).model_dump_json()) == json.loads(text)


@every_study
def test_every_reference_resolves_or_names_by_identifier(made: Any, bundle: Bundle) -> None:
    made_bundle = json.loads(fhir_bundle(made(bundle)))
    kinds = {e["fullUrl"]: e["resource"]["resourceType"] for e in made_bundle["entry"]}
    assert len(kinds) == len(made_bundle["entry"])
    for inner in objects(made_bundle):
        if "reference" in inner:
            assert inner["reference"] in kinds
            assert inner.get("type", kinds[inner["reference"]]) == kinds[inner["reference"]]
        elif inner.get("type") in ("Patient", "ImagingStudy"):
            assert inner["identifier"]["value"]


def test_codes_mean_what_dicom_says_they_mean(bundle: Bundle) -> None:
    """LOINC, HL7 and the SNOMED code of software are not in DICOM's dictionary."""
    schemes = {
        "http://dicom.nema.org/resources/ontology/DCM": "DCM",
        "http://snomed.info/sct": "SCT",
    }
    meanings = {
        (code.scheme_designator, code.value): code.meaning
        for code in (
            codes.DCM.ProbabilityOfCancer, codes.DCM.MammographyCADReport, codes.SCT.Breast,
            codes.SCT.LeftBreast, codes.SCT.RightBreast,
        )
    }  # fmt: skip
    found = {
        (schemes[c["system"]], c["code"]): c["display"]
        for made in (two_breasts_and_a_prior, from_pictures)
        for c in objects(json.loads(fhir_bundle(made(bundle))))
        if c.get("system") in schemes and "display" in c and c["code"] != "706689003"
    }
    assert found == meanings


def test_docs_list_every_code(bundle: Bundle) -> None:
    text = (Path(__file__).parents[2] / "docs" / "fhir.md").read_text()
    rows = "\n".join(line for line in text.splitlines() if line.startswith("|"))
    used = {
        concept["code"]
        for made in STUDIES
        for concept in objects(json.loads(fhir_bundle(made(bundle))))
        if "code" in concept and concept.get("system", "urn:ietf:rfc3986") != "urn:ietf:rfc3986"
    }
    assert {code for code in used if f"`{code}`" not in rows} == set()
    assert len(used) > 15


# posted twice, stored once


def test_entries_are_created_only_unless_their_identifier_is_known(bundle: Bundle) -> None:
    made = json.loads(fhir_bundle(two_breasts_and_a_prior(bundle)))
    assert made["type"] == "transaction"
    conditions = [entry["request"]["ifNoneExist"] for entry in made["entry"]]
    assert len(set(conditions)) == len(conditions) == 6
    for entry in made["entry"]:
        (identifier,) = entry["resource"]["identifier"]
        assert entry["request"] == {
            "method": "POST",
            "url": entry["resource"]["resourceType"],
            "ifNoneExist": f"identifier={identifier['system']}|{identifier['value']}",
        }


@every_study
def test_full_urls_are_only_where_a_server_shall_replace_them(made: Any, bundle: Bundle) -> None:
    """Medplum's server, for one, replaces them in identifiers and conditions too."""
    made_bundle = json.loads(fhir_bundle(made(bundle)))
    full_urls = {entry["fullUrl"] for entry in made_bundle["entry"]}
    for inner in objects(made_bundle):
        for name, value in inner.items():
            if isinstance(value, str) and name not in ("fullUrl", "reference"):
                assert not any(url in value for url in full_urls), name


def names(result: StudyResult) -> set[str]:
    return {entry["fullUrl"] for entry in json.loads(fhir_bundle(result))["entry"]}


@every_study
def test_same_reading_has_the_same_names_however_and_whenever_it_is_sent(
    made: Any, bundle: Bundle
) -> None:
    again = dataclasses.replace(
        made(bundle), request_id="another", created=datetime(2027, 1, 1, tzinfo=UTC)
    )
    turned = tuple(
        dataclasses.replace(
            one, exams=tuple(dataclasses.replace(e, images=e.images[::-1]) for e in one.exams)
        )
        for one in again.breasts
    )
    assert names(made(bundle)) == names(dataclasses.replace(again, breasts=turned))


@pytest.mark.parametrize(
    "change",
    [
        lambda result: dataclasses.replace(result, bundle_sha256="0" * 64),
        lambda result: dataclasses.replace(
            result, operating_point=result.manifest.operating_point("sensitivity-90")
        ),
        lambda result: dataclasses.replace(result, breasts=(reading(exam(mammogram(7))),)),
        lambda result: dataclasses.replace(
            result, breasts=(reading(exam(mammogram(1), day=date(2020, 1, 1))),)
        ),
        lambda result: dataclasses.replace(
            result, breasts=(reading(exam(mammogram(1)), side="R"),)
        ),
    ],
    ids=["model", "operating point", "image", "date", "side"],
)
def test_other_reading_has_other_names(change: Any, bundle: Bundle) -> None:
    result = study(bundle, reading(exam(mammogram(1))))
    for kind in ("Observation", "DiagnosticReport"):
        assert only(result, kind)["identifier"] != only(change(result), kind)["identifier"]


def test_pictures_without_uid_are_told_apart_by_their_pixels(bundle: Bundle) -> None:
    other = study(bundle, reading(exam(png(breast(60, 40, seed=1))), side=None))
    found = [only(r, "Observation")["identifier"] for r in (from_pictures(bundle), other)]
    assert found[0] != found[1]


# what the observation says


def test_observation_gives_the_probability_of_the_breast(bundle: Bundle) -> None:
    left, right = resources(two_breasts_and_a_prior(bundle), "Observation")
    assert left["valueQuantity"] == {
        "value": 54.32, "unit": "%", "system": "http://unitsofmeasure.org", "code": "%",
    }  # fmt: skip
    assert left["interpretation"] == [
        {"text": "at or above the threshold of 34.2 % (operating point balanced)"}
    ]
    assert right["interpretation"] == [
        {"text": "below the threshold of 34.2 % (operating point balanced)"}
    ]
    assert left["effectiveDateTime"] == "2024-01-31"
    assert left["issued"] == "2026-11-24T14:05:06Z"


@pytest.mark.parametrize(
    ("side", "code"), [("L", "80248007"), ("R", "73056007"), (None, "76752008")]
)
def test_body_site_is_the_breast_on_its_side(
    side: Laterality | None, code: str, bundle: Bundle
) -> None:
    observation = only(study(bundle, reading(exam(mammogram()), side=side)), "Observation")
    assert observation["bodySite"]["coding"][0]["code"] == code


@pytest.mark.parametrize(("probability", "reached"), [(0.9, "malignant"), (0.1, "no_cancer")])
def test_components_tell_the_operating_point_and_the_class(
    probability: float, reached: str, bundle: Bundle
) -> None:
    result = study(bundle, reading(exam(mammogram()), probability=probability))
    observation = only(result, "Observation")
    point = result.operating_point
    for code, fraction in [
        ("threshold", point.threshold),
        ("sensitivity", point.sensitivity),
        ("specificity", point.specificity),
    ]:
        (component,) = components(observation, code)
        assert component["valueQuantity"]["value"] == pytest.approx(100 * fraction, abs=5e-5)
        assert component["valueQuantity"]["code"] == "%"
    (component,) = components(observation, "class")
    assert component["valueString"] == reached


def test_components_tell_each_exam_in_time_order(bundle: Bundle) -> None:
    left, _ = resources(two_breasts_and_a_prior(bundle), "Observation")
    dates = [c["valueDateTime"] for c in components(left, "exam-date")]
    after = [c["valueQuantity"]["value"] for c in components(left, "exam-probability-after")]
    first, second = components(left, "exam-change")
    assert dates == ["2022-01-05", "2024-01-31"]
    assert after == [20.0, 54.32]
    assert "valueQuantity" not in first
    assert first["dataAbsentReason"]["coding"][0]["code"] == "not-applicable"
    assert second["valueQuantity"]["value"] == 34.32


def test_exam_without_a_date_says_that_it_is_unknown(bundle: Bundle) -> None:
    observation = only(from_pictures(bundle), "Observation")
    (component,) = components(observation, "exam-date")
    assert component["dataAbsentReason"]["coding"][0]["code"] == "unknown"
    assert "effectiveDateTime" not in observation
    assert "effectiveDateTime" not in only(from_pictures(bundle), "DiagnosticReport")


@every_study
def test_nothing_claims_that_a_person_verified_it(made: Any, bundle: Bundle) -> None:
    report = only(made(bundle), "DiagnosticReport")
    for resource in (report, *resources(made(bundle), "Observation")):
        assert resource["status"] == "preliminary"
        assert [label["code"] for label in resource["meta"]["security"]] == ["AIAST"]
        assert any(DISCLAIMER in text for text in texts(resource))
        assert not {"performer", "resultsInterpreter", "conclusionCode"} & set(resource)


def test_warnings_are_notes_of_their_breast(bundle: Bundle) -> None:
    left, right = resources(two_breasts_and_a_prior(bundle), "Observation")
    warning = {"text": "long_gap: More than three years lie between two exams."}
    assert warning in left["note"]
    assert warning not in right["note"]


def test_report_concludes_in_words_for_every_breast(bundle: Bundle) -> None:
    report = only(two_breasts_and_a_prior(bundle), "DiagnosticReport")
    assert report["conclusion"] == (
        "Left breast: calibrated probability of malignant 54.3 %, at or above the threshold of "
        "34.2 % (operating point balanced). "
        "Right breast: calibrated probability of malignant 10.0 %, below the threshold of "
        "34.2 % (operating point balanced). "
        f"No person has verified this. {DISCLAIMER}"
    )
    assert len(report["result"]) == 2


def test_device_is_the_model_that_read(bundle: Bundle) -> None:
    device = only(real(bundle), "Device")
    assert device["identifier"][0]["value"] == bundle.sha256
    assert device["deviceName"][0]["name"] == bundle.manifest.name
    assert device["version"] == [{"value": bundle.manifest.version}]
    assert device["manufacturer"] == "Mammoseq"


@every_study
@pytest.mark.parametrize("point", ["balanced", "sensitivity-90", "specificity-90"])
@pytest.mark.parametrize("probability", [0.0, 0.02, 0.3, 0.96, 1.0])
def test_score_never_becomes_a_bi_rads_category(
    probability: float, point: str, made: Any, bundle: Bundle
) -> None:
    result = study(
        bundle,
        *(dataclasses.replace(b, probability=probability) for b in made(bundle).breasts),
        point=point,
    )
    text = fhir_bundle(result)
    assert not re.search(
        r"bi.?rads|breast imaging.?reporting|assessment|categor(y|ies) ?\d", text, re.I
    )
    systems = {c["system"] for c in objects(json.loads(text)) if "code" in c and "system" in c}
    assert systems <= {
        "http://dicom.nema.org/resources/ontology/DCM",
        "http://loinc.org",
        "http://snomed.info/sct",
        "http://terminology.hl7.org/CodeSystem/data-absent-reason",
        "http://terminology.hl7.org/CodeSystem/observation-category",
        "http://terminology.hl7.org/CodeSystem/v2-0074",
        "http://terminology.hl7.org/CodeSystem/v3-ObservationValue",
        "http://unitsofmeasure.org",
        "urn:ietf:rfc3986",
        "urn:uuid:5d0c3f8e-0b3a-4f2e-9c55-6a1f7b0e2d41",
    }


# the studies that were read


@pytest.mark.parametrize("encoding", DECODABLE)
def test_real_study_is_described_by_its_uids(encoding: str, bundle: Bundle) -> None:
    data = real_dicom(encoding)
    header = pydicom.dcmread(BytesIO(data))
    result = study(bundle, reading(exam(data)))
    described = only(result, "ImagingStudy")
    identifier = {"system": "urn:dicom:uid", "value": f"urn:oid:{header.StudyInstanceUID}"}
    assert described["identifier"] == [identifier]
    assert described["started"] == "2016-10-04"
    (series,) = described["series"]
    assert series["uid"] == header.SeriesInstanceUID
    assert series["modality"]["code"] == "MG"
    assert series["instance"] == [
        {
            "uid": header.SOPInstanceUID,
            "sopClass": {"system": "urn:ietf:rfc3986", "code": f"urn:oid:{header.SOPClassUID}"},
        }
    ]
    for kind, element in [("Observation", "derivedFrom"), ("DiagnosticReport", "imagingStudy")]:
        (reference,) = only(result, kind)[element]
        assert reference["identifier"] == identifier


def test_report_is_on_the_newest_study_and_observations_on_all_of_their_breast(
    bundle: Bundle,
) -> None:
    def uids(references: Sequence[dict[str, Any]]) -> list[str]:
        return [reference["identifier"]["value"] for reference in references]

    result = two_breasts_and_a_prior(bundle)
    left, right = resources(result, "Observation")
    assert uids(left["derivedFrom"]) == ["urn:oid:2.25.1", "urn:oid:2.25.8"]
    assert uids(right["derivedFrom"]) == ["urn:oid:2.25.1"]
    assert uids(only(result, "DiagnosticReport")["imagingStudy"]) == ["urn:oid:2.25.1"]
    newest, _ = resources(result, "ImagingStudy")
    assert [i["uid"] for i in newest["series"][0]["instance"]] == [f"2.25.3.{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize(("modality", "code"), [("MG", "MG"), ("DX", "DX"), ("Doe Jane", "OT")])
def test_modality_is_a_known_code(modality: str, code: str, bundle: Bundle) -> None:
    described = only(study(bundle, reading(exam(mammogram(Modality=modality)))), "ImagingStudy")
    assert described["series"][0]["modality"]["code"] == code


def test_study_without_patient_is_referred_to_by_uid_only(bundle: Bundle) -> None:
    result = without_patient(bundle)
    assert resources(result, "ImagingStudy") == []
    assert only(result, "Observation")["derivedFrom"] == [
        {
            "type": "ImagingStudy",
            "identifier": {"system": "urn:dicom:uid", "value": "urn:oid:2.25.1"},
        }
    ]


# whose they are


def issuer(entity: str, kind: str) -> list[Dataset]:
    qualifiers = Dataset()
    qualifiers.UniversalEntityID, qualifiers.UniversalEntityIDType = entity, kind
    return [qualifiers]


@pytest.mark.parametrize(
    ("tags", "identifier"),
    [
        ({"PatientID": "A17"}, {"value": "A17"}),
        ({"PatientID": " A17 "}, {"value": "A17"}),
        (
            {"PatientID": "A17", "IssuerOfPatientID": "Ward 3"},
            {"value": "A17", "assigner": {"display": "Ward 3"}},
        ),
        (
            {"PatientID": "A17", "IssuerOfPatientIDQualifiersSequence": issuer("1.2.3", "ISO")},
            {"value": "A17", "system": "urn:oid:1.2.3"},
        ),
        (
            {"PatientID": "A17", "IssuerOfPatientIDQualifiersSequence": issuer("Doe", "ISO")},
            {"value": "A17"},
        ),
        (
            {"PatientID": "A17", "IssuerOfPatientIDQualifiersSequence": issuer("1.2.3", "DNS")},
            {"value": "A17"},
        ),
    ],
)
def test_patient_is_named_by_id_and_issuer(tags: Any, identifier: Any, bundle: Bundle) -> None:
    result = study(bundle, reading(exam(mammogram(**tags))))
    for kind in ("Observation", "DiagnosticReport", "ImagingStudy"):
        assert only(result, kind)["subject"] == {"type": "Patient", "identifier": identifier}


@pytest.mark.parametrize(
    "files",
    [
        [png(PICTURE)],
        [mammogram(PatientID="")],
        [mammogram(PatientID=None)],
        [mammogram(PatientID=["A", "B"])],
        [mammogram(1, PatientID="A"), mammogram(2, PatientID="B")],
        [mammogram(1, IssuerOfPatientID="A"), mammogram(2, IssuerOfPatientID="B")],
        [mammogram(1), mammogram(2, PatientID="")],
        [mammogram(1), png(PICTURE)],
    ],
    ids=["picture", "empty", "missing", "two ids", "two patients", "two issuers", "one without",
         "one a picture"],
)  # fmt: skip
def test_no_patient_is_named_unless_all_images_name_the_same(
    files: list[bytes], bundle: Bundle
) -> None:
    text = fhir_bundle(study(bundle, reading(exam(*files))))
    assert '"subject"' not in text
    assert '"Patient"' not in text


PLANTED = "Zebra^Quagga"


def planted(data: bytes) -> bytes:
    """The file with ``PLANTED`` in every text that a header of its kind can hold."""
    dataset = pydicom.dcmread(BytesIO(data))
    for keyword in (
        "PatientName", "OtherPatientIDs", "PatientAddress", "PatientComments", "StudyDescription",
        "SeriesDescription", "InstitutionName", "ReferringPhysicianName", "OperatorsName",
        "StationName", "AccessionNumber", "StudyID", "ProtocolName", "ImageComments",
        "DerivationDescription", "Manufacturer", "Modality", "ViewPosition", "BodyPartExamined",
        "DeviceSerialNumber", "RequestedProcedureDescription", "StudyTime",
    ):  # fmt: skip
        setattr(dataset, keyword, PLANTED)
    dataset.PatientBirthDate = "19610203"
    target = BytesIO()
    dataset.save_as(target)
    return target.getvalue()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize("data", [mammogram(), real_dicom("explicit")], ids=["made", "real"])
def test_nothing_of_a_header_leaves_but_uids_dates_and_patient_id(
    data: bytes, bundle: Bundle
) -> None:
    text = fhir_bundle(study(bundle, reading(exam(planted(data)))))
    assert "Zebra" not in text
    assert "Quagga" not in text
    assert "19610203" not in text
    assert "1961-02-03" not in text


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"]
)
def test_text_in_place_of_a_uid_does_not_leave(keyword: str, bundle: Bundle) -> None:
    one = image(mammogram())
    assert one.header is not None
    one.header[keyword]._value = PLANTED
    made = ExamResult(date(2024, 1, 31), 0, 0.4, 0.1, (one,))
    assert "Zebra" not in fhir_bundle(study(bundle, reading(made)))


@given(patient_id=st.text(max_size=64), issuer_name=st.text(max_size=64))
@settings(max_examples=100, deadline=None)
def test_any_patient_id_and_issuer_make_a_valid_bundle(
    patient_id: str, issuer_name: str, bundle: Bundle
) -> None:
    header = Dataset()
    header.add_new("PatientID", "LO", patient_id)
    header.add_new("IssuerOfPatientID", "LO", issuer_name)
    one = dataclasses.replace(image(png(PICTURE)), header=header)
    made = ExamResult(None, 0, 0.4, 0.1, (one,))
    assert list(r4_faults("Bundle", json.loads(fhir_bundle(study(bundle, reading(made)))))) == []


def test_importing_the_renderer_does_not_load_the_models() -> None:
    script = "import sys, app.render.fhir; print('fhir.resources' in sys.modules)"
    printed = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout
    assert printed.strip() == "False"
