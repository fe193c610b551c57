"""``inspect``: look at a data set before training on it.

What is there, what is wrong, what is there twice, and what gives the class away. The report is
written in any case; faults that would stop a training then end the command with an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from tqdm import tqdm

from app.imaging.decode import decode
from app.imaging.facts import ImageFacts
from app.imaging.preprocess import InputGeometry, crop_breast
from app.problems import Refusal
from training import duplicates, manifest, shortcuts
from training.config import DataConfig, Section
from training.duplicates import Look, Pair
from training.inspection_report import write_report
from training.manifest import MAX_PIXELS, LabelledImage, ManifestError
from training.run_folder import open_run
from training.shortcuts import Shortcut

_SAMPLE_SIDE = 160
_TRIED = InputGeometry(64, 64)


class InspectConfig(Section):
    """``sample``: images of each class on the sample sheet."""

    run: Path
    data: DataConfig
    sample: int = Field(8, ge=1)


@dataclass(frozen=True)
class Seen:
    """One readable image: what it is, and small numbers to compare it by.

    ``blank`` where preprocessing finds no breast; ``inverted`` where it finds a bright background
    and turns the grey scale; ``picture`` uint8 [160, 160] for the sample sheet.
    """

    row: LabelledImage
    facts: ImageFacts
    bytes: int
    blank: bool
    inverted: bool
    look: Look
    edges: NDArray[np.float32]
    thumbnail: NDArray[np.float32]
    picture: NDArray[np.uint8]


@dataclass(frozen=True)
class Inspected:
    """All that was found. ``findings`` are what would stop a training; ``pairs`` and ``shortcuts``
    are of ``seen``, the images that could be read."""

    rows: tuple[LabelledImage, ...]
    seen: tuple[Seen, ...]
    classes: tuple[str, ...]
    findings: tuple[str, ...]
    pairs: tuple[Pair, ...]
    shortcuts: tuple[Shortcut, ...]


def inspect(config: InspectConfig) -> Path:
    """Inspect the set that ``config`` names. Returns the run folder.

    Raises ``ManifestError`` with everything that would stop a training, after the report of the
    rest was written; at once if nothing can be read.
    """

    cv2.setNumThreads(1)  # the pool is the parallelism
    data = config.data
    rows, findings = manifest.parse(data.manifest, data.image_root)
    findings += manifest.check(rows, data.classes, data.positive_class)
    findings += manifest.check_sides(rows, data.positive_class)
    there = [row for row in rows if row.label and row.path.is_file()]
    looked = manifest.in_pool(see, there, "look at images")
    findings += [why for why in looked if isinstance(why, str)]
    seen = tuple(image for image in looked if isinstance(image, Seen))
    if not seen:
        manifest.raise_findings(data.manifest, findings or ["no image that can be read"])
    open_run(config.run, config)
    found = Inspected(
        rows=tuple(rows),
        seen=seen,
        classes=tuple(sorted({row.label for row in rows if row.label})),
        findings=tuple(findings),
        pairs=tuple(duplicates.near_duplicates([image.look for image in seen])),
        shortcuts=tuple(find_shortcuts(seen, data.positive_class)),
    )
    write_report(config.run, found, data.positive_class, config.sample)
    if findings:
        listed = "\n".join([*findings, f"the rest is in {config.run}"])
        raise ManifestError(f"{data.manifest}: {len(findings)} finding(s)\n{listed}")
    return config.run


def see(row: LabelledImage) -> Seen | str:
    """Look at one image; the finding instead if it cannot be read."""
    data = row.path.read_bytes()
    try:
        pixels, facts = decode(data, MAX_PIXELS)
    except Refusal as refusal:
        return f"{manifest.where(row)}: {row.path}: {refusal.code}: {refusal.detail}"
    try:
        blank, inverted = False, crop_breast(pixels, _TRIED)[2]
    except Refusal:
        blank, inverted = True, False
    upright = shortcuts.oriented(pixels, inverted)
    scale = 255.0 / max(int(pixels.max()), 1)
    return Seen(
        row=row,
        facts=facts,
        bytes=len(data),
        blank=blank,
        inverted=inverted,
        look=duplicates.look_at(data, pixels),
        edges=shortcuts.borders_and_histogram(upright),
        thumbnail=shortcuts.small_thumbnail(upright),
        picture=(scale * duplicates.thumbnail(pixels, _SAMPLE_SIDE)).astype(np.uint8),
    )


def find_shortcuts(seen: Sequence[Seen], positive_class: str) -> list[Shortcut]:
    """The AUC of the positive class from each kind of trivial feature."""
    truth = np.array([image.row.label == positive_class for image in seen], np.int32)
    patients = [image.row.patient_id for image in seen]
    file_facts = np.array([(s.bytes, s.facts.rows, s.facts.columns, s.facts.bits) for s in seen])
    kinds: list[tuple[str, NDArray[Any]]] = [
        ("borders and grey histogram", np.stack([image.edges for image in seen])),
        ("16 x 16 thumbnail", np.stack([image.thumbnail for image in seen])),
        ("size of file and picture", file_facts),
    ]
    columns = shortcuts.columns_of([image.row for image in seen])
    kinds += [(f"column {name}", column) for name, column in columns.items()]
    return [
        shortcuts.measure(name, features, truth, patients)
        for name, features in tqdm(kinds, "shortcuts", unit="kind", disable=None)
    ]
