"""The distribution of validation scores that a bundle brings: buckets and their shares."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_curve  # type: ignore[import-untyped]

from app.bundle import Bundle
from app.figures import Measured, Roc, RocPoint
from app.inference.reference import Reference, reference_of, references_of


def roc_of(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> Roc:
    return Roc(
        cases=len(scores),
        positives=int(truth.sum()),
        auc=Measured(value=0.5, low=0.5, high=0.5),
        points=tuple(
            RocPoint(false_positive_rate=f, sensitivity=s, threshold=t if np.isfinite(t) else None)
            for f, s, t in zip(*roc_curve(truth, scores, drop_intermediate=False), strict=True)
        ),
    )


def counted(reference: Reference, scores: NDArray[np.float64]) -> list[float]:
    buckets = [reference.bucket_of(float(score)) for score in scores]
    return [buckets.count(i) / len(scores) for i in range(1, len(reference.shares) + 1)]


def test_shares_are_those_of_the_scores_that_the_curve_was_drawn_of() -> None:
    chance = np.random.default_rng(1)
    scores = chance.beta(2, 5, 400).round(2)  # with many ties
    truth = (chance.random(400) < scores).astype(np.int64)
    reference = reference_of(roc_of(truth, scores))
    assert len(reference.shares) == 10
    assert counted(reference, scores) == pytest.approx(reference.shares)
    assert sum(reference.shares) == pytest.approx(1)
    assert max(reference.shares) < 0.2


def test_few_different_scores_make_few_buckets() -> None:
    scores = np.array([0.2, 0.2, 0.2, 0.8])
    reference = reference_of(roc_of(np.array([0, 1, 0, 1]), scores))
    assert reference == Reference((0.8,), (0.75, 0.25))


def test_a_single_score_makes_a_single_bucket() -> None:
    reference = reference_of(roc_of(np.array([0, 1]), np.array([0.5, 0.5])))
    assert reference == Reference((), (1.0,))


def test_edges_belong_to_the_bucket_above_and_the_last_has_no_end() -> None:
    reference = Reference((0.2, 0.5), (0.3, 0.3, 0.4))
    assert [reference.bucket_of(p) for p in (0.0, 0.19, 0.2, 0.5, 1.0)] == [1, 1, 2, 3, 3]


def test_the_shipped_bundle_brings_tenths_for_images_and_breasts(bundle: Bundle) -> None:
    references = references_of(bundle)
    assert references.keys() == {"image", "breast"}
    for reference in references.values():
        assert len(reference.shares) == 10
        assert sum(reference.shares) == pytest.approx(1)
        assert reference.edges == tuple(sorted(set(reference.edges)))
        assert 0.05 < min(reference.shares) <= max(reference.shares) < 0.15
