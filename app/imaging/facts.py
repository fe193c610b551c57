"""What is known of an image besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import date, datetime, time
from typing import Literal

Laterality = Literal["L", "R"]
Presentation = Literal["for_presentation", "for_processing"]


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one decoded image.

    ``bits`` is the stored grey depth. ``laterality`` is "L" or "R"; ``view`` a DICOM view position
    such as "CC" or "MLO", ``view_modifiers`` such as "implant_displaced"; ``exam_time`` the date
    (and time, if known) of the exam and ``acquired`` that of the image, both without time zone.
    ``vendor`` is one of a closed list, or "other". ``spacing_mm`` is the distance within the breast
    between rows and between columns. The keys are salted hashes that live only in memory: they
    tell patients, studies and files apart without naming them. Unknown facts are None.
    ``warnings`` are codes with a sentence each.
    """

    format: str
    rows: int
    columns: int
    bits: int
    laterality: Laterality | None = None
    view: str | None = None
    view_modifiers: tuple[str, ...] = ()
    exam_time: datetime | None = None
    acquired: datetime | None = None
    vendor: str | None = None
    presentation: Presentation | None = None
    implant: bool | None = None
    spacing_mm: tuple[float, float] | None = None
    patient_key: str | None = None
    study_key: str | None = None
    instance_key: str | None = None
    warnings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Stated:
    """What the caller says of an image, or of every image whose file does not say it."""

    exam_date: date | None = None
    laterality: Laterality | None = None
    view: str | None = None


def completed(facts: ImageFacts, assumed: Stated) -> ImageFacts:
    """``facts`` with what they lack taken from ``assumed``; what the file says stays."""
    day = assumed.exam_date
    completed = replace(
        facts,
        laterality=facts.laterality or assumed.laterality,
        view=facts.view or assumed.view,
        exam_time=facts.exam_time or (datetime.combine(day, time()) if day else None),
    )
    if completed.laterality and completed.view:
        kept = tuple(note for note in facts.warnings if note[0] != "view_unknown")
        completed = replace(completed, warnings=kept)
    return completed
