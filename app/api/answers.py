"""Readings -> answers: probabilities, heatmaps and facts in the shape of the API."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app import metrics
from app.api.schemas import (
    ExamBody,
    HeatmapBody,
    ImageBody,
    ModelIdentity,
    OperatingPointBody,
    Picture,
    Pixel,
    PredictAnswer,
    Prediction,
    SeriesAnswer,
    SeriesImage,
    WarningBody,
)
from app.bundle import Bundle, OperatingPoint
from app.inference.exams import Exam, series_warnings
from app.inference.pipeline import Prepared, Stopwatch
from app.inference.probability import calibrated, influences, softmax
from app.inference.sessions import ExamReading
from app.render.heatmap import ImageType, encode_map, encode_overlay, map_to_original, peak


@dataclass(frozen=True)
class Wanted:
    """What the caller wants of an answer, checked against the model."""

    operating_point: OperatingPoint
    target_class: int
    overlay: ImageType | None
    overlay_long_side: int
    map: bool


@dataclass(frozen=True)
class Read:
    """A series that was read, with what it was read from."""

    request_id: str
    prepared: Sequence[Prepared]
    exams: Sequence[Exam]
    reading: ExamReading


def predict_answer(bundle: Bundle, read: Read, wanted: Wanted, watch: Stopwatch) -> PredictAnswer:
    """The answer for a single image."""
    with watch.stage("render"):
        heatmaps = _heatmaps(bundle, read, wanted)
    only = read.prepared[0]
    return PredictAnswer(
        **_common(bundle, read, wanted),
        image=_image(only),
        heatmap=heatmaps[0],
        timings_ms=watch.milliseconds(),
    )


def series_answer(bundle: Bundle, read: Read, wanted: Wanted, watch: Stopwatch) -> SeriesAnswer:
    """The answer for a series: the same, and an entry per exam in time order."""
    with watch.stage("render"):
        heatmaps = _heatmaps(bundle, read, wanted)
    changes = influences(read.reading, bundle.manifest)
    return SeriesAnswer(
        **_common(bundle, read, wanted),
        calibrated_probability_before_any_exam=float(
            calibrated(read.reading.empty_logits, bundle.manifest)
        ),
        exams=[
            ExamBody(
                exam_date=exam.date,
                days_since_previous=exam.days_since_previous,
                calibrated_probability_after=influence.probability_after,
                change=influence.change,
                images=[
                    SeriesImage(index=i, image=_image(read.prepared[i]), heatmap=heatmaps[i])
                    for i in exam.images
                ],
            )
            for exam, influence in zip(read.exams, changes, strict=True)
        ],
        timings_ms=watch.milliseconds(),
    )


def _common(bundle: Bundle, read: Read, wanted: Wanted) -> dict[str, Any]:
    manifest = bundle.manifest
    probabilities = softmax(read.reading.logits)
    calibrated_probability = float(calibrated(read.reading.logits, manifest))
    point = wanted.operating_point
    metrics.SCORE.observe(calibrated_probability)
    metrics.SERIES_EXAMS.observe(len(read.exams))
    return {
        "request_id": read.request_id,
        "model": ModelIdentity(
            name=manifest.name,
            version=manifest.version,
            sha256=bundle.sha256,
            preprocessing_version=manifest.preprocessing.version,
        ),
        "probabilities": dict(zip(manifest.classes, map(float, probabilities), strict=True)),
        "calibrated_probability": calibrated_probability,
        "positive_class": manifest.positive_class,
        "prediction": Prediction(
            label=_label(bundle, probabilities, calibrated_probability >= point.threshold),
            operating_point=OperatingPointBody(
                name=point.name,
                threshold=point.threshold,
                sensitivity=point.sensitivity,
                specificity=point.specificity,
                measured_on=point.measured_on,
            ),
        ),
        "warnings": [
            WarningBody(code=code, detail=detail) for code, detail in _warnings(read, wanted)
        ],
    }


def _label(bundle: Bundle, probabilities: NDArray[np.float64], positive: bool) -> str:
    """The positive class at or above the threshold, else the likeliest of the others."""
    manifest = bundle.manifest
    if positive:
        return manifest.positive_class
    others = [i for i in range(len(manifest.classes)) if i != manifest.positive_index]
    return manifest.classes[max(others, key=lambda i: float(probabilities[i]))]


def _warnings(read: Read, wanted: Wanted) -> list[tuple[str, str]]:
    several = len(read.prepared) > 1
    notes: list[tuple[str, str]] = []
    for image in read.prepared:
        prefix = f"Image {image.sent.index}: " if several else ""
        own = list(image.sent.facts.warnings)
        if image.input.inverted:
            own.append(("inverted", "The background is bright; the grey scale was inverted."))
        notes += [(code, prefix + detail) for code, detail in own]
    if several:
        notes += series_warnings([image.sent for image in read.prepared], read.exams)
    if not read.reading.heatmaps[:, :, wanted.target_class].max() > 0:
        notes.append(("no_evidence", "The heatmap is zero: nothing speaks for the target class."))
    return notes


def _heatmaps(bundle: Bundle, read: Read, wanted: Wanted) -> dict[int, HeatmapBody]:
    """One heatmap per image, by its index; all on one scale so that exams can be compared."""
    maps = {
        index: read.reading.heatmaps[t, v, wanted.target_class]
        for t, exam in enumerate(read.exams)
        for v, index in enumerate(exam.images)
    }
    scale = max(float(heatmap.max()) for heatmap in maps.values())
    return {
        index: _heatmap(bundle, read.prepared[index], heatmap, scale, wanted)
        for index, heatmap in maps.items()
    }


def _heatmap(
    bundle: Bundle,
    image: Prepared,
    heatmap: NDArray[np.float32],
    scale: float,
    wanted: Wanted,
) -> HeatmapBody:
    crop = image.input.crop
    found = peak(heatmap, crop)
    overlay = None
    if wanted.overlay:
        data, height, width = encode_overlay(
            image.pixels,
            heatmap,
            crop,
            inverted=image.input.inverted,
            scale=scale,
            long_side=wanted.overlay_long_side,
            image_type=wanted.overlay,
        )
        overlay = Picture(
            media_type="image/png" if wanted.overlay == "png" else "image/jpeg",
            height=height,
            width=width,
            data=_base64(data),
        )
    plain = None
    if wanted.map:
        rows, columns = heatmap.shape
        plain = Picture(
            media_type="image/png",
            height=rows,
            width=columns,
            data=_base64(encode_map(heatmap, scale)),
        )
    return HeatmapBody(
        target_class=bundle.manifest.classes[wanted.target_class],
        peak=Pixel(row=found.row, column=found.column) if found else None,
        maximum=float(heatmap.max()),
        scale=scale,
        map=plain,
        map_to_original=map_to_original(heatmap, crop),
        overlay=overlay,
    )


def _image(image: Prepared) -> ImageBody:
    facts, crop = image.sent.facts, image.input.crop
    return ImageBody(
        format=facts.format,
        rows=facts.rows,
        columns=facts.columns,
        bits=facts.bits,
        laterality=image.sent.laterality,
        view=image.sent.view,
        exam_date=image.sent.exam_date,
        crop={
            "left": crop.left,
            "top": crop.top,
            "width": crop.width,
            "height": crop.height,
            "flipped": crop.flipped,
        },
    )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
