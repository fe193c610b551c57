"""Simulated series: the truth they claim is the truth in the pixels, and only change tells."""

import csv
import gzip
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.acquisition import acquire
from training.lesion import VISIBLE_DIAMETER_MM, draw_lesion, insert_lesion
from training.simulate import (
    COURSE_SHARES,
    COURSES,
    FINAL_DIAMETER_MM,
    LARGEST_DIAMETER_MM,
    LONGEST_GAP_DAYS,
    MASS_DIAMETER_MM,
    MASS_FREE_PROBABILITY,
    PROGRAMMES,
    RECURRING_SEEN_MM,
    Course,
    SimulatedSeries,
    Timeline,
    diameters,
    draw_course,
    draw_timeline,
    read_intervals,
    simulate_mass,
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
    breast: NDArray[np.uint8], seed: int, course: Course = "growing", exams: int = 4
) -> SimulatedSeries:
    rng = np.random.default_rng(seed)
    return simulate_series(breast, course=course, exams=exams, intervals=INTERVALS, rng=rng)


def timelines(exams: int = 4, count: int = 40) -> list[Timeline]:
    rng = np.random.default_rng(2)
    return [draw_timeline(exams, INTERVALS, rng) for _ in range(count)]


def brightness(image: NDArray[np.uint8], row: float, column: float) -> float:
    """Mean of the 7 x 7 pixels around a place."""
    top, left = round(row) - 3, round(column) - 3
    return float(image[top : top + 7, left : left + 7].mean())


def test_same_seed_gives_the_same_series(breast: NDArray[np.uint8]) -> None:
    one, two = (series(breast, 3) for _ in range(2))
    np.testing.assert_array_equal(one.images, two.images)
    np.testing.assert_array_equal(one.lesion_px, two.lesion_px)
    assert (one.days, one.diameters_mm) == (two.days, two.diameters_mm)
    assert not np.array_equal(one.images, series(breast, 4).images)


@pytest.mark.parametrize("exams", [1, 2, 5])
def test_series_has_the_exams_asked_for(breast: NDArray[np.uint8], exams: int) -> None:
    made = series(breast, 0, exams=exams)
    assert made.images.shape == (exams, HEIGHT, WIDTH)
    assert made.images.dtype == np.uint8
    assert made.lesion_px.shape == (exams, 2)
    assert len(made.days) == len(made.diameters_mm) == exams


def test_series_without_exams_is_refused(breast: NDArray[np.uint8]) -> None:
    with pytest.raises(ValueError, match="at least one exam"):
        series(breast, 0, exams=0)


def test_input_image_is_left_as_it_was(breast: NDArray[np.uint8]) -> None:
    before = breast.copy()
    series(breast, 0)
    np.testing.assert_array_equal(breast, before)


@pytest.mark.parametrize("course", COURSES[1:])
@pytest.mark.parametrize("seed", SEEDS)
def test_courses_differ_before_the_last_exam_only(
    breast: NDArray[np.uint8], seed: int, course: Course
) -> None:
    growing, other = series(breast, seed), series(breast, seed, course)
    np.testing.assert_array_equal(growing.images[-1], other.images[-1])
    assert not np.array_equal(growing.images, other.images)
    assert growing.diameters_mm[-1] == other.diameters_mm[-1]
    assert growing.days == other.days
    np.testing.assert_array_equal(growing.lesion_px, other.lesion_px)


@pytest.mark.parametrize("course", COURSES)
def test_generator_ends_in_the_same_state_whatever_the_course(
    breast: NDArray[np.uint8], course: Course
) -> None:
    """Otherwise series drawn one after the other from one generator would drift apart."""
    following = []
    for drawn in ("growing", course):
        rng = np.random.default_rng(8)
        simulate_series(breast, course=drawn, exams=3, intervals=INTERVALS, rng=rng)
        following.append(rng.random())
    assert following[0] == following[1]


def test_only_growing_is_positive(breast: NDArray[np.uint8]) -> None:
    assert [c for c in COURSES if series(breast, 0, c, exams=2).growing] == ["growing"]


def test_growing_and_stable_priors_differ_around_the_lesion_only(
    breast: NDArray[np.uint8],
) -> None:
    growing, stable = series(breast, 5), series(breast, 5, "stable")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    row, column = stable.lesion_px[0]
    far = np.hypot(rows - row, columns - column) > 140
    np.testing.assert_array_equal(growing.images[0][far], stable.images[0][far])


