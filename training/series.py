"""Breasts -> exam series, real and simulated, packed into batches for the hybrid.

Three kinds of series are drawn. *Single*: one real exam of one or two views, each training image
once an epoch. *Simulated*: a mass composited into a lesion-free breast over several exams, growing
(positive) or stable (keeps the breast's label). *Unchanged*: a real exam after priors that differ
only in how they were acquired, so that a real image keeps its reading when priors are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast, to_tensor
from app.problems import Refusal
from training.augment import augment
from training.breasts import Breasts
from training.simulate import acquire, simulate_series


@dataclass(frozen=True)
class Series:
    """Exams of one breast in time order.

    ``exams`` holds, per exam, its views as uint8 [height, width]; ``days`` the days since the
    previous exam, 0 for the first; ``label`` an index into the classes.
    """

    exams: tuple[tuple[NDArray[np.uint8], ...], ...]
    days: tuple[int, ...]
    label: int


@dataclass(frozen=True)
class Mix:
    """How a training batch is composed."""

    images_per_batch: int
    series_share: float  # of the images in a batch, in simulated and unchanged series
    unchanged_share: float  # of those series
    max_exams: int


@dataclass(frozen=True)
class Batch:
    """``inputs`` of ``Hybrid``, ``labels`` int32 [series], and how many of the epoch's training
    images are in it."""

    inputs: dict[str, NDArray[Any]]
    labels: NDArray[np.int32]
    epoch_images: int


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


def epoch_of_batches(
    breasts: Breasts,
    mix: Mix,
    *,
    positive: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Yield packed, augmented batches until every image was once in a single."""
    singles = _draw_singles(breasts, rng)
    lesion_free = np.flatnonzero(breasts.labels != positive)
    # At least one single in a batch, or an epoch would never end
    series_images = min(round(mix.images_per_batch * mix.series_share), mix.images_per_batch - 1)
    while singles:
        batch: list[Series] = []
        epoch_images = 0
        while singles and epoch_images < mix.images_per_batch - series_images:
            indices = singles.pop()
            views = tuple(augment(breasts.pixels[i], rng) for i in indices)
            batch.append(Series((views,), (0,), int(breasts.labels[indices[0]])))
            epoch_images += len(indices)
        room = series_images
        while room > 0:
            exams = int(rng.integers(2, mix.max_exams + 1))
            if rng.random() < mix.unchanged_share:
                index = int(rng.integers(len(breasts)))
                drawn = unchanged(breasts, index, exams, intervals, rng)
            else:
                index = int(rng.choice(lesion_free))
                drawn = simulated(breasts, index, exams, positive, intervals, rng)
            batch.append(drawn)
            room -= exams
        yield Batch(*pack(batch), epoch_images)


def _draw_singles(breasts: Breasts, rng: np.random.Generator) -> list[list[int]]:
    """Every image once, alone or with another view of the same breast, in random order."""
    singles: list[list[int]] = []
    for indices in breasts.by_breast():
        rest = [int(i) for i in rng.permutation(indices)]
        while rest:
            size = int(rng.integers(1, 3))
            singles.append(rest[:size])
            rest = rest[size:]
    return [singles[i] for i in rng.permutation(len(singles))]


def simulated(
    breasts: Breasts,
    index: int,
    exams: int,
    positive: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> Series:
    """A mass in a lesion-free breast: growing in half of the cases."""
    growing = bool(rng.random() < 0.5)
    made = simulate_series(
        breasts.pixels[index], growing=growing, exams=exams, intervals=intervals, rng=rng
    )
    return Series(
        exams=tuple((_as_served(image),) for image in made.images),
        days=_gaps(made.days),
        label=positive if growing else int(breasts.labels[index]),
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
    gaps = rng.choice(intervals, exams - 1)
    return Series(
        exams=tuple((_as_served(acquire(image, rng)[0]),) for _ in range(exams)),
        days=(0, *(int(gap) for gap in gaps)),
        label=int(breasts.labels[index]),
    )


def _gaps(days: Sequence[int]) -> tuple[int, ...]:
    return (0, *(later - earlier for earlier, later in pairwise(days)))


def _as_served(exam: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Preprocess a made exam as the service would: found, cropped and normalised again."""
    height, width = exam.shape
    try:
        return crop_breast(exam, InputGeometry(height, width))[0]
    except Refusal:
        return exam
