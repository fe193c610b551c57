"""Augmentation in the graph: another picture of the same kind, and only where it may be."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast, to_tensor
from tests.pictures import breast
from training.augment import Augment


@pytest.fixture(scope="module")
def images() -> NDArray[np.float32]:
    """Sixty times the same breast, [60, 96, 64, 1]."""
    one = to_tensor(crop_breast(breast(seed=1), InputGeometry(96, 64))[0])
    return np.repeat(one[None], 60, axis=0)


def varied(images: NDArray[np.float32], vary: float, seed: int = 0) -> NDArray[np.float32]:
    return np.asarray(Augment(seed)(images, np.full(len(images), vary, np.float32)))


def test_variants_differ_from_the_image_and_from_each_other(images: NDArray[np.float32]) -> None:
    found = varied(images, 1)
    assert found.shape == images.shape
    assert found.min() >= -1
    assert found.max() <= 1
    assert len({picture.tobytes() for picture in found}) == len(found)


def test_chest_wall_stays_on_the_left(images: NDArray[np.float32]) -> None:
    for picture in varied(images, 1):
        assert picture[:, :32].mean() > picture[:, 32:].mean()


def test_half_of_the_images_are_mirrored_top_to_bottom() -> None:
    picture = np.full((60, 96, 64, 1), -1, np.float32)
    picture[:, 10:30, 10:40] = 0.6
    found = varied(picture, 1)
    turned = found[:, :48].sum(axis=(1, 2, 3)) < found[:, 48:].sum(axis=(1, 2, 3))
    assert 0.3 < turned.mean() < 0.7


def test_image_that_must_stay_in_place_only_changes_its_greys() -> None:
    picture = np.full((20, 96, 64, 1), -1, np.float32)
    picture[:, 10:30, 10:40] = 0.2
    found = varied(picture, 0)
    np.testing.assert_array_equal(found > -1, picture > -1)
    assert np.abs(found - picture).max() > 0.01


def test_air_stays_air(images: NDArray[np.float32]) -> None:
    air = images <= -0.999
    np.testing.assert_array_equal(varied(images, 0)[air], -1)


def test_same_seed_gives_the_same_variants(images: NDArray[np.float32]) -> None:
    np.testing.assert_array_equal(varied(images, 1, seed=5), varied(images, 1, seed=5))
    assert not np.array_equal(varied(images, 1, seed=5), varied(images, 1, seed=6))
