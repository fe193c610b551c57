"""Results -> answers: JSON in the shape of the API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.api.schemas import (
    BoxBody,
    BreastBody,
    DicomObject,
    ExamBody,
    FactsBody,
    HeatmapBody,
    IgnoredBody,
    ImageBody,
    ModelIdentity,
    OperatingPointBody,
    Picture,
    PixelsBody,
    Position,
    PredictAnswer,
    Prediction,
    SeriesAnswer,
    SeriesImage,
    StudyAnswer,
    WarningBody,
)
from app.imaging.display import placed
from app.imaging.facts import ImageFacts
from app.imaging.shown import Shown
from app.inference.study import Ignored
from app.render.heatmap import (
    ImageType,
    box,
    encode_map,
    encode_overlay,
    map_to_original,
    peak,
)
from app.render.result import BreastResult, ExamResult, ImageResult, StudyResult


@dataclass(frozen=True)
class Pictures:
    """Which pictures the caller wants in the JSON."""

    overlay: ImageType | None
    overlay_long_side: int
    map: bool


@dataclass(frozen=True)
class Outputs:
    """What the answer holds besides the reading."""

    dicom: Sequence[DicomObject]
    fhir: dict[str, Any] | None
    timings_ms: dict[str, float]


def predict_answer(result: StudyResult, pictures: Pictures, outputs: Outputs) -> PredictAnswer:
    """The answer for a single image."""
    (breast,) = result.breasts
    image = breast.exams[0].images[0]
    return PredictAnswer(
        **_envelope(result, outputs),
        **_reading(result, breast),
        image=_image(image),
        heatmap=_heatmap(result, breast, image, pictures),
    )


def series_answer(result: StudyResult, pictures: Pictures, outputs: Outputs) -> SeriesAnswer:
    """The answer for a described series: the same, and an entry per exam in time order."""
    (breast,) = result.breasts
    return SeriesAnswer(**_envelope(result, outputs), **_exams(result, breast, pictures))


def study_answer(
    result: StudyResult, ignored: Sequence[Ignored], pictures: Pictures, outputs: Outputs
) -> StudyAnswer:
    """The answer for a patient's files: an entry per breast."""
    return StudyAnswer(
        **_envelope(result, outputs),
        breasts=[
            BreastBody(laterality=breast.laterality, **_exams(result, breast, pictures))
            for breast in result.breasts
        ],
        ignored=[
            IgnoredBody(index=note.index, code=note.code, detail=note.detail) for note in ignored
        ],
    )


def _envelope(result: StudyResult, outputs: Outputs) -> dict[str, Any]:
    manifest = result.manifest
    return {
        "request_id": result.request_id,
        "model": ModelIdentity(
            name=manifest.name,
            version=manifest.version,
            sha256=result.bundle_sha256,
            preprocessing_version=manifest.preprocessing.version,
        ),
        "dicom": outputs.dicom,
        "fhir": outputs.fhir,
        "timings_ms": outputs.timings_ms,
    }


def _reading(result: StudyResult, breast: BreastResult) -> dict[str, Any]:
    point = result.operating_point
    return {
        "probabilities": breast.probabilities,
        "calibrated_probability": breast.probability,
        "positive_class": result.manifest.positive_class,
        "prediction": Prediction(
            label=breast.label,
            operating_point=OperatingPointBody(
                name=point.name,
                threshold=point.threshold,
                sensitivity=point.sensitivity,
                specificity=point.specificity,
                measured_on=point.measured_on,
            ),
        ),
        "warnings": [WarningBody(code=code, detail=detail) for code, detail in breast.warnings],
    }


def _exams(result: StudyResult, breast: BreastResult, pictures: Pictures) -> dict[str, Any]:
    return {
        **_reading(result, breast),
        "calibrated_probability_before_any_exam": breast.probability_before,
        "exams": [_exam(result, breast, exam, pictures) for exam in breast.exams],
    }


