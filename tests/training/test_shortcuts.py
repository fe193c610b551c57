"""Shortcuts: what gives the class away is found, by patient, and what does not is not."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import pytest

from tests.pictures import breast, sixteen_bit
from training.manifest import LabelledImage
from training.shortcuts import (
    borders_and_histogram,
    columns_of,
    measure,
    oriented,
    small_thumbnail,
)

RNG = np.random.default_rng(0)
PATIENTS = [str(i // 2) for i in range(240)]
TRUTH = np.repeat(RNG.integers(0, 2, 120), 2).astype(np.int32)


def test_feature_that_tells_the_class_warns_and_noise_does_not() -> None:
    noise = RNG.normal(size=(240, 3))
    telling = noise + np.outer(TRUTH, (1, 0, 0))
    assert measure("telling", telling, TRUTH, PATIENTS).warns
    assert not measure("noise", noise, TRUTH, PATIENTS).warns


def test_what_tells_the_patient_only_does_not_warn() -> None:
    """The other image of a patient must not be trained on: a number of the patient would tell."""
    number = RNG.permutation(120)[np.arange(240) // 2].astype(float)
    found = measure("number", number, TRUTH, PATIENTS)
    assert found.auc is not None
    assert found.auc.value < 0.6
    assert not found.warns


def test_names_and_gaps_tell_as_numbers_do() -> None:
    """Which of nine machines, in no order, and unknown more often in one class."""
    of_class = np.where(TRUTH == 1, RNG.choice([1, 4, 7], 240), RNG.choice([2, 5, 8], 240))
    assert measure("machine", of_class.astype(float), TRUTH, PATIENTS).warns
    gaps = np.where((TRUTH == 1) & (RNG.random(240) < 0.7), np.nan, 5.0)
    assert measure("age", gaps, TRUTH, PATIENTS).warns


def test_too_few_patients_tell_nothing() -> None:
    few = np.array([1] * 8 + [0] * 232, np.int32)  # four patients
    found = measure("any", RNG.normal(size=240), few, PATIENTS)
    assert found.auc is None
    assert not found.warns


def row(**changes: object) -> LabelledImage:
    facts = {
        "path": Path("a.png"), "patient_id": "1", "exam_date": None, "laterality": "L",
        "view": "CC", "label": "x",
    }  # fmt: skip
    return LabelledImage(**{**facts, **changes})  # type: ignore[arg-type]


def test_columns_are_numbers_or_numbered_names_and_constant_ones_are_left_out() -> None:
    found = columns_of(
        [
            row(view="MLO", attributes={"age": "61.5", "site": "west", "implant": "0"}),
            row(
                exam_date=date(2024, 1, 31), attributes={"age": "", "site": "east", "implant": "0"}
            ),
            row(attributes={"age": "40", "site": "", "implant": "0"}),
        ]
    )
    assert list(found) == ["view", "exam_date", "age", "site"]
    np.testing.assert_array_equal(found["age"], [61.5, np.nan, 40])
    np.testing.assert_array_equal(found["site"], [1, 0, np.nan])
    np.testing.assert_array_equal(np.isnan(found["exam_date"]), [True, False, True])
    assert found["view"][0] != found["view"][1] == found["view"][2]


def test_which_side_and_which_grey_scale_are_evened_out() -> None:
    left = breast(300, 200)
    right = breast(300, 200, right=True)
    for pixels, inverted in ((right, False), (left.max() - left, True), (255 - right, True)):
        found = small_thumbnail(oriented(pixels, inverted))
        np.testing.assert_allclose(found, small_thumbnail(oriented(left, False)), atol=0.02)


def test_pixel_features_are_the_same_for_8_and_16_bit() -> None:
    pixels = breast(300, 200)
    for feature in (borders_and_histogram, small_thumbnail):
        first, second = feature(pixels), feature(sixteen_bit(pixels))
        assert np.isfinite(first).all()
        np.testing.assert_allclose(first, second, atol=5e-3)
    edges = borders_and_histogram(pixels)
    assert len(edges) == 40
    assert edges[4] > 0.2 > edges[6], "the chest wall is at the left border"
    assert edges[8:].sum() == pytest.approx(1)
