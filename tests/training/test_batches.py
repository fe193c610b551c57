"""Breasts -> batches: every image once an epoch, masses where the targets say they are."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.imaging.preprocess import InputGeometry, crop_breast
from tests.pictures import breast
from training.batches import (
    Batch,
    Mass,
    Mix,
    draw_mass,
    epoch_of_batches,
    place_of,
    weights_of_labels,
)
from training.breasts import Breasts
from training.config import OptimiserConfig
from training.manifest import LabelledImage

GRID = (6, 4)


@pytest.fixture(scope="module")
def breasts() -> Breasts:
    """Ten breasts of ten patients, two views each; three of them malignant."""
    pixels, rows, labels = [], [], []
    for patient in range(10):
        for view in ("CC", "MLO"):
            seed = 2 * patient + (view == "MLO")
            pixels.append(crop_breast(breast(seed=seed), InputGeometry(96, 64))[0])
            label = "malignant" if patient < 3 else "no_cancer"
            machine = "a" if patient in (0, 3, 4, 5, 6) else "b"
            rows.append(
                LabelledImage(
                    Path(f"{seed}.png"), f"p{patient}", None, "L", view, label,
                    attributes={"machine": machine},
                )
            )  # fmt: skip
            labels.append(int(patient < 3))
    return Breasts(np.stack(pixels), tuple(rows), np.array(labels, np.int32))


def epoch(breasts: Breasts, seed: int = 0, **changes: Any) -> list[Batch]:
    options: dict[str, Any] = {
        "images_per_batch": 8, "mass_share": 0.25, "grid": GRID, "label_smoothing": 0.0,
    }  # fmt: skip
    batches = epoch_of_batches(
        breasts,
        np.ones(len(breasts), np.float32),
        Mix(**options | changes),
        classes=2,
        positive=1,
        rng=np.random.default_rng(seed),
    )
    return list(itertools.islice(batches, 200))


@pytest.mark.parametrize("mass_share", [0.0, 0.35, 0.8])
@pytest.mark.parametrize("images_per_batch", [2, 4, 16])
def test_epoch_shows_every_image_once_and_ends(
    breasts: Breasts, images_per_batch: int, mass_share: float
) -> None:
    batches = epoch(breasts, images_per_batch=images_per_batch, mass_share=mass_share)
    assert len(batches) < 200, "the epoch does not come to an end"
    assert sum(batch.epoch_images for batch in batches) == len(breasts)
    real = [
        picture.tobytes()
        for batch in batches
        for picture in batch.inputs["images"][: batch.epoch_images]
    ]
    assert len(set(real)) == len(breasts)


def test_label_is_that_of_the_exam_and_masses_have_none(breasts: Breasts) -> None:
    positive = 0.0
    for batch in epoch(breasts):
        exams = batch.inputs["slots"].shape[0]
        assert batch.targets["label"].shape == (exams, 2)
        used = batch.inputs["slots"][batch.inputs["slots"] >= 0]
        assert sorted(used) == list(range(batch.epoch_images)), "a mass has no slot"
        views = (batch.inputs["slots"] >= 0).sum(axis=(1, 2))
        positive += float((views * batch.targets["label"][:, 1]).sum())
    assert positive == breasts.labels.sum()


def test_places_and_sizes_are_taught_on_masses_alone(breasts: Breasts) -> None:
    for batch in epoch(breasts):
        real = np.arange(len(batch.inputs["images"])) < batch.epoch_images
        np.testing.assert_array_equal(batch.inputs["vary"], real)
        np.testing.assert_array_equal(batch.targets["place_weight"], ~real)
        assert not batch.targets["size_weight"][real].any()
        assert not batch.targets["place"][real].any()


def test_same_seed_gives_the_same_epoch(breasts: Breasts) -> None:
    one, same, other = epoch(breasts, 1), epoch(breasts, 1), epoch(breasts, 2)
    for batch, again in zip(one, same, strict=True):
        for name in batch.inputs:
            np.testing.assert_array_equal(batch.inputs[name], again.inputs[name])
        for name in batch.targets:
            np.testing.assert_array_equal(batch.targets[name], again.targets[name])
    assert not np.array_equal(one[0].inputs["images"], other[0].inputs["images"])


def test_mass_lies_where_its_target_says() -> None:
    mass = Mass(np.zeros((96, 64), np.uint8), row=0.25, column=0.625, diameter_mm=10, radius=0.05)
    place = place_of(mass, GRID, aspect=64 / 96)
    assert np.unravel_index(int(place.argmax()), GRID) == (1, 2)
    assert place[1, 2] > 0.5
    assert place[4:].max() == 0
    none = Mass(mass.image, 0.25, 0.625, diameter_mm=0, radius=0)
    assert not place_of(none, GRID, aspect=64 / 96).any()


def test_drawn_mass_changes_the_picture_where_it_says() -> None:
    """Against the same draw with the mass left out, the difference is centred on the mass."""
    image = crop_breast(breast(seed=3), InputGeometry(512, 320))[0]
    found = 0
    for seed in range(12):
        made = draw_mass(image, np.random.default_rng(seed))
        if made.diameter_mm < 8:
            continue
        found += 1
        height, width = made.image.shape
        row, column = made.row * height, made.column * width
        r = made.radius * height
        y, x = np.mgrid[:height, :width]
        distance = np.hypot(y - row, x - column)
        inside = made.image[distance < 0.5 * r].mean()
        around = made.image[(distance > 1.5 * r) & (distance < 2.2 * r)].mean()
        assert inside > around
    assert found >= 3


def test_balanced_weights_give_every_class_the_same_weight(breasts: Breasts) -> None:
    weights = weights_of_labels(breasts, OptimiserConfig(class_weights="balanced"))
    assert weights.mean() == pytest.approx(1)
    assert weights[breasts.labels == 1].sum() == pytest.approx(weights[breasts.labels == 0].sum())


def test_balancing_within_machines_makes_the_machine_tell_nothing(breasts: Breasts) -> None:
    weights = weights_of_labels(breasts, OptimiserConfig(balance_within="machine"))
    machines = [row.attributes["machine"] for row in breasts.rows]
    assert Counter(machines) == {"a": 10, "b": 10}
    shares = []
    for name in "ab":
        of = np.array([machine == name for machine in machines])
        shares.append(weights[of & (breasts.labels == 1)].sum() / weights[of].sum())
    assert shares[0] == pytest.approx(shares[1])


def test_without_weights_every_label_counts_the_same(breasts: Breasts) -> None:
    np.testing.assert_array_equal(weights_of_labels(breasts, OptimiserConfig()), 1)