def _exam(
    result: StudyResult, breast: BreastResult, exam: ExamResult, pictures: Pictures
) -> ExamBody:
    return ExamBody(
        exam_date=exam.date,
        days_since_previous=exam.days_since_previous,
        calibrated_probability_after=exam.probability_after,
        change=exam.change,
        images=[
            SeriesImage(
                index=image.index,
                image=_image(image),
                heatmap=_heatmap(result, breast, image, pictures),
            )
            for image in exam.images
        ],
    )


def _heatmap(
    result: StudyResult, breast: BreastResult, image: ImageResult, pictures: Pictures
) -> HeatmapBody:
    heatmap, crop = image.heatmap, image.crop
    overlay = None
    if pictures.overlay:
        assert image.shown is not None
        size = image.facts.rows, image.facts.columns
        shown, box = placed(image.shown, crop, size, pictures.overlay_long_side)
        data = encode_overlay(shown, heatmap, box, scale=breast.scale, image_type=pictures.overlay)
        overlay = Picture(
            media_type="image/png" if pictures.overlay == "png" else "image/jpeg",
            height=shown.shape[0],
            width=shown.shape[1],
            data=encoded(data),
        )
    plain = None
    if pictures.map:
        rows, columns = heatmap.shape
        plain = Picture(
            media_type="image/png",
            height=rows,
            width=columns,
            data=encoded(encode_map(heatmap, breast.scale)),
        )
    return HeatmapBody(
        target_class=result.target_class,
        peak=_peak(image),
        box=_box(image),
        maximum=float(heatmap.max()),
        scale=breast.scale,
        map=plain,
        map_to_original=map_to_original(heatmap, crop),
        overlay=overlay,
    )


def _peak(image: ImageResult) -> Position | None:
    found = peak(image.heatmap, image.crop)
    if found is None:
        return None
    down, across = image.facts.spacing_mm or (None, None)
    return Position(
        row=found.row,
        column=found.column,
        row_mm=_mm(found.row, down),
        column_mm=_mm(found.column, across),
    )


def _box(image: ImageResult) -> BoxBody | None:
    found = box(image.heatmap, image.crop)
    if found is None:
        return None
    down, across = image.facts.spacing_mm or (None, None)
    return BoxBody(
        top=found.top,
        left=found.left,
        height=found.height,
        width=found.width,
        top_mm=_mm(found.top, down),
        left_mm=_mm(found.left, across),
        height_mm=_mm(found.height, down),
        width_mm=_mm(found.width, across),
    )


def _mm(pixels: float, spacing: float | None) -> float | None:
    return None if spacing is None else pixels * spacing


def pixels_answer(shown: Shown) -> PixelsBody:
    """What is said of pixels beside them."""
    rows, columns = shown.words.shape
    return PixelsBody(
        rows=rows,
        columns=columns,
        bits=8 if shown.words.dtype == np.uint8 else 16,
        image=FactsBody(**_facts(shown.facts)),
        low=shown.low,
        high=shown.high,
        inverted=shown.inverted,
        warnings=[WarningBody(code=code, detail=detail) for code, detail in shown.facts.warnings],
    )


def _image(image: ImageResult) -> ImageBody:
    crop = image.crop
    return ImageBody(
        **_facts(image.facts),
        crop={
            "left": crop.left,
            "top": crop.top,
            "width": crop.width,
            "height": crop.height,
            "flipped": crop.flipped,
        },
        inverted=image.inverted,
    )


def _facts(facts: ImageFacts) -> dict[str, Any]:
    return {
        "format": facts.format,
        "rows": facts.rows,
        "columns": facts.columns,
        "bits": facts.bits,
        "laterality": facts.laterality,
        "view": facts.view,
        "view_modifiers": facts.view_modifiers,
        "exam_date": facts.exam_time.date() if facts.exam_time else None,
        "vendor": facts.vendor,
        "presentation": facts.presentation,
        "implant": facts.implant,
        "spacing_mm": facts.spacing_mm,
    }


def encoded(data: bytes) -> str:
    """Base64."""
    return base64.b64encode(data).decode("ascii")
