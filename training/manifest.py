"""Manifest -> images with patient, exam, view and label.

Two layouts are read: a CSV (``image, patient_id, exam_date, laterality, view, label`` and an
optional ``split``), and the folder-per-class layout of the paper. Splits are by patient, always.
Everything wrong is found before anything starts, and told at once.
"""

from __future__ import annotations

import csv
import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import TypeVar

import numpy as np
from tqdm import tqdm

from app.imaging.decode import decode
from app.problems import Refusal
from training import duplicates

COLUMNS = ("image", "patient_id", "exam_date", "laterality", "view", "label")
SPLITS = ("train", "val")
MAX_PIXELS = 100_000_000
_IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".dcm"}


class ManifestError(ValueError):
    """Everything wrong with a manifest, one finding per line."""


@dataclass(frozen=True)
class LabelledImage:
    """One row: an image of one breast at one date.

    ``exam_date`` is None where unknown; ``laterality`` is "L", "R" or ""; ``split`` is "train",
    "val" or "" (not yet split). ``attributes`` holds every other column: what subgroups are made
    of (density, age, machine), never an input of the model. ``line`` of the CSV, 0 for a folder.
    """

    path: Path
    patient_id: str
    exam_date: date | None
    laterality: str
    view: str
    label: str
    split: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    line: int = field(default=0, compare=False)


def read(source: Path, image_root: Path | None = None) -> list[LabelledImage]:
    """Read a manifest CSV or a folder with one sub-folder per class.

    Image paths of a CSV are relative to ``image_root``, by default the CSV's folder. Raises
    ``ManifestError`` with every finding that can be told without opening an image.
    """
    images, findings = parse(source, image_root)
    raise_findings(source, [*findings, *check(images)])
    return images


def read_checked(
    source: Path,
    image_root: Path | None = None,
    *,
    classes: Sequence[str] = (),
    positive_class: str = "",
    sides: Sequence[str] = SPLITS,
    is_known: Callable[[Sequence[LabelledImage]], bool] = lambda images: False,
) -> list[LabelledImage]:
    """Read a manifest as ``read`` does, open every image, and look for all that would stop a
    training: see ``check``, ``check_sides`` and ``check_images``.

    ``is_known`` says whether these very images were opened before. ``classes`` are the labels
    there may be, () for any; ``sides`` the splits that are needed.
    Raises ``ManifestError`` with every finding.
    """
    images, findings = parse(source, image_root)
    findings += check(images, classes, positive_class)
    findings += check_sides(images, positive_class, sides)
    if not is_known(images):
        findings += check_images(images)
    raise_findings(source, findings)
    return images


def raise_findings(source: Path, findings: Sequence[str]) -> None:
    """Raise ``ManifestError`` with all ``findings`` on ``source``, if there is one."""
    if findings:
        raise ManifestError("\n".join([f"{source}: {len(findings)} finding(s)", *findings]))


def parse(source: Path, image_root: Path | None = None) -> tuple[list[LabelledImage], list[str]]:
    """The rows of a manifest, also faulty ones, and the faults of single rows.

    Raises ``ManifestError`` if ``source`` is not a manifest at all.
    """
    return (read_folder(source), []) if source.is_dir() else _parse_csv(source, image_root)


def _parse_csv(source: Path, image_root: Path | None) -> tuple[list[LabelledImage], list[str]]:
    root = image_root or source.parent
    images: list[LabelledImage] = []
    findings: list[str] = []
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise ManifestError(f"{source}: missing column(s): {', '.join(missing)}")
            for row in reader:
                image, faults = _parse_row(row, reader.line_num, root)
                images.append(image)
                findings += [f"line {image.line}: {fault}" for fault in faults]
    except (UnicodeDecodeError, csv.Error) as fault:
        raise ManifestError(f"{source}: not a CSV in UTF-8 ({fault})") from None
    return images, findings


def _parse_row(row: dict[str, str], line: int, root: Path) -> tuple[LabelledImage, list[str]]:
    values = {name: (row.get(name) or "").strip() for name in (*COLUMNS, "split")}
    faults = [
        f"{required} is empty"
        for required in ("image", "patient_id", "label")
        if not values[required]
    ]
    if None in row:
        faults.append("more cells than the header names")
    if values["laterality"] not in ("", "L", "R"):
        faults.append(f"laterality is {values['laterality']!r}, not L, R or empty")
    if values["split"] not in ("", *SPLITS):
        faults.append(f"split is {values['split']!r}, not one of {', '.join(SPLITS)}")
    exam_date = None
    try:
        exam_date = date.fromisoformat(values["exam_date"]) if values["exam_date"] else None
    except ValueError:
        faults.append(f"exam_date is {values['exam_date']!r}, not a date like 2024-01-31")
    path = root / values["image"]
    if values["image"] and not path.is_file():
        faults.append(f"no such image: {path}")
    image = LabelledImage(
        path=path,
        patient_id=values["patient_id"],
        exam_date=exam_date,
        laterality=values["laterality"],
        view=values["view"],
        label=values["label"],
        split=values["split"],
        attributes={
            name: (value or "").strip()
            for name, value in row.items()
            if name and name not in (*COLUMNS, "split")
        },
        line=line,
    )
    return image, faults


