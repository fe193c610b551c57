"""``POST /predict/series`` with a patient's files: grouped by breast and exam, in any wrapping."""

from __future__ import annotations

import base64
import io
import itertools
import struct
import time
import tracemalloc
import zipfile
from typing import Any

import numpy as np
import pytest

from app.api.uploads import Limits, Upload, unpacked
from app.problems import Refusal
from tests.pictures import breast, dicom, patched, png, real_dicom
from tests.serving import Service

QUIET = {"overlay": "none", "map": "false"}
BOUNDARY = "mammoseq-test"
RELATED = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def view(seed: int, day: str, side: str = "L", position: str = "CC", **tags: Any) -> bytes:
    stated = {"StudyDate": day, "ImageLaterality": side, "ViewPosition": position}
    return dicom(breast(seed=seed, right=side == "R"), **{**stated, **tags})


# Two exams of both breasts, the older one of the left breast only
STUDY = [
    view(0, "20240301"),
    view(1, "20240301", position="MLO"),
    view(2, "20240301", "R"),
    view(3, "20220301"),
]


def archive(files: list[bytes], **more: bytes) -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("images/", b"")
        for i, data in enumerate(files):
            packed.writestr(f"images/{i}.dcm", data)
        for name, data in more.items():
            packed.writestr(name, data)
    return target.getvalue()


def related(files: list[bytes]) -> bytes:
    parts = [
        f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n"
        for data in files
    ]
    return b"\r\n" + b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def as_multipart(files: list[bytes]) -> dict[str, Any]:
    return {"files": [("files", (f"{i}.dcm", data)) for i, data in enumerate(files)]}


def as_related(files: list[bytes]) -> dict[str, Any]:
    return {"content": related(files), "headers": {"Content-Type": RELATED}}


def as_zip(files: list[bytes]) -> dict[str, Any]:
    return {"content": archive(files), "headers": {"Content-Type": "application/zip"}}


def as_zip_part(files: list[bytes]) -> dict[str, Any]:
    return {"files": [("files", ("study.zip", archive(files)))]}


def as_json(files: list[bytes]) -> dict[str, Any]:
    return {"json": {"files": [{"data": base64.b64encode(data).decode()} for data in files]}}


def answered(server: Service, files: list[bytes], **query: Any) -> dict[str, Any]:
    response = server.post("/predict/series", **as_multipart(files), params={**QUIET, **query})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(response: Any, code: str, status: int = 422) -> str:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return str(response.json()["detail"])


def places(answer: dict[str, Any]) -> dict[str, list[list[int]]]:
    """By breast, the indices of the images of each exam."""
    return {
        b["laterality"]: [[image["index"] for image in exam["images"]] for exam in b["exams"]]
        for b in answer["breasts"]
    }


def ignored(answer: dict[str, Any]) -> dict[int, str]:
    return {note["index"]: note["code"] for note in answer["ignored"]}


@pytest.fixture(scope="module")
def answer(server: Service) -> dict[str, Any]:
    return answered(server, STUDY)


def test_answer_has_every_promised_field(answer: dict[str, Any]) -> None:
    assert set(answer) == {
        "request_id", "disclaimer", "model", "breasts", "ignored", "dicom", "fhir", "timings_ms",
    }  # fmt: skip
    for one in answer["breasts"]:
        assert set(one) == {
            "laterality", "probabilities", "calibrated_probability", "positive_class",
            "prediction", "warnings", "calibrated_probability_before_any_exam", "exams",
        }  # fmt: skip


def test_images_are_grouped_by_breast_and_exam(answer: dict[str, Any]) -> None:
    assert places(answer) == {"L": [[3], [0, 1]], "R": [[2]]}
    left, right = answer["breasts"]
    assert [exam["exam_date"] for exam in left["exams"]] == ["2022-03-01", "2024-03-01"]
    assert left["exams"][1]["days_since_previous"] == 731
    assert [exam["exam_date"] for exam in right["exams"]] == ["2024-03-01"]
    assert answer["ignored"] == []


