"""Breasts -> exam series: packed without loss, with labels that tell the truth."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast
from tests.pictures import breast
from training.breasts import Breasts
from training.manifest import LabelledImage
from training.series import Series, pack, simulated, unchanged

INTERVALS = np.array([200, 365, 730])
POSITIVE = 1


@pytest.fixture(scope="module")
def breasts() -> Breasts:
    """Ten breasts of ten patients, two views each; three of them malignant."""
    pixels, rows, labels = [], [], []
    for patient in range(10):
        for view in ("CC", "MLO"):
            seed = 2 * patient + (view == "MLO")
            pixels.append(crop_breast(breast(seed=seed), InputGeometry(96, 64))[0])
            label = "malignant" if patient < 3 else "no_cancer"
            rows.append(LabelledImage(Path(f"{seed}.png"), f"p{patient}", None, "L", view, label))
            labels.append(int(patient < 3))
    return Breasts(np.stack(pixels), tuple(rows), np.array(labels, np.int32))


def picture(value: int) -> NDArray[np.uint8]:
    return np.full((4, 3), value, np.uint8)


def test_pack_places_every_image_and_pads_on_the_right() -> None:
    inputs, labels = pack(
        [
            Series(((picture(0),),), (0,), 1),
            Series(((picture(51), picture(102)), (picture(153),)), (0, 300), 0),
            Series(((picture(204),), (picture(255),), (picture(0),)), (0, 10, 20), 2),
        ]
    )
    np.testing.assert_array_equal(
        inputs["slots"],
        [
            [[0, -1], [-1, -1], [-1, -1]],
            [[1, 2], [3, -1], [-1, -1]],
            [[4, -1], [5, -1], [6, -1]],
        ],
    )
    np.testing.assert_array_equal(inputs["days"], [[0, 0, 0], [0, 300, 0], [0, 10, 20]])
    np.testing.assert_array_equal(labels, [1, 0, 2])
    assert inputs["images"].shape == (7, 4, 3, 1)
    np.testing.assert_allclose(
        inputs["images"][:, 0, 0, 0], [-1, -0.6, -0.2, 0.2, 0.6, 1, -1], atol=1e-6
    )


def test_simulated_series_are_positive_in_half_of_the_cases(breasts: Breasts) -> None:
    rng = np.random.default_rng(0)
    made = [simulated(breasts, 10, 3, POSITIVE, INTERVALS, rng) for _ in range(60)]
    share = np.mean([item.label == POSITIVE for item in made])
    assert 0.3 < share < 0.7
    for item in made:
        assert (item.label == POSITIVE) == (item.course == "growing")
        assert len(item.exams) == len(item.days) == 3
        assert item.days[0] == 0
        assert min(item.days[1:]) >= 0.5 * INTERVALS.min()


def test_unchanged_series_keeps_the_label_of_its_image(breasts: Breasts) -> None:
    rng = np.random.default_rng(0)
    for index in (0, 10):
        item = unchanged(breasts, index, 4, INTERVALS, rng)
        assert item.label == breasts.labels[index]
        assert item.days[0] == 0
        assert min(item.days[1:]) > 0
        pictures = (item.exams[-1][0], breasts.pixels[index])
        one, other = (cv2.GaussianBlur(picture, (0, 0), 5).ravel() for picture in pictures)
        assert np.corrcoef(one.astype(float), other.astype(float))[0, 1] > 0.8
