"""Manifest -> images with patient, exam, view and label.

Two layouts are read: a CSV (``image, patient_id, exam_date, laterality, view, label`` and an
optional ``split``), and the folder-per-class layout of the paper. Splits are by patient, always.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np

COLUMNS = ("image", "patient_id", "exam_date", "laterality", "view", "label")
SPLITS = ("train", "val")
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"}


class ManifestError(ValueError):
    """Everything wrong with a manifest, one finding per line."""


@dataclass(frozen=True)
class LabelledImage:
    """One row: an image of one breast at one date.

    ``exam_date`` is None where unknown; ``laterality`` is "L", "R" or ""; ``split`` is "train",
    "val" or "" (not yet split). ``attributes`` holds every other column: what subgroups are made
    of (density, age, machine), never an input of the model.
    """

    path: Path
    patient_id: str
    exam_date: date | None
    laterality: str
    view: str
    label: str
    split: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)


def read(source: Path, image_root: Path | None = None) -> list[LabelledImage]:
    """Read a manifest CSV or a folder with one sub-folder per class.

    Image paths of a CSV are relative to ``image_root``, by default the CSV's folder. Raises
    ``ManifestError`` with every finding and its line number.
    """
    images = read_folder(source) if source.is_dir() else read_csv(source, image_root)
    labels = {image.label for image in images}
    if len(labels) < 2:
        raise ManifestError(f"{source}: at least two classes are needed, found {sorted(labels)}")
    return images


def read_csv(source: Path, image_root: Path | None = None) -> list[LabelledImage]:
    root = image_root or source.parent
    with source.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise ManifestError(f"{source}: missing column(s): {', '.join(missing)}")
        images: list[LabelledImage] = []
        findings: list[str] = []
        for line, row in enumerate(reader, start=2):
            try:
                images.append(_image_from_row(row, root))
            except ValueError as fault:
                findings.append(f"line {line}: {fault}")
    if findings:
        raise ManifestError("\n".join([f"{source}: {len(findings)} finding(s)", *findings]))
    return images


def _image_from_row(row: dict[str, str], root: Path) -> LabelledImage:
    values = {name: (row.get(name) or "").strip() for name in (*COLUMNS, "split")}
    for required in ("image", "patient_id", "label"):
        if not values[required]:
            raise ValueError(f"{required} is empty")
    if values["laterality"] not in ("", "L", "R"):
        raise ValueError(f"laterality is {values['laterality']!r}, not L, R or empty")
    if values["split"] not in ("", *SPLITS):
        raise ValueError(f"split is {values['split']!r}, not one of {', '.join(SPLITS)}")
    path = root / values["image"]
    if not path.is_file():
        raise ValueError(f"no such image: {path}")
    return LabelledImage(
        path=path,
        patient_id=values["patient_id"],
        exam_date=_date(values["exam_date"]),
        laterality=values["laterality"],
        view=values["view"],
        label=values["label"],
        split=values["split"],
        attributes={
            name: (value or "").strip()
            for name, value in row.items()
            if name and name not in (*COLUMNS, "split")
        },
    )


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise ValueError(f"exam_date is {text!r}, not a date like 2024-01-31") from None


def read_folder(source: Path) -> list[LabelledImage]:
    """Read ``source/<class>/<image>``.

    This layout names no patients, so identical files are taken as one patient (a copy must not
    land on both sides of a split) and every other image as a patient of its own.
    """
    return [
        LabelledImage(
            path=path,
            patient_id=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            exam_date=None,
            laterality="",
            view="",
            label=folder.name,
        )
        for folder in sorted(path for path in source.iterdir() if path.is_dir())
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _IMAGE_SUFFIXES
    ]


def with_splits(
    images: Sequence[LabelledImage], val_fraction: float, seed: int
) -> list[LabelledImage]:
    """Keep the manifest's splits, or split by patient, stratified by the patient's labels.

    Raises ``ManifestError`` if only some rows name a split, or a patient is on both sides.
    """
    named = sum(bool(image.split) for image in images)
    if 0 < named < len(images):
        raise ManifestError(f"{len(images) - named} of {len(images)} rows name no split")
    if named == 0:
        val = _val_patients(images, val_fraction, seed)
        images = [
            replace(image, split="val" if image.patient_id in val else "train") for image in images
        ]
    check_patients_apart(images)
    return list(images)


def check_patients_apart(images: Sequence[LabelledImage]) -> None:
    """Raise ``ManifestError`` naming every patient that is in more than one split."""
    splits: dict[str, set[str]] = defaultdict(set)
    for image in images:
        splits[image.patient_id].add(image.split)
    both = sorted(patient for patient, found in splits.items() if len(found) > 1)
    if both:
        raise ManifestError(f"{len(both)} patient(s) in more than one split: {', '.join(both)}")


def _val_patients(images: Sequence[LabelledImage], fraction: float, seed: int) -> set[str]:
    labels: dict[str, set[str]] = defaultdict(set)
    for image in images:
        labels[image.patient_id].add(image.label)
    strata: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for patient, found in sorted(labels.items()):
        strata[tuple(sorted(found))].append(patient)
    rng = np.random.default_rng(seed)
    chosen: set[str] = set()
    for patients in strata.values():
        if len(patients) > 1:  # a stratum of one is worth more in training
            order = rng.permutation(len(patients))
            chosen |= {patients[i] for i in order[: max(1, round(fraction * len(patients)))]}
    return chosen


def classes_of(images: Sequence[LabelledImage], positive: str) -> tuple[str, ...]:
    """The classes found in the data, the positive one last. Raises ``ManifestError``."""
    found = {image.label for image in images}
    if positive not in found:
        raise ManifestError(f"positive class {positive!r} is not among {sorted(found)}")
    return (*sorted(found - {positive}), positive)


def fingerprint(images: Sequence[LabelledImage]) -> str:
    """SHA-256 over every row and every image's bytes: the data a model was trained on."""
    digest = hashlib.sha256()
    for image in images:
        row = (image.patient_id, str(image.exam_date), image.laterality, image.view)
        digest.update("\t".join((*row, image.label, image.split)).encode())
        digest.update(hashlib.sha256(image.path.read_bytes()).digest())
    return digest.hexdigest()
