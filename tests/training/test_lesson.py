"""The training graph: what it teaches reaches the hybrid, and what is unknown teaches nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.hybrids import SIDE, small_hybrid
from training.models.lesson import Lesson


@pytest.fixture
def lesson() -> Lesson:
    made = Lesson(small_hybrid(), seed=1)
    made.build()
    return made


def inputs(count: int = 4) -> dict[str, NDArray[Any]]:
    """Two exams, of two views and of one; the second is darker, and a fourth image is of none."""
    images = np.random.default_rng(2).uniform(-0.5, 1, (count, SIDE, SIDE, 1)).astype(np.float32)
    images[2:] -= 0.5
    return {
        "images": images,
        "vary": np.ones(count, np.float32),
        "slots": np.array([[[0, 1]], [[2, -1]]], np.int32),
        "days": np.zeros((2, 1), np.float32),
    }


def targets(count: int = 4, **weights: float) -> dict[str, NDArray[np.float32]]:
    place = np.zeros((count, 4, 4), np.float32)
    place[:, 1, 2] = 1
    return {
        "label": np.eye(2, dtype=np.float32),
        "label_weight": np.full(2, weights.get("label", 0), np.float32),
        "place": place,
        "place_weight": np.full(count, weights.get("place", 0), np.float32),
        "size": np.full(count, 0.4, np.float32),
        "size_weight": np.full(count, weights.get("size", 0), np.float32),
    }


def test_label_logits_are_those_of_the_hybrid(lesson: Lesson) -> None:
    given = inputs()
    expected = lesson.hybrid({name: given[name] for name in ("images", "slots", "days")})
    np.testing.assert_allclose(lesson(given)["label"], expected, atol=1e-5)


def test_nothing_known_is_nothing_to_learn(lesson: Lesson) -> None:
    answer = lesson(inputs())
    assert float(lesson.compute_loss(y=targets(), y_pred=answer)) == 0
    for name in ("label", "place", "size"):
        assert float(lesson.compute_loss(y=targets(**{name: 1.0}), y_pred=answer)) > 0.01


def test_size_of_a_batch_does_not_weigh_its_loss(lesson: Lesson) -> None:
    answer = lesson(inputs())
    once = lesson.compute_loss(y=targets(label=1, place=1, size=1), y_pred=answer)
    thrice = lesson.compute_loss(y=targets(label=3, place=3, size=3), y_pred=answer)
    assert float(once) == pytest.approx(float(thrice), rel=1e-5)


@pytest.mark.parametrize("name", ["label", "place", "size"])
def test_every_target_is_learned_and_changes_the_hybrid(name: str) -> None:
    lesson = Lesson(small_hybrid(dropout=0.0))
    lesson.build()
    lesson.compile(keras.optimizers.Adam(1e-3))
    before = [w.copy() for w in lesson.hybrid.encoder.get_weights()]
    losses = []
    for _ in range(40):
        lesson.reset_metrics()  # else the loss is the mean since the beginning
        losses.append(float(lesson.train_on_batch(inputs(), targets(**{name: 1.0}))))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    after = lesson.hybrid.encoder.get_weights()
    assert any(np.abs(a - b).max() > 1e-4 for a, b in zip(after, before, strict=True))


def test_saved_lesson_is_the_same_lesson(lesson: Lesson, tmp_path: Path) -> None:
    lesson.save(tmp_path / "lesson.keras")
    loaded = keras.models.load_model(tmp_path / "lesson.keras")
    for name, found in lesson(inputs()).items():
        np.testing.assert_array_equal(found, loaded(inputs())[name])
