"""Figures of merit against cases computed by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import chi2
from sklearn.metrics import average_precision_score, roc_auc_score

from training import metrics

TRUTH = np.array([0, 0, 1, 1], np.int32)
SCORE = np.array([0.1, 0.4, 0.35, 0.8])


def test_auc_counts_the_pairs_in_the_right_order() -> None:
    """Of four pairs one is in the wrong order; a tie counts half."""
    assert metrics.auc(TRUTH, SCORE) == 0.75
    assert metrics.auc(TRUTH, np.array([0.1, 0.4, 0.4, 0.8])) == 0.875
    assert metrics.auc(TRUTH, -SCORE) == 0.25


@pytest.mark.parametrize("decimals", [0, 1, 9])  # with many ties, some and none
def test_areas_are_those_of_scikit_learn(decimals: int) -> None:
    truth, score, _ = sample(300)
    score = np.round(score, decimals)
    assert metrics.auc(truth, score) == pytest.approx(roc_auc_score(truth, score))
    assert metrics.pr_auc(truth, score) == pytest.approx(average_precision_score(truth, score))


def test_auc_of_a_single_class_is_not_a_number() -> None:
    assert math.isnan(metrics.auc(np.ones(3, np.int32), np.arange(3.0)))


def test_brier_is_the_mean_squared_error() -> None:
    expected = (0.1**2 + 0.4**2 + 0.65**2 + 0.2**2) / 4
    assert metrics.brier(TRUTH, SCORE) == pytest.approx(expected)


def test_calibration_error_is_the_mean_gap_over_bins_of_equal_count() -> None:
    """Two bins: (0, 1) at mean 0.225 and (0, 1) at mean 0.6."""
    found = metrics.expected_calibration_error(TRUTH, SCORE, bins=2)
    assert found == pytest.approx((abs(0.5 - 0.225) * 2 + abs(0.5 - 0.6) * 2) / 4)


def test_calibration_error_of_true_frequencies_is_small() -> None:
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=50_000)
    truth = (rng.uniform(size=50_000) < probability).astype(np.int32)
    assert metrics.expected_calibration_error(truth, probability) < 0.01
    assert metrics.expected_calibration_error(truth, probability**3) > 0.1


def test_calibration_error_of_fewer_cases_than_bins_is_finite() -> None:
    assert 0 <= metrics.expected_calibration_error(TRUTH, SCORE, bins=10) <= 1


@pytest.mark.parametrize(
    ("threshold", "sensitivity", "specificity"),
    [(0.0, 1, 0), (0.35, 1, 0.5), (0.36, 0.5, 0.5), (0.5, 0.5, 1), (0.8, 0.5, 1), (0.9, 0, 1)],
)
def test_score_at_the_threshold_is_called_positive(
    threshold: float, sensitivity: float, specificity: float
) -> None:
    found = metrics.sensitivity_specificity(TRUTH, SCORE, threshold)
    assert found == (sensitivity, specificity)


def test_threshold_for_a_sensitivity_is_the_highest_that_reaches_it() -> None:
    for count in range(1, 201):
        truth = np.ones(count, np.int32)
        score = (np.arange(count) + 1.0) / count
        threshold = metrics.threshold_for_sensitivity(truth, score, 0.9)
        reached, _ = _rates(truth, score, threshold)
        needed = math.ceil(9 * count / 10)
        assert round(reached * count) == needed, count


def _rates(truth: NDArray[Any], score: NDArray[Any], threshold: float) -> tuple[float, float]:
    called = score >= threshold
    negatives = truth == 0
    specificity = float((~called)[negatives].mean()) if negatives.any() else 1.0
    return float(called[truth == 1].mean()), specificity


@pytest.mark.parametrize("wanted", [0.5, 0.9, 1.0])
def test_threshold_for_a_specificity_is_the_lowest_that_reaches_it(wanted: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200).astype(np.int32)
    score = np.round(rng.normal(truth, 1.0), 2)
    threshold = metrics.threshold_for_specificity(truth, score, wanted)
    assert _rates(truth, score, threshold)[1] >= wanted
    lower = score[score < threshold].max()
    assert _rates(truth, score, float(lower))[1] < wanted


def test_specificity_that_no_score_reaches_is_reached_above_all_scores() -> None:
    truth, score = np.array([0, 1], np.int32), np.array([0.9, 0.1])
    threshold = metrics.threshold_for_specificity(truth, score, 1.0)
    assert _rates(truth, score, threshold) == (0, 1)


def test_youden_threshold_has_the_largest_sum() -> None:
    assert metrics.threshold_of_youden(TRUTH, SCORE) in (0.35, 0.8)
    separable = np.array([0.1, 0.2, 0.7, 0.9])
    assert metrics.threshold_of_youden(TRUTH, separable) == 0.7


@pytest.mark.parametrize("true_temperature", [0.5, 1.0, 3.0])
def test_temperature_that_was_applied_is_found(true_temperature: float) -> None:
    rng = np.random.default_rng(0)
    odds = rng.normal(0, 2, 40_000)
    truth = (rng.uniform(size=odds.size) < expit(odds)).astype(np.int32)
    found = metrics.fit_temperature(truth, two_classes(odds * true_temperature), 1)
    assert found == pytest.approx(true_temperature, rel=0.05)


def two_classes(odds: NDArray[Any]) -> NDArray[Any]:
    return np.stack([np.zeros(len(odds)), odds], axis=1)


def test_temperature_of_perfect_scores_is_finite() -> None:
    assert 0 < metrics.fit_temperature(TRUTH, two_classes(100.0 * TRUTH - 50.0), 1) < math.inf


def test_pr_auc_is_the_mean_precision_at_each_positive() -> None:
    assert metrics.pr_auc(TRUTH, SCORE) == pytest.approx((1 / 1 + 2 / 3) / 2)


def test_confusion_counts_every_case_once() -> None:
    found = metrics.confusion(TRUTH, SCORE, 0.4)
    assert (found.true_positive, found.false_positive) == (1, 1)
    assert (found.false_negative, found.true_negative) == (1, 1)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("accuracy", 90 / 110), ("sensitivity", 20 / 30), ("specificity", 70 / 80),
        ("precision", 20 / 30), ("f1", 2 / 3),
    ],
)  # fmt: skip
def test_figures_of_a_confusion_are_those_of_the_textbook(name: str, expected: float) -> None:
    counts = metrics.Confusion(
        true_positive=20, false_positive=10, false_negative=10, true_negative=70
    )
    assert getattr(counts, name) == pytest.approx(expected)


def test_precision_without_any_call_is_not_a_number() -> None:
    counts = metrics.confusion(TRUTH, SCORE, 0.9)
    assert math.isnan(counts.precision)
    assert (counts.f1, counts.accuracy) == (0, 0.5)


@pytest.mark.parametrize("seed", range(5))
def test_sensitivity_at_a_specificity_is_the_best_of_all_thresholds(seed: int) -> None:
    truth, score, _ = sample(80, seed)
    score = np.round(score, 1)
    rates = [_rates(truth, score, t) for t in (*np.unique(score), np.inf)]
    best = max(sensitivity for sensitivity, specificity in rates if specificity >= 0.9)
    assert metrics.sensitivity_at_specificity(truth, score, 0.9) == pytest.approx(best)
    best = max(specificity for sensitivity, specificity in rates if sensitivity >= 0.9)
    assert metrics.specificity_at_sensitivity(truth, score, 0.9) == pytest.approx(best)


def test_net_benefit_weighs_false_positives_by_the_odds_of_the_threshold() -> None:
    found = metrics.net_benefit(TRUTH, SCORE, np.array([0.2, 0.5]))
    assert found == pytest.approx([2 / 4 - 1 / 4 * 0.25, 1 / 4])


def test_net_benefit_of_calling_every_case_is_zero_at_the_prevalence() -> None:
    truth = np.array([1, 0, 0, 0, 0], np.int32)
    assert metrics.net_benefit(truth, np.ones(5), np.array([0.2])) == pytest.approx(0)


# the bootstrap


def sample(patients: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], list[str]]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 2, patients).astype(np.int32)
    return truth, rng.normal(truth, 1.0), [f"p{i}" for i in range(patients)]


def test_interval_holds_the_value_and_narrows_with_more_patients() -> None:
    few, many = (metrics.bootstrap(metrics.auc, *sample(n), draws=300) for n in (40, 600))
    for estimate in (few, many):
        assert estimate.low < estimate.value < estimate.high
    assert many.high - many.low < 0.5 * (few.high - few.low)


def test_more_images_of_the_same_patients_do_not_narrow_the_interval() -> None:
    truth, score, patients = sample(60)
    once = metrics.bootstrap(metrics.auc, truth, score, patients, draws=400)
    copied = metrics.bootstrap(
        metrics.auc, np.tile(truth, 8), np.tile(score, 8), patients * 8, draws=400
    )
    assert copied.value == pytest.approx(once.value)
    assert copied.high - copied.low == pytest.approx(once.high - once.low, rel=0.05)
    as_if_independent = metrics.bootstrap(
        metrics.auc, np.tile(truth, 8), np.tile(score, 8), [str(i) for i in range(480)], draws=400
    )
    assert as_if_independent.high - as_if_independent.low < 0.6 * (once.high - once.low)


def test_bootstrap_is_the_same_for_the_same_seed() -> None:
    one, again, other = (
        metrics.bootstrap(metrics.auc, *sample(50), draws=100, seed=seed) for seed in (1, 1, 2)
    )
    assert one == again != other


def test_interval_of_few_positives_is_still_given() -> None:
    truth = np.array([1, 0, 0, 0, 0], np.int32)
    score = np.array([0.5, 0.1, 0.2, 0.6, 0.3])
    estimate = metrics.bootstrap(metrics.auc, truth, score, list("abcde"), draws=200)
    assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1


def test_figures_drawn_together_have_the_intervals_they_have_alone() -> None:
    truth, score, patients = sample(50)
    score = expit(score)
    together = metrics.bootstrap_all(
        lambda *drawn: {"auc": metrics.auc(*drawn), "brier": metrics.brier(*drawn)},
        truth, score, patients, draws=100,
    )  # fmt: skip
    for name in ("auc", "brier"):
        alone = metrics.bootstrap(getattr(metrics, name), truth, score, patients, draws=100)
        assert together[name] == alone


def test_draw_in_which_a_figure_is_undefined_does_not_spoil_its_interval() -> None:
    truth, score, patients = sample(12)
    threshold = float(np.sort(score)[-2])  # two calls: many draws have none

    def precision(truth: NDArray[Any], score: NDArray[Any]) -> float:
        return metrics.confusion(truth, score, threshold).precision

    found = metrics.bootstrap(precision, truth, score, patients, draws=200)
    assert 0 <= found.low <= found.value <= found.high <= 1


# two models on the same cases


def paired(cases: int, seed: int = 0) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Truth and two correlated scores with ties, the first a better one."""
    rng = np.random.default_rng(seed)
    truth = (rng.uniform(size=cases) < 0.4).astype(np.int32)
    shared = rng.normal(size=cases)
    first = np.round(1.2 * truth + shared + 0.5 * rng.normal(size=cases), 1)
    second = np.round(0.6 * truth + shared + 0.5 * rng.normal(size=cases), 1)
    return truth, first, second


