"""What was read of a patient's images, as the writers of reports need it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from app.bundle import Manifest, OperatingPoint
from app.imaging.facts import ImageFacts, Laterality
from app.imaging.preprocess import Crop

CAPTURE_LONG_SIDE = 1700  # pixels, of the picture in a Secondary Capture; with text below 2048


@dataclass(frozen=True)
class ImageResult:
    """One image that was read.

    ``index`` is its place in the request, ``header`` its DICOM header without pixels (None for
    other formats), ``shown`` the whole image small, uint8 [height, width] (None if no picture is
    wanted), ``crop`` in pixels of the image, ``heatmap`` float32 [rows, columns] on the model's
    native grid. ``content_key`` is the SHA-256 of its file, None where it was not needed.
    """

    index: int
    header: Dataset | None
    facts: ImageFacts
    shown: NDArray[np.uint8] | None
    crop: Crop
    inverted: bool
    heatmap: NDArray[np.float32]
    content_key: str | None = None


@dataclass(frozen=True)
class ExamResult:
    """One exam: calibrated probability once it was read, and the change that it brought."""

    date: date | None
    days_since_previous: int
    probability_after: float
    change: float
    images: tuple[ImageResult, ...]


@dataclass(frozen=True)
class BreastResult:
    """One breast.

    ``probabilities`` are the model's, by class; ``probability`` is that of the positive class,
    calibrated, and ``probability_before`` what it is before any exam is read; ``positive`` says
    that it is at or above the operating point and ``label`` is the class so reached; ``scale`` is
    the heatmap value drawn as full colour; ``exams`` are in time order; ``warnings`` are codes
    with a sentence each.
    """

    laterality: Laterality | None
    probabilities: dict[str, float]
    probability: float
    probability_before: float
    positive: bool
    label: str
    scale: float
    exams: tuple[ExamResult, ...]
    warnings: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class StudyResult:
    """All of one request. ``created`` is in UTC; ``bundle_sha256`` identifies the model;
    ``target_class`` is the class that the heatmaps are of."""

    request_id: str
    created: datetime
    manifest: Manifest
    bundle_sha256: str
    operating_point: OperatingPoint
    target_class: str
    breasts: tuple[BreastResult, ...]
