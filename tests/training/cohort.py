"""A made cohort: breasts of patients as PNG files with a manifest, for verbs that read bundles."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from tests.pictures import breast, png
from training.manifest import COLUMNS

EXTRA = ("density", "age")
HEADINGS = (*COLUMNS, *EXTRA)
DATES = ("2021-03-01", "2022-03-11", "2024-04-01")


def write_cohort(folder: Path, patients: int) -> Path:
    """``patients`` patients, every other one with cancer in the left breast.

    The left breast has two views, the right one a single view and no cancer. The last patient has
    three dated exams of one breast instead, the last of them with cancer.
    """
    folder.mkdir(parents=True)
    rows: list[Sequence[str]] = []

    def add(patient: int, day: str, side: str, view: str, malignant: bool) -> None:
        name = "-".join(filter(None, (f"p{patient}", side, view, day))) + ".png"
        spots = [(120 + 3 * patient, 60)] if malignant else []
        pixels = breast(300, 200, seed=len(rows), spots=spots, right=side == "R")
        (folder / name).write_bytes(png(pixels))
        label = "malignant" if malignant else "no_cancer"
        density, age = "ABCD"[patient % 2], str(45 + patient)
        rows.append((name, f"p{patient}", day, side, view, label, density, age))

    for patient in range(patients - 1):
        for view in ("CC", "MLO"):
            add(patient, "", "L", view, patient % 2 == 0)
        add(patient, "", "R", "CC", False)
    for day in DATES:
        add(patients - 1, day, "L", "CC", day == DATES[-1])
    return write_manifest(folder / "manifest.csv", rows)


def write_manifest(path: Path, rows: Sequence[Sequence[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADINGS, *rows])
    return path


def read_manifest(path: Path) -> list[list[str]]:
    """Rows without the headings."""
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]