def read_folder(source: Path) -> list[LabelledImage]:
    """Read ``source/<class>/<image>``.

    This layout names no patients, so images that look the same are taken as one patient (near
    duplicates must not land on both sides of a split), and every other image as one of its own.
    """
    found = [
        (folder.name, path)
        for folder in sorted(path for path in source.iterdir() if path.is_dir())
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _IMAGE_SUFFIXES
    ]
    looks = in_pool(_look_at, [path for _, path in found], "look for duplicates")
    return [
        LabelledImage(path, patient, None, "", "", label)
        for (label, path), patient in zip(found, duplicates.group_names(looks), strict=True)
    ]


def _look_at(path: Path) -> duplicates.Look:
    data = path.read_bytes()
    try:
        return duplicates.look_at(data, decode(data, MAX_PIXELS)[0])
    except Refusal:
        return duplicates.look_at(data, None)


def check(
    images: Sequence[LabelledImage], classes: Sequence[str] = (), positive_class: str = ""
) -> list[str]:
    """What is wrong with the rows as a whole: labels that are none of ``classes``, fewer than two
    classes, no image of a class, an image named twice, patients on both sides, a split for some
    rows only. One finding a line."""
    findings = [
        f"{where(image)}: label is {image.label!r}, not one of {', '.join(classes)}"
        for image in images
        if classes and image.label and image.label not in classes
    ]
    first: dict[Path, LabelledImage] = {}
    for image in images:
        earlier = first.setdefault(image.path.resolve(), image)
        if earlier is not image and image.path.is_file():
            findings.append(f"{where(image)}: {image.path} is named on {where(earlier)} already")
    found = {image.label for image in images if image.label}
    if len(found) < 2:
        findings.append(f"at least two classes are needed, found {sorted(found)}")
    wanted = {*classes, positive_class} - {""}
    findings += [f"no image of class {label!r}" for label in sorted(wanted - found)]
    unsplit = [image for image in images if not image.split]
    if 0 < len(unsplit) < len(images):
        findings.append(f"{len(unsplit)} of {len(images)} rows name no split, {_lines(unsplit)}")
    return findings + _patients_on_both_sides(images)


def check_sides(
    images: Sequence[LabelledImage], positive_class: str = "", sides: Sequence[str] = SPLITS
) -> list[str]:
    """Whether each of ``sides`` has, or can get, images of the positive class and of another one
    (of any two, without a positive class): neither a model nor a figure comes of one class."""
    findings = []
    if any(image.split for image in images):
        for side in sides:
            found = sorted({image.label for image in images if image.split == side})
            if len(found) < 2 or positive_class not in ("", *found):
                findings.append(f"split {side} has images of {found or 'no class'} only")
    elif positive_class:
        positives = {image.patient_id for image in images if image.label == positive_class}
        others = {image.patient_id for image in images if image.label != positive_class}
        for patients, kind in ((positives, positive_class), (others, "another class")):
            if len(patients) < len(sides):
                findings.append(
                    f"{len(patients)} patient(s) with images of {kind}: too few for "
                    f"{', '.join(sides)} (without patients, images that look the same count as one)"
                )
    return findings


def check_images(images: Sequence[LabelledImage]) -> list[str]:
    """Decode every image as the service would; one finding for each that cannot be read.

    A missing file is not told again. A blank image is none: it is left out later.
    """
    there = [image for image in images if image.path.is_file()]
    return [finding for finding in in_pool(_why_unreadable, there, "check images") if finding]


def _why_unreadable(image: LabelledImage) -> str:
    try:
        decode(image.path.read_bytes(), MAX_PIXELS)
    except Refusal as refusal:
        return f"{where(image)}: {image.path}: {refusal.code}: {refusal.detail}"
    except OSError as fault:
        return f"{where(image)}: {fault}"
    return ""


def where(image: LabelledImage) -> str:
    """Where an image is named: the line of the CSV, or its folder."""
    return f"line {image.line}" if image.line else image.path.parent.name


def _lines(images: Sequence[LabelledImage]) -> str:
    listed = ", ".join(str(image.line) for image in images[:10])
    return f"lines {listed}{', ...' if len(images) > 10 else ''}"


_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def in_pool(
    function: Callable[[_Item], _Result], items: Sequence[_Item], title: str
) -> list[_Result]:
    """``function`` of every item, in order, on all cores, with a progress bar."""
    with ThreadPoolExecutor() as pool:
        return list(tqdm(pool.map(function, items), title, len(items), unit="image", disable=None))


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
    findings = _patients_on_both_sides(images)
    if findings:
        raise ManifestError("\n".join(findings))


def _patients_on_both_sides(images: Sequence[LabelledImage]) -> list[str]:
    of_patient: dict[str, list[LabelledImage]] = defaultdict(list)
    for image in images:
        if image.split and image.patient_id:
            of_patient[image.patient_id].append(image)
    findings = []
    for patient, rows in sorted(of_patient.items()):
        if len({row.split for row in rows}) > 1:
            sides = "; ".join(
                f"{side} {_lines(of_side)}"
                for side in SPLITS
                if (of_side := [row for row in rows if row.split == side])
            )
            findings.append(f"patient {patient} is in more than one split: {sides}")
    return findings


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