def test_each_breast_gets_the_answer_that_it_gets_alone(
    server: Service, answer: dict[str, Any]
) -> None:
    left = answered(server, [STUDY[0], STUDY[1], STUDY[3]])["breasts"]
    right = answered(server, [STUDY[2]])["breasts"]
    for alone, together in zip([*left, *right], answer["breasts"], strict=True):
        assert alone["calibrated_probability"] == pytest.approx(
            together["calibrated_probability"], abs=1e-6
        )


@pytest.mark.parametrize("wrapped", [as_related, as_zip, as_zip_part, as_json])
def test_every_wrapping_gives_the_same_answer(
    server: Service, answer: dict[str, Any], wrapped: Any
) -> None:
    response = server.post("/predict/series", **wrapped(STUDY), params=QUIET)
    assert response.status_code == 200, response.text
    assert places(response.json()) == places(answer)
    for one, other in zip(response.json()["breasts"], answer["breasts"], strict=True):
        assert one["calibrated_probability"] == pytest.approx(
            other["calibrated_probability"], abs=1e-6
        )


@pytest.mark.parametrize(
    "preamble", [b"", b"\r\n", b"Multipart, as MIME has it.\r\n", b"--\r\n-" * 99_999 + b"\r\n"]
)
@pytest.mark.parametrize("chunk", [7, 65_536])
def test_what_is_around_the_parts_is_ignored(server: Service, preamble: bytes, chunk: int) -> None:
    body = preamble + related([STUDY[0]])[2:] + b"\r\nepilogue"
    if chunk < 99 and len(preamble) < 99:
        content: Any = (body[i : i + chunk] for i in range(0, 700, chunk))
        content = itertools.chain(content, [body[700:]])
    else:
        content = body
    response = server.post(
        "/predict/series", content=content, headers={"Content-Type": RELATED}, params=QUIET
    )
    assert response.status_code == 200, response.text
    assert places(response.json()) == {"L": [[0]]}


def test_single_dicom_body_is_a_study_of_one_file(server: Service) -> None:
    found = server.post("/predict/series", content=STUDY[0], params=QUIET).json()
    assert places(found) == {"L": [[0]]}


def test_json_may_describe_a_series(server: Service) -> None:
    files = [
        {"name": name, "data": base64.b64encode(png(breast(seed=i))).decode()}
        for i, name in enumerate("ab")
    ]
    exams = [{"date": "2022-03-01", "files": ["a"]}, {"date": "2024-03-01", "files": ["b"]}]
    body = {"files": files, "series": {"laterality": "R", "exams": exams}}
    found = server.post("/predict/series", json=body, params=QUIET)
    assert found.status_code == 200, found.text
    assert [exam["exam_date"] for exam in found.json()["exams"]] == ["2022-03-01", "2024-03-01"]


def test_single_image_may_be_sent_as_json(server: Service) -> None:
    data = real_dicom("explicit")
    plain = server.post("/predict", content=data, params=QUIET).json()
    body = {"file": base64.b64encode(data).decode()}
    wrapped = server.post("/predict", json=body, params=QUIET).json()
    assert wrapped["calibrated_probability"] == plain["calibrated_probability"]


# what is left out


NO_MAMMOGRAMS = {
    "text": (b"read me\n" * 50, "unsupported_format"),
    "empty": (b"", "empty_file"),
    "blank": (view(0, "20240301", PixelData=bytes(600 * 400)), "no_breast_found"),
    "header only": (view(5, "20240301", PixelData=None), "no_pixels"),
    "several frames": (view(5, "20240301", NumberOfFrames=2), "several_frames"),
}


@pytest.mark.parametrize("kind", NO_MAMMOGRAMS)
def test_what_is_no_mammogram_is_left_out_with_a_note(
    server: Service, answer: dict[str, Any], kind: str
) -> None:
    data, code = NO_MAMMOGRAMS[kind]
    found = answered(server, [STUDY[0], data, *STUDY[1:]])
    assert ignored(found) == {1: code}
    assert places(found) == {"L": [[4], [0, 2]], "R": [[3]]}
    assert [b["calibrated_probability"] for b in found["breasts"]] == pytest.approx(
        [b["calibrated_probability"] for b in answer["breasts"]], abs=1e-6
    )


