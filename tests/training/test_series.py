"""Breasts -> packed batches: every image once an epoch, and labels that tell the truth."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast
from tests.pictures import breast
from training.augment import augment
from training.breasts import Breasts
from training.manifest import LabelledImage
from training.series import Mix, Series, epoch_of_batches, pack, simulated, unchanged

INTERVALS = np.array([200, 365, 730])
POSITIVE = 1


@pytest.fixture(scope="module")
def breasts() -> Breasts:
    """Ten breasts of ten patients, two views each; three of them malignant."""
    pixels, rows, labels = [], [], []
    for patient in range(10):
        for view in ("CC", "MLO"):
            seed = 2 * patient + (view == "MLO")
            pixels.append(crop_breast(breast(seed=seed), InputGeometry(96, 64))[0])
            label = "malignant" if patient < 3 else "no_cancer"
            rows.append(LabelledImage(Path(f"{seed}.png"), f"p{patient}", None, "L", view, label))
            labels.append(int(patient < 3))
    return Breasts(np.stack(pixels), tuple(rows), np.array(labels, np.int32))


def picture(value: int) -> NDArray[np.uint8]:
    return np.full((4, 3), value, np.uint8)


def test_pack_places_every_image_and_pads_on_the_right() -> None:
    inputs, labels = pack(
        [
            Series(((picture(0),),), (0,), 1),
            Series(((picture(51), picture(102)), (picture(153),)), (0, 300), 0),
            Series(((picture(204),), (picture(255),), (picture(0),)), (0, 10, 20), 2),
        ]
    )
    np.testing.assert_array_equal(
        inputs["slots"],
        [
            [[0, -1], [-1, -1], [-1, -1]],
            [[1, 2], [3, -1], [-1, -1]],
            [[4, -1], [5, -1], [6, -1]],
        ],
    )
    np.testing.assert_array_equal(inputs["days"], [[0, 0, 0], [0, 300, 0], [0, 10, 20]])
    np.testing.assert_array_equal(labels, [1, 0, 2])
    assert inputs["images"].shape == (7, 4, 3, 1)
    np.testing.assert_allclose(
        inputs["images"][:, 0, 0, 0], [-1, -0.6, -0.2, 0.2, 0.6, 1, -1], atol=1e-6
    )


@pytest.mark.parametrize("share", [0.0, 0.35, 0.8])
@pytest.mark.parametrize("images_per_batch", [2, 4, 16])
def test_epoch_shows_every_image_once_and_ends(
    breasts: Breasts, images_per_batch: int, share: float
) -> None:
    mix = Mix(images_per_batch, series_share=share, unchanged_share=0.3, max_exams=4)
    batches = list(
        itertools.islice(
            epoch_of_batches(
                breasts, mix, positive=POSITIVE, intervals=INTERVALS, rng=np.random.default_rng(0)
            ),
            200,
        )
    )
    assert len(batches) < 200, "the epoch does not come to an end"
    assert sum(batch.epoch_images for batch in batches) == len(breasts)


def test_batch_holds_about_as_many_images_as_asked_for(breasts: Breasts) -> None:
    mix = Mix(16, series_share=0.35, unchanged_share=0.3, max_exams=4)
    rng = np.random.default_rng(0)
    *full, _ = epoch_of_batches(breasts, mix, positive=POSITIVE, intervals=INTERVALS, rng=rng)
    assert full
    for batch in full:
        assert 16 <= len(batch.inputs["images"]) <= 17


def test_same_seed_gives_the_same_epoch(breasts: Breasts) -> None:
    mix = Mix(8, series_share=0.35, unchanged_share=0.3, max_exams=4)
    epochs = [
        list(
            epoch_of_batches(
                breasts, mix, positive=POSITIVE, intervals=INTERVALS, rng=np.random.default_rng(s)
            )
        )
        for s in (1, 1, 2)
    ]
    for one, other in zip(epochs[0], epochs[1], strict=True):
        for name in ("images", "slots", "days"):
            np.testing.assert_array_equal(one.inputs[name], other.inputs[name])
        np.testing.assert_array_equal(one.labels, other.labels)
    assert not np.array_equal(epochs[0][0].inputs["images"], epochs[2][0].inputs["images"])


def test_simulated_series_are_positive_in_half_of_the_cases(breasts: Breasts) -> None:
    rng = np.random.default_rng(0)
    made = [simulated(breasts, 10, 3, POSITIVE, INTERVALS, rng) for _ in range(60)]
    share = np.mean([item.label == POSITIVE for item in made])
    assert 0.3 < share < 0.7
    for item in made:
        assert len(item.exams) == len(item.days) == 3
        assert item.days[0] == 0
        assert min(item.days[1:]) >= 200


def test_unchanged_series_keeps_the_label_of_its_image(breasts: Breasts) -> None:
    rng = np.random.default_rng(0)
    for index in (0, 10):
        item = unchanged(breasts, index, 4, INTERVALS, rng)
        assert item.label == breasts.labels[index]
        assert item.days[0] == 0
        assert set(item.days[1:]) <= set(INTERVALS)
        pictures = (item.exams[-1][0], breasts.pixels[index])
        one, other = (cv2.GaussianBlur(picture, (0, 0), 5).ravel() for picture in pictures)
        assert np.corrcoef(one.astype(float), other.astype(float))[0, 1] > 0.8


def test_augmented_breast_is_another_picture_of_the_same_kind(breasts: Breasts) -> None:
    pixels = breasts.pixels[0]
    before = pixels.copy()
    variants = [augment(pixels, np.random.default_rng(seed)) for seed in range(20)]
    np.testing.assert_array_equal(pixels, before)
    for variant in variants:
        assert variant.shape == pixels.shape
        assert variant.dtype == np.uint8
        assert not np.array_equal(variant, pixels)
        left, right = variant[:, :32].astype(float).mean(), variant[:, 32:].astype(float).mean()
        assert left > right, "the chest wall stays on the left"
    again = augment(pixels, np.random.default_rng(3))
    np.testing.assert_array_equal(again, variants[3])


def test_augmentation_mirrors_half_of_the_images_top_to_bottom() -> None:
    pixels = np.zeros((96, 64), np.uint8)
    pixels[10:30, 10:40] = 200
    turned = [
        augment(pixels, np.random.default_rng(seed))[:48].sum(dtype=int)
        < augment(pixels, np.random.default_rng(seed))[48:].sum(dtype=int)
        for seed in range(60)
    ]
    assert 0.3 < np.mean(turned) < 0.7
