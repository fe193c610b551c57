"""Figures of out-of-fold scores: taken within folds, thresholds from the other folds, paired."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training import metrics
from training.out_of_fold import (
    FIGURES,
    OutOfFold,
    called,
    compare,
    figures,
    load,
    save,
    thresholds,
)


def scores(folds: int = 3, patients: int = 24, noise: float = 0.2, seed: int = 0) -> OutOfFold:
    """Two breasts of each patient, one in four of them positive."""
    rng = np.random.default_rng(seed)
    count = 2 * patients
    truth = (np.arange(count) % 4 == 0).astype(np.int32)
    return OutOfFold(
        truth=truth,
        probability=np.clip(0.3 + 0.4 * truth + rng.normal(0, noise, count), 0, 1),
        fold=(np.arange(count) * folds // count + 1).astype(np.int32),
        patients=tuple(f"p{i // 2}" for i in range(count)),
        names=tuple(f"p{i // 2}-{'LR'[i % 2]}" for i in range(count)),
    )


def test_threshold_of_a_fold_does_not_depend_on_its_own_breasts() -> None:
    before = scores()
    of_fold_2 = before.fold == 2
    after = replace(
        before, probability=np.where(of_fold_2, 1 - before.probability, before.probability)
    )
    assert thresholds(after)[2] == thresholds(before)[2]
    assert thresholds(after)[1] != thresholds(before)[1]


def test_breasts_are_called_at_the_threshold_of_their_fold() -> None:
    found = scores()
    at = thresholds(found)
    expected = [p >= at[int(fold)] for p, fold in zip(found.probability, found.fold, strict=True)]
    assert called(found).tolist() == expected


def test_figures_are_taken_within_each_fold_and_pooled_with_intervals() -> None:
    found = scores()
    # Another scale in every fold moves no ranks within it, and spoils the pooled ones
    shifted = replace(found, probability=found.probability / 10 + found.fold / 4)
    expected = [metrics.auc(part.truth, part.probability) for part in map(found.of_fold, (1, 2, 3))]
    measured = figures(shifted)
    auc = measured["folds"]["auc"]
    assert [one["value"] for one in auc["per_fold"]] == pytest.approx(expected)
    assert auc["mean"] == pytest.approx(np.mean(expected))
    assert auc["sd"] == pytest.approx(np.std(expected, ddof=1))
    assert measured["pooled"]["auc"]["value"] < auc["mean"]
    assert set(measured["pooled"]) == set(FIGURES)
    for estimate in measured["pooled"].values():
        assert estimate["low"] <= estimate["value"] <= estimate["high"]


def test_better_model_is_told_from_a_worse_one() -> None:
    good, poor = scores(noise=0.1), scores(noise=1.0, seed=1)
    found = compare(good, poor)
    assert found["delong"]["difference"] > 0.1
    assert found["delong"]["p_value"] < 0.05
    assert found["auc_difference_by_patient"]["low"] > 0
    calls = found["mcnemar"]
    assert calls["all"]["only_a_right"] > calls["all"]["only_b_right"]
    for count in ("only_a_right", "only_b_right"):
        parts = calls["sensitivity"][count] + calls["specificity"][count]
        assert calls["all"][count] == parts
    assert compare(good, good)["delong"]["p_value"] == 1


def test_models_are_not_compared_on_different_breasts() -> None:
    other = scores()
    with pytest.raises(ValueError, match="same breasts"):
        compare(scores(), replace(other, names=other.names[::-1]))


def test_scores_are_read_back_as_written(tmp_path: Path) -> None:
    found = scores(folds=2)
    for number in (1, 2):
        save(found.of_fold(number), tmp_path / f"{number}.csv")
    again = load({number: tmp_path / f"{number}.csv" for number in (1, 2)})
    assert again.names == found.names
    assert again.patients == found.patients
    for name in ("truth", "probability", "fold"):
        np.testing.assert_array_equal(getattr(again, name), getattr(found, name))