@pytest.mark.parametrize("kind", NO_MAMMOGRAMS)
def test_study_of_one_file_that_is_no_mammogram_is_refused_for_its_own_reason(
    server: Service, kind: str
) -> None:
    data, code = NO_MAMMOGRAMS[kind]
    response = server.post("/predict/series", **as_multipart([data]))
    assert response.json()["code"] == code


def test_study_without_a_mammogram_is_refused_with_the_reason_of_each_file(
    server: Service,
) -> None:
    files = [data for data, _ in NO_MAMMOGRAMS.values()]
    detail = refused(server.post("/predict/series", **as_multipart(files)), "nothing_to_read")
    for i, (_, code) in enumerate(NO_MAMMOGRAMS.values()):
        assert f"{i} {code}" in detail


def test_mammogram_that_cannot_be_decoded_is_never_left_out(server: Service) -> None:
    files = [STUDY[0], real_dicom("truncated")]
    assert "1" in refused(server.post("/predict/series", **as_multipart(files)), "broken_image")


@pytest.mark.parametrize("first", [b"\x02\0\0\0UL", b"\x08\0\x16\0UI"])
def test_mammogram_without_a_preamble_is_never_left_out(server: Service, first: bytes) -> None:
    """Without it, and without file meta information as well."""
    bare = STUDY[2][STUDY[2].index(first) :]
    response = server.post("/predict/series", **as_multipart([STUDY[0], bare]))
    assert "1" in refused(response, "broken_image")


def test_copies_are_read_once(server: Service) -> None:
    """The same bytes, and the same instance in another encoding."""
    found = answered(server, [real_dicom("explicit"), real_dicom("explicit"), real_dicom("rle")])
    assert places(found) == {"L": [[0]]}
    assert ignored(found) == {1: "duplicate_image", 2: "duplicate_image"}


def test_of_the_same_view_in_one_exam_the_newest_is_read(server: Service) -> None:
    def taken(seed: int, clock: str) -> bytes:
        return view(seed, "20240301", AcquisitionDate="20240301", AcquisitionTime=clock)

    found = answered(server, [taken(0, "091500"), taken(1, "093000"), taken(2, "090000")])
    assert places(found) == {"L": [[1]]}
    assert ignored(found) == {0: "older_image", 2: "older_image"}


def test_same_view_whose_times_are_unknown_is_read_as_often_as_sent(server: Service) -> None:
    found = answered(server, [view(0, "20240301"), view(1, "20240301")])
    assert places(found) == {"L": [[0, 1]]}


def test_image_of_an_unknown_breast_is_left_out_among_known_ones(server: Service) -> None:
    found = answered(server, [view(0, "20240301"), view(1, "20220301", ImageLaterality=None)])
    assert places(found) == {"L": [[0]]}
    assert ignored(found) == {1: "breast_unknown"}


def test_images_that_all_say_no_side_are_taken_for_one_breast_with_a_warning(
    server: Service,
) -> None:
    files = [view(i, f"202{i}0301", ImageLaterality=None) for i in range(2)]
    (only,) = answered(server, files)["breasts"]
    assert only["laterality"] is None
    assert "laterality_unknown" in [warning["code"] for warning in only["warnings"]]


def test_archivers_own_files_are_not_files_of_the_study(server: Service) -> None:
    data = archive([STUDY[0]], **{"__MACOSX/._0.dcm": b"x", "images/.DS_Store": b"x"})
    found = server.post("/predict/series", content=data, params=QUIET).json()
    assert (places(found), found["ignored"]) == ({"L": [[0]]}, [])


def test_breast_that_the_newest_exam_does_not_show_says_so(
    server: Service, answer: dict[str, Any]
) -> None:
    def codes(found: dict[str, Any]) -> list[list[str]]:
        return [[warning["code"] for warning in b["warnings"]] for b in found["breasts"]]

    assert codes(answer) == [[], []]
    assert codes(answered(server, STUDY[2:])) == [["not_in_newest_exam"], []]


