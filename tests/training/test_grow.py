"""A grown hybrid: room to learn time, and not a hair's difference for a single exam."""

from __future__ import annotations

import keras
import numpy as np
from numpy.typing import NDArray

from tests.training.hybrids import SIDE, small_hybrid
from tests.training.test_hybrid import logits, series
from training.models.grow import grow, keep_first_exam
from training.models.hybrid import Hybrid
from training.series import Series, pack


def images() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (6, SIDE, SIDE), dtype=np.uint8)


def single() -> Series:
    return series(images(), (0, 1), days=(0,))


def trained(grown: Hybrid, model: Hybrid) -> None:
    """Twenty large steps that a single exam is in as well."""
    restore = keep_first_exam(grown, model)
    grown.encoder.trainable = grown.pooled_norm.trainable = False
    grown.compile(
        keras.optimizers.Adam(0.05), keras.losses.CategoricalCrossentropy(from_logits=True)
    )
    inputs, _ = pack([series(images(), (2,), (3,), (4,), days=(0, 300, 500)), single()])
    for _ in range(20):
        grown.train_on_batch(inputs, np.eye(2, dtype=np.float32))
        restore()


def test_grown_hybrid_has_more_features_and_units() -> None:
    grown = grow(small_hybrid(), features=5, units=7)
    assert grown.feature.units == 12 + 5
    assert grown.lstms[0].units == 8 + 7


def test_grown_hybrid_reads_a_single_exam_as_before() -> None:
    model = small_hybrid()
    np.testing.assert_allclose(
        logits(grow(model, 5, 7), single()), logits(model, single()), atol=1e-5
    )


def test_training_on_series_does_not_change_the_reading_of_a_single_exam() -> None:
    model = small_hybrid()
    grown = grow(model, 5, 7)
    before = logits(grown, series(images(), (2,), (3,), (4,), days=(0, 300, 500)))
    trained(grown, model)
    after = logits(grown, series(images(), (2,), (3,), (4,), days=(0, 300, 500)))
    assert np.abs(after - before).max() > 1, "series are read otherwise"
    np.testing.assert_allclose(logits(grown, single()), logits(model, single()), atol=2e-4)


def test_a_second_exam_is_heard_even_soon_after_the_first() -> None:
    model = small_hybrid()
    grown = grow(model, 5, 7)
    trained(grown, model)
    one = logits(grown, series(images(), (2,), (3,), days=(0, 60)))
    other = logits(grown, series(images(), (4,), (3,), days=(0, 60)))
    assert np.abs(one - other).max() > 1e-2
