"""The RSNA subset's ``metadata.csv`` -> a manifest, with only what is known before diagnosis."""

from __future__ import annotations

import csv
from pathlib import Path

from training.manifest import COLUMNS

_SUBGROUPS = {"machine": "machine_id", "density": "density", "age": "age", "implant": "implant"}


def write_manifest(source: Path, target: Path) -> int:
    """Write ``target`` from ``source/metadata.csv``; returns the number of images.

    BIRADS, biopsy, invasive and difficult_negative_case leak the label and are not carried over.
    The set names no dates: every exam is a series of one. "no_cancer" mixes normal, benign and
    recalled-negative exams.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with (source / "metadata.csv").open(newline="") as file, target.open("w", newline="") as out:
        writer = csv.DictWriter(out, [*COLUMNS, "split", *_SUBGROUPS])
        writer.writeheader()
        count = 0
        for row in csv.DictReader(file):
            writer.writerow(
                {
                    "image": f"images/{row['file_name']}",
                    "patient_id": row["patient_id"],
                    "exam_date": "",
                    "laterality": row["laterality"],
                    "view": row["view"],
                    "label": "malignant" if row["cancer"] == "1" else "no_cancer",
                    "split": row["split"],
                }
                | {name: row[column] for name, column in _SUBGROUPS.items()}
            )
            count += 1
    return count