def form(files: list[bytes], said: str, *, kind: str = "") -> dict[str, Any]:
    """``multipart/form-data`` whose parts say ``said`` and are of type ``kind``."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{i}"{said}\r\n{kind}\r\n'.encode()
        + data
        + b"\r\n"
        for i, data in enumerate(files)
    ]
    body = b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()
    return {
        "content": body,
        "headers": {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"},
    }


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("", "Content-Type: application/dicom\r\n"),
        ("; filename*=UTF-8''%e2%82%ac.dcm", ""),
        ('; filename=""', ""),
    ],
)
def test_form_parts_without_a_file_name_are_files(server: Service, said: str, kind: str) -> None:
    found = server.post("/predict/series", **form(STUDY, said, kind=kind), params=QUIET).json()
    assert places(found) == {"L": [[3], [0, 1]], "R": [[2]]}


def test_form_part_that_is_not_text_is_never_lost(server: Service) -> None:
    refused(server.post("/predict/series", **form(STUDY, "")), "invalid_multipart", 400)


@pytest.mark.parametrize("cut", [4, 8, 1000])
def test_form_that_is_cut_short_is_refused(server: Service, cut: int) -> None:
    """What is missing may be the newest exam."""
    sent = form(STUDY, '; filename="x"')
    sent["content"] = sent["content"][:-cut]
    refused(server.post("/predict/series", **sent), "invalid_multipart", 400)


# what the caller may add


def test_query_supplies_what_files_lack_and_only_that(server: Service) -> None:
    files = [view(0, "20240301", "R"), view(1, "", ImageLaterality=None, ViewPosition=None)]
    found = answered(server, files, laterality="L", view="MLO", exam_date="2020-02-02")
    assert places(found) == {"L": [[1]], "R": [[0]]}
    (image,) = found["breasts"][0]["exams"][0]["images"]
    assert (image["image"]["view"], image["image"]["exam_date"]) == ("MLO", "2020-02-02")
    assert "view_unknown" not in [w["code"] for w in found["breasts"][0]["warnings"]]


def test_query_supplies_the_facts_of_a_single_picture(server: Service) -> None:
    query = {**QUIET, "laterality": "R", "view": "CC", "exam_date": "2023-05-06"}
    found = server.post("/predict", content=png(breast()), params=query).json()["image"]
    assert (found["laterality"], found["view"], found["exam_date"]) == ("R", "CC", "2023-05-06")


@pytest.mark.parametrize(
    "query", [{"laterality": "B"}, {"view": "SMITH^J"}, {"exam_date": "31.12.2020"}]
)
def test_query_that_is_no_fact_is_refused(server: Service, query: dict[str, str]) -> None:
    detail = refused(
        server.post("/predict/series", **as_multipart(STUDY), params=query), "invalid_request"
    )
    assert next(iter(query)) in detail
    assert "SMITH" not in detail


# refusals


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([STUDY[0], view(1, "20230301", PatientID="patient-2")], "mixed_patients"),
        ([STUDY[0], view(1, "")], "no_exam_date"),
        ([STUDY[0], png(breast())], "no_exam_date"),
    ],
)
def test_files_that_make_no_study_are_refused(
    server: Service, files: list[bytes], code: str
) -> None:
    refused(server.post("/predict/series", **as_multipart(files)), code)


def flipped_bit(data: bytes) -> bytes:
    return data[:400] + bytes([data[400] ^ 255]) + data[401:]


@pytest.mark.parametrize(
    ("content", "content_type", "code", "status"),
    [
        (archive(STUDY)[:-200], "application/zip", "broken_archive", 400),
        (flipped_bit(archive(STUDY)), "application/zip", "broken_archive", 400),
        (archive([]), "application/zip", "no_file", 400),
        (b"", "application/dicom", "no_file", 400),
        (related(STUDY)[:-200], RELATED, "invalid_multipart", 400),
        (related(STUDY), "multipart/related", "invalid_multipart", 400),
        (related([]), RELATED, "no_file", 400),
        (b"", RELATED, "invalid_multipart", 400),
        (b"{", "application/json", "invalid_json", 422),
        (b'{"files": []}', "application/json", "invalid_json", 422),
        (b'{"files": [{"data": "no base64!"}]}', "application/json", "invalid_json", 422),
        (b'{"files": [{"data": ""}]}', "application/json", "empty_file", 422),
    ],
)
def test_wrapping_that_is_broken_is_refused(
    server: Service, content: bytes, content_type: str, code: str, status: int
) -> None:
    response = server.post(
        "/predict/series", content=content, headers={"Content-Type": content_type}
    )
    refused(response, code, status)


def test_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(
    server: Service,
) -> None:
    """300 MiB of zeros; the limit is 256 MiB, packed and unpacked."""
    bomb = archive([], **{"zeros.dcm": bytes(300 * 2**20)})
    assert len(bomb) < 2**20
    refused(server.post("/predict/series", content=bomb), "body_too_large", 413)


def test_archive_that_claims_less_than_it_unpacks_to_is_unpacked_no_further() -> None:
    """64 MiB of zeros, of which the archive says that they are 1000 bytes."""
    bomb = bytearray(archive([], **{"zeros.dcm": bytes(64 * 2**20)}))
    for header, size in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", bomb, bomb.rfind(header) + size, 1000)
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="damaged"):
            unpacked([Upload("", bytes(bomb))], Limits(body_bytes=2**20, files=64))
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_archive_that_cannot_be_unpacked_within_limits_is_refused(
    server: Service, method: int
) -> None:
    """Some 300 bytes of bzip2 are 400 MB, whatever size the archive claims; broken LZMA raises
    what nothing else raises."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", method) as packed:
        packed.writestr("0.dcm", STUDY[0])
    data = bytearray(target.getvalue())
    data[60] ^= 255
    refused(server.post("/predict/series", content=bytes(data)), "broken_archive", 400)
    refused(server.post("/predict/series", content=target.getvalue()), "broken_archive", 400)


