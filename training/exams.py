"""Manifest rows -> the breasts of patients, with their exams in time order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from training.manifest import LabelledImage, ManifestError


@dataclass(frozen=True)
class BreastSeries:
    """The exams of one breast in time order, each with its views, and whether each exam is of the
    positive class."""

    exams: tuple[tuple[LabelledImage, ...], ...]
    positive: tuple[bool, ...]

    @property
    def name(self) -> str:
        first = self.exams[0][0]
        if first.laterality or first.exam_date is None:
            return f"{first.patient_id}-{first.laterality}"
        return f"{first.patient_id}-{first.exam_date}"

    @property
    def patient_id(self) -> str:
        return self.exams[0][0].patient_id

    @property
    def images(self) -> tuple[LabelledImage, ...]:
        return tuple(image for exam in self.exams for image in exam)

    @property
    def dates(self) -> tuple[date | None, ...]:
        return tuple(exam[0].exam_date for exam in self.exams)

    def without(self, left_out: Iterable[str]) -> BreastSeries | None:
        """Without some images, by path; None if nothing is left."""
        gone = set(left_out)
        kept = [
            (exam, positive)
            for whole, positive in zip(self.exams, self.positive, strict=True)
            if (exam := tuple(image for image in whole if str(image.path) not in gone))
        ]
        return BreastSeries(*zip(*kept, strict=True)) if kept else None


def breast_series(images: Sequence[LabelledImage], positive: str) -> list[BreastSeries]:
    """Group images by patient and side into exams in time order; ``positive`` is a label.

    Where the side is not known, exams stand alone and images of both classes are two breasts.
    Raises ``ManifestError`` with every breast that has both classes at one exam, or exams with
    and without a date.
    """
    breasts: dict[tuple[str, ...], dict[date | None, list[LabelledImage]]] = defaultdict(
        lambda: defaultdict(list)
    )
    for image in images:
        alone = () if image.laterality else (str(image.exam_date), str(image.label == positive))
        breasts[image.patient_id, image.laterality, *alone][image.exam_date].append(image)
    findings = []
    made = []
    for (patient, side, *_), exams in breasts.items():
        breast = f"patient {patient}, side {side or 'unknown'}"
        if None in exams and len(exams) > 1:
            findings.append(f"{breast}: some exams have a date and some have none")
            continue
        ordered = sorted(exams.items(), key=lambda item: item[0] or date.min)
        for day, views in ordered:
            if len({image.label == positive for image in views}) > 1:
                findings.append(f"{breast}, date {day or 'unknown'}: {positive} and not {positive}")
        made.append(
            BreastSeries(
                tuple(tuple(views) for _, views in ordered),
                tuple(views[0].label == positive for _, views in ordered),
            )
        )
    if findings:
        raise ManifestError("\n".join([f"{len(findings)} finding(s) in the manifest", *findings]))
    return made
