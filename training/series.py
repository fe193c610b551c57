"""Breasts -> exam series, simulated and unchanged, and their packing for the hybrid.

*Simulated*: a mass composited into a lesion-free breast over several exams; growing is positive,
every other course keeps the breast's label. *Unchanged*: a real exam after priors that differ from
it only in how they were acquired, so that a real image keeps its reading when priors are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast, to_tensor
from app.problems import Refusal
from training.acquisition import acquire
from training.breasts import Breasts
from training.simulate import draw_course, draw_timeline, simulate_series


@dataclass(frozen=True)
class Series:
    """Exams of one breast in time order.

    ``exams`` holds, per exam, its views as uint8 [height, width]; ``days`` the days since the
    previous exam, 0 for the first; ``label`` an index into the classes; ``course`` of a simulated
    mass, "unchanged" for a real image, "" where nothing is known; ``patient`` whose breast it is.
    """

    exams: tuple[tuple[NDArray[np.uint8], ...], ...]
    days: tuple[int, ...]
    label: int
    course: str = ""
    patient: str = ""


def pack(series: Sequence[Series]) -> tuple[dict[str, NDArray[Any]], NDArray[np.int32]]:
    """Pack series into the inputs of ``Hybrid`` and their labels int32 [series]."""
    exams = max(len(item.exams) for item in series)
    views = max(len(exam) for item in series for exam in item.exams)
    slots = np.full((len(series), exams, views), -1, np.int32)
    days = np.zeros((len(series), exams), np.float32)
    images: list[NDArray[np.uint8]] = []
    for b, item in enumerate(series):
        days[b, : len(item.days)] = item.days
        for t, exam in enumerate(item.exams):
            for v, image in enumerate(exam):
                slots[b, t, v] = len(images)
                images.append(image)
    inputs = {"images": to_tensor(np.stack(images)), "slots": slots, "days": days}
    return inputs, np.array([item.label for item in series], np.int32)


def simulated(
    breasts: Breasts,
    index: int,
    exams: int,
    positive: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> Series:
    """A mass in the lesion-free breast ``index``: growing in half of the cases."""
    course = draw_course(rng)
    made = simulate_series(
        breasts.pixels[index], course=course, exams=exams, intervals=intervals, rng=rng
    )
    return Series(
        exams=tuple((as_served(image),) for image in made.images),
        days=gaps(made.days),
        label=positive if course == "growing" else int(breasts.labels[index]),
        course=course,
        patient=breasts.rows[index].patient_id,
    )


def unchanged(
    breasts: Breasts,
    index: int,
    exams: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> Series:
    """A real image after priors that differ from it only in how they were acquired."""
    image = breasts.pixels[index]
    return Series(
        exams=tuple((as_served(acquire(image, rng)[0]),) for _ in range(exams)),
        days=gaps(draw_timeline(exams, intervals, rng).days),
        label=int(breasts.labels[index]),
        course="unchanged",
        patient=breasts.rows[index].patient_id,
    )


def gaps(days: Sequence[int]) -> tuple[int, ...]:
    """Days since the first exam -> days since the previous one, 0 for the first."""
    return (0, *(later - earlier for earlier, later in pairwise(days)))


def as_served(exam: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Preprocess a made exam as the service would: found, cropped and normalised again."""
    height, width = exam.shape
    try:
        return crop_breast(exam, InputGeometry(height, width))[0]
    except Refusal:
        return exam
