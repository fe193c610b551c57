"""The pointing game of heatmaps: does the maximum lie on the lesion?

Zhang et al., ECCV 2016 (IJCV 2018), arXiv:1608.00507. A hit is a maximum within the lesion's
radius and one cell of the heatmap, since a map cannot be finer than its cells. The lesions are
simulated masses, whose place is known, in breasts without cancer; or, given BUSI, outlined lesions
in ultrasound images, where a hit is a maximum inside the outline.

A map that always shows the same bright place would hit often, for masses lie in glandular tissue.
So each is compared with a random point of the breast, its brightest cell, its centre, and with a
*twin*: the same picture with the same acquisition but without the mass, or with a mass that does
not grow.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.bundle import Manifest
from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, crop_breast
from app.inference.sessions import Sessions
from app.problems import Refusal
from training.acquisition import acquire
from training.explain.heatmaps import Answers, breast_of, encode, on_grid, peak, read_series
from training.explain.perturbation import nearness_to_centre
from training.lesion import BREAST_HEIGHT_MM, draw_lesion, insert_lesion
from training.manifest import LabelledImage
from training.simulate import FINAL_DIAMETER_MM, ROOM_MM, Course, simulate_series

SINGLE, GROWING, ULTRASOUND = "single mass", "growing mass", "ultrasound"
SIMULATED = (SINGLE, GROWING)
_MAX_PIXELS = 100_000_000


@dataclass(frozen=True)
class Case:
    """One lesion and who points at it. ``chance`` is the share of the breast that would be a hit;
    ``twin`` where the map of the twin points (None: no twin); ``empty``: there is no heatmap,
    which is a miss; ``diameter_mm`` 0 where it is not known."""

    scenario: str
    image: str
    patient_id: str
    diameter_mm: float
    exams: int
    probability: float
    empty: bool
    heatmap: bool
    brightest: bool
    centre: bool
    twin: bool | None
    chance: float


@dataclass(frozen=True)
class Lesioned:
    """Exams of one view, oldest first, uint8 [height, width], as the model is given them, days
    between them, and where in the last one a maximum is a hit, bool [height, width]."""

    exams: tuple[NDArray[np.uint8], ...]
    gaps: tuple[int, ...]
    target: NDArray[np.bool_]


@dataclass(frozen=True)
class Mass:
    """A simulated mass in the breast of a manifest row, and its twin."""

    scenario: str  # SINGLE or GROWING
    row: LabelledImage
    diameter_mm: float
    lesioned: Lesioned
    twin: Lesioned


def masses(
    image: NDArray[np.uint8],
    row: LabelledImage,
    grid: tuple[int, int],
    *,
    max_exams: int,
    intervals: NDArray[np.int64],
    seed: Sequence[int],
) -> list[Mass]:
    """A single and a growing mass in a breast without cancer, uint8 [height, width]; fewer where no
    breast is found in what was made."""
    rng = np.random.default_rng(seed)
    exams = int(rng.integers(2, max_exams + 1))
    made = {
        SINGLE: _with_and_without_mass(image, grid, rng),
        GROWING: _growing_and_stable_mass(image, grid, exams, intervals, rng),
    }
    return [Mass(scenario, row, *twins) for scenario, twins in made.items() if twins is not None]


def point_at_masses(sessions: Sessions, manifest: Manifest, made: Sequence[Mass]) -> list[Case]:
    """Read each mass and its twin, and see where the maps point."""
    found = []
    for mass in made:
        answers = read(sessions, manifest, (mass.lesioned, mass.twin))
        name, patient = mass.row.path.as_posix(), mass.row.patient_id
        found.append(
            _case(mass.scenario, name, patient, mass.diameter_mm, mass.lesioned, answers, mass.twin)
        )
    return found


def point_at_outline(
    sessions: Sessions, manifest: Manifest, path: Path, masks: Sequence[Path]
) -> list[Case]:
    """Read an image with outlined lesions as a single exam; nothing where it is refused."""
    size = InputGeometry(manifest.input.height, manifest.input.width)
    lesioned = _ultrasound(path, masks, size)
    if lesioned is None:
        return []
    answers = read(sessions, manifest, (lesioned,))
    # No patients are named; a copy of a file is at least not a patient of its own
    patient = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    name = f"{path.parent.name}/{path.name}"
    return [_case(ULTRASOUND, name, patient, 0.0, lesioned, answers, None)]


def outlined_images(busi: Path) -> list[tuple[Path, list[Path]]]:
    """Images of ``busi`` (``images/<class>/NAME.jpg``) with their masks
    (``masks/<class>/NAME_mask*.png``); those of class ``normal`` have nothing to point at."""
    return [
        (path, masks)
        for path in sorted((busi / "images").glob("*/*"))
        if path.parent.name != "normal"
        and (masks := sorted((busi / "masks" / path.parent.name).glob(f"{path.stem}_mask*.png")))
    ]


def _case(
    scenario: str,
    name: str,
    patient: str,
    diameter_mm: float,
    lesioned: Lesioned,
    answers: Answers,
    twin: Lesioned | None,
) -> Case:
    image, target = lesioned.exams[-1], lesioned.target
    own = answers.heatmaps[0]
    breast = breast_of(image)
    return Case(
        scenario=scenario,
        image=name,
        patient_id=patient,
        diameter_mm=diameter_mm,
        exams=len(lesioned.exams),
        probability=float(answers.probability[0]),
        empty=not own.max() > 0,
        heatmap=_hits(own, target),
        brightest=_hits(on_grid(image, own.shape), target),
        centre=_hits(nearness_to_centre(image, own.shape), target),
        twin=None if twin is None else _hits(answers.heatmaps[1], twin.target),
        chance=float((target & breast).sum() / breast.sum()),
    )


def _hits(grid_map: NDArray[np.float32], target: NDArray[np.bool_]) -> bool:
    place = peak(grid_map, target.shape)
    return place is not None and bool(target[round(place[0]), round(place[1])])


def read(sessions: Sessions, manifest: Manifest, series: Sequence[Lesioned]) -> Answers:
    """Encode and read each of ``series`` as it would be served."""
    features = encode(sessions, np.stack([exam for item in series for exam in item.exams]))
    return read_series(sessions, features, [item.gaps for item in series], manifest)


def _with_and_without_mass(
    image: NDArray[np.uint8], grid: tuple[int, int], rng: np.random.Generator
) -> tuple[float, Lesioned, Lesioned] | None:
    """Diameter in mm, the exam with a mass, and the same acquisition without it."""
    diameter_mm = float(rng.uniform(*FINAL_DIAMETER_MM))
    lesion = draw_lesion(image, ROOM_MM, rng)
    seed = int(rng.integers(2**32))
    made = []
    for picture in (insert_lesion(image, lesion, diameter_mm), image):
        exam, matrix = acquire(picture, np.random.default_rng(seed))
        column, row = matrix @ np.array([lesion.column, lesion.row, 1.0])
        made.append(_as_served([exam], (0,), (row, column), diameter_mm, grid))
    return None if made[0] is None or made[1] is None else (diameter_mm, made[0], made[1])


def _growing_and_stable_mass(
    image: NDArray[np.uint8],
    grid: tuple[int, int],
    exams: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[float, Lesioned, Lesioned] | None:
    """Last diameter in mm, the growing series, and the series that ends in the same exam but whose
    mass was of that size all along."""
    seed = int(rng.integers(2**32))
    made = []
    courses: tuple[Course, ...] = ("growing", "stable")
    for course in courses:
        series = simulate_series(
            image,
            course=course,
            exams=exams,
            intervals=intervals,
            rng=np.random.default_rng(seed),
        )
        diameter_mm = float(series.diameters_mm[-1])
        gaps = (0, *(later - earlier for earlier, later in pairwise(series.days)))
        row, column = series.lesion_px[-1]
        place = (float(row), float(column))
        made.append(_as_served(list(series.images), gaps, place, diameter_mm, grid))
    return None if made[0] is None or made[1] is None else (diameter_mm, made[0], made[1])


def _as_served(
    exams: Sequence[NDArray[np.uint8]],
    gaps: tuple[int, ...],
    place: tuple[float, float],
    diameter_mm: float,
    grid: tuple[int, int],
) -> Lesioned | None:
    """Crop made exams as the service would, and follow the mass at ``place`` (row, column) of the
    last one; None if no breast is found in one of them."""
    height, width = exams[-1].shape
    try:
        cropped = [crop_breast(exam, InputGeometry(height, width)) for exam in exams]
    except Refusal:
        return None
    crop = cropped[-1][1]
    zoom_y, zoom_x = height / crop.height, width / crop.width
    row = (place[0] + 0.5 - crop.top) * zoom_y - 0.5
    column = (place[1] + 0.5 - crop.left) * zoom_x - 0.5
    if crop.flipped:
        column = width - 1 - column
    radius = diameter_mm / 2 * height / BREAST_HEIGHT_MM * float(np.sqrt(zoom_y * zoom_x))
    cell = max(height / grid[0], width / grid[1])
    rows, columns = np.ogrid[:height, :width]
    target = np.hypot(rows - row, columns - column) <= radius + cell
    return Lesioned(tuple(pixels for pixels, _, _ in cropped), gaps, np.asarray(target))


def _ultrasound(path: Path, masks: Sequence[Path], size: InputGeometry) -> Lesioned | None:
    """An image and its outlines as the model is given them; None where it is refused, or the crop
    leaves no lesion."""
    try:
        pixels, _ = decode(path.read_bytes(), _MAX_PIXELS)
        image, crop, _ = crop_breast(pixels, size)
    except Refusal:
        return None
    outlined: NDArray[Any] = np.zeros(pixels.shape, np.uint8)
    for mask in masks:
        outlined |= (decode(mask.read_bytes(), _MAX_PIXELS)[0] > 0).astype(np.uint8)
    box: NDArray[Any] = outlined[
        crop.top : crop.top + crop.height, crop.left : crop.left + crop.width
    ]
    box = cv2.resize(box, (size.width, size.height), interpolation=cv2.INTER_NEAREST)
    target = (cv2.flip(box, 1) if crop.flipped else box) > 0
    return Lesioned((image,), (0,), np.asarray(target)) if target.any() else None
