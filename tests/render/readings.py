"""What was read of a patient, made from real and synthetic files: the writers' input."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray

from app.bundle import Manifest
from app.imaging.decode import decode
from app.imaging.display import displayed
from app.imaging.facts import Laterality
from app.imaging.preprocess import InputGeometry, preprocess
from app.render.result import CAPTURE_LONG_SIDE, BreastResult, ExamResult, ImageResult, StudyResult
from tests.pictures import breast, dicom, real_dicom

ROWS, COLUMNS = 16, 10
SCALE = 2.5  # of the heatmaps, their highest value
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
SHA256 = "0123456789abcdef" * 4


def heatmap(row: int, column: int) -> NDArray[np.float32]:
    """A map that is highest at one cell and zero at most others."""
    cells = np.zeros((ROWS, COLUMNS), np.float32)
    cells[2:5, 1:4] = 0.5
    cells[row, column] = SCALE
    return cells


def image(data: bytes, index: int = 0, *, cell: tuple[int, int] | None = (8, 3)) -> ImageResult:
    """One file as read; ``cell`` is where its heatmap is highest, None where it is zero."""
    pixels, facts = decode(data, 100_000_000)
    model_input = preprocess(pixels, InputGeometry(256, 160))
    header = (
        pydicom.dcmread(BytesIO(data), stop_before_pixels=True)
        if data[128:132] == b"DICM"
        else None
    )
    cells = heatmap(*cell) if cell else np.zeros((ROWS, COLUMNS), np.float32)
    crop, inverted = model_input.crop, model_input.inverted
    shown = displayed(pixels, CAPTURE_LONG_SIDE, inverted=inverted)
    key = hashlib.sha256(data).hexdigest()
    return ImageResult(index, header, facts, shown, crop, inverted, cells, key)


def exam(
    *images: ImageResult, days: int = 0, after: float = 0.4, change: float = 0.1
) -> ExamResult:
    """An exam on the date that its first image states."""
    time = images[0].facts.exam_time
    return ExamResult(time.date() if time else None, days, after, change, images)


def of_breast(
    laterality: Laterality | None,
    *exams: ExamResult,
    probability: float = 0.4321,
    positive: bool = True,
    warnings: tuple[tuple[str, str], ...] = (),
) -> BreastResult:
    highest = max(float(i.heatmap.max()) for e in exams for i in e.images)
    return BreastResult(
        laterality=laterality,
        probabilities={"no_cancer": 1 - probability, "malignant": probability},
        probability=probability,
        probability_before=0.3,
        positive=positive,
        label="malignant" if positive else "no_cancer",
        scale=highest,
        exams=exams,
        warnings=warnings,
    )


def study(manifest: Manifest, *breasts: BreastResult) -> StudyResult:
    point = manifest.operating_point(None)
    assert point is not None
    return StudyResult(
        "request", CREATED, manifest, SHA256, point, manifest.positive_class, breasts
    )


def cbis(manifest: Manifest, encoding: str = "explicit") -> StudyResult:
    """A single CBIS-DDSM image: Secondary Capture, no birth date, a view for an orientation."""
    return study(manifest, of_breast("L", exam(image(real_dicom(encoding)))))


def full_field(manifest: Manifest, laterality: Laterality, **tags: object) -> StudyResult:
    """A single synthetic digital mammogram; ``tags`` as those of ``dicom``."""
    patient = {keyword: value for keyword, value in PATIENT.items() if keyword not in tags}
    data = dicom(
        breast(right=laterality == "R"),
        ImageLaterality=laterality,
        **patient | {keyword: value for keyword, value in tags.items() if value != ABSENT},
    )
    return study(manifest, of_breast(laterality, exam(image(data))))


ABSENT = "absent"  # of an element of PATIENT
PATIENT = {
    "PatientName": "Doe^Jane",
    "PatientBirthDate": "19610203",
    "PatientSex": "F",
    "StudyID": "7",
    "StudyTime": "101112",
    "AccessionNumber": "A-1",
    "ReferringPhysicianName": "Roe^Richard",
}


def over_years(manifest: Manifest) -> StudyResult:
    """Both breasts, two views each in the newest exam, with priors of one view in other studies;
    the left breast has two priors, the right one has one. MONOCHROME1 among them."""

    def of(
        index: int, side: Laterality, view: str, year: int, cell: tuple[int, int] | None
    ) -> ImageResult:
        grey = breast(right=side == "R", seed=index)
        inverse = {"PhotometricInterpretation": "MONOCHROME1"} if index == 3 else {}
        data = dicom(
            255 - grey if inverse else grey,
            **PATIENT,
            StudyDate=f"{year}0304",
            StudyInstanceUID=f"1.2.{year}",
            SeriesInstanceUID=f"1.2.{year}.1",
            SOPInstanceUID=f"1.2.{year}.1.{index + 1}",
            ImageLaterality=side,
            ViewPosition=view,
            PatientOrientation=["A", "L"] if side == "L" else ["P", "R"],
            **inverse,
        )
        return image(data, index, cell=cell)

    return study(
        manifest,
        of_breast(
            "L",
            exam(of(4, "L", "CC", 2021, (1, 8)), after=0.3, change=-0.05),
            exam(of(5, "L", "CC", 2023, None), days=730, after=0.25, change=-0.05),
            exam(
                of(0, "L", "CC", 2024, (8, 3)), of(1, "L", "MLO", 2024, (3, 7)),
                days=366, after=0.6, change=0.35,
            ),
            probability=0.6,
            warnings=(("long_gap", "Exam 1 is 730 days after the one before it."),),
        ),
        of_breast(
            "R",
            exam(of(6, "R", "MLO", 2023, (12, 2)), after=0.2, change=-0.15),
            exam(
                of(2, "R", "CC", 2024, (5, 5)), of(3, "R", "MLO", 2024, (9, 1)),
                days=366, after=0.15, change=-0.05,
            ),
            probability=0.15,
            positive=False,
        ),
    )  # fmt: skip
