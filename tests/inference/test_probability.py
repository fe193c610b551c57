"""Logits -> probabilities: sums, temperature, and what each exam did to the result."""

from __future__ import annotations

import numpy as np
import pytest

from app.bundle import Bundle, Manifest
from app.inference.probability import calibrated, influences, softmax
from app.inference.sessions import ExamReading


def manifest_with(bundle: Bundle, temperature: float) -> Manifest:
    return bundle.manifest.model_copy(update={"temperature": temperature})


def test_softmax_of_equal_logits_is_even() -> None:
    np.testing.assert_allclose(softmax(np.zeros(4, np.float32)), 0.25)


def test_softmax_of_huge_logits_stays_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([-1e30, 1e30], np.float32)), [0, 1])


def test_softmax_is_taken_over_the_last_axis() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (5, 3)).astype(np.float32)
    probabilities = softmax(logits)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    np.testing.assert_allclose(np.log(probabilities[:, 0] / probabilities[:, 1]),
                               logits[:, 0] - logits[:, 1], atol=1e-5)  # fmt: skip


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, 0.880797), (2.0, 0.731059), (0.5, 0.982014)]
)
def test_temperature_divides_the_logits(
    bundle: Bundle, temperature: float, expected: float
) -> None:
    manifest = manifest_with(bundle, temperature)
    logits = np.zeros(2, np.float32)
    logits[manifest.positive_index] = 2.0
    assert calibrated(logits, manifest) == pytest.approx(expected, abs=1e-6)


def test_changes_of_the_exams_add_up_to_the_result(bundle: Bundle) -> None:
    rng = np.random.default_rng(0)
    steps = rng.normal(0, 2, (5, 2)).astype(np.float32)
    empty = rng.normal(0, 2, 2).astype(np.float32)
    reading = ExamReading(steps[-1], steps, empty, np.zeros((5, 1, 2, 4, 4), np.float32))
    found = influences(reading, bundle.manifest)
    before = float(calibrated(empty, bundle.manifest))
    after = float(calibrated(steps[-1], bundle.manifest))
    assert before + sum(influence.change for influence in found) == pytest.approx(after)
    assert found[-1].probability_after == pytest.approx(after)
