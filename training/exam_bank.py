"""Encoded exams to make series of: each breast many times over, so that series are never short.

A few thousand series are learned by heart. But a simulated series is only a timeline (days and
diameters, cheap to draw) and an image for each of its exams (dear to encode). So each mass is
encoded once at many diameters, each with an acquisition of its own; a series then takes, for every
exam, one of the two encoded exams whose diameter is nearest. The same breast and mass occur in
growing and in other courses, and to know them by heart tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from training.acquisition import acquire
from training.breasts import Breasts
from training.exam_series import Encode, ExamSeries
from training.lesion import VISIBLE_DIAMETER_MM, draw_lesion, insert_lesion
from training.series import as_served, gaps
from training.simulate import (
    LARGEST_DIAMETER_MM,
    ROOM_MM,
    diameters,
    draw_course,
    draw_timeline,
)

_INVISIBLE = 3  # encoded exams of each breast in which the mass is too small to be seen
_NEAREST = 2


@dataclass(frozen=True)
class ExamBank:
    """``exams`` float16 [breasts, acquisitions, features]; ``diameters_mm`` float32 [breasts,
    acquisitions], 0 where there is no mass to be seen; ``labels`` int32 [breasts], an index into
    the classes; ``patients`` str [breasts]."""

    exams: NDArray[np.float16]
    diameters_mm: NDArray[np.float32]
    labels: NDArray[np.int32]
    patients: NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)


def bank_of_masses(
    encode: Encode, breasts: Breasts, indices: Sequence[int], acquisitions: int, seed: int
) -> ExamBank:
    """A mass in each of the lesion-free breasts ``indices``, at ``acquisitions`` diameters evenly
    spread over a logarithmic scale from hardly visible to the largest, and a few times not seen."""

    def draw(index: int) -> tuple[list[NDArray[np.uint8]], list[float]]:
        rng = np.random.default_rng([seed, index])
        image = breasts.pixels[index]
        lesion = draw_lesion(image, ROOM_MM, rng)
        low, high = np.log(VISIBLE_DIAMETER_MM), np.log(LARGEST_DIAMETER_MM)
        seen = acquisitions - _INVISIBLE
        steps = (np.arange(seen) + rng.random(seen)) / seen
        sizes = [0.0] * _INVISIBLE + [float(d) for d in np.exp(low + steps * (high - low))]
        return [as_served(acquire(insert_lesion(image, lesion, d), rng)[0]) for d in sizes], sizes

    return _bank(encode, breasts, indices, draw, "masses")


def bank_of_unchanged(
    encode: Encode, breasts: Breasts, indices: Sequence[int], acquisitions: int, seed: int
) -> ExamBank:
    """Real images ``indices`` as they are, and acquired anew ``acquisitions`` - 1 times."""

    def draw(index: int) -> tuple[list[NDArray[np.uint8]], list[float]]:
        rng = np.random.default_rng([seed, index])
        image = breasts.pixels[index]
        anew = [as_served(acquire(image, rng)[0]) for _ in range(acquisitions - 1)]
        return [image, *anew], [0.0] * acquisitions

    return _bank(encode, breasts, indices, draw, "unchanged")


def draw_simulated(
    bank: ExamBank,
    count: int,
    max_exams: int,
    positive: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
    shortest: int = 2,
) -> ExamSeries:
    """``count`` series of ``shortest`` to ``max_exams`` exams, growing ones positive."""
    series = _empty(bank, count, max_exams)
    bounded = np.maximum(np.log(np.maximum(bank.diameters_mm, 1e-3)), np.log(1.0))
    for s in range(count):
        b = int(rng.integers(len(bank)))
        length = int(rng.integers(shortest, max_exams + 1))
        course, timeline = draw_course(rng), draw_timeline(length, intervals, rng)
        for t, diameter_mm in enumerate(diameters(timeline, course)):
            if diameter_mm < VISIBLE_DIAMETER_MM:
                chosen = int(rng.integers(_INVISIBLE))
            else:
                distance = np.abs(bounded[b] - np.log(diameter_mm))
                chosen = int(rng.choice(np.argpartition(distance, _NEAREST)[:_NEAREST]))
            series.exams[s, t] = bank.exams[b, chosen]
        series.days[s, :length] = gaps(timeline.days)
        series.lengths[s] = length
        series.labels[s] = positive if course == "growing" else bank.labels[b]
        series.courses[s] = course
        series.patients[s] = bank.patients[b]
    return series


def draw_unchanged(
    bank: ExamBank,
    count: int,
    max_exams: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> ExamSeries:
    """``count`` series of 1 to ``max_exams`` exams of one real image each."""
    series = _empty(bank, count, max_exams)
    for s in range(count):
        b = int(rng.integers(len(bank)))
        length = int(rng.integers(1, max_exams + 1))
        chosen = rng.integers(bank.exams.shape[1], size=length)
        series.exams[s, :length] = bank.exams[b, chosen]
        series.days[s, :length] = gaps(draw_timeline(length, intervals, rng).days)
        series.lengths[s] = length
        series.labels[s] = bank.labels[b]
        series.courses[s] = "unchanged"
        series.patients[s] = bank.patients[b]
    return series


def save(bank: ExamBank, path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **vars(bank))


def load(path: Path) -> ExamBank:
    with np.load(path) as stored:
        return ExamBank(**{name: stored[name] for name in stored.files})


def _empty(bank: ExamBank, count: int, max_exams: int) -> ExamSeries:
    return ExamSeries(
        exams=np.zeros((count, max_exams, bank.exams.shape[2]), np.float32),
        days=np.zeros((count, max_exams), np.float32),
        lengths=np.zeros(count, np.int32),
        labels=np.zeros(count, np.int32),
        courses=np.full(count, "", "U16"),
        patients=np.full(count, "", bank.patients.dtype),
    )


Draw = Callable[[int], tuple[list[NDArray[np.uint8]], list[float]]]


def _bank(
    encode: Encode, breasts: Breasts, indices: Sequence[int], draw: Draw, title: str
) -> ExamBank:
    exams, sizes = [], []
    drawn = _ahead(draw, indices)
    for images, diameters_mm in tqdm(
        drawn, title, total=len(indices), unit="breast", mininterval=5
    ):
        exams.append(encode(np.stack(images)).astype(np.float16))
        sizes.append(diameters_mm)
    return ExamBank(
        exams=np.stack(exams),
        diameters_mm=np.array(sizes, np.float32),
        labels=breasts.labels[list(indices)],
        patients=np.array([breasts.rows[i].patient_id for i in indices]),
    )


def _ahead(
    draw: Draw, indices: Sequence[int]
) -> Iterator[tuple[list[NDArray[np.uint8]], list[float]]]:
    """Draw the next breast's images while those of the current one are encoded."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(draw, indices[0])
        for following in indices[1:]:
            current = coming.result()
            coming = pool.submit(draw, following)
            yield current
        yield coming.result()
