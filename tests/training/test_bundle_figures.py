"""What the page draws is what was measured: curve, bins, subgroups, and the band of calibration."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

from app.bundle import OperatingPoint
from app.figures import MAX_ROC_POINTS, CalibrationBand, Figures
from training.bundle_figures import SAME_CASES, bundle_figures, calibration_band, recalibration
from training.figures import Cases, operating_points


def cases(count: int, intercept: float = 0.0, slope: float = 1.0, views: int = 1) -> Cases:
    """Cases whose classes are drawn with logit(p) = intercept + slope * logit(what is said)."""
    rng = np.random.default_rng(3)
    odds = rng.normal(-0.7, 1.0, count)
    truth = rng.random(count) < expit(intercept + slope * odds)
    names = tuple(f"p{i}" for i in range(count) for _ in range(views))
    return Cases(
        np.repeat(truth, views).astype(np.int32), np.repeat(expit(odds), views), names, names
    )


@pytest.fixture(scope="module")
def breasts() -> Cases:
    return cases(800)


@pytest.fixture(scope="module")
def figures(breasts: Cases) -> Figures:
    points = [OperatingPoint(**point) for point in operating_points(breasts, "made in code")]
    return bundle_figures(
        breasts,
        cases(900, intercept=0.4),
        points,
        measured_on="made in code",
        note=SAME_CASES,
        subgroups={
            "density": {
                "unit": "breast",
                "groups": [
                    {"group": "A", "positives": 1, "cases": 9, "auc": None},
                    {
                        "group": "B", "positives": 20, "cases": 50,
                        "auc": {"value": 0.7, "low": 0.6, "high": 0.8},
                    },
                ],
            }
        },
    )  # fmt: skip


def test_curve_goes_from_corner_to_corner_and_has_the_area_that_it_says(
    figures: Figures, breasts: Cases
) -> None:
    for roc in figures.roc.values():
        x = np.array([point.false_positive_rate for point in roc.points])
        y = np.array([point.sensitivity for point in roc.points])
        assert (x[0], y[0], x[-1], y[-1]) == (0, 0, 1, 1)
        assert (np.diff(x) >= 0).all()
        assert (np.diff(y) >= 0).all()
        assert len(roc.points) <= MAX_ROC_POINTS
        assert np.trapezoid(y, x) == pytest.approx(roc.auc.value, abs=0.005)
    auc = figures.roc["breast"].auc
    assert auc.value == pytest.approx(roc_auc_score(breasts.truth, breasts.probability))
    assert auc.low < auc.value < auc.high


def test_a_threshold_of_the_curve_reaches_what_the_curve_says(
    figures: Figures, breasts: Cases
) -> None:
    nothing, *others = figures.roc["breast"].points
    assert nothing.threshold is None
    for point in others[::17]:
        assert point.threshold is not None
        called = breasts.probability >= point.threshold - 1e-5
        assert called[breasts.truth == 1].mean() == pytest.approx(point.sensitivity, abs=0.01)
        assert called[breasts.truth == 0].mean() == pytest.approx(
            point.false_positive_rate, abs=0.01
        )


def test_operating_points_lie_on_the_curve(figures: Figures) -> None:
    x = [point.false_positive_rate for point in figures.roc["breast"].points]
    y = [point.sensitivity for point in figures.roc["breast"].points]
    assert [point.name for point in figures.operating_points] == [
        "balanced", "sensitivity-90", "specificity-90",
    ]  # fmt: skip
    for point in figures.operating_points:
        on_curve = np.interp(1 - point.specificity, x, y)
        assert point.sensitivity == pytest.approx(on_curve, abs=0.02)


def test_bins_hold_every_breast_once_and_their_intervals_hold_what_was_observed(
    figures: Figures, breasts: Cases
) -> None:
    bins = figures.reliability
    assert sum(each.count for each in bins) == len(breasts)
    found = sum(each.count * each.observed.value for each in bins)
    assert found == pytest.approx(breasts.truth.sum())
    assert figures.prevalence == pytest.approx(breasts.truth.mean())
    for each in bins:
        assert each.observed.low <= each.observed.value <= each.observed.high
    assert [b.probability for b in bins] == sorted(b.probability for b in bins)


def test_subgroups_are_those_of_the_evaluation(figures: Figures) -> None:
    few, enough = figures.subgroups
    assert (few.column, few.group, few.per, few.positives, few.cases) == (
        "density", "A", "breast", 1, 9,
    )  # fmt: skip
    assert few.auc is None
    assert enough.auc is not None
    assert (enough.auc.low, enough.auc.value, enough.auc.high) == (0.6, 0.7, 0.8)


def columns(band: CalibrationBand) -> tuple[NDArray[np.float64], ...]:
    rows = np.array([(point.probability, point.low, point.high) for point in band.points])
    return rows[:, 0], rows[:, 1], rows[:, 2]


def test_band_of_a_calibrated_model_holds_the_diagonal_over_all_that_was_seen(
    figures: Figures, breasts: Cases
) -> None:
    probability, low, high = columns(figures.calibration_band)
    assert probability[0] == breasts.probability.min()
    assert probability[-1] == breasts.probability.max()
    assert (np.diff(probability) > 0).all()
    assert ((low <= probability) & (probability <= high)).all()


def test_band_of_a_model_that_says_too_little_lies_above_the_diagonal() -> None:
    probability, low, high = columns(calibration_band(cases(3000, intercept=1.0)))
    inner = (probability > 0.2) & (probability < 0.7)
    assert (low > probability)[inner].all()
    assert (high < 1).all()


def test_band_rises_with_the_probability(figures: Figures) -> None:
    _, low, high = columns(figures.calibration_band)
    assert (np.diff(low) >= 0).all()
    assert (np.diff(high) >= 0).all()


def test_band_is_as_wide_as_there_are_patients_not_images() -> None:
    """Four equal views of a breast are no more evidence than one."""

    def width(band: CalibrationBand) -> float:
        _, low, high = columns(band)
        return float(np.mean(high - low))

    assert width(calibration_band(cases(150, views=4))) == pytest.approx(
        width(calibration_band(cases(150))), rel=0.02
    )
    assert width(calibration_band(cases(600))) < 0.7 * width(calibration_band(cases(150)))


def test_recalibration_finds_the_line_that_the_classes_were_drawn_with() -> None:
    made = cases(20000, intercept=0.5, slope=0.6)
    intercept, slope = recalibration(made.truth, made.probability)
    assert intercept == pytest.approx(0.5, abs=0.1)
    assert slope == pytest.approx(0.6, abs=0.05)
