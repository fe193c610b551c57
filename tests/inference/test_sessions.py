"""The shipped graphs on real and made images: batching, views, padding and order."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.bundle import Bundle
from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, preprocess
from app.inference.sessions import Features, Sessions
from tests.pictures import breast, real_dicom

DAYS = np.array([0, 380, 700], np.float32)


@pytest.fixture(scope="module")
def sessions(bundle: Bundle) -> Sessions:
    return Sessions(bundle.encoder, bundle.head, device="cpu")


@pytest.fixture(scope="module")
def features(bundle: Bundle, sessions: Sessions) -> Features:
    """Of a real mammogram and three made ones."""
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    pictures: list[NDArray[np.uint8] | NDArray[np.uint16]] = [
        decode(real_dicom("explicit"), 10**6)[0],
        *(breast(spots=[(150 * i, 100)], seed=i) for i in (1, 2, 3)),
    ]
    return sessions.encode(np.stack([preprocess(pixels, size).tensor for pixels in pictures]))


def slots(*exams: tuple[int, ...]) -> NDArray[np.int32]:
    return np.array(exams, np.int32)


def test_map_has_the_grid_that_the_manifest_promises(
    bundle: Bundle, sessions: Sessions, features: Features
) -> None:
    reading = sessions.read(features, slots((0,)), DAYS[:1])
    grid = (bundle.manifest.heatmap.rows, bundle.manifest.heatmap.columns)
    assert features.maps.shape[1:3] == grid
    assert reading.heatmaps.shape == (1, 1, len(bundle.manifest.classes), *grid)
    assert reading.logits.shape == (len(bundle.manifest.classes),)


def test_pooled_features_are_the_mean_of_the_maps(features: Features) -> None:
    np.testing.assert_allclose(features.pooled, features.maps.mean(axis=(1, 2)), rtol=1e-4)


def test_batch_gives_what_single_images_give(bundle: Bundle, sessions: Sessions) -> None:
    size = InputGeometry(bundle.manifest.input.height, bundle.manifest.input.width)
    images = np.stack([preprocess(breast(seed=i), size).tensor for i in range(4)])
    together = sessions.encode(images)
    for i in range(4):
        alone = sessions.encode(images[i : i + 1])
        np.testing.assert_allclose(alone.pooled[0], together.pooled[i], rtol=1e-3, atol=1e-5)


def test_last_step_of_a_series_is_its_result(sessions: Sessions, features: Features) -> None:
    reading = sessions.read(features, slots((0,), (1,), (2,)), DAYS)
    np.testing.assert_allclose(reading.logits, reading.step_logits[-1], atol=1e-6)


def test_each_step_is_the_result_of_the_series_up_to_there(
    sessions: Sessions, features: Features
) -> None:
    reading = sessions.read(features, slots((0,), (1,), (2,)), DAYS)
    for length in (1, 2):
        shorter = sessions.read(features, slots((0,), (1,), (2,))[:length], DAYS[:length])
        np.testing.assert_allclose(shorter.logits, reading.step_logits[length - 1], atol=1e-5)


def test_order_of_views_does_not_matter_and_their_number_is_free(
    sessions: Sessions, features: Features
) -> None:
    one = sessions.read(features, slots((0, 1, 2)), DAYS[:1])
    other = sessions.read(features, slots((2, 0, 1)), DAYS[:1])
    padded = sessions.read(features, slots((0, 1, 2, -1, -1)), DAYS[:1])
    np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)
    np.testing.assert_allclose(one.logits, padded.logits, atol=1e-5)
    np.testing.assert_allclose(one.heatmaps[0, 0], other.heatmaps[0, 1], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(one.heatmaps[0, 0], padded.heatmaps[0, 0], rtol=1e-3, atol=1e-5)


def test_place_without_a_view_has_no_map(sessions: Sessions, features: Features) -> None:
    reading = sessions.read(features, slots((0, -1), (1, 2)), DAYS[:2])
    assert (reading.heatmaps[0, 1] == 0).all()
    assert (reading.heatmaps >= 0).all()


def test_order_and_dates_of_exams_matter(sessions: Sessions, features: Features) -> None:
    reading = sessions.read(features, slots((0,), (1,), (2,)), DAYS)
    turned = sessions.read(features, slots((1,), (0,), (2,)), DAYS)
    later = sessions.read(features, slots((0,), (1,), (2,)), DAYS * 3)
    assert np.abs(reading.logits - turned.logits).max() > 1e-6
    assert np.abs(reading.logits - later.logits).max() > 1e-6


def test_reading_before_any_exam_is_the_same_for_every_series(
    sessions: Sessions, features: Features
) -> None:
    one = sessions.read(features, slots((0,)), DAYS[:1])
    other = sessions.read(features, slots((1,), (2,)), DAYS[:2])
    np.testing.assert_array_equal(one.empty_logits, other.empty_logits)
    assert one.empty_logits.shape == one.logits.shape
