"""What is known of an image besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Laterality = Literal["L", "R"]


@dataclass(frozen=True)
class ImageFacts:
    """Facts of one decoded image.

    ``bits`` is the stored grey depth. ``laterality`` is "L" or "R"; ``view`` a DICOM view position
    such as "CC" or "MLO"; ``exam_time`` the date (and time, if known) of the exam. The keys are
    salted hashes that live only in memory: they tell patients, studies and files apart without
    naming them. Unknown facts are None. ``warnings`` are codes with a sentence each.
    """

    format: str
    rows: int
    columns: int
    bits: int
    laterality: Laterality | None = None
    view: str | None = None
    exam_time: datetime | None = None
    patient_key: str | None = None
    study_key: str | None = None
    instance_key: str | None = None
    warnings: tuple[tuple[str, str], ...] = ()
