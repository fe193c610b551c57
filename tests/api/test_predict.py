"""``POST /predict`` at a real server: every field of the answer, and its options."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.bundle import Bundle
from tests.pictures import (
    DECODABLE,
    breast,
    dicom,
    encoded,
    pixels_of,
    png,
    real_dicom,
    sixteen_bit,
)
from tests.serving import Service

LARGE = breast(1400, 900)


def predicted(server: Service, data: bytes, **query: Any) -> dict[str, Any]:
    response = server.post("/predict", content=data, params=query)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def picture(body: dict[str, Any]) -> NDArray[Any]:
    """Decode a picture of the answer, and check what is said of it."""
    data = base64.b64decode(body["data"], validate=True)
    signature = {"image/png": b"\x89PNG", "image/jpeg": b"\xff\xd8\xff"}[body["media_type"]]
    assert data.startswith(signature)
    pixels = pixels_of(data)
    assert pixels.shape[:2] == (body["height"], body["width"])
    return pixels


@pytest.fixture(scope="module")
def answer(server: Service) -> dict[str, Any]:
    """Of a real mammogram."""
    return predicted(server, real_dicom("explicit"))


def test_answer_has_every_promised_field(answer: dict[str, Any]) -> None:
    assert set(answer) == {
        "request_id", "disclaimer", "model", "probabilities", "calibrated_probability",
        "positive_class", "prediction", "warnings", "dicom", "fhir", "timings_ms", "image",
        "heatmap",
    }  # fmt: skip
    assert set(answer["heatmap"]) == {
        "target_class", "peak", "box", "maximum", "scale", "map", "map_to_original", "overlay",
    }  # fmt: skip
    assert "not a medical device" in answer["disclaimer"]


def test_probabilities_are_of_the_models_classes_and_sum_to_one(
    answer: dict[str, Any], bundle: Bundle
) -> None:
    probabilities = answer["probabilities"]
    assert tuple(probabilities) == bundle.manifest.classes
    assert sum(probabilities.values()) == pytest.approx(1)
    assert all(0 <= value <= 1 for value in probabilities.values())


def test_calibrated_probability_is_the_positive_class_after_temperature(
    answer: dict[str, Any], bundle: Bundle
) -> None:
    logs = np.log(list(answer["probabilities"].values())) / bundle.manifest.temperature
    expected = np.exp(logs)[bundle.manifest.positive_index] / np.exp(logs).sum()
    assert answer["calibrated_probability"] == pytest.approx(expected, abs=1e-5)
    assert answer["positive_class"] == bundle.manifest.positive_class


def test_model_is_identified_by_name_version_and_hash(
    answer: dict[str, Any], bundle: Bundle
) -> None:
    assert answer["model"] == {
        "name": bundle.manifest.name,
        "version": bundle.manifest.version,
        "sha256": bundle.sha256,
        "preprocessing_version": bundle.manifest.preprocessing.version,
    }


def test_image_facts_are_those_of_the_file(answer: dict[str, Any]) -> None:
    image = answer["image"]
    crop = image.pop("crop")
    assert image == {
        "format": "dicom", "rows": 592, "columns": 328, "bits": 16,
        "laterality": "L", "view": "CC", "view_modifiers": [], "exam_date": "2016-10-04",
        "vendor": None, "presentation": None, "implant": None, "spacing_mm": None,
        "inverted": False,
    }  # fmt: skip
    assert set(crop) == {"left", "top", "width", "height", "flipped"}
    assert 0 <= crop["left"] < crop["left"] + crop["width"] <= 328
    assert 0 <= crop["top"] < crop["top"] + crop["height"] <= 592


def test_timings_cover_every_stage(answer: dict[str, Any]) -> None:
    timings = answer["timings_ms"]
    assert set(timings) == {"decode", "preprocess", "encode", "read", "render", "total"}
    stages = sum(value for name, value in timings.items() if name != "total")
    assert 0 < stages <= timings["total"] + 1


@pytest.mark.parametrize("encoding", DECODABLE)
def test_every_dicom_encoding_gets_the_same_probability(
    server: Service, answer: dict[str, Any], encoding: str
) -> None:
    found = predicted(server, real_dicom(encoding))
    assert found["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)


@pytest.mark.parametrize(
    ("data", "kind", "bits"),
    [
        (png(breast()), "png", 8),
        (png(sixteen_bit(breast())), "png", 16),
        (encoded(".tiff", breast()), "tiff", 8),
        (encoded(".tiff", sixteen_bit(breast())), "tiff", 16),
        (encoded(".jpg", breast()), "jpeg", 8),
        (dicom(breast()), "dicom", 8),
        (dicom(sixteen_bit(breast())), "dicom", 16),
    ],
    ids=["png", "png 16", "tiff", "tiff 16", "jpeg", "dicom", "dicom 16"],
)
def test_every_format_is_read_and_scored_alike(
    server: Service, data: bytes, kind: str, bits: int
) -> None:
    expected = predicted(server, png(breast()))
    found = predicted(server, data)
    assert (found["image"]["format"], found["image"]["bits"]) == (kind, bits)
    # Eight bits for the same greys move the percentiles of the made picture a little
    tolerance = {"jpeg": 0.05}.get(kind, 0.02 if bits == 16 else 1e-3)
    assert found["calibrated_probability"] == pytest.approx(
        expected["calibrated_probability"], abs=tolerance
    )


@pytest.mark.parametrize("part", ["file", "files", "anything"])
@pytest.mark.parametrize("content_type", ["application/dicom", "image/png", None])
def test_multipart_gives_the_answer_of_the_raw_body(
    server: Service, answer: dict[str, Any], part: str, content_type: str | None
) -> None:
    upload = ("x.dcm", real_dicom("explicit"), content_type)
    response = server.post("/predict", files={part: upload})
    assert response.status_code == 200
    found = response.json()
    for body in (found, expected := dict(answer)):
        for own in ("request_id", "timings_ms"):
            body.pop(own)
    assert found["heatmap"] == expected["heatmap"]
    assert found["probabilities"] == expected["probabilities"]


@pytest.mark.parametrize("content_type", [None, "image/png", "text/html", "no/such; type"])
def test_format_is_told_from_the_content_whatever_the_content_type_says(
    server: Service, answer: dict[str, Any], content_type: str | None
) -> None:
    headers = {"Content-Type": content_type} if content_type else {}
    response = server.post("/predict", content=real_dicom("explicit"), headers=headers)
    assert response.json()["probabilities"] == answer["probabilities"]


# heatmap


def test_map_and_overlay_are_pictures_of_the_stated_size(
    answer: dict[str, Any], bundle: Bundle
) -> None:
    heatmap = answer["heatmap"]
    grid = (bundle.manifest.heatmap.rows, bundle.manifest.heatmap.columns)
    assert picture(heatmap["map"]).shape == grid
    assert picture(heatmap["map"]).dtype == np.uint8
    assert picture(heatmap["overlay"]).shape == (320, 177, 3)
    assert heatmap["target_class"] == bundle.manifest.positive_class


@pytest.mark.parametrize("target", [0, 1])
def test_peak_scale_and_map_say_the_same(server: Service, bundle: Bundle, target: int) -> None:
    answer = predicted(server, png(LARGE), target=bundle.manifest.classes[target])
    heatmap = answer["heatmap"]
    assert heatmap["target_class"] == bundle.manifest.classes[target]
    assert heatmap["scale"] == heatmap["maximum"]
    grey = picture(heatmap["map"])
    if heatmap["peak"] is None:
        assert heatmap["maximum"] == 0
        assert grey.max() == 0
        assert "no_evidence" in [warning["code"] for warning in answer["warnings"]]
        return
    assert heatmap["maximum"] > 0
    assert grey.max() == 255
    cells = np.argwhere(grey == 255)
    matrix = np.array(heatmap["map_to_original"])
    places = [matrix @ (column, row, 1) for row, column in cells]
    peak = (heatmap["peak"]["column"], heatmap["peak"]["row"])
    assert min(np.abs(place - peak).max() for place in places) < 1e-6
    assert 0 <= heatmap["peak"]["row"] <= 1399
    assert 0 <= heatmap["peak"]["column"] <= 899


@pytest.mark.parametrize(
    ("query", "media_type", "size"),
    [
        ({}, "image/jpeg", (320, 206)),
        ({"overlay": "png"}, "image/png", (320, 206)),
        ({"overlay": "jpeg", "overlay_long_side": 512}, "image/jpeg", (512, 329)),
        ({"overlay": "png", "overlay_long_side": 64}, "image/png", (64, 41)),
        ({"overlay_long_side": 8192}, "image/jpeg", (1400, 900)),
    ],
)
def test_overlay_is_of_the_type_and_size_asked_for(
    server: Service, query: dict[str, Any], media_type: str, size: tuple[int, int]
) -> None:
    overlay = predicted(server, png(LARGE), **query)["heatmap"]["overlay"]
    assert overlay["media_type"] == media_type
    assert picture(overlay).shape[:2] == size


def test_overlay_and_map_can_be_left_out(server: Service) -> None:
    heatmap = predicted(server, png(LARGE), overlay="none", map="false")["heatmap"]
    assert heatmap["overlay"] is None
    assert heatmap["map"] is None
    assert len(heatmap["map_to_original"]) == 2


def test_breast_on_the_other_side_gets_the_mirrored_answer(server: Service) -> None:
    left = predicted(server, png(LARGE))
    right = predicted(server, png(LARGE[:, ::-1].copy()))
    assert (left["image"]["crop"]["flipped"], right["image"]["crop"]["flipped"]) == (False, True)
    assert right["calibrated_probability"] == pytest.approx(
        left["calibrated_probability"], abs=0.02
    )


# operating points and warnings


def test_operating_points_are_listed_and_chosen_by_name(server: Service, bundle: Bundle) -> None:
    listed = server.get("/v1/models").json()["models"][0]["operating_points"]
    assert [point["name"] for point in listed] == [p.name for p in bundle.manifest.operating_points]
    for point in listed:
        answer = predicted(server, png(LARGE), operating_point=point["name"], overlay="none")
        assert answer["prediction"]["operating_point"] == point
        positive = answer["calibrated_probability"] >= point["threshold"]
        assert (answer["prediction"]["class"] == bundle.manifest.positive_class) == positive
        assert answer["prediction"]["class"] in bundle.manifest.classes


def test_default_operating_point_is_the_models(server: Service, bundle: Bundle) -> None:
    answer = predicted(server, png(LARGE), overlay="none")
    name = answer["prediction"]["operating_point"]["name"]
    assert name == bundle.manifest.default_operating_point


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (png(255 - breast()), "inverted"),
        (dicom(breast(), Modality="CR"), "modality_not_mg"),
        (dicom(breast(), ViewPosition=None), "view_unknown"),
    ],
    ids=["inverted", "modality", "view"],
)
def test_what_is_unusual_is_warned_of(server: Service, data: bytes, code: str) -> None:
    answer = predicted(server, data, overlay="none")
    assert code in [warning["code"] for warning in answer["warnings"]]
    assert all(warning["detail"] for warning in answer["warnings"])


def test_same_image_gets_the_same_answer_alone_and_among_others(server: Service) -> None:
    """Batching must not change a result."""
    data = [png(breast(seed=seed)) for seed in range(4)]
    alone = [predicted(server, one, overlay="none")["probabilities"] for one in data]
    with ThreadPoolExecutor(8) as pool:
        together = list(
            pool.map(
                lambda i: predicted(server, data[i % 4], overlay="none")["probabilities"], range(24)
            )
        )
    for i, found in enumerate(together):
        assert found == pytest.approx(alone[i % 4], abs=1e-5)
