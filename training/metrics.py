"""Scores -> figures of merit, each with a 95 % bootstrap interval by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import binomtest, norm, rankdata

Figure = Callable[[NDArray[np.int32], NDArray[np.float64]], float]
Figures = Callable[[NDArray[np.int32], NDArray[np.float64]], dict[str, float]]


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auc(truth: NDArray[np.int32], score: NDArray[np.float64]) -> float:
    """Area under the ROC curve; ``truth`` 0 or 1 [n], ``score`` [n], higher is more suspicious.

    By ranks (Hanley & McNeil, Radiology 1982;143:29-36), which a bootstrap can afford; NaN where
    a class is missing.
    """
    positive = truth == 1
    count, others = int(positive.sum()), int((~positive).sum())
    if not (count and others):
        return math.nan
    above = rankdata(score)[positive].sum() - count * (count + 1) / 2
    return float(above / (count * others))


def pr_auc(truth: NDArray[np.int32], score: NDArray[np.float64]) -> float:
    """Area under the precision-recall curve as average precision: the mean, over the positive
    cases, of the precision at the score of each. Chance is the prevalence; NaN without any."""
    positive = truth == 1
    if not positive.any():
        return math.nan
    called = rankdata(-score, "max")[positive]  # cases with such a score or a higher one
    right = rankdata(-score[positive], "max")
    return float(np.mean(right / called))


def sensitivity_at_specificity(
    truth: NDArray[np.int32], score: NDArray[np.float64], wanted: float
) -> float:
    """The largest sensitivity of any threshold whose specificity is at least ``wanted``."""
    negatives = np.sort(score[truth == 0])
    highest = negatives[max(1, _needed(wanted, len(negatives))) - 1]
    return float((score[truth == 1] > highest).mean())


def specificity_at_sensitivity(
    truth: NDArray[np.int32], score: NDArray[np.float64], wanted: float
) -> float:
    """The largest specificity of any threshold whose sensitivity is at least ``wanted``."""
    threshold = threshold_for_sensitivity(truth, score, wanted)
    return float((score[truth == 0] < threshold).mean())


@dataclass(frozen=True)
class Confusion:
    """Counts of calls against the truth, and what follows from them.

    A figure whose denominator is zero (the precision where nothing is called positive) is NaN.
    """

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def accuracy(self) -> float:
        right = self.true_positive + self.true_negative
        return _ratio(right, right + self.false_positive + self.false_negative)

    @property
    def sensitivity(self) -> float:
        return _ratio(self.true_positive, self.true_positive + self.false_negative)

    @property
    def specificity(self) -> float:
        return _ratio(self.true_negative, self.true_negative + self.false_positive)

    @property
    def precision(self) -> float:
        return _ratio(self.true_positive, self.true_positive + self.false_positive)

    @property
    def f1(self) -> float:
        wrong = self.false_positive + self.false_negative
        return _ratio(2 * self.true_positive, 2 * self.true_positive + wrong)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def confusion(truth: NDArray[np.int32], score: NDArray[np.float64], threshold: float) -> Confusion:
    """Counts when ``score >= threshold`` is called positive."""
    called, positive = score >= threshold, truth == 1
    return Confusion(
        true_positive=int((called & positive).sum()),
        false_positive=int((called & ~positive).sum()),
        false_negative=int((~called & positive).sum()),
        true_negative=int((~called & ~positive).sum()),
    )


def net_benefit(
    truth: NDArray[np.int32], probability: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> NDArray[np.float64]:
    """True positives a case, less false positives weighted by the odds of the threshold, at which
    a reader holds a missed cancer and needless recalls to be of equal weight. ``thresholds`` [t]
    in (0, 1); returns [t]. Vickers & Elkin, Med Decis Making 2006;26:565-74. Of a model that
    calls every case: ``net_benefit(truth, np.ones(n), thresholds)``; none: 0."""
    called = probability[:, None] >= thresholds  # [n, t]
    true_positive = (called & (truth == 1)[:, None]).mean(axis=0)
    false_positive = (called & (truth == 0)[:, None]).mean(axis=0)
    return np.asarray(true_positive - false_positive * thresholds / (1 - thresholds))


def brier(truth: NDArray[np.int32], probability: NDArray[np.float64]) -> float:
    """Mean squared error of the probability."""
    return float(np.mean((probability - truth) ** 2))


def expected_calibration_error(
    truth: NDArray[np.int32], probability: NDArray[np.float64], bins: int = 10
) -> float:
    """Mean gap between probability and observed frequency over bins of equal count."""
    groups = _equal_groups(probability, bins)
    gaps = [abs(truth[g].mean() - probability[g].mean()) * len(g) for g in groups]
    return float(sum(gaps) / len(truth))


@dataclass(frozen=True)
class Bin:
    """``cases`` of about one probability: its mean, and in which part of them the class was, with
    its 95 % interval."""

    probability: float
    observed: Estimate
    cases: int


def reliability(
    truth: NDArray[np.int32], probability: NDArray[np.float64], bins: int = 10
) -> list[Bin]:
    """Observed frequency against probability in bins of equal count, with the interval of a
    proportion (Wilson, J Am Stat Assoc 1927;22:209-12), cases taken as independent."""
    found = []
    for group in _equal_groups(probability, bins):
        positives = int(truth[group].sum())
        reach = binomtest(positives, len(group)).proportion_ci(0.95, "wilson")
        observed = Estimate(positives / len(group), float(reach.low), float(reach.high))
        found.append(Bin(float(probability[group].mean()), observed, len(group)))
    return found


def _equal_groups(probability: NDArray[np.float64], count: int) -> list[NDArray[np.intp]]:
    groups = np.array_split(np.argsort(probability, kind="stable"), count)
    return [group for group in groups if len(group)]


def bootstrap(
    figure: Figure,
    truth: NDArray[np.int32],
    score: NDArray[np.float64],
    patients: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> Estimate:
    """``figure`` with its percentile interval, patients drawn with replacement.

    All rows of a drawn patient come along, since a patient's images are not independent. Draws
    without both classes are left out.
    """
    return bootstrap_all(
        lambda *drawn: {"": figure(*drawn)}, truth, score, patients, draws=draws, seed=seed
    )[""]


def bootstrap_all(
    figures: Figures,
    truth: NDArray[np.int32],
    score: NDArray[np.float64],
    patients: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, Estimate]:
    """Several figures at once, each with its interval as by ``bootstrap``.

    Draws in which a figure is NaN do not count for it; its interval is NaN if there is no other.
    """
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    rows = [np.flatnonzero(patient == p) for p in range(patient.max() + 1)]
    rng = np.random.default_rng(seed)
    found = figures(truth, score)
    values: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(draws):
        drawn = np.concatenate([rows[p] for p in rng.integers(len(rows), size=len(rows))])
        if 0 < truth[drawn].sum() < len(drawn):
            for name, value in figures(truth[drawn], score[drawn]).items():
                if not math.isnan(value):
                    values[name].append(value)
    return {name: Estimate(value, *_interval(values[name])) for name, value in found.items()}


def _interval(values: Sequence[float]) -> tuple[float, float]:
    if not values:
        return math.nan, math.nan
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def positive_probability(
    logits: NDArray[np.float64], positive: int, temperature: float = 1.0
) -> NDArray[np.float64]:
    """Softmax probability of one class from logits [n, classes] divided by a temperature."""
    return np.asarray(softmax(logits / temperature, axis=1)[:, positive])


def fit_temperature(truth: NDArray[np.int32], logits: NDArray[np.float64], positive: int) -> float:
    """Temperature that minimises the log loss of the positive class against the others, for
    logits [n, classes] (Guo et al., ICML 2017, arXiv:1706.04599)."""

    def log_loss(log_temperature: float) -> float:
        p = positive_probability(logits, positive, float(np.exp(log_temperature)))
        p = np.clip(p, 1e-12, 1 - 1e-12)
        return float(-np.mean(truth * np.log(p) + (1 - truth) * np.log(1 - p)))

    found = minimize_scalar(log_loss, bounds=(np.log(0.1), np.log(10.0)), method="bounded")
    return float(np.exp(found.x))


def sensitivity_specificity(
    truth: NDArray[np.int32], score: NDArray[np.float64], threshold: float
) -> tuple[float, float]:
    """Sensitivity and specificity when ``score >= threshold`` is called positive."""
    counts = confusion(truth, score, threshold)
    return counts.sensitivity, counts.specificity


def threshold_for_sensitivity(
    truth: NDArray[np.int32], score: NDArray[np.float64], wanted: float
) -> float:
    """The highest threshold whose sensitivity is at least ``wanted``."""
    positives = np.sort(score[truth == 1])[::-1]
    return float(positives[max(1, _needed(wanted, len(positives))) - 1])


def _needed(share: float, cases: int) -> int:
    """The least number of cases that is at least a share of them, in spite of rounding."""
    return math.ceil(share * cases - 1e-9)


def threshold_for_specificity(
    truth: NDArray[np.int32], score: NDArray[np.float64], wanted: float
) -> float:
    """The lowest observed threshold whose specificity is at least ``wanted``."""
    for threshold in np.unique(score):
        if sensitivity_specificity(truth, score, float(threshold))[1] >= wanted:
            return float(threshold)
    return float(np.nextafter(score.max(), np.inf))


def threshold_of_youden(truth: NDArray[np.int32], score: NDArray[np.float64]) -> float:
    """The threshold with the largest sensitivity + specificity (Youden 1950)."""
    candidates = np.unique(score)
    sums = [sum(sensitivity_specificity(truth, score, float(t))) for t in candidates]
    return float(candidates[int(np.argmax(sums))])


@dataclass(frozen=True)
class DeLong:
    """Two AUCs on the same cases: ``difference`` is a - b, with its 95 % interval and the
    two-sided p-value of no difference."""

    auc_a: float
    auc_b: float
    difference: float
    low: float
    high: float
    p_value: float


def delong_test(
    truth: NDArray[np.int32], score_a: NDArray[np.float64], score_b: NDArray[np.float64]
) -> DeLong:
    """Compare two correlated AUCs; ``truth`` 0 or 1 [n], scores [n] of the same n cases.

    DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837-45, by the midranks of Sun & Xu, IEEE
    Signal Process Lett 2014;21:1389-93. Cases are taken as independent: one a patient, or the
    p-value is too small. Without any variance (scores that agree in every pair, or separate the
    classes without a fault) the p-value is 1 for equal AUCs, else 0. Raises ``ValueError`` with
    fewer than two cases of a class.
    """
    positive = truth == 1
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if min(positives, negatives) < 2:
        raise ValueError(f"DeLong needs two cases of each class, not {positives} and {negatives}")
    scores = np.stack([score_a, score_b])  # [2, n]
    ranks = rankdata(scores, axis=1)
    # By case, the part of the other class that it is ranked right against
    above = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / negatives
    below = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / positives
    auc_a, auc_b = above.mean(axis=1)
    covariance = np.cov(above) / positives + np.cov(below) / negatives
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    difference, error = float(auc_a - auc_b), float(np.sqrt(max(variance, 0.0)))
    if error > 1e-12:
        p_value = float(2 * norm.sf(abs(difference) / error))
    else:
        p_value = 1.0 if abs(difference) < 1e-12 else 0.0
    reach = float(norm.ppf(0.975)) * error
    return DeLong(
        float(auc_a), float(auc_b), difference, difference - reach, difference + reach, p_value
    )


@dataclass(frozen=True)
class McNemar:
    """How often one of two called a case right and the other wrong, and the two-sided p-value of
    that being a matter of chance."""

    only_a_right: int
    only_b_right: int
    p_value: float


def mcnemar_test(
    truth: NDArray[np.int32], called_a: NDArray[np.bool_], called_b: NDArray[np.bool_]
) -> McNemar:
    """Compare two sets of calls on the same cases, exactly (McNemar, Psychometrika 1947;12:153-7,
    with the binomial distribution): ``truth`` 0 or 1 [n], calls bool [n]. Cases are taken as
    independent."""
    right_a, right_b = called_a == (truth == 1), called_b == (truth == 1)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p_value = float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0
    return McNemar(only_a, only_b, p_value)
