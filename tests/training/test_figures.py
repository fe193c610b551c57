"""Every figure of merit of a set of cases, and the thresholds that are chosen on it."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from training import metrics
from training.figures import (
    DECISION_THRESHOLDS,
    Cases,
    all_figures,
    as_json,
    as_text,
    choose_thresholds,
    decision_curve,
    operating_points,
    write_scores,
)


@dataclass(frozen=True)
class Point:
    name: str
    threshold: float


def made(count: int = 80, seed: int = 0) -> Cases:
    """Two cases a patient."""
    rng = np.random.default_rng(seed)
    truth = (rng.uniform(size=count) < 0.4).astype(np.int32)
    p = 1 / (1 + np.exp(-rng.normal(1.5 * truth - 1, 1)))
    patients = tuple(f"p{i // 2}" for i in range(count))
    return Cases(truth, p, patients, tuple(f"p{i // 2}-{'LR'[i % 2]}" for i in range(count)))


def test_figures_are_those_of_the_metrics_with_intervals_around_them() -> None:
    cases = made()
    found = all_figures(cases, [Point("balanced", 0.4), Point("never", 1.1)])
    assert found["counts"]["patients"] == 40
    assert found["auc"]["value"] == metrics.auc(cases.truth, cases.probability)
    alone = metrics.bootstrap(metrics.auc, cases.truth, cases.probability, cases.patients)
    assert (found["auc"]["low"], found["auc"]["high"]) == (alone.low, alone.high)
    at = found["operating_points"]["balanced"]
    counts = at["confusion"]
    assert sum(counts.values()) == 80
    assert at["sensitivity"]["value"] == pytest.approx(counts["true_positive"] / cases.truth.sum())
    for name in ("pr_auc", "brier", "sensitivity_at_90_specificity"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]


def test_figure_that_is_not_defined_is_null_in_json() -> None:
    """NaN is not JSON: other readers than Python's refuse it."""
    found = all_figures(made(), [Point("never", 1.1)])
    precision = found["operating_points"]["never"]["precision"]
    assert precision == {"value": None, "low": None, "high": None}
    assert as_text(precision) == "not defined"
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize("seed", range(8))
def test_thresholds_call_as_the_scores_they_lie_under(seed: int) -> None:
    """And a score that is rounded otherwise is called as before."""
    cases = made(seed=seed)
    truth, p = cases.truth, cases.probability
    exact = {
        "balanced": metrics.threshold_of_youden(truth, p),
        "sensitivity-90": metrics.threshold_for_sensitivity(truth, p, 0.9),
        "specificity-90": metrics.threshold_for_specificity(truth, p, 0.9),
    }
    for name, threshold in choose_thresholds(truth, p).items():
        for rounding in (-1e-7, 0, 1e-7):
            np.testing.assert_array_equal(p + rounding >= threshold, p >= exact[name])


@pytest.mark.parametrize("p", [[0.9, 0.1], [0.5, 0.5], [0.0, 1.0], [1.0, 0.0]])
def test_thresholds_at_the_ends_keep_what_they_promise(p: list[float]) -> None:
    truth, probability = np.array([0, 1], np.int32), np.array(p)
    thresholds = choose_thresholds(truth, probability)
    called = probability >= thresholds["sensitivity-90"]
    assert called[1]
    assert not (probability >= thresholds["specificity-90"])[0]


def test_operating_points_say_what_their_thresholds_reach() -> None:
    cases = made()
    for point in operating_points(cases, "made cases"):
        reached = metrics.sensitivity_specificity(
            cases.truth, cases.probability, point["threshold"]
        )
        assert (point["sensitivity"], point["specificity"]) == reached
        low, high = point["sensitivity_interval"]
        assert low <= point["sensitivity"] <= high
        assert point["measured_on"] == "made cases"


def test_decision_curve_of_a_perfect_model_is_the_prevalence() -> None:
    cases = made()
    perfect = Cases(cases.truth, cases.truth.astype(float), cases.patients, cases.names)
    found = decision_curve(perfect)
    prevalence = cases.truth.mean()
    assert [e["value"] for e in found["model"]] == pytest.approx(
        [prevalence] * len(DECISION_THRESHOLDS)
    )
    at = list(DECISION_THRESHOLDS).index(0.5)
    assert found["call_all"][at] == pytest.approx(2 * prevalence - 1)


def test_scores_are_written_a_row_a_case(tmp_path: Path) -> None:
    cases = made(4)
    write_scores(tmp_path / "scores.csv", {"breast": cases, "exam": cases.chosen([2])})
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["unit"] for row in rows] == ["breast"] * 4 + ["exam"]
    assert rows[4]["name"] == rows[2]["name"] == "p1-L"
    assert float(rows[4]["probability"]) == cases.probability[2]


def test_estimate_comes_back_from_json() -> None:
    assert as_text(as_json(metrics.Estimate(0.5, 0.25, 0.75))) == "0.500 [0.250, 0.750]"
