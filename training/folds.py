"""Images -> k folds by patient, each with a part to train on, one to choose on and one to test on.

Stratified by label. The part to choose an epoch on (``val``) is taken from the fold's training
patients: an epoch that was chosen on the test part would make its scores optimistic.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sklearn.model_selection import StratifiedGroupKFold

from training.manifest import COLUMNS, LabelledImage, ManifestError, with_splits


@dataclass(frozen=True)
class Fold:
    """``images`` to fit on, with split "train" or "val"; the patients of ``test`` are not among
    them. ``number`` counts from 1."""

    number: int
    images: tuple[LabelledImage, ...]
    test: tuple[LabelledImage, ...]


def k_folds(
    images: Sequence[LabelledImage], folds: int, positive: str, *, val_fraction: float, seed: int
) -> list[Fold]:
    """Split ``images`` (their own splits are ignored) into ``folds`` folds; every patient is in
    exactly one test part. Raises ``ManifestError`` naming every part that lacks one of both: the
    class ``positive``, any other.
    """
    unsplit = [replace(image, split="") for image in images]
    patients = [image.patient_id for image in unsplit]
    if len(set(patients)) < folds:
        raise ManifestError(f"{folds} folds need {folds} patients; there are {len(set(patients))}")
    labels = [image.label for image in unsplit]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    try:
        parts = list(splitter.split(unsplit, labels, patients))
    except ValueError as fault:  # fewer images of every class than folds
        raise ManifestError(f"{folds} folds: {fault}") from None
    found = [
        Fold(
            number,
            tuple(with_splits([unsplit[i] for i in train], val_fraction, seed)),
            tuple(unsplit[i] for i in test),
        )
        for number, (train, test) in enumerate(parts, start=1)
    ]
    findings = [finding for fold in found for finding in _lacking(fold, positive)]
    if findings:
        raise ManifestError("\n".join([f"{folds} folds are too many for these images", *findings]))
    return found


def _lacking(fold: Fold, positive: str) -> list[str]:
    parts = {
        "train": [image for image in fold.images if image.split == "train"],
        "val": [image for image in fold.images if image.split == "val"],
        "test": fold.test,
    }
    return [
        f"fold {fold.number}: its {name} part holds {have} images of {positive!r} of {len(part)}"
        for name, part in parts.items()
        if (have := sum(image.label == positive for image in part)) in (0, len(part))
    ]


def write_manifest(images: Sequence[LabelledImage], path: Path) -> None:
    """Write a manifest CSV with every column, attributes included. Its image paths are relative
    to the working directory, or absolute: read it with ``image_root = "."``."""
    attributes = dict.fromkeys(name for image in images for name in image.attributes)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*COLUMNS, "split", *attributes], restval="")
        writer.writeheader()
        writer.writerows(
            {
                **image.attributes,
                "image": image.path,
                "patient_id": image.patient_id,
                "exam_date": image.exam_date or "",
                "laterality": image.laterality,
                "view": image.view,
                "label": image.label,
                "split": image.split,
            }
            for image in images
        )
