"""Readings -> results: what every form of answer is written from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime

import numpy as np
from numpy.typing import NDArray

from app import metrics
from app.bundle import Bundle, Manifest, OperatingPoint
from app.imaging.facts import Laterality
from app.inference.exams import Exam, series_warnings
from app.inference.pipeline import Encoded
from app.inference.probability import calibrated, influences, softmax
from app.inference.sessions import ExamReading
from app.inference.study import Ignored
from app.render.result import BreastResult, ExamResult, ImageResult, StudyResult


@dataclass(frozen=True)
class Read:
    """The exams of one breast that were read, with what they were read from, by index."""

    laterality: Laterality | None
    images: Mapping[int, Encoded]
    exams: Sequence[Exam]
    reading: ExamReading


@dataclass(frozen=True)
class Question:
    """What is asked of the model, checked against it."""

    operating_point: OperatingPoint
    target_class: int


def study_result(
    request_id: str,
    bundle: Bundle,
    question: Question,
    reads: Sequence[Read],
    ignored: Sequence[Ignored],
) -> StudyResult:
    """The result of a request.

    Every breast is warned of the files that were left out, since any of them may have shown it,
    and of not being in the newest exam.
    """
    left_out = _left_out(ignored)
    newest = max((exam.date for read in reads for exam in read.exams if exam.date), default=None)
    return StudyResult(
        request_id=request_id,
        created=datetime.now(UTC),
        manifest=bundle.manifest,
        bundle_sha256=bundle.sha256,
        operating_point=question.operating_point,
        target_class=bundle.manifest.classes[question.target_class],
        breasts=tuple(
            _breast(bundle.manifest, question, read, [*left_out, *_out_of_date(read, newest)])
            for read in reads
        ),
    )


def results_alone(
    request_id: str, bundle: Bundle, question: Question, reads: Sequence[Read]
) -> StudyResult:
    """The result of a request whose breasts have nothing to do with each other."""
    results = [study_result(request_id, bundle, question, [read], []) for read in reads]
    return replace(results[0], breasts=tuple(result.breasts[0] for result in results))


def _breast(
    manifest: Manifest,
    question: Question,
    read: Read,
    of_request: list[tuple[str, str]],
) -> BreastResult:
    reading = read.reading
    probabilities = softmax(reading.logits)
    probability = float(calibrated(reading.logits, manifest))
    positive = probability >= question.operating_point.threshold
    exams = tuple(
        ExamResult(
            date=exam.date,
            days_since_previous=exam.days_since_previous,
            probability_after=influence.probability_after,
            change=influence.change,
            images=tuple(
                _image(read.images[index], reading.heatmaps[t, v, question.target_class])
                for v, index in enumerate(exam.images)
            ),
        )
        for t, (exam, influence) in enumerate(
            zip(read.exams, influences(reading, manifest), strict=True)
        )
    )
    scale = max(float(image.heatmap.max()) for exam in exams for image in exam.images)
    metrics.SCORE.observe(probability)
    metrics.SERIES_EXAMS.observe(len(read.exams))
    return BreastResult(
        laterality=read.laterality,
        probabilities=dict(zip(manifest.classes, map(float, probabilities), strict=True)),
        probability=probability,
        probability_before=float(calibrated(reading.empty_logits, manifest)),
        positive=positive,
        label=_label(manifest, probabilities, positive),
        scale=scale,
        exams=exams,
        warnings=(*_warnings(read, scale), *of_request),
    )


def _image(image: Encoded, heatmap: NDArray[np.float32]) -> ImageResult:
    sent, look = image.sent, image.look
    return ImageResult(
        index=sent.index,
        header=image.header,
        facts=sent.agreed_facts,
        shown=look.shown,
        crop=look.crop,
        inverted=look.inverted,
        heatmap=heatmap,
        content_key=sent.content_key,
    )


def _label(manifest: Manifest, probabilities: NDArray[np.float64], positive: bool) -> str:
    """The positive class at or above the threshold, else the likeliest of the others."""
    if positive:
        return manifest.positive_class
    others = [i for i in range(len(manifest.classes)) if i != manifest.positive_index]
    return manifest.classes[max(others, key=lambda i: float(probabilities[i]))]


def _left_out(ignored: Sequence[Ignored]) -> list[tuple[str, str]]:
    if not ignored:
        return []
    reasons = ", ".join(f"{n} {code}" for code, n in Counter(x.code for x in ignored).items())
    return [("files_left_out", f"Files of the request that were not read: {reasons}.")]


def _out_of_date(read: Read, newest: date | None) -> list[tuple[str, str]]:
    last = read.exams[-1].date
    if last is None or newest is None or last == newest:
        return []
    return [("not_in_newest_exam", "The newest exam has no image of this breast that was read.")]


def _warnings(read: Read, scale: float) -> list[tuple[str, str]]:
    images = [read.images[index] for exam in read.exams for index in exam.images]
    several = len(images) > 1
    notes: list[tuple[str, str]] = []
    for image in images:
        prefix = f"Image {image.sent.index}: " if several else ""
        own = list(image.sent.facts.warnings)
        if image.look.inverted:
            own.append(("inverted", "The background is bright; the grey scale was inverted."))
        own += [(fault.code, fault.detail) for fault in image.look.faults]
        notes += [(code, prefix + detail) for code, detail in own]
    notes += series_warnings([image.sent for image in images], read.exams)
    if not scale > 0:
        notes.append(("no_evidence", "The heatmap is zero: nothing speaks for the target class."))
    return notes