@pytest.mark.parametrize(
    ("course", "shortest", "longest"),
    [("growing", 46, 749), ("slow", 2.2 * 365.25, 12 * 365.25)],
)
def test_growth_is_exponential_within_the_bounds_of_its_course(
    course: Course, shortest: float, longest: float
) -> None:
    for timeline in timelines():
        rates = np.diff(np.log2(diameters(timeline, course))) / np.diff(timeline.days)
        np.testing.assert_allclose(rates, rates[0])
        assert shortest * 0.999 <= 1 / (3 * rates[0]) <= longest * 1.001


def test_slow_masses_stay_below_the_acceptable_growth_of_fibroadenomas() -> None:
    """20 % in diameter within six months, Gordon 2003."""
    for timeline in timelines():
        sizes = diameters(timeline, "slow")
        daily = np.log(sizes[-1] / sizes[0]) / timeline.days[-1]
        assert np.exp(daily * 182) < 1.2


def test_stable_mass_keeps_its_diameter() -> None:
    for timeline in timelines():
        sizes = diameters(timeline, "stable")
        assert len(set(sizes)) == 1
        assert FINAL_DIAMETER_MM[0] <= sizes[0] <= FINAL_DIAMETER_MM[1]


def test_regressing_mass_shrinks_from_a_plausible_size() -> None:
    fastest = []
    for timeline in timelines():
        sizes = np.array(diameters(timeline, "regressing"))
        assert (np.diff(sizes) < 0).all()
        assert sizes[0] <= LARGEST_DIAMETER_MM + 1e-9
        halving = timeline.days[-1] / (3 * np.log2(sizes[0] / sizes[-1]))
        assert halving >= timeline.growing_doubling_days - 1e-6
        fastest.append(np.isclose(halving, timeline.growing_doubling_days))
    assert any(fastest), "the largest diameter has limited every mass"
    assert not all(fastest), "no mass was ever limited"


def test_recurring_mass_has_the_diameters_of_a_growing_one_in_another_order() -> None:
    matched = 0
    for timeline in timelines():
        growing, recurring = (diameters(timeline, c) for c in ("growing", "recurring"))
        assert max(recurring[:-1]) == recurring[0] >= RECURRING_SEEN_MM - 1e-9
        assert recurring[-1] == growing[-1]
        if growing[-2] >= RECURRING_SEEN_MM:
            matched += 1
            np.testing.assert_allclose(sorted(recurring), growing)
    assert matched > 5


def test_two_exams_are_too_few_to_recur() -> None:
    for timeline in timelines(exams=2):
        assert diameters(timeline, "recurring") == diameters(timeline, "regressing")


def test_half_of_the_drawn_courses_are_growing() -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_course(rng) for _ in range(4000)]
    for course, share in COURSE_SHARES.items():
        assert drawn.count(course) / len(drawn) == pytest.approx(share, abs=0.03)
    assert COURSE_SHARES["growing"] == 0.5
    assert sum(COURSE_SHARES.values()) == pytest.approx(1.0)


def test_growing_doubling_times_have_the_published_median() -> None:
    drawn = [timeline.growing_doubling_days for timeline in timelines(count=2000)]
    assert 195 < np.median(drawn) < 225


@pytest.mark.parametrize("seed", SEEDS)
def test_lesion_centre_lies_inside_the_breast_of_every_exam(
    breast: NDArray[np.uint8], seed: int
) -> None:
    made = series(breast, seed)
    for image, (row, column) in zip(made.images, made.lesion_px, strict=True):
        assert 0 <= row < HEIGHT
        assert 0 <= column < WIDTH
        assert image[round(row), round(column)] > 20


def test_lesion_is_placed_in_glandular_tissue(breast: NDArray[np.uint8]) -> None:
    for seed in SEEDS:
        lesion = draw_lesion(breast, 10.0, np.random.default_rng(seed))
        assert np.hypot(lesion.row - 256, lesion.column - 150) < 98


