"""The hybrid's arithmetic: padding is nothing, views have no order, exams and days have one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.hybrids import SIDE, small_hybrid
from training.models.hybrid import Hybrid
from training.series import Series, pack


@pytest.fixture(scope="module")
def model() -> Hybrid:
    return small_hybrid()


@pytest.fixture(scope="module")
def images() -> NDArray[np.uint8]:
    rng = np.random.default_rng(5)
    coarse = rng.integers(0, 256, (8, 6, 6), dtype=np.uint8)
    return np.repeat(np.repeat(coarse, 11, axis=1), 11, axis=2)[:, :SIDE, :SIDE].copy()


def series(images: NDArray[np.uint8], *exams: tuple[int, ...], days: tuple[int, ...]) -> Series:
    return Series(tuple(tuple(images[i] for i in views) for views in exams), days, label=0)


def logits(model: Hybrid, *items: Series) -> NDArray[np.float32]:
    return np.asarray(model(pack(items)[0], training=False))


def test_padding_does_not_change_the_logits(model: Hybrid, images: NDArray[np.uint8]) -> None:
    items = [
        series(images, (0,), days=(0,)),
        series(images, (1, 2), (3,), (4, 5, 6), days=(0, 300, 500)),
        series(images, (7,), (0,), days=(0, 1000)),
    ]
    together = logits(model, *items)
    for item, found in zip(items, together, strict=True):
        np.testing.assert_allclose(logits(model, item)[0], found, atol=1e-5)
    assert np.abs(together[0] - together[2]).max() > 1e-3


def test_what_stands_in_the_padding_does_not_matter(
    model: Hybrid, images: NDArray[np.uint8]
) -> None:
    inputs, _ = pack(
        [
            series(images, (0,), days=(0,)),
            series(images, (1,), (2,), (3,), days=(0, 300, 500)),
        ]
    )
    changed = {**inputs, "days": inputs["days"].copy()}
    changed["days"][0, 1:] = 12_345
    np.testing.assert_allclose(np.asarray(model(inputs)), np.asarray(model(changed)), atol=1e-6)


def test_order_of_views_does_not_matter(model: Hybrid, images: NDArray[np.uint8]) -> None:
    one = logits(model, series(images, (0, 1, 2), (3, 4), days=(0, 365)))
    other = logits(model, series(images, (2, 0, 1), (4, 3), days=(0, 365)))
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_exam_is_the_mean_of_its_views(model: Hybrid, images: NDArray[np.uint8]) -> None:
    one = logits(model, series(images, (0,), days=(0,)))
    thrice = logits(model, series(images, (0, 0, 0), days=(0,)))
    np.testing.assert_allclose(one, thrice, atol=1e-5)
    assert np.abs(one - logits(model, series(images, (0, 1), days=(0,)))).max() > 1e-3


def test_order_of_exams_matters(model: Hybrid, images: NDArray[np.uint8]) -> None:
    one = logits(model, series(images, (0,), (1,), (2,), days=(0, 365, 365)))
    other = logits(model, series(images, (1,), (0,), (2,), days=(0, 365, 365)))
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("days", [(0, 30, 365), (0, 365, 30), (0, 1000, 365)])
def test_days_between_exams_matter(
    model: Hybrid, images: NDArray[np.uint8], days: tuple[int, ...]
) -> None:
    one = logits(model, series(images, (0,), (1,), (2,), days=(0, 365, 365)))
    other = logits(model, series(images, (0,), (1,), (2,), days=days))
    assert np.abs(one - other).max() > 1e-4


def test_every_exam_has_the_logits_of_the_series_up_to_it(
    model: Hybrid, images: NDArray[np.uint8]
) -> None:
    exams, days = ((0,), (1, 2), (3,)), (0, 300, 700)
    inputs, _ = pack([series(images, *exams, days=days)])
    pooled = model.pool(model.feature_maps(inputs["images"]))
    each = np.asarray(model.read_every_exam(pooled, inputs["slots"], inputs["days"]))[0]
    for length in (1, 2, 3):
        shorter = logits(model, series(images, *exams[:length], days=days[:length]))
        np.testing.assert_allclose(shorter[0], each[length - 1], atol=1e-5)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_there_is_a_logit_for_every_class(classes: int, images: NDArray[np.uint8]) -> None:
    found = logits(small_hybrid(classes), series(images, (0,), days=(0,)))
    assert found.shape == (1, classes)
    assert np.isfinite(found).all()


def test_saved_model_is_the_same_model(
    model: Hybrid, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    item = series(images, (0, 1), (2,), days=(0, 365))
    np.testing.assert_array_equal(logits(model, item), logits(loaded, item))


def frozen_layers(model: Any) -> list[str]:
    return [layer.name for layer in model.encoder.layers if not layer.trainable]


@pytest.mark.parametrize(
    ("until", "frozen", "free"), [("", [], "conv0"), ("pool1", ["conv0", "conv1"], "conv2")]
)
def test_layers_up_to_the_named_one_keep_their_weights(
    until: str, frozen: list[str], free: str
) -> None:
    model = Hybrid(encoder="paper", height=SIDE, width=SIDE, classes=2, frozen_until=until)
    assert set(frozen) <= set(frozen_layers(model))
    assert free not in frozen_layers(model)
    assert (until in frozen_layers(model)) == bool(until)


def test_freezing_until_a_layer_that_is_none_is_an_error() -> None:
    with pytest.raises(ValueError, match="no-such-layer"):
        Hybrid(encoder="paper", height=SIDE, width=SIDE, classes=2, frozen_until="no-such-layer")
