"""``POST /predict/series`` at a real server: order, dates, changes, and what is refused."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import numpy as np
import pytest

from app.imaging.preprocess import InputGeometry, crop_breast
from tests.pictures import breast, dicom, pixels_of, png, real_dicom
from tests.serving import Service
from training.simulate import simulate_series

QUIET = {"overlay": "none", "map": "false"}


def growing_mass() -> list[bytes]:
    """Three exams of a simulated growing mass, as PNG."""
    rng = np.random.default_rng(3)
    image = crop_breast(breast(), InputGeometry(512, 320))[0]
    made = simulate_series(
        image, course="growing", exams=3, intervals=np.array([365, 400]), rng=rng
    )
    return [png(np.pad(exam, ((20, 20), (0, 60)))) for exam in made.images]


PNGS = growing_mass()
EXAM = breast()
DATES = ["2021-03-01", "2022-03-01", "2024-03-01"]


def described(*exams: tuple[str, list[str]], **more: Any) -> str:
    return json.dumps({"exams": [{"date": d, "files": files} for d, files in exams], **more})


def send(
    server: Service,
    files: list[tuple[str, bytes]],
    series: str | None = None,
    **query: Any,
) -> Any:
    return server.post(
        "/predict/series",
        files=[("files", part) for part in files],
        data={"series": series} if series else {},
        params=query,
    )


def answered(server: Service, *args: Any, **query: Any) -> dict[str, Any]:
    response = send(server, *args, **query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def refused(response: Any, code: str, status: int = 422) -> dict[str, Any]:
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    body: dict[str, Any] = response.json()
    return body


@pytest.fixture(scope="module")
def files() -> list[tuple[str, bytes]]:
    return [(f"exam{i}.png", data) for i, data in enumerate(PNGS)]


@pytest.fixture(scope="module")
def series() -> str:
    return described(*((day, [f"exam{i}.png"]) for i, day in enumerate(DATES)), laterality="L")


@pytest.fixture(scope="module")
def answer(server: Service, files: list[tuple[str, bytes]], series: str) -> dict[str, Any]:
    return answered(server, files, series)


def test_answer_has_every_promised_field(answer: dict[str, Any]) -> None:
    assert set(answer) == {
        "request_id", "disclaimer", "model", "probabilities", "calibrated_probability",
        "positive_class", "prediction", "warnings", "dicom", "fhir", "timings_ms",
        "calibrated_probability_before_any_exam", "exams",
    }  # fmt: skip
    for exam in answer["exams"]:
        assert set(exam) == {
            "exam_date", "days_since_previous", "calibrated_probability_after", "change", "images",
        }  # fmt: skip
        for image in exam["images"]:
            assert set(image) == {"index", "image", "heatmap"}
            assert image["heatmap"]["map"]["data"]
            assert image["heatmap"]["overlay"]["data"]


def test_exams_have_dates_gaps_and_stated_side(answer: dict[str, Any]) -> None:
    assert [exam["exam_date"] for exam in answer["exams"]] == DATES
    assert [exam["days_since_previous"] for exam in answer["exams"]] == [0, 365, 731]
    assert {exam["images"][0]["image"]["laterality"] for exam in answer["exams"]} == {"L"}
    assert answer["warnings"] == []


def test_changes_of_the_exams_add_up_to_the_result(answer: dict[str, Any]) -> None:
    reached = answer["calibrated_probability_before_any_exam"]
    for exam in answer["exams"]:
        reached += exam["change"]
        assert exam["calibrated_probability_after"] == pytest.approx(reached)
    assert reached == pytest.approx(answer["calibrated_probability"])


def test_all_maps_of_a_series_share_one_scale(answer: dict[str, Any]) -> None:
    heatmaps = [image["heatmap"] for exam in answer["exams"] for image in exam["images"]]
    assert {heatmap["scale"] for heatmap in heatmaps} == {max(h["maximum"] for h in heatmaps)}


def test_order_sent_does_not_matter(
    server: Service, files: list[tuple[str, bytes]], answer: dict[str, Any]
) -> None:
    for order in itertools.permutations(range(3)):
        found = answered(
            server,
            [files[i] for i in order],
            described(*((DATES[i], [f"exam{i}.png"]) for i in reversed(order)), laterality="L"),
            **QUIET,
        )
        assert [exam["exam_date"] for exam in found["exams"]] == DATES
        assert [order[exam["images"][0]["index"]] for exam in found["exams"]] == [0, 1, 2]
        assert found["calibrated_probability"] == pytest.approx(
            answer["calibrated_probability"], abs=1e-6
        )
        for one, other in zip(found["exams"], answer["exams"], strict=True):
            assert one["change"] == pytest.approx(other["change"], abs=1e-6)


def test_dates_matter_to_the_result(server: Service, files: list[tuple[str, bytes]]) -> None:
    def probability(*days: str) -> float:
        exams = ((day, [f"exam{i}.png"]) for i, day in enumerate(days))
        return float(answered(server, files, described(*exams), **QUIET)["calibrated_probability"])

    assert probability("2021-03-01", "2021-06-01", "2021-09-01") != probability(*DATES)
    assert probability("2024-03-01", "2022-03-01", "2021-03-01") != probability(*DATES)


@pytest.mark.parametrize("data", [PNGS[0], real_dicom("explicit")], ids=["png", "dicom"])
def test_series_of_one_equals_single_image(server: Service, data: bytes) -> None:
    alone = server.post("/predict", content=data, params={"overlay": "none"}).json()
    series = described(("2024-01-01", ["a"]))
    found = answered(server, [("a", data)], series, overlay="none")
    (exam,) = found["exams"]
    (image,) = exam["images"]
    assert found["probabilities"] == pytest.approx(alone["probabilities"], abs=1e-5)
    assert found["calibrated_probability"] == pytest.approx(
        alone["calibrated_probability"], abs=1e-5
    )
    assert image["heatmap"]["map"] == alone["heatmap"]["map"]
    assert image["heatmap"]["maximum"] == pytest.approx(alone["heatmap"]["maximum"], abs=1e-5)
    assert image["heatmap"]["peak"] == alone["heatmap"]["peak"]
    assert exam["days_since_previous"] == 0


def test_views_of_one_exam_are_read_together_in_any_order(server: Service) -> None:
    parts = [("cc", PNGS[0]), ("mlo", PNGS[1])]
    given = {"date": "2024-01-01", "files": ["cc", "mlo"], "views": ["CC", "MLO"]}
    found = answered(server, parts, json.dumps({"exams": [given]}), **QUIET)
    (exam,) = found["exams"]
    assert [image["image"]["view"] for image in exam["images"]] == ["CC", "MLO"]
    turned = answered(server, parts[::-1], json.dumps({"exams": [given]}), **QUIET)
    assert turned["calibrated_probability"] == pytest.approx(
        found["calibrated_probability"], abs=1e-6
    )


def test_series_description_may_be_sent_as_a_file_part(
    server: Service, files: list[tuple[str, bytes]], series: str, answer: dict[str, Any]
) -> None:
    """``curl -F series=@series.json`` gives the part a file name."""
    parts = [("files", part) for part in files]
    parts.append(("series", ("series.json", series.encode(), "application/json")))  # type: ignore[arg-type]
    response = server.post("/predict/series", files=parts, params=QUIET)
    assert response.status_code == 200, response.text
    assert response.json()["calibrated_probability"] == answer["calibrated_probability"]


def test_long_gap_and_unknown_side_are_warned_of(server: Service) -> None:
    parts = [("a", PNGS[0]), ("b", PNGS[1])]
    series = described(("2015-01-01", ["a"]), ("2024-01-01", ["b"]))
    codes = [w["code"] for w in answered(server, parts, series, **QUIET)["warnings"]]
    assert {"long_gap", "laterality_unknown"} <= set(codes)


# refusals


def two_exams(*names: str) -> str:
    return described(*((day, [name]) for day, name in zip(DATES, names, strict=False)))


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ([dicom(EXAM), dicom(EXAM, PatientID="patient-2")], "mixed_patients"),
        ([dicom(EXAM), dicom(EXAM, ImageLaterality="R")], "mixed_breasts"),
        ([real_dicom("explicit"), real_dicom("explicit")], "duplicate_image"),
        ([real_dicom("explicit"), real_dicom("rle")], "duplicate_image"),
        ([dicom(EXAM), real_dicom("truncated")], "broken_image"),
        ([dicom(EXAM), b""], "empty_file"),
        ([dicom(EXAM), png(np.zeros((99, 99), np.uint8))], "no_breast_found"),
    ],
    ids=[
        "patients", "breasts", "same file twice", "same image in two encodings", "broken", "empty",
        "blank",
    ],
)  # fmt: skip
def test_described_files_that_make_no_series_are_refused(
    server: Service, files: list[bytes], code: str
) -> None:
    named = [(f"f{i}", data) for i, data in enumerate(files)]
    body = refused(send(server, named, two_exams("f0", "f1")), code)
    assert "1" in body["detail"]


@pytest.mark.parametrize(
    ("series", "code"),
    [
        (described(("2024-01-01", ["a"]), ("2023-01-01", ["c"])), "unknown_file"),
        (described(("2024-01-01", ["a"])), "undescribed_file"),
        (described(("2024-01-01", ["a"]), ("2024-01-01", ["b"])), "duplicate_exam_date"),
        (described(("2024-01-01", ["a"]), ("2023-01-01", ["a", "b"])), "invalid_series"),
        (described(("2024-01-01", ["a", "b", "b"])), "invalid_series"),
        (described(("2024-13-01", ["a", "b"])), "invalid_series"),
        (described(("2024-01-01", [])), "invalid_series"),
        (described(("2024-01-01", ["a", "b"]), laterality="B"), "invalid_series"),
        (described(("2024-01-01", ["a", "b"]), surprise=1), "invalid_series"),
        (
            json.dumps({"exams": [{"date": "2024-01-01", "files": ["a", "b"], "views": ["CC"]}]}),
            "invalid_series",
        ),
        ('{"exams": []}', "invalid_series"),
        ("{", "invalid_series"),
        ("[]", "invalid_series"),
        ("null", "invalid_series"),
    ],
)
def test_description_that_does_not_fit_is_refused(server: Service, series: str, code: str) -> None:
    refused(send(server, [("a", PNGS[0]), ("b", PNGS[1])], series), code)


def test_two_files_of_one_name_are_refused(server: Service) -> None:
    parts = [("a", PNGS[0]), ("a", PNGS[1])]
    refused(send(server, parts, described(("2024-01-01", ["a"]))), "ambiguous_file_name")


def test_series_without_a_file_is_refused(server: Service) -> None:
    response = server.post("/predict/series", files={"series": (None, '{"exams": []}')})
    refused(response, "no_file", 400)


def test_series_answers_the_operating_point_and_target_asked_for(
    server: Service, files: list[tuple[str, bytes]], series: str
) -> None:
    point = server.get("/v1/models").json()["models"][0]["operating_points"][-1]
    other = next(
        name
        for name in server.get("/v1/models").json()["models"][0]["classes"]
        if name != server.get("/v1/models").json()["models"][0]["positive_class"]
    )
    found = answered(
        server, files, series, operating_point=point["name"], target=other, overlay="none"
    )
    assert found["prediction"]["operating_point"] == point
    assert {e["images"][0]["heatmap"]["target_class"] for e in found["exams"]} == {other}


def test_overlays_of_a_series_are_pictures_of_their_exams(
    answer: dict[str, Any],
) -> None:
    for exam in answer["exams"]:
        overlay = exam["images"][0]["heatmap"]["overlay"]
        assert pixels_of(base64.b64decode(overlay["data"])).shape == (320, 220, 3)


@pytest.mark.parametrize("view", ["word " * 150_000, "SMITH^J", "cc", ""])
def test_view_that_is_none_is_refused(server: Service, view: str) -> None:
    """It would be written below the picture, line by line."""
    exam = {"date": "2024-01-01", "files": ["a"], "views": [view]}
    response = server.post(
        "/predict/series",
        files=[("files", ("a", real_dicom("explicit")))],
        data={"series": json.dumps({"exams": [exam]})},
        params={"objects": "sc", "overlay": "none"},
    )
    assert (response.status_code, response.json()["code"]) == (422, "invalid_series")
    assert "views" in response.json()["detail"]
    assert "SMITH" not in response.text
