"""Nothing that names a patient leaves the service: not in logs, metrics, answers or problems."""

from __future__ import annotations

import base64
import json
import re
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, keyword_dict

from tests.collector import Received, collecting
from tests.pictures import breast, dicom, patched, png, real_dicom
from tests.serving import Service, serving

MARKER = "ZYXWMARKER"
SHORT = "ZQXJK"  # fits everywhere, and looks like a code
UID = "1.2.826.0.1.4711471147114711"
BIRTH = "19470811"
STUDY = "1.2.826.0.1.0815.0815"  # a request id, which the log keeps and traces do not
TRACED = f"00-{'0af7' * 8}-{'b7ad' * 4}-01"
# By value representation, what a tag of it is filled with (PS3.5 6.2)
FILLING = {
    "PN": f"{MARKER}^{SHORT}",
    "LO": MARKER,
    "SH": MARKER,
    "LT": MARKER,
    "ST": MARKER,
    "UT": MARKER,
    "UC": MARKER,
    "AE": MARKER,
    "CS": SHORT,
    "UI": UID,
    "DA": BIRTH,
}
# What must hold true values for the file to be a mammogram at all, or is answered by design
KEPT = {
    "SOPClassUID", "Modality", "PhotometricInterpretation", "PatientID", "SOPInstanceUID",
    "ImageLaterality", "Laterality", "StudyDate", "AcquisitionDate", "SeriesDate", "ContentDate",
    "InstanceCreationDate", "PresentationIntentType", "VOILUTFunction", "SpecificCharacterSet",
    "TimezoneOffsetFromUTC", "ModalityLUTType", "PresentationLUTShape",
}  # fmt: skip


def planted(source: bytes, **tags: Any) -> bytes:
    """A mammogram with a marker in every text, code, identifier and date tag there is."""
    dataset = pydicom.dcmread(BytesIO(source))
    for keyword in keyword_dict:
        vr = dictionary_VR(keyword)
        known = pydicom.tag.Tag(keyword_dict[keyword])
        if vr in FILLING and keyword not in KEPT and 0x0008 <= known.group <= 0x0040:
            setattr(dataset, keyword, FILLING[vr])
    dataset.PatientID = f"{MARKER}-4711"
    block = dataset.private_block(0x0011, MARKER, create=True)
    block.add_new(0x01, "LO", f"{MARKER} private")
    return patched(dataset, **tags)


FORMS = (
    "application/fhir+json", "application/dicom", 'multipart/related; type="application/dicom"',
)  # fmt: skip
# Where a DICOM result repeats its source: what puts it into the patient's record (PS3.3 C.7.1.1,
# C.7.2.1), and the identifiers of what it was made from
IDENTIFYING = {
    "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex",
    "AccessionNumber", "StudyID", "ReferringPhysicianName", "StudyInstanceUID",
    "SeriesInstanceUID", "ReferencedSOPInstanceUID", "UID",
}  # fmt: skip

WHOLE = planted(real_dicom("explicit"))
FORBIDDEN = (MARKER, SHORT, "47114711", BIRTH, "1947-08-11", "1947")


