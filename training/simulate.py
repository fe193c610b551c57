"""Longitudinal mammogram series with known truth, made from one lesion-free mammogram.

A mass is blended into glandular tissue of a model-input breast (uint8 [H, W], cropped to the
breast, chest wall at the left edge, background 0) once per exam, at the diameter it has on that
day; then every exam gets an acquisition change of its own. What the mass does is its `Course`; only
"growing" stands for cancer. No random draw depends on the course: for one seed the last exam, the
days, the place and all acquisition changes are the same, so the last exam alone cannot tell.

- growing: exponential in volume, so a diameter grows by ``2 ** (days / (3 * doubling_days))``.
- slow: the same, with a doubling time of years. Told from growing by the rate, hence by the days.
- stable: no change.
- regressing: shrinks at the rate at which growing grows, from at most `LARGEST_DIAMETER_MM`.
- recurring: the diameters of a growing mass, the earlier exams in reverse order: the mass shrinks,
  and is back at the last exam. Told from growing by the order of the exams and nothing else.

Sources for the doubling times of invasive cancers seen on serial mammograms, close to log-normal:

- Peer et al., Cancer 1993;71:3547-51: median 80 days below age 50, 157 at 50 to 70, 188 above 70.
- Weedon-Fekjaer et al., Breast Cancer Res 2008;10:R41: 1.7 years on average from 10 to 20 mm, three
  doublings, hence about 207 days; wide variation between tumours.
- Fornvik et al., Radiat Prot Dosimetry 2016;169:151-7: median 282 days, range 46 to 749.

and for benign masses:

- Gordon et al., Radiology 2003;229:233-8: fibroadenomas grow; up to 20 % in diameter within six
  months is acceptable. Our slow masses stay well below: 2.2 years a doubling is 5 % in six months.
- Sterns, Surg Gynecol Obstet 1992;174:36-40: cysts recurred in 40 % of 286 women.

How often each course and each programme is drawn, and the slow doubling times within their bounds,
were tuned so that both the order and the days matter to an ideal observer (`docs/simulation.md`).
"""

import csv
import gzip
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from training.acquisition import acquire
from training.lesion import draw_lesion, insert_lesion

Course = Literal["growing", "slow", "stable", "regressing", "recurring"]
COURSES: tuple[Course, ...] = get_args(Course)
# Our choice, tuned: half positive, and negatives that only the days, or only the order, give away.
COURSE_SHARES: dict[Course, float] = {
    "growing": 0.5,
    "slow": 0.225,
    "stable": 0.02,
    "regressing": 0.025,
    "recurring": 0.23,
}

INTERVAL_DAYS = (90, 1500)  # below: work-up of one finding; above: lapsed attendance
# Factor on the trial's nearly annual intervals -> share: follow-up after six months, and screening
# every year, two or three years. Our choice, tuned.
PROGRAMMES = {0.5: 0.3, 1.0: 0.25, 2.0: 0.2, 3.0: 0.25}
PROGRAMME_CHANGE_PROBABILITY = 0.1  # once within a series
MISSING_EXAM_PROBABILITY = 0.15
LONGEST_GAP_DAYS = 2600  # three-yearly with one exam missing; beyond, nobody compares

FINAL_DIAMETER_MM = (7.0, 22.0)  # log-uniform
LARGEST_DIAMETER_MM = 30.0
RECURRING_SEEN_MM = 3.5  # the largest earlier diameter of a recurring mass, at least
ROOM_MM = 24.0  # any place must do for any course
GROWING_DOUBLING_DAYS = (210.0, 0.65)  # median, standard deviation of the logarithm
GROWING_DOUBLING_RANGE = (46.0, 749.0)  # Fornvik 2016
SLOW_DOUBLING_DAYS = (3.5 * 365.25, 0.5)
SLOW_DOUBLING_RANGE = (2.2 * 365.25, 12.0 * 365.25)

MASS_DIAMETER_MM = (4.0, 25.0)  # of single images, log-uniform
MASS_FREE_PROBABILITY = 0.3


@dataclass(frozen=True)
class Timeline:
    """When a mass is seen, how large it is at last, and how fast it would change."""

    days: tuple[int, ...]  # since the first exam
    final_diameter_mm: float
    growing_doubling_days: float
    slow_doubling_days: float


@dataclass(frozen=True)
class SimulatedSeries:
    """One patient's exams of one view, oldest first, with the truth about its mass.

    ``lesion_px`` is where the centre of the mass lies in each exam, also where it is too small to
    be drawn (``diameters_mm`` below `training.lesion.VISIBLE_DIAMETER_MM`).
    """

    images: NDArray[np.uint8]  # [exams, H, W]
    timeline: Timeline
    course: Course
    lesion_px: NDArray[np.float32]  # [exams, 2], (row, column)
    diameters_mm: tuple[float, ...]

    @property
    def days(self) -> tuple[int, ...]:
        """Since the first exam."""
        return self.timeline.days

    @property
    def growing(self) -> bool:
        """Whether the series is positive."""
        return self.course == "growing"


@dataclass(frozen=True)
class SimulatedMass:
    """One image with one mass, or none: then ``diameter_mm`` is 0 and ``row`` and ``column`` are
    where it would have been."""

    image: NDArray[np.uint8]  # [H, W]
    row: float
    column: float
    diameter_mm: float


