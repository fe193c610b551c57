"""Breasts -> batches of one epoch for a ``Lesson``: real exams with labels, simulated masses with
places and sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast, to_tensor
from app.problems import Refusal
from training.breasts import Breasts
from training.config import OptimiserConfig
from training.lesion import px_per_mm
from training.simulate import simulate_mass

_LARGEST_WEIGHT = 4.0
_MOST_VIEWS = 2  # of one exam, in a batch


@dataclass(frozen=True)
class Mass:
    """A breast uint8 [height, width] with a simulated mass, or none (``diameter_mm`` 0).
    ``row`` and ``column`` of its centre are fractions of the height and width."""

    image: NDArray[np.uint8]
    row: float
    column: float
    diameter_mm: float
    radius: float  # as a fraction of the height


@dataclass(frozen=True)
class Batch:
    """``inputs`` and ``targets`` of a ``Lesson``, and how many of the epoch's real images are in
    it."""

    inputs: dict[str, NDArray[Any]]
    targets: dict[str, NDArray[np.float32]]
    epoch_images: int


@dataclass(frozen=True)
class Mix:
    """How a batch is composed: ``mass_share`` of ``images_per_batch`` are simulated masses;
    ``grid`` is the rows and columns of the encoder's last feature map."""

    images_per_batch: int
    mass_share: float
    grid: tuple[int, int]
    label_smoothing: float


def epoch_of_batches(
    breasts: Breasts,
    label_weights: NDArray[np.float32],
    mix: Mix,
    *,
    classes: int,
    positive: int,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Yield batches until every real image was shown once, alone or beside another view of the
    same breast. ``label_weights`` float32 [images], see ``weights_of_labels``."""
    exams = _draw_exams(breasts, rng)
    lesion_free = np.flatnonzero(breasts.labels != positive)
    # At least one real image in a batch, or an epoch would never end
    masses = min(round(mix.images_per_batch * mix.mass_share), mix.images_per_batch - 1)
    while exams:
        chosen: list[list[int]] = []
        room = mix.images_per_batch - masses
        while exams and room > 0:
            exam = exams.pop()
            if len(exam) > room:  # its other view comes alone in the next batch
                exams.append(exam[room:])
            chosen.append(exam[:room])
            room -= len(chosen[-1])
        # Every batch has the same shapes, or graphs would be compiled again and again
        made = [
            draw_mass(breasts.pixels[int(rng.choice(lesion_free))], rng)
            for _ in range(masses + room)
        ]
        yield _pack(breasts, label_weights, chosen, made, mix, classes)


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make the next batch while the current one trains."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def weights_of_labels(breasts: Breasts, optimiser: OptimiserConfig) -> NDArray[np.float32]:
    """The weight of each image's label, float32 [images], with a mean of 1."""
    labels = [row.label for row in breasts.rows]
    groups = [row.attributes.get(optimiser.balance_within, "") for row in breasts.rows]
    of_label, of_group = Counter(labels), Counter(groups)
    of_both = Counter(zip(labels, groups, strict=True))
    weights = np.ones(len(labels))
    for i, (label, group) in enumerate(zip(labels, groups, strict=True)):
        # Share of the label everywhere over its share in this group
        weights[i] = of_label[label] / len(labels) * of_group[group] / of_both[label, group]
        if optimiser.class_weights == "balanced":
            weights[i] *= len(labels) / of_label[label]
    weights = np.minimum(weights, _LARGEST_WEIGHT * np.median(weights))
    return np.asarray(weights / weights.mean(), np.float32)


def draw_mass(image: NDArray[np.uint8], rng: np.random.Generator) -> Mass:
    """Simulate a mass in the lesion-free breast ``image``, preprocessed again as the service would
    see it."""
    height, width = image.shape
    made = simulate_mass(image, rng)
    radius_px = made.diameter_mm / 2 * px_per_mm(image.shape)
    try:
        served, crop, _ = crop_breast(made.image, InputGeometry(height, width))
    except Refusal:
        return Mass(
            made.image, made.row / height, made.column / width, made.diameter_mm, radius_px / height
        )
    column = (made.column - crop.left) / crop.width
    return Mass(
        image=served,
        row=(made.row - crop.top) / crop.height,
        column=1.0 - column if crop.flipped else column,
        diameter_mm=made.diameter_mm,
        radius=radius_px / crop.height,
    )


def place_of(mass: Mass, grid: tuple[int, int], aspect: float) -> NDArray[np.float32]:
    """How much of a mass lies at each position of a feature map, float32 ``grid``: 1 within its
    radius, falling to 0 over one cell. ``aspect`` is width over height of the image."""
    rows, columns = grid
    if mass.diameter_mm == 0:
        return np.zeros(grid, np.float32)
    y = (np.arange(rows) + 0.5) / rows - mass.row
    x = ((np.arange(columns) + 0.5) / columns - mass.column) * aspect
    distance = np.hypot(y[:, None], x[None, :])  # in image heights
    return np.asarray(np.clip((mass.radius + 1.0 / rows - distance) * rows, 0, 1), np.float32)


def _draw_exams(breasts: Breasts, rng: np.random.Generator) -> list[list[int]]:
    """Every image once, alone or with another view of the same breast, in random order."""
    exams: list[list[int]] = []
    for indices in breasts.by_breast():
        rest = [int(i) for i in rng.permutation(indices)]
        while rest:
            size = int(rng.integers(1, _MOST_VIEWS + 1))
            exams.append(rest[:size])
            rest = rest[size:]
    return [exams[i] for i in rng.permutation(len(exams))]


def _pack(
    breasts: Breasts,
    label_weights: NDArray[np.float32],
    exams: Sequence[Sequence[int]],
    masses: Sequence[Mass],
    mix: Mix,
    classes: int,
) -> Batch:
    indices = [i for exam in exams for i in exam]
    places = mix.images_per_batch  # there cannot be more exams than images
    slots = np.full((places, 1, _MOST_VIEWS), -1, np.int32)
    position = 0
    for b, exam in enumerate(exams):
        slots[b, 0, : len(exam)] = range(position, position + len(exam))
        position += len(exam)
    images = np.concatenate([breasts.pixels[indices], *(mass.image[None] for mass in masses)])
    is_mass = np.arange(len(images)) >= len(indices)
    first = [exam[0] for exam in exams]
    label = np.zeros((places, classes), np.float32)
    label[: len(exams)] = np.eye(classes)[breasts.labels[first]]
    label = label * (1 - mix.label_smoothing) + mix.label_smoothing / classes
    label_weight = np.zeros(places, np.float32)
    label_weight[: len(exams)] = label_weights[first]
    place = np.zeros((len(images), *mix.grid), np.float32)
    size = np.zeros(len(images), np.float32)
    for i, mass in enumerate(masses, start=len(indices)):
        place[i] = place_of(mass, mix.grid, images.shape[2] / images.shape[1])
        size[i] = np.log(mass.diameter_mm / 10.0) if mass.diameter_mm else 0.0
    has_mass = np.array([0.0] * len(indices) + [float(m.diameter_mm > 0) for m in masses])
    return Batch(
        inputs={
            "images": to_tensor(images),
            "vary": (~is_mass).astype(np.float32),
            "slots": slots,
            "days": np.zeros((places, 1), np.float32),
        },
        targets={
            "label": label,
            "label_weight": label_weight,
            "place": place,
            "place_weight": is_mass.astype(np.float32),
            "size": size,
            "size_weight": has_mass.astype(np.float32),
        },
        epoch_images=len(indices),
    )
