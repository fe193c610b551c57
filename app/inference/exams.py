"""Images with their facts -> the exams of one breast in time order, and their slots."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from app.imaging.facts import ImageFacts, Laterality
from app.problems import Refusal

LONG_GAP_DAYS = 3 * 365


@dataclass(frozen=True)
class Sent:
    """One image as the caller sent it: its place in the request, what its file says, and what
    the caller says of it, which wins."""

    index: int
    facts: ImageFacts
    content_key: str | None = None  # equal for equal bytes; None for an only image
    stated_date: date | None = None
    stated_laterality: Laterality | None = None
    stated_view: str | None = None

    @property
    def exam_date(self) -> date | None:
        return self.stated_date or (self.facts.exam_time and self.facts.exam_time.date())

    @property
    def laterality(self) -> Laterality | None:
        return self.stated_laterality or self.facts.laterality

    @property
    def view(self) -> str | None:
        return self.stated_view or self.facts.view

    @property
    def agreed_facts(self) -> ImageFacts:
        """The facts with what the caller says in the place of what the file says."""
        day, time_of_exam = self.exam_date, self.facts.exam_time
        if day is not None and (time_of_exam is None or time_of_exam.date() != day):
            time_of_exam = datetime.combine(day, time())
        return replace(
            self.facts, laterality=self.laterality, view=self.view, exam_time=time_of_exam
        )


@dataclass(frozen=True)
class Exam:
    """One exam of one breast: ``images`` are indices into the request."""

    date: date | None
    days_since_previous: int  # 0 for the first
    images: tuple[int, ...]


def single_exam(sent: Sent) -> tuple[Exam, ...]:
    """A series of length one; a date is welcome but not needed."""
    return (Exam(sent.exam_date, 0, (sent.index,)),)


def order_exams(sent: Sequence[Sent]) -> tuple[Exam, ...]:
    """Group the images of one breast by date and sort the exams by it.

    Raises ``Refusal``: ``no_exam_date``, ``mixed_patients``, ``mixed_breasts``,
    ``duplicate_image``.
    """
    check_dated(sent)
    check_one_patient(sent)
    _check_one(sent, [image.laterality for image in sent], "mixed_breasts", "breast")
    _check_no_copies(sent)
    return in_time_order(sent)


def in_time_order(sent: Sequence[Sent]) -> tuple[Exam, ...]:
    """Images of one date are views of one exam; every image has a date."""
    by_date: dict[date, list[int]] = defaultdict(list)
    for image in sent:
        assert image.exam_date is not None
        by_date[image.exam_date].append(image.index)
    dates = sorted(by_date)
    gaps = [0, *((b - a).days for a, b in pairwise(dates))]
    return tuple(Exam(day, gap, tuple(by_date[day])) for day, gap in zip(dates, gaps, strict=True))


def check_dated(sent: Sequence[Sent]) -> None:
    """Raise ``Refusal`` (``no_exam_date``) unless every image has a date."""
    undated = [image.index for image in sent if image.exam_date is None]
    if undated:
        raise Refusal(
            "no_exam_date", f"No exam date is known for image(s) {_listed(undated)} of the request."
        )


def check_one_patient(sent: Sequence[Sent]) -> None:
    """Raise ``Refusal`` (``mixed_patients``) if the files name more than one patient."""
    _check_one(sent, [image.facts.patient_key for image in sent], "mixed_patients", "patient")


def slots_and_days(exams: Sequence[Exam]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The head's inputs for one series: slots int32 [exams, views], days float32 [exams]."""
    slots = np.full((len(exams), max(len(exam.images) for exam in exams)), -1, np.int32)
    for t, exam in enumerate(exams):
        slots[t, : len(exam.images)] = exam.images
    return slots, np.array([exam.days_since_previous for exam in exams], np.float32)


def series_warnings(sent: Sequence[Sent], exams: Sequence[Exam]) -> list[tuple[str, str]]:
    """What a reader of the series should know: unknown sides, corrected dates, long gaps."""
    notes: list[tuple[str, str]] = []
    if len(sent) > 1 and any(image.laterality is None for image in sent):
        notes.append(
            ("laterality_unknown", "Not every image says which breast it shows; one is assumed.")
        )
    for image in sent:
        written = image.facts.exam_time
        if image.stated_date and written and written.date() != image.stated_date:
            notes.append(
                (
                    "date_differs_from_file",
                    f"Image {image.index}: the stated date was used, the file has another.",
                )
            )
        if image.stated_laterality and image.facts.laterality not in (None, image.laterality):
            notes.append(
                (
                    "laterality_differs_from_file",
                    f"Image {image.index}: the stated side was used, the file has the other.",
                )
            )
    for number, exam in enumerate(exams):
        if exam.days_since_previous > LONG_GAP_DAYS:
            notes.append(
                (
                    "long_gap",
                    f"Exam {number} is {exam.days_since_previous} days after the one before it.",
                )
            )
    return notes


def _check_one(sent: Sequence[Sent], keys: Sequence[str | None], code: str, noun: str) -> None:
    groups: dict[str, list[int]] = defaultdict(list)
    for image, key in zip(sent, keys, strict=True):
        if key is not None:
            groups[key].append(image.index)
    if len(groups) > 1:
        listing = "; ".join(_listed(indices) for indices in groups.values())
        raise Refusal(code, f"The images are of more than one {noun}: {listing}.")


def _check_no_copies(sent: Sequence[Sent]) -> None:
    seen: dict[str, int] = {}
    for image in sent:
        for key in (image.content_key, image.facts.instance_key):
            if key is None:
                continue
            if key in seen and seen[key] != image.index:
                raise Refusal(
                    "duplicate_image", f"Images {seen[key]} and {image.index} are the same file."
                )
            seen[key] = image.index


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(str(index) for index in indices)