def structural_components(
    truth: NDArray[Any], scores: list[NDArray[Any]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """AUCs and their covariance by comparing every pair, as DeLong 1988 writes it."""
    by_positive, by_negative = [], []
    for score in scores:
        positives, negatives = score[truth == 1][:, None], score[truth == 0][None]
        right = (positives > negatives) + 0.5 * (positives == negatives)
        by_positive.append(right.mean(axis=1))
        by_negative.append(right.mean(axis=0))
    v10, v01 = np.array(by_positive), np.array(by_negative)
    return v10.mean(axis=1), np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]


@pytest.mark.parametrize("cases", [20, 75, 300])
def test_delong_agrees_with_comparing_every_pair(cases: int) -> None:
    truth, first, second = paired(cases)
    found = metrics.delong_test(truth, first, second)
    aucs, covariance = structural_components(truth, [first, second])
    assert (found.auc_a, found.auc_b) == pytest.approx(tuple(aucs))
    assert found.auc_a == pytest.approx(metrics.auc(truth, first))
    error = math.sqrt(np.array([1, -1]) @ covariance @ np.array([1, -1]))
    assert found.difference == pytest.approx(aucs[0] - aucs[1])
    assert found.high - found.low == pytest.approx(2 * 1.959964 * error)
    # Of a squared normal variable: another road to the same p-value
    assert found.p_value == pytest.approx(chi2.sf((found.difference / error) ** 2, 1))


def test_interval_of_delong_agrees_with_the_bootstrap() -> None:
    truth, first, second = paired(400)
    found = metrics.delong_test(truth, first, second)
    rng = np.random.default_rng(0)
    differences = []
    for _ in range(1000):
        drawn = rng.integers(400, size=400)
        differences.append(
            metrics.auc(truth[drawn], first[drawn]) - metrics.auc(truth[drawn], second[drawn])
        )
    low, high = np.percentile(differences, (2.5, 97.5))
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_delong_finds_a_difference_in_one_of_twenty_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(600):
        truth = np.repeat([0, 1], 40).astype(np.int32)
        shared = truth + rng.normal(size=80)
        scores = (shared + rng.normal(size=80) for _ in range(2))
        found.append(metrics.delong_test(truth, *scores).p_value < 0.05)
    assert np.mean(found) == pytest.approx(0.05, abs=0.025)


def test_delong_turns_round_with_its_arguments() -> None:
    truth, first, second = paired(100)
    one, other = (
        metrics.delong_test(truth, first, second),
        metrics.delong_test(truth, second, first),
    )
    assert one.difference == -other.difference
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))
    assert one.p_value == pytest.approx(other.p_value)