def test_lesion_avoids_tissue_that_would_hide_it(breast: NDArray[np.uint8]) -> None:
    dense = breast.copy()
    dense[170:340, 70:150] = 240
    for seed in SEEDS:
        lesion = draw_lesion(dense, 10.0, np.random.default_rng(seed))
        assert dense[lesion.row, lesion.column] < 240


@pytest.mark.parametrize(
    "empty", [np.zeros((HEIGHT, WIDTH), np.uint8), np.full((64, 40), 90, np.uint8)]
)
def test_image_without_room_still_gives_a_series(empty: NDArray[np.uint8]) -> None:
    assert series(empty, 0).images.shape == (4, *empty.shape)


def test_intervals_are_those_of_a_programme_and_sometimes_an_exam_is_missing() -> None:
    def kept(gap: float) -> int:
        return min(round(gap), LONGEST_GAP_DAYS)

    single = {kept(f * a) for f in PROGRAMMES for a in INTERVALS}
    double = {kept(f * (a + b)) for f in PROGRAMMES for a in INTERVALS for b in INTERVALS}
    steps = set()
    for timeline in timelines(exams=6, count=60):
        assert timeline.days[0] == 0
        steps |= {later - earlier for earlier, later in pairwise(timeline.days)}
    assert steps <= single | double
    assert single <= steps, "some programme was never drawn"
    assert steps & (double - single), "no exam was ever missing"


def test_programme_changes_seldom_and_once() -> None:
    changes = []
    rng = np.random.default_rng(0)
    for _ in range(400):
        days = draw_timeline(6, np.array([400]), rng).days
        # A gap of a programme is 200, 400, 800 or 1200 days; twice that where an exam is missing
        possible = [{f for f in PROGRAMMES if gap in (400 * f, 800 * f)} for gap in np.diff(days)]
        changes.append(not set.intersection(*possible))
    assert 0.02 < np.mean(changes) < 0.12


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
        growing, stable = (series(breast, seed, kind, exams=5) for kind in ("growing", "stable"))
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


def test_lesion_covers_dark_fat(breast: NDArray[np.uint8]) -> None:
    fatty = breast.copy()
    fatty[250:254, 148:153] = 0
    lesion = draw_lesion(breast, 18.0, np.random.default_rng(0))
    covered = insert_lesion(fatty, replace(lesion, row=252, column=150), 18.0)
    assert covered[250:254, 148:153].min() > 10


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


def test_noise_differs_between_exams_and_has_the_asked_spread(breast: NDArray[np.uint8]) -> None:
    flat = np.full((HEIGHT, WIDTH), 128, np.uint8)
    rng = np.random.default_rng(0)
    exams = [acquire(flat, rng)[0][200:300, 100:200].astype(float) for _ in range(6)]
    assert all(0.9 < exam.std() < 4.5 for exam in exams)
    one, two = (exam - exam.mean() for exam in exams[:2])
    assert abs((one * two).mean() / (one.std() * two.std())) < 0.05


def test_single_masses_are_where_they_are_said_to_be(breast: NDArray[np.uint8]) -> None:
    rng = np.random.default_rng(0)
    made = [simulate_mass(breast, rng) for _ in range(60)]
    sizes = np.array([mass.diameter_mm for mass in made])
    assert np.mean(sizes == 0) == pytest.approx(MASS_FREE_PROBABILITY, abs=0.15)
    seen = sizes[sizes > 0]
    assert MASS_DIAMETER_MM[0] <= seen.min() < 6
    assert 18 < seen.max() <= MASS_DIAMETER_MM[1]
    centre = [brightness(m.image, m.row, m.column) for m in made]
    assert np.mean(np.array(centre)[sizes > 8]) > np.mean(np.array(centre)[sizes == 0]) + 15


def test_intervals_are_read_per_patient_and_outliers_left_out(tmp_path: Path) -> None:
    rows = [
        ("A", "1940-01-01"), ("A", "1940-01-01"), ("A", "1941-01-01"), ("A", "1941-01-20"),
        ("B", "1947-03-01"), ("B", "1940-03-01"), ("C", "1940-06-01"), ("C", "1940-12-01"),
    ]  # fmt: skip
    path = tmp_path / "series.csv.gz"
    with gzip.open(path, "wt", newline="") as file:
        csv.writer(file).writerows([("PatientID", "StudyDate"), *rows])
    np.testing.assert_array_equal(read_intervals(path), [183, 366])