def test_too_many_files_in_an_archive_are_refused(server: Service) -> None:
    data = archive([b"x"] * 65)
    refused(server.post("/predict/series", content=data), "too_many_images", 413)


def test_archive_whose_directory_is_endless_is_refused_before_that_is_read() -> None:
    """14 MB of entries without a file; a body can hold twenty times as many."""
    name = b"x"
    entry = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", *[0] * 9, len(name), *[0] * 6) + name
    directory = entry * 300_000
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 0, 0, len(directory), 4, 0)
    started = time.process_time()
    with pytest.raises(Refusal, match="At most 64"):
        unpacked([Upload("", b"PK\x03\x04" + directory + end)], Limits(2**28, files=64))
    assert time.process_time() - started < 0.5


def test_real_series_of_a_patched_date(server: Service) -> None:
    prior = patched(real_dicom("rle"), StudyDate="20141004", SOPInstanceUID="1.2.3.4")
    (only,) = answered(server, [real_dicom("explicit"), prior])["breasts"]
    assert [exam["exam_date"] for exam in only["exams"]] == ["2014-10-04", "2016-10-04"]


def test_boxes_and_peaks_are_in_mm_where_the_spacing_is_known(server: Service) -> None:
    picture = breast(spots=[(200, 120)])
    plain = server.post("/predict", content=dicom(picture), params=QUIET).json()["heatmap"]
    assert plain["peak"]["row_mm"] is None
    assert plain["box"]["width_mm"] is None
    spaced = dicom(picture, ImagerPixelSpacing=["0.1", "0.11"])
    found = server.post("/predict", content=spaced, params=QUIET).json()
    assert found["image"]["spacing_mm"] == [0.1, 0.11]
    assert found["heatmap"]["peak"]["row_mm"] == pytest.approx(
        0.1 * found["heatmap"]["peak"]["row"]
    )
    assert found["heatmap"]["box"]["width_mm"] == pytest.approx(
        0.11 * found["heatmap"]["box"]["width"]
    )


@pytest.mark.parametrize("right", [False, True])
def test_box_holds_the_peak(server: Service, right: bool) -> None:
    picture = breast(spots=[(200, 120)], right=right)
    found = server.post("/predict", content=png(picture), params=QUIET).json()["heatmap"]
    box, peak = found["box"], found["peak"]
    assert box["top"] <= peak["row"] + 0.5 <= box["top"] + box["height"]
    assert box["left"] <= peak["column"] + 0.5 <= box["left"] + box["width"]
    assert np.all(np.array([box["height"], box["width"]]) > 0)
