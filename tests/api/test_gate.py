"""What does not look like a mammogram, at a real server: refused, warned of, or left out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from app.bundle import GATE, Bundle, seal
from tests.pictures import breast, dicom, encoded, png, real_dicom
from tests.serving import Service, refused_to_start, serving

QUIET = {"overlay": "none", "map": "false"}
NOISE = np.random.default_rng(0).integers(0, 255, (600, 400), dtype=np.uint8)
WHOLE = breast()
# By what an image is, its bytes and the code that it is refused with
STRANGE: dict[str, tuple[bytes, str]] = {
    "colour": (encoded(".jpg", cv2.applyColorMap(WHOLE, cv2.COLORMAP_JET)), "colour_image"),
    "tiny": (png(cv2.resize(WHOLE, (60, 90))), "image_too_small"),
    "nipple cut off": (png(WHOLE[:, :150]), "breast_cut_off"),
    "two grey levels": (png(np.where(WHOLE > 20, 200, 0).astype(np.uint8)), "not_a_mammogram"),
    "noise": (png(NOISE), "not_a_mammogram"),
}


@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_mammogram_is_refused_and_the_detail_says_why(
    server: Service, kind: str
) -> None:
    data, code = STRANGE[kind]
    response = server.post("/predict", content=data)
    assert (response.status_code, response.json()["code"]) == (422, code)
    assert response.json()["detail"]


@pytest.mark.parametrize("kind", STRANGE)
def test_for_research_the_refusal_becomes_a_warning(server: Service, kind: str) -> None:
    data, code = STRANGE[kind]
    response = server.post("/predict", content=data, params={**QUIET, "gate": "warn"})
    assert response.status_code == 200, response.text
    assert code in [warning["code"] for warning in response.json()["warnings"]]


def test_features_unlike_those_of_mammograms_are_warned_of(server: Service) -> None:
    answer = server.post("/predict", content=png(NOISE), params={**QUIET, "gate": "warn"}).json()
    assert "unfamiliar_image" in [warning["code"] for warning in answer["warnings"]]


def test_real_film_passes_without_a_warning(server: Service) -> None:
    answer = server.post("/predict", content=real_dicom("rle"), params=QUIET).json()
    assert answer["warnings"] == []


def strange_study() -> dict[str, Any]:
    blur = cv2.GaussianBlur(NOISE, (0, 0), 9)
    images = [WHOLE, cv2.normalize(blur, None, 0, 255, cv2.NORM_MINMAX)]  # type: ignore[call-overload]
    return {
        "files": [
            ("files", (str(i), dicom(image, ViewPosition=view)))
            for i, (image, view) in enumerate(zip(images, ("CC", "MLO"), strict=True))
        ]
    }


def test_in_a_study_it_is_left_out_and_each_breast_says_so(server: Service) -> None:
    answer = server.post("/predict/series", **strange_study(), params=QUIET).json()
    assert [note["index"] for note in answer["ignored"]] == [1]
    (left,) = answer["breasts"]
    assert [image["index"] for image in left["exams"][0]["images"]] == [0]
    (warning,) = [w for w in left["warnings"] if w["code"] == "files_left_out"]
    assert answer["ignored"][0]["code"] in warning["detail"]


@pytest.fixture(scope="module")
def lenient(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("lenient")
    with serving(bundle_folder, folder, gate="warn") as service:
        yield service


def test_operator_may_let_the_gate_only_warn_and_a_request_be_strict(lenient: Service) -> None:
    data, code = STRANGE["noise"]
    assert lenient.post("/predict", content=data, params=QUIET).status_code == 200
    response = lenient.post("/predict", content=data, params={"gate": "refuse"})
    assert response.json()["code"] == code


def test_setting_that_is_none_is_refused_at_the_start(bundle_folder: Path) -> None:
    status, printed = refused_to_start(bundle_folder, gate="off")
    assert (status, "MAMMOSEQ_GATE" in printed) == (1, True)


@pytest.fixture(scope="module")
def ungated(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped bundle without its gate, sealed anew."""
    folder = tmp_path_factory.mktemp("store") / bundle.manifest.name / bundle.manifest.version
    shutil.copytree(bundle.folder, folder)
    (folder / GATE).unlink()
    seal(folder, bundle.manifest.model_dump(exclude={"files", "gate"}))
    return folder


def test_bundle_without_a_gate_is_not_served(ungated: Path) -> None:
    status, printed = refused_to_start(ungated)
    assert (status, "MAMMOSEQ_GATE=warn" in printed) == (1, True)


def test_bundle_without_a_gate_is_served_where_the_gate_only_warns(
    ungated: Path, tmp_path: Path
) -> None:
    with serving(ungated, tmp_path, gate="warn") as service:
        assert service.post("/predict", content=png(WHOLE), params=QUIET).status_code == 200
