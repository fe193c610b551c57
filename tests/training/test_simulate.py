"""Simulated series: the truth they claim is the truth in the pixels, and only change tells."""

import csv
import gzip
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.simulate import (
    FINAL_DIAMETER_MM,
    VISIBLE_DIAMETER_MM,
    SimulatedSeries,
    acquire,
    draw_lesion,
    insert_lesion,
    read_intervals,
    simulate_series,
)

INTERVALS = np.array([343, 372, 769], dtype=np.int64)
SEEDS = range(12)
HEIGHT, WIDTH = 512, 320


@pytest.fixture(scope="module")
def breast() -> NDArray[np.uint8]:
    """Half an ellipse with a brighter glandular disc, chest wall at the left edge."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    inside = ((rows - 256) / 250) ** 2 + (columns / 310) ** 2 < 1
    gland = (rows - 256) ** 2 + (columns - 150) ** 2 < 90**2
    texture = np.random.default_rng(0).normal(0, 4, inside.shape)
    return np.where(inside, np.clip(60 + 50 * gland + texture, 20, 255), 0).astype(np.uint8)


def series(
    breast: NDArray[np.uint8], seed: int, *, growing: bool, exams: int = 4
) -> SimulatedSeries:
    rng = np.random.default_rng(seed)
    return simulate_series(breast, growing=growing, exams=exams, intervals=INTERVALS, rng=rng)


def brightness(image: NDArray[np.uint8], row: float, column: float) -> float:
    """Mean of the 7 x 7 pixels around a place."""
    top, left = round(row) - 3, round(column) - 3
    return float(image[top : top + 7, left : left + 7].mean())


def test_same_seed_gives_the_same_series(breast: NDArray[np.uint8]) -> None:
    one, two = (series(breast, 3, growing=True) for _ in range(2))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.lesion_px, two.lesion_px)
    assert (one.days, one.diameters_mm) == (two.days, two.diameters_mm)
    assert not np.array_equal(one.images, series(breast, 4, growing=True).images)


@pytest.mark.parametrize("exams", [1, 2, 5])
def test_series_has_the_exams_asked_for(breast: NDArray[np.uint8], exams: int) -> None:
    made = series(breast, 0, growing=True, exams=exams)
    assert made.images.shape == (exams, HEIGHT, WIDTH)
    assert made.images.dtype == np.uint8
    assert made.lesion_px.shape == (exams, 2)
    assert len(made.days) == len(made.diameters_mm) == exams


def test_series_without_exams_is_refused(breast: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="at least one exam"):
        series(breast, 0, growing=True, exams=0)


def test_input_image_is_left_as_it_was(breast: NDArray[np.uint8]) -> None:
    before = breast.copy()
    series(breast, 0, growing=True)
    np.testing.assert_array_equal(breast, before)


@pytest.mark.parametrize("seed", SEEDS)
def test_growing_and_stable_differ_before_the_last_exam_only(
    breast: NDArray[np.uint8], seed: int
) -> None:
    growing, stable = (series(breast, seed, growing=kind) for kind in (True, False))
    np.testing.assert_array_equal(growing.images[-1], stable.images[-1])
    assert not np.array_equal(growing.images[0], stable.images[0])
    assert growing.diameters_mm[-1] == stable.diameters_mm[-1]
    assert growing.days == stable.days
    np.testing.assert_array_equal(growing.lesion_px, stable.lesion_px)


def test_generator_ends_in_the_same_state_for_growing_and_stable(
    breast: NDArray[np.uint8],
) -> None:
    """Otherwise series drawn one after the other from one generator would drift apart."""
    following = []
    for growing in (True, False):
        rng = np.random.default_rng(8)
        simulate_series(breast, growing=growing, exams=3, intervals=INTERVALS, rng=rng)
        following.append(rng.random())
    assert following[0] == following[1]


def test_growing_and_stable_priors_differ_around_the_lesion_only(
    breast: NDArray[np.uint8],
) -> None:
    growing, stable = (series(breast, 5, growing=kind) for kind in (True, False))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    row, column = stable.lesion_px[0]
    far = np.hypot(rows - row, columns - column) > 100
    np.testing.assert_array_equal(growing.images[0][far], stable.images[0][far])


@pytest.mark.parametrize("seed", SEEDS)
def test_growing_lesion_grows_exponentially_in_diameter(
    breast: NDArray[np.uint8], seed: int
) -> None:
    made = series(breast, seed, growing=True)
    rates = np.diff(np.log2(made.diameters_mm)) / np.diff(made.days)
    assert (rates > 0).all()
    np.testing.assert_allclose(rates, rates[0])
    assert 46 <= 1 / (3 * rates[0]) <= 749 or 1 / (3 * rates[0]) == pytest.approx(749)


@pytest.mark.parametrize("seed", SEEDS)
def test_stable_lesion_keeps_its_diameter(breast: NDArray[np.uint8], seed: int) -> None:
    made = series(breast, seed, growing=False)
    assert len(set(made.diameters_mm)) == 1
    assert FINAL_DIAMETER_MM[0] <= made.diameters_mm[0] <= FINAL_DIAMETER_MM[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_lesion_centre_lies_inside_the_breast_of_every_exam(
    breast: NDArray[np.uint8], seed: int
) -> None:
    made = series(breast, seed, growing=True)
    for image, (row, column) in zip(made.images, made.lesion_px, strict=True):
        assert 0 <= row < HEIGHT
        assert 0 <= column < WIDTH
        assert image[round(row), round(column)] > 20


def test_lesion_is_placed_in_glandular_tissue(breast: NDArray[np.uint8]) -> None:
    for seed in SEEDS:
        lesion = draw_lesion(breast, 10.0, np.random.default_rng(seed))
        assert np.hypot(lesion.row - 256, lesion.column - 150) < 95


@pytest.mark.parametrize(
    "empty", [np.zeros((HEIGHT, WIDTH), np.uint8), np.full((64, 40), 90, np.uint8)]
)
def test_image_without_room_still_gives_a_series(empty: NDArray[np.uint8]) -> None:
    assert series(empty, 0, growing=True).images.shape == (4, *empty.shape)


def test_days_increase_by_intervals_or_sums_of_two(breast: NDArray[np.uint8]) -> None:
    single = {int(a) for a in INTERVALS}
    double = {int(a + b) for a in INTERVALS for b in INTERVALS}
    steps = []
    for seed in range(10):
        days = series(breast, seed, growing=False, exams=6).days
        assert days[0] == 0
        steps += [later - earlier for earlier, later in pairwise(days)]
    assert set(steps) <= single | double
    assert set(steps) & single
    assert set(steps) & (double - single), "no exam was ever missing"


@pytest.mark.parametrize("seed", SEEDS)
def test_lesion_is_brighter_than_the_same_place_without_it(
    breast: NDArray[np.uint8], seed: int
) -> None:
    lesion = draw_lesion(breast, 10.0, np.random.default_rng(seed))
    with_lesion = insert_lesion(breast, lesion, 10.0)
    gain = brightness(with_lesion, lesion.row, lesion.column) - brightness(
        breast, lesion.row, lesion.column
    )
    assert 5 < gain < 100


def test_lesion_stays_in_place_through_the_acquisition_change(
    breast: NDArray[np.uint8],
) -> None:
    """Twins that differ in the mass alone differ around the reported place alone."""
    gains = []
    for seed in SEEDS:
        growing, stable = (series(breast, seed, growing=kind, exams=5) for kind in (True, False))
        difference = stable.images[0].astype(float) - growing.images[0]
        row, column = stable.lesion_px[0]
        rows, columns = np.mgrid[:HEIGHT, :WIDTH]
        weight = np.clip(difference - 3, 0, None)
        off_row = (rows * weight).sum() / weight.sum() - row
        off_column = (columns * weight).sum() / weight.sum() - column
        assert np.hypot(off_row, off_column) < 8
        stable_grey = brightness(stable.images[0], row, column)
        gains.append(stable_grey - brightness(growing.images[0], row, column))
    assert np.mean(gains) > 5


def test_lesion_too_small_to_be_seen_is_not_drawn(breast: NDArray[np.uint8]) -> None:
    lesion = draw_lesion(breast, 10.0, np.random.default_rng(0))
    unseen = insert_lesion(breast, lesion, VISIBLE_DIAMETER_MM - 0.01)
    np.testing.assert_array_equal(unseen, breast)
    assert not np.array_equal(insert_lesion(breast, lesion, VISIBLE_DIAMETER_MM + 0.01), breast)


def test_lesion_keeps_its_shape_while_it_grows(breast: NDArray[np.uint8]) -> None:
    """Twice the diameter seen at half the resolution is the same mass, only denser."""
    flat = np.where(breast > 0, 80, 0).astype(np.uint8)
    lesion = draw_lesion(flat, 16.0, np.random.default_rng(1))
    small, large = (insert_lesion(flat, lesion, d).astype(float) - flat for d in (8.0, 16.0))
    r, c = lesion.row, lesion.column
    small = small[r - 24 : r + 25, c - 24 : c + 25]
    large = large[r - 48 : r + 49 : 2, c - 48 : c + 49 : 2]
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.97
    assert large.max() > 1.5 * small.max()


def test_lesion_adds_nothing_to_the_background(breast: NDArray[np.uint8]) -> None:
    lesion = draw_lesion(breast, 18.0, np.random.default_rng(0))
    at_skin = insert_lesion(breast, replace(lesion, row=256, column=305), 18.0)
    assert (at_skin > breast).any()
    assert (at_skin[breast == 0] == 0).all()


def test_acquisition_returns_the_matrix_it_applied() -> None:
    for seed in SEEDS:
        image = np.zeros((HEIGHT, WIDTH), np.uint8)
        image[198:203, 118:123] = 250
        exam, matrix = acquire(image, np.random.default_rng(seed))
        column, row = matrix @ np.array([120.0, 200.0, 1.0])
        rows, columns = np.nonzero(exam > 60)
        assert np.hypot(rows.mean() - row, columns.mean() - column) < 1.0


def test_acquisition_changes_exposure_both_ways_and_keeps_background_black(
    breast: NDArray[np.uint8],
) -> None:
    means = []
    for seed in SEEDS:
        exam, _ = acquire(breast, np.random.default_rng(seed))
        assert exam[:20, -20:].max() == 0
        means.append(float(exam[246:266, 140:160].mean()))
    centre = float(breast[246:266, 140:160].mean())
    assert min(means) < centre - 3
    assert max(means) > centre + 3


def test_intervals_are_read_per_patient_and_outliers_left_out(tmp_path: Path) -> None:
    rows = [
        ("A", "1940-01-01"), ("A", "1940-01-01"), ("A", "1941-01-01"), ("A", "1941-01-20"),
        ("B", "1947-03-01"), ("B", "1940-03-01"), ("C", "1940-06-01"), ("C", "1940-12-01"),
    ]  # fmt: skip
    path = tmp_path / "series.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([("PatientID", "StudyDate"), *rows])
    np.testing.assert_array_equal(read_intervals(path), [183, 366])
