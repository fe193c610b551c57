"""Folds by patient, stratified, with a part of their own to choose an epoch on."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from training.folds import k_folds, write_manifest
from training.manifest import LabelledImage, ManifestError, parse


def images(patients: int = 30, positive_every: int = 3) -> list[LabelledImage]:
    """Two views of one breast of each patient; the manifest has a split of its own."""
    return [
        LabelledImage(
            path=Path(f"{patient}-{view}.png"),
            patient_id=f"p{patient}",
            exam_date=date(2024, 1, 31) if patient % 2 else None,
            laterality="L",
            view=view,
            label="malignant" if patient % positive_every == 0 else "benign",
            split="train",
            attributes={"machine": str(patient % 4), "note": 'a, "b"'},
        )
        for patient in range(patients)
        for view in ("CC", "MLO")
    ]


def patients(part: object) -> set[str]:
    return {image.patient_id for image in part}  # type: ignore[attr-defined]


def test_every_image_is_tested_once() -> None:
    folds = k_folds(images(), 5, "malignant", val_fraction=0.25, seed=0)
    assert [fold.number for fold in folds] == [1, 2, 3, 4, 5]
    tested = [image.path for fold in folds for image in fold.test]
    assert sorted(tested) == sorted(image.path for image in images())


def test_parts_of_a_fold_share_no_patient() -> None:
    for fold in k_folds(images(), 5, "malignant", val_fraction=0.25, seed=0):
        parts = [
            patients(image for image in fold.images if image.split == "train"),
            patients(image for image in fold.images if image.split == "val"),
            patients(fold.test),
        ]
        assert all(parts)
        assert sum(map(len, parts)) == len(set().union(*parts)) == 30


def test_positives_are_spread_evenly_over_the_folds() -> None:
    for fold in k_folds(images(), 5, "malignant", val_fraction=0.25, seed=0):
        assert len({i.patient_id for i in fold.test if i.label == "malignant"}) == 2


def test_seed_decides_the_folds() -> None:
    def tested(seed: int) -> list[set[str]]:
        folds = k_folds(images(), 3, "malignant", val_fraction=0.25, seed=seed)
        return [patients(fold.test) for fold in folds]

    assert tested(1) == tested(1)
    assert tested(1) != tested(2)


def test_more_folds_than_patients_are_refused() -> None:
    with pytest.raises(ManifestError, match="9 folds need 9 patients; there are 6"):
        k_folds(images(6), 9, "malignant", val_fraction=0.25, seed=0)


def test_every_part_without_a_class_is_named() -> None:
    few = images(12, positive_every=6)  # two positive patients
    with pytest.raises(ManifestError) as found:
        k_folds(few, 4, "malignant", val_fraction=0.25, seed=0)
    text = str(found.value)
    assert text.count("its test part holds 0 images of 'malignant'") >= 2
    assert "fold" in text


def test_written_manifest_is_read_back_with_every_column(tmp_path: Path) -> None:
    rows = [replace(image, path=tmp_path / image.path) for image in images(3)]
    for row in rows:
        row.path.touch()
    write_manifest(rows, tmp_path / "fold.csv")
    assert parse(tmp_path / "fold.csv", Path()) == (rows, [])
