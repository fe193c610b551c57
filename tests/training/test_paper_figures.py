"""Figures of the paper protocol: as scikit-learn has them, also where draws weigh the files."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from training.paper_figures import (
    ARMS,
    Files,
    Piece,
    accuracy_on,
    confusion,
    figures,
    group_weights,
    leaked,
    weighted_accuracy,
    weighted_auc,
    weighted_macro_f1,
)

RNG = np.random.default_rng(0)
TRUTH = RNG.integers(0, 3, 90).astype(np.int32)
PROBABILITY = RNG.dirichlet((1, 1, 1), 90) + 0.4 * np.eye(3)[TRUTH]
PROBABILITY /= PROBABILITY.sum(axis=1, keepdims=True)
PROBABILITY[30:50] = PROBABILITY[30]  # ties, as black masks are
SAID = PROBABILITY.argmax(axis=1)
WEIGHTS = np.concatenate([np.ones((1, 90)), RNG.integers(0, 4, (5, 90))]).astype(float)


@pytest.mark.parametrize("draw", range(6))
def test_weighted_figures_are_those_of_scikit_learn(draw: int) -> None:
    w = WEIGHTS[draw]
    expected = accuracy_score(TRUTH, SAID, sample_weight=w)
    assert weighted_accuracy(TRUTH == SAID, WEIGHTS)[draw] == pytest.approx(expected)
    expected = f1_score(TRUTH, SAID, average="macro", sample_weight=w)
    assert weighted_macro_f1(TRUTH, SAID, WEIGHTS)[draw] == pytest.approx(expected)
    expected = roc_auc_score(TRUTH, PROBABILITY, multi_class="ovr", sample_weight=w)
    assert weighted_auc(TRUTH, PROBABILITY, WEIGHTS)[draw] == pytest.approx(expected)


FILES = Files(
    labels=np.tile(TRUTH, 2),
    groups=np.tile(np.arange(90, dtype=np.int32) // 2, 2),
    is_mask=np.repeat([False, True], 90),
    classes=("a", "b", "c"),
)


def piece(test: range) -> Piece:
    files = np.array(test)
    rest = np.setdiff1d(np.arange(180), files)
    of_image = files % 90
    return Piece(
        rest, files, PROBABILITY[of_image], TRUTH[of_image] * (files >= 90), np.array([0.5])
    )


def test_figure_of_an_arm_is_the_mean_over_its_seeds_with_an_interval_around_it() -> None:
    pieces = [piece(range(0, 60)), piece(range(30, 90))]
    found = figures(FILES, pieces, group_weights(FILES))
    right = TRUTH == SAID
    accuracy = found["accuracy"].estimate()
    assert accuracy.value == pytest.approx((right[:60].mean() + right[30:].mean()) / 2)
    for figure in found.values():
        estimate = figure.estimate()
        assert estimate.low < estimate.value < estimate.high


def test_interval_is_by_group_and_not_by_file() -> None:
    """The same files twice, as copies in their groups, tell no more than once."""
    once, twice = piece(range(0, 90)), piece(range(0, 180))
    weights = group_weights(FILES)
    single, double = (
        figures(FILES, [chosen], weights)["accuracy"].estimate() for chosen in (once, twice)
    )
    assert double.value == pytest.approx(single.value)
    assert double.high - double.low == pytest.approx(single.high - single.low)


def test_difference_of_an_arm_to_itself_is_none() -> None:
    found = figures(FILES, [piece(range(0, 90))], group_weights(FILES))["auc"]
    assert (found - found).estimate().high == 0


def test_masks_and_images_are_told_apart_and_the_rule_is_scored() -> None:
    weights = group_weights(FILES)
    pieces = [piece(range(60, 120))]
    right = TRUTH == SAID
    images = accuracy_on(FILES, pieces, weights, masks=False).estimate()
    masks = accuracy_on(FILES, pieces, weights, masks=True).estimate()
    assert images.value == pytest.approx(right[60:].mean())
    assert masks.value == pytest.approx(right[:30].mean())
    rule = accuracy_on(FILES, pieces, weights, rule=True).estimate()
    expected = np.concatenate([TRUTH[60:] == 0, np.ones(30, bool)]).mean()
    assert rule.value == pytest.approx(expected)
    assert accuracy_on(FILES, pieces, weights, masks=True, rule=True).estimate().value == 1


def test_kin_in_training_is_counted() -> None:
    whole_groups = np.concatenate([np.arange(0, 20), np.arange(90, 110)])
    apart = Piece(
        np.setdiff1d(np.arange(180), whole_groups), whole_groups, np.zeros((40, 3)),
        np.zeros(40, np.int32), np.zeros(1),
    )  # fmt: skip
    assert leaked(FILES, [apart]) == 0
    assert leaked(FILES, [piece(range(0, 20))]) == 1  # their masks are trained on


def test_confusion_counts_every_test_file_of_every_seed() -> None:
    counts = confusion(FILES, [piece(range(0, 90)), piece(range(0, 30))])
    assert counts.sum() == 120
    assert (
        counts[0, 1]
        == ((TRUTH == 0) & (SAID == 1)).sum() + ((TRUTH[:30] == 0) & (SAID[:30] == 1)).sum()
    )


def test_arms_have_keys_that_are_file_names() -> None:
    assert len({arm.key for arm in ARMS}) == 4
    assert ARMS[0].key == "masks-as-images-random-split"
