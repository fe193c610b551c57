"""Nothing that names a patient leaves the service: not in logs, metrics, answers or problems."""

from __future__ import annotations

import re
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.datadict import dictionary_VR, keyword_dict

from tests.pictures import breast, dicom, patched, png, real_dicom
from tests.serving import Service, serving

MARKER = "ZYXWMARKER"
SHORT = "ZQXJK"  # fits everywhere, and looks like a code
UID = "1.2.826.0.1.4711471147114711"
BIRTH = "19470811"
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
    made.append((f"/{MARKER}", {"content": b""}))
    made.append((f"/predict?operating_point={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?target={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?overlay={MARKER}", {"content": WHOLE}))
    made.append((f"/predict?overlay_long_side={MARKER}", {"content": WHOLE}))
    made.append(("/predict", {"content": WHOLE, "headers": {"X-Request-ID": f"{MARKER}^x"}}))
    return made


@pytest.fixture(scope="module")
def exchange(
    bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[tuple[str, int, str]], str]:
    """All answers, and all that the service printed from its start to its end."""
    with serving(bundle_folder, tmp_path_factory.mktemp("privacy")) as service:
        answers = []
        for path, options in requests():
            response = service.post(path, **options)
            headers = "\n".join(f"{k}: {v}" for k, v in response.headers.items())
            answers.append((path, response.status_code, f"{headers}\n\n{response.text}"))
        answers.append(("/metrics", 200, service.get("/metrics").text))
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
    assert ("/predict/series", 200) in statuses
    assert ("/predict/series", 422) in statuses
    for code in (
        "broken_image", "no_pixels", "several_frames", "unsupported_photometric",
        "unsupported_depth", "mixed_patients", "duplicate_image",
        "no_exam_date", "unknown_file", "unknown_operating_point", "unknown_class",
        "invalid_request", "not_found",
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
    """Whether a marker is in a text, but for digits that stand inside of a longer number: a
    measured value may hold any four digits by chance."""
    return re.search(rf"(?<![\d.]){re.escape(marker)}(?!\d)", text) is not None


def _without_pictures(text: str) -> str:
    """Base64 may hold any five letters by chance."""
    return re.sub(r'"data":"[A-Za-z0-9+/=]*"', "", text)


@pytest.mark.parametrize("marker", [*FORBIDDEN, "2016-10-04", "20161004"])
def test_nothing_printed_repeats_a_marker(
    exchange: tuple[list[tuple[str, int, str]], str], marker: str
) -> None:
    assert marker not in exchange[1]


def test_nothing_of_a_request_is_printed_at_all(
    exchange: tuple[list[tuple[str, int, str]], str],
) -> None:
    assert "Traceback" not in exchange[1]
    assert "Warning" not in exchange[1]


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