def read_intervals(path: Path) -> NDArray[np.int64]:
    """Days between consecutive mammography dates of one patient, in ascending order.

    `path` is a (gzipped) csv with one row per DICOM series and the columns ``PatientID`` and
    ``StudyDate`` (ISO 8601), such as that of ECOG-ACRIN EA1141 (CC BY 4.0) from the index of the
    NCI Imaging Data Commons. Intervals outside `INTERVAL_DAYS` are left out.
    """
    dates: defaultdict[str, set[date]] = defaultdict(set)
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open() as file:
        for row in csv.DictReader(file):
            dates[row["PatientID"]].add(date.fromisoformat(row["StudyDate"]))
    days = [(b - a).days for seen in dates.values() for a, b in pairwise(sorted(seen))]
    shortest, longest = INTERVAL_DAYS
    return np.array(sorted(d for d in days if shortest <= d <= longest), dtype=np.int64)


def draw_course(rng: np.random.Generator) -> Course:
    """Draw what a mass does: growing in half of the cases, `COURSE_SHARES`."""
    return COURSES[int(rng.choice(len(COURSES), p=[COURSE_SHARES[c] for c in COURSES]))]


def simulate_series(
    image: NDArray[np.uint8],
    *,
    course: Course,
    exams: int,
    intervals: NDArray[np.int64],
    rng: np.random.Generator,
) -> SimulatedSeries:
    """Make `exams` exams of the lesion-free breast `image` (uint8 [H, W]), with one mass.

    `intervals` are the days between exams of a yearly programme (`read_intervals`).
    """
    timeline = draw_timeline(exams, intervals, rng)
    diameters_mm = diameters(timeline, course)
    lesion = draw_lesion(image, ROOM_MM, rng)
    acquired = [acquire(insert_lesion(image, lesion, d), rng) for d in diameters_mm]

    centre = np.array([lesion.column, lesion.row, 1.0])
    xy = np.stack([matrix @ centre for _, matrix in acquired])  # [exams, 2]
    return SimulatedSeries(
        images=np.stack([exam for exam, _ in acquired]),
        timeline=timeline,
        course=course,
        lesion_px=xy[:, ::-1].astype(np.float32),
        diameters_mm=diameters_mm,
    )


def simulate_mass(image: NDArray[np.uint8], rng: np.random.Generator) -> SimulatedMass:
    """Make one exam of the lesion-free breast `image` (uint8 [H, W]), with one mass or, in
    `MASS_FREE_PROBABILITY` of the draws, none."""
    diameter_mm = _log_uniform(MASS_DIAMETER_MM, rng)
    if rng.random() < MASS_FREE_PROBABILITY:
        diameter_mm = 0.0
    lesion = draw_lesion(image, ROOM_MM, rng)
    exam, matrix = acquire(insert_lesion(image, lesion, diameter_mm), rng)
    column, row = matrix @ np.array([lesion.column, lesion.row, 1.0])
    return SimulatedMass(exam, float(row), float(column), diameter_mm)


def draw_timeline(exams: int, intervals: NDArray[np.int64], rng: np.random.Generator) -> Timeline:
    """Draw everything about a mass over time but its course, which decides what is made of it."""
    if exams < 1:
        raise ValueError(f"a series needs at least one exam, not {exams}")
    days = _draw_days(exams, intervals, rng)
    final_diameter_mm = _log_uniform(FINAL_DIAMETER_MM, rng)
    pace = float(rng.standard_normal())  # a slow patient is slow whatever the course
    return Timeline(
        days=days,
        final_diameter_mm=final_diameter_mm,
        growing_doubling_days=_log_normal(pace, GROWING_DOUBLING_DAYS, GROWING_DOUBLING_RANGE),
        slow_doubling_days=_log_normal(pace, SLOW_DOUBLING_DAYS, SLOW_DOUBLING_RANGE),
    )


def diameters(timeline: Timeline, course: Course) -> tuple[float, ...]:
    """Diameter in mm at every exam; the last is the same for every course."""
    before = timeline.days[-1] - np.array(timeline.days)  # the last exam
    final = timeline.final_diameter_mm
    rate = 1.0 / (3.0 * timeline.growing_doubling_days)  # doublings of the diameter a day
    if len(before) < 2:
        return (final,)
    if course == "growing":
        doublings = -rate * before
    elif course == "slow":
        doublings = -before / (3.0 * timeline.slow_doubling_days)
    elif course == "stable":
        doublings = np.zeros(before.size)
    elif course == "regressing" or len(before) < 3:  # two exams are too few to recur
        fastest = np.log2(LARGEST_DIAMETER_MM / final) / before[0]
        doublings = min(rate, fastest) * before
    else:
        # Not so fast that no earlier exam shows it: then there would be nothing to tell it by.
        fastest = np.log2(final / RECURRING_SEEN_MM) / before[-2]
        doublings = -min(rate, fastest) * np.append(before[-2::-1], 0)
    return tuple(float(d) for d in final * 2.0**doublings)


def _draw_days(
    exams: int, intervals: NDArray[np.int64], rng: np.random.Generator
) -> tuple[int, ...]:
    """Days since the first exam; a missing exam makes one interval of two."""
    gaps = exams - 1
    first, second = rng.choice(list(PROGRAMMES), size=2, p=list(PROGRAMMES.values()))
    change = int(rng.integers(1, max(gaps, 2)))
    if rng.random() >= PROGRAMME_CHANGE_PROBABILITY:
        change = gaps
    programme = np.where(np.arange(gaps) < change, first, second)
    drawn = rng.choice(intervals, size=(gaps, 2))
    missing = rng.random(gaps) < MISSING_EXAM_PROBABILITY
    steps = np.rint(programme * (drawn[:, 0] + np.where(missing, drawn[:, 1], 0)))
    steps = np.minimum(steps, LONGEST_GAP_DAYS)
    return (0, *(int(day) for day in np.cumsum(steps)))


def _log_uniform(bounds: tuple[float, float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _log_normal(z: float, distribution: tuple[float, float], bounds: tuple[float, float]) -> float:
    median, log_sd = distribution
    return float(np.clip(median * np.exp(log_sd * z), *bounds))
