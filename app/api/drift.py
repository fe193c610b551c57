"""Scores counted so that Prometheus can compare them with those of validation, by vendor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from app import metrics
from app.bundle import Manifest
from app.figures import Unit
from app.inference.pipeline import Pipeline
from app.inference.reference import Reference
from app.render.result import BreastResult, StudyResult


def publish(pipeline: Pipeline, *, loaded: bool = True) -> None:
    """Whether the model is ``loaded``, and the shares of its validation scores, as metrics."""
    manifest, model = pipeline.bundle.manifest, pipeline.model
    metrics.MODEL.labels(
        manifest.name, manifest.version, pipeline.bundle.sha256, pipeline.sessions.provider
    ).set(loaded)
    for unit, reference in pipeline.references.items():
        for bucket, share in enumerate(reference.shares, 1):
            metrics.REFERENCE.labels(model, unit, str(bucket)).set(share)


def count_scores(result: StudyResult, references: Mapping[Unit, Reference]) -> None:
    """Count every breast in its bucket. A series has the buckets of a breast; validation has none,
    so it can be compared with earlier series only."""
    model = _model(result.manifest)
    for breast in result.breasts:
        unit = _unit(breast)
        reference = references.get("breast" if unit == "series" else unit)
        if reference is None:
            continue
        vendor = _vendor(breast)
        for bucket in range(1, len(reference.shares) + 1):  # all of them are there from the first
            metrics.SCORES.labels(model, unit, vendor, str(bucket))
        found = reference.bucket_of(breast.probability)
        metrics.SCORES.labels(model, unit, vendor, str(found)).inc()


def _model(manifest: Manifest) -> str:
    return f"{manifest.name}/{manifest.version}"


def _unit(breast: BreastResult) -> Literal["image", "breast", "series"]:
    if len(breast.exams) > 1:
        return "series"
    return "image" if len(breast.exams[0].images) == 1 else "breast"


def _vendor(breast: BreastResult) -> str:
    """Whose machine made the newest exam: one of a closed list, `several` or `unknown`."""
    vendors = {image.facts.vendor or "unknown" for image in breast.exams[-1].images}
    return vendors.pop() if len(vendors) == 1 else "several"