def test_delong_of_the_same_ranking_finds_nothing() -> None:
    truth, first, _ = paired(100)
    found = metrics.delong_test(truth, first, 3 * first + 1)
    assert (found.difference, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_delong_of_perfect_against_reversed_scores_is_certain() -> None:
    found = metrics.delong_test(TRUTH, TRUTH.astype(float), 1.0 - TRUTH)
    assert (found.difference, found.p_value) == (1, 0)


def test_delong_of_a_single_positive_is_refused() -> None:
    with pytest.raises(ValueError, match="two cases of each class, not 1 and 3"):
        metrics.delong_test(np.array([1, 0, 0, 0], np.int32), SCORE, SCORE)


@pytest.mark.parametrize(
    ("only_a", "only_b", "p_value"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 2 / 32), (3, 1, 2 * (1 + 4) / 16), (8, 8, 1.0)],
)
def test_mcnemar_is_the_two_sided_sign_test_of_the_disagreements(
    only_a: int, only_b: int, p_value: float
) -> None:
    truth = np.tile([0, 1], 20).astype(np.int32)
    called_a, called_b = (truth == 1).copy(), (truth == 1).copy()
    called_b[:only_a] ^= True
    called_a[only_a : only_a + only_b] ^= True
    called_a[-1] = called_b[-1] = False  # both wrong: no matter
    found = metrics.mcnemar_test(truth, called_a, called_b)
    assert (found.only_a_right, found.only_b_right) == (only_a, only_b)
    assert found.p_value == pytest.approx(p_value)