def requests() -> list[tuple[str, dict[str, Any]]]:
    """Everything that can be done with such a file, right and wrong."""
    name = f"{MARKER}.dcm"
    cut = WHOLE[: len(WHOLE) // 2]
    header_only = WHOLE[:4000]
    faulty = [
        planted(dicom(breast()), **{tag: value})
        for tag, value in (
            ("PixelData", None),
            ("Rows", 9),
            ("NumberOfFrames", 2),
            ("PhotometricInterpretation", SHORT),
            ("BitsStored", 0),
            ("PixelRepresentation", 7),
            ("StudyDate", ""),
        )
    ]
    raw_faults = [
        WHOLE.replace(b"MONOCHROME2 ", MARKER[:10].encode() + b"  "),
        WHOLE.replace(b"20161004", b"notadate"),
        WHOLE.replace(b"1.2.840.10008.1.2.1\0", b"1.2.826.0.1.47114711"),
    ]
    single = [WHOLE, cut, header_only, *faulty, *raw_faults]
    made: list[tuple[str, dict[str, Any]]] = []
    for data in single:
        made.append(("/predict", {"content": data, "params": {"overlay": "none"}}))
        made.append(("/predict", {"files": {"file": (name, data)}}))
        made.append(("/pixels", {"content": data}))
        made.append(("/pixels", {"content": data, "params": {"long_side": 64}}))
    other = planted(dicom(breast()), PatientID=f"{MARKER}-2")
    right = planted(dicom(breast()), PatientID=f"{MARKER}-4711", ImageLaterality="R")
    prior = planted(dicom(breast()), PatientID=f"{MARKER}-4711", StudyDate="20141004")
    for files in (
        [WHOLE], [WHOLE, prior], [WHOLE, WHOLE], [WHOLE, other], [WHOLE, right], [WHOLE, cut],
        [prior, faulty[-1]],
    ):  # fmt: skip
        parts = [("files", (f"{MARKER}{i}.dcm", data)) for i, data in enumerate(files)]
        made.append(("/predict/series", {"files": parts}))
    described = '{"exams": [{"date": "2024-01-01", "files": ["%s"]}]}'
    for stated in (name, f"{MARKER}-not-sent"):
        made.append(
            (
                "/predict/series",
                {"files": [("files", (name, WHOLE))], "data": {"series": described % stated}},
            )
        )
    made += wrapped([WHOLE, prior], name)
    made += [
        (path, {"content": data, "headers": {"Accept": accept}, "params": {"overlay": "none"}})
        for path in ("/predict", "/predict/series")
        for accept in FORMS
        for data in (WHOLE, cut)
    ]
    objects = {"objects": "sr,sc,seg", "overlay": "none"}
    made.append(("/predict", {"content": png(breast()), "headers": {"Accept": MARKER}}))
    made.append(("/predict", {"content": WHOLE, "params": {"objects": MARKER}}))
    for query in ("view", "laterality", "exam_date", "gate"):
        made.append(("/predict", {"content": WHOLE, "params": {query: f"{MARKER}^{SHORT}"}}))
    made.append(("/predict/series", {"content": other, "params": {**objects, "gate": "refuse"}}))
    made.append((f"/{MARKER}", {"content": b""}))
    made.append(("/pixels", {"files": {"file": (name, WHOLE)}}))
    made.append((f"/pixels?long_side={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?operating_point={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?target={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?overlay={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?overlay_long_side={MARKER}", {"content": WHOLE}))
    made.append(("/predict", {"content": WHOLE, "headers": {"X-Request-ID": f"{MARKER}^x"}}))
    carried = {"tracestate": f"{SHORT.lower()}={MARKER}", "baggage": f"patient={MARKER}"}
    made.append(("/predict", {"content": WHOLE, "headers": carried | {"traceparent": TRACED}}))
    made.append(("/predict", {"content": WHOLE, "headers": {"X-Request-ID": STUDY}}))
    return made


def wrapped(files: list[bytes], name: str) -> list[tuple[str, dict[str, Any]]]:
    """The files in every wrapping, whole and broken."""
    target = BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for i, data in enumerate(files):
            archive.writestr(f"{MARKER}/{i}-{name}", data)
        archive.writestr(f"{MARKER}.txt", MARKER)
    packed = target.getvalue()
    head = f"--x\r\nContent-Type: application/dicom\r\nContent-Location: {MARKER}\r\n\r\n"
    related = b"".join(head.encode() + data + b"\r\n" for data in files)
    coded = [{"name": name, "data": base64.b64encode(data).decode()} for data in files]
    bodies: list[tuple[str, Any]] = [
        ("application/zip", packed),
        ("application/zip", packed[:-99]),
        (f"multipart/related; boundary=x; start={MARKER}", related + b"--x--\r\n"),
        ("multipart/related; boundary=x", related),
        (f"multipart/related; boundary={MARKER}", related),
        ("application/json", json.dumps({"files": coded})),
        ("application/json", json.dumps({"files": [{MARKER: MARKER, "data": ""}]})),
        ("application/json", json.dumps({"files": coded, "series": {MARKER: MARKER}})),
        ("application/json", json.dumps({"files": [{"name": MARKER, "data": f"{MARKER}^"}]})),
        ("application/json", json.dumps({"files": MARKER})),
        ("application/json", MARKER),
        (MARKER, files[0]),
    ]
    return [
        ("/predict/series", {"content": content, "headers": {"Content-Type": kind}})
        for kind, content in bodies
    ]


@pytest.fixture(scope="module")
def collector() -> Iterator[Received]:
    with collecting() as received:
        yield received


@pytest.fixture(scope="module")
def exchange(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory, collector: Received
) -> tuple[list[tuple[str, int, str]], str]:
    """All answers, and all that the service printed from its start to its end."""
    folder = tmp_path_factory.mktemp("privacy")
    with serving(bundle_folder, folder, traces_url=collector.url) as service:
        answers = []
        for path, options in requests():
            response = service.post(path, **options)
            if options.get("headers", {}).get("Accept") in FORMS and response.status_code == 200:
                continue  # meant for those who know the patient: see below
            headers = "\n".join(f"{k}: {v}" for k, v in response.headers.items())
            pixels = response.headers["content-type"] == "application/octet-stream"
            text = "" if pixels else response.text  # which may hold any five letters by chance
            answers.append((path, response.status_code, f"{headers}\n\n{text}"))
        answers += [(path, 200, service.get(path).text) for path in ("/metrics", "/state")]
        service.client.request(f"{MARKER}", f"/{MARKER}?{MARKER}")
        service.terminate()
        return answers, service.printed()


def test_markers_are_really_in_the_file() -> None:
    for marker in (MARKER, SHORT, UID, BIRTH):
        assert WHOLE.count(marker.encode()) > 5


def test_planted_files_reach_every_part_of_the_service(
    exchange: tuple[list[tuple[str, int, str]], str],
) -> None:
    statuses = [(path, status) for path, status, _ in exchange[0]]
    assert ("/predict", 200) in statuses
    assert ("/predict", 422) in statuses
    assert ("/predict", 415) in statuses
    assert ("/pixels", 200) in statuses
    assert ("/pixels", 422) in statuses
    assert ("/predict/series", 200) in statuses
    assert ("/predict/series", 422) in statuses
    for code in (
        "broken_image", "no_pixels", "several_frames", "unsupported_photometric",
        "unsupported_depth", "mixed_patients", "duplicate_image",
        "no_exam_date", "unknown_file", "unknown_operating_point", "unknown_class",
        "invalid_request", "not_found", "broken_archive", "invalid_multipart", "invalid_json",
        "not_acceptable",
    ):  # fmt: skip
        assert any(f'"code":"{code}"' in text for _, _, text in exchange[0]), code
    assert not any(status >= 500 for _, status in statuses)


@pytest.mark.parametrize("marker", FORBIDDEN)
def test_no_answer_problem_or_metric_repeats_a_marker(
    exchange: tuple[list[tuple[str, int, str]], str], marker: str
) -> None:
    for path, status, text in exchange[0]:
        assert not _holds(_without_pictures(text), marker), f"{path} {status}"


def _holds(text: str, marker: str) -> bool:
    """Whether a marker is in a text, but for four digits that stand inside of a longer number or
    word: a measured value, a hash or an id may hold any by chance."""
    if len(marker) > 4 or not marker.isdigit():
        return marker in text
    return re.search(rf"(?<![\w.]){marker}(?!\w)", text) is not None


def _without_pictures(text: str) -> str:
    """Base64 may hold any five letters by chance."""
    return re.sub(r'"data":"[A-Za-z0-9+/=]*"', "", text)


@pytest.mark.parametrize("marker", [*FORBIDDEN, "2016-10-04", "20161004"])
def test_nothing_printed_repeats_a_marker(
    exchange: tuple[list[tuple[str, int, str]], str], marker: str
) -> None:
    assert not _holds(exchange[1], marker)


def test_nothing_of_a_request_is_printed_at_all(
    exchange: tuple[list[tuple[str, int, str]], str],
) -> None:
    assert "Traceback" not in exchange[1]
    assert "Warning" not in exchange[1]


def test_no_trace_repeats_a_marker(
    exchange: tuple[list[tuple[str, int, str]], str], collector: Received
) -> None:
    requests = [span for span in collector.spans if span.kind == "server"]
    assert len(requests) >= len(exchange[0])
    assert {span.attributes.get("mammoseq.problem") for span in requests} >= {
        None, "broken_image", "invalid_multipart", "mixed_patients", "not_found",
    }  # fmt: skip
    sent = b"".join(collector.bodies)
    for marker in (*FORBIDDEN, "2016-10-04", "20161004", STUDY, ".dcm", "127.0.0.1"):
        assert marker.encode() not in sent, marker


@pytest.mark.parametrize("source", [WHOLE, planted(dicom(breast()))], ids=["real", "made"])
def test_dicom_results_repeat_nothing_but_what_identifies_patient_and_study(
    server: Service, source: bytes
) -> None:
    query = {"objects": "sr,sc,seg", "overlay": "none", "map": "false"}
    answer = server.post("/predict", content=source, params=query).json()
    assert {made["kind"] for made in answer["dicom"]} == {"sr", "sc", "seg"}
    for made in answer["dicom"]:
        dataset = pydicom.dcmread(BytesIO(base64.b64decode(made["data"])))
        assert dataset.PatientID == f"{MARKER}-4711"
        repeated = {
            element.keyword
            for element in dataset.iterall()
            if element.VR != "SQ" and any(marker in str(element.value) for marker in FORBIDDEN[:4])
        }
        assert repeated <= IDENTIFYING, made["kind"]


@pytest.mark.parametrize("source", [WHOLE, planted(dicom(breast()))], ids=["real", "made"])
def test_fhir_result_repeats_nothing_but_the_id_of_the_patient(
    server: Service, source: bytes
) -> None:
    headers = {"Accept": "application/fhir+json"}
    bundle = server.post("/predict", content=source, headers=headers).json()
    said: list[str] = []
    for entry in bundle["entry"]:
        subject = entry["resource"].pop("subject", {"identifier": {}})
        said.append(json.dumps(subject))
        rest = json.dumps(entry)
        for marker in (MARKER, SHORT, BIRTH, "1947-08-11"):
            assert marker not in rest
    assert any(f"{MARKER}-4711" in text for text in said)
    assert not any(SHORT in text for text in said)


def test_nothing_is_written_to_disk(bundle_folder: Path, tmp_path: Path) -> None:
    """Uploads stay in memory, also large ones, which form parsers like to spool to files."""
    spool = tmp_path / "spool"
    spool.mkdir()
    with serving(bundle_folder, tmp_path) as service:
        open_files = Path(f"/proc/{service.process.pid}/fd")
        if not open_files.is_dir():
            pytest.skip("no /proc here")
        before = _written(service)
        large = png(breast(3000, 2000)) + bytes(8_000_000)
        assert service.post("/predict", files={"file": ("x", large)}).status_code == 200
        assert _written(service) - before < 1_000_000


def _written(service: Service) -> int:
    """Bytes that the process has caused to be written to storage, deleted files included."""
    lines = Path(f"/proc/{service.process.pid}/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["wchar"])
