"""Manifest rows -> preprocessed breasts, as the service would see them, and their cache."""

from __future__ import annotations

import os
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from app.imaging.preprocess import InputGeometry, preprocess
from tests.pictures import breast, dicom, png
from training.breasts import Breasts, load
from training.manifest import LabelledImage, ManifestError

SIZE = InputGeometry(96, 64)
CLASSES = ("no_cancer", "malignant")


def make(folder: Path, count: int, blank: int = 0) -> list[LabelledImage]:
    """Images of as many patients; the first ``blank`` of them show nothing."""
    rows = []
    for i in range(count):
        path = folder / f"{i}.png"
        pixels = np.zeros((300, 200), np.uint8) if i < blank else breast(300, 200, seed=i)
        path.write_bytes(png(pixels))
        rows.append(LabelledImage(path, f"p{i}", None, "L", "CC", CLASSES[i % 2], "train"))
    return rows


def test_training_sees_what_the_service_sees(tmp_path: Path) -> None:
    rows = make(tmp_path, 2)
    rows[1].path.write_bytes(dicom(breast(300, 200, seed=1, right=True)))
    loaded, left_out = load(rows, CLASSES, SIZE, tmp_path / "cache")
    assert left_out == {}
    for i, right in enumerate((False, True)):
        served = preprocess(breast(300, 200, seed=i, right=right), SIZE).tensor[..., 0]
        np.testing.assert_allclose(loaded.pixels[i] / 127.5 - 1, served, atol=1e-6)
    np.testing.assert_array_equal(loaded.labels, [0, 1])


def test_unusable_image_is_left_out_and_told(tmp_path: Path) -> None:
    rows = make(tmp_path, 40, blank=1)
    loaded, left_out = load(rows, CLASSES, SIZE, tmp_path / "cache")
    assert list(left_out) == [str(rows[0].path)]
    assert "no_breast_found" in left_out[str(rows[0].path)]
    assert [row.path for row in loaded.rows] == [row.path for row in rows[1:]]
    assert len(loaded.pixels) == len(loaded.labels) == len(loaded) == 39


def test_too_many_unusable_images_are_an_error_that_names_them(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="3 of 40 images are unusable") as caught:
        load(make(tmp_path, 40, blank=3), CLASSES, SIZE, tmp_path / "cache")
    assert str(tmp_path / "2.png") in str(caught.value)


def test_cache_gives_the_same_breasts_and_notices_a_changed_image(tmp_path: Path) -> None:
    rows = make(tmp_path, 40, blank=1)
    first, left_out = load(rows, CLASSES, SIZE, tmp_path / "cache")
    again, left_out_again = load(rows, CLASSES, SIZE, tmp_path / "cache")
    np.testing.assert_array_equal(first.pixels, again.pixels)
    assert left_out == left_out_again
    assert first.rows == again.rows
    rows[5].path.write_bytes(png(breast(300, 200, seed=77)))
    os.utime(rows[5].path, ns=(1, 1))
    changed, _ = load(rows, CLASSES, SIZE, tmp_path / "cache")
    different = [i for i in range(39) if not np.array_equal(first.pixels[i], changed.pixels[i])]
    assert different == [4]
    other_size, _ = load(rows, CLASSES, InputGeometry(64, 64), tmp_path / "cache")
    assert other_size.pixels.shape == (39, 64, 64)


def of(*rows: tuple[str, str, str, str, int]) -> Breasts:
    """``(patient, laterality, date, split, label)``."""
    made = tuple(
        LabelledImage(
            Path(f"{i}.png"), patient, date.fromisoformat(day) if day else None, side, "CC",
            CLASSES[label], split,
        )
        for i, (patient, side, day, split, label) in enumerate(rows)
    )  # fmt: skip
    labels = np.array([row[4] for row in rows], np.int32)
    return Breasts(np.arange(len(rows), dtype=np.uint8)[:, None, None], made, labels)


def test_breast_is_one_side_of_one_patient_at_one_date() -> None:
    breasts = of(
        ("a", "L", "", "train", 1),
        ("a", "R", "", "train", 0),
        ("a", "L", "", "train", 1),
        ("b", "L", "", "train", 0),
        ("b", "L", "2024-01-01", "train", 0),
    )
    assert sorted(breasts.by_breast()) == [[0, 2], [1], [3], [4]]


def test_images_of_unknown_side_with_different_labels_are_not_one_breast() -> None:
    """Else one of the two labels would be believed for both."""
    breasts = of(("a", "", "", "train", 1), ("a", "", "", "train", 0))
    for indices in breasts.by_breast():
        assert len(set(breasts.labels[indices])) == 1


def test_splits_keep_images_rows_and_labels_together() -> None:
    breasts = of(
        ("a", "L", "", "train", 1),
        ("b", "L", "", "val", 0),
        ("c", "L", "", "train", 0),
        ("d", "L", "", "val", 1),
    )
    val = breasts.of_split("val")
    assert [row.patient_id for row in val.rows] == ["b", "d"]
    np.testing.assert_array_equal(val.pixels.ravel(), [1, 3])
    np.testing.assert_array_equal(val.labels, [0, 1])
