"""What is known of an image besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
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
