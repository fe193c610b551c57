"""A finished fit -> its figures, plots and the images that an export is verified on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.bundle import FIGURES, OperatingPoint
from training import metrics, plots
from training.breasts import Breasts
from training.bundle_figures import SAME_CASES, bundle_figures, counted, write_figures
from training.exam_series import ExamSeries, last_exams, shuffled, without_days
from training.figures import Cases, operating_points, write_scores
from training.metrics import Estimate, bootstrap
from training.models.hybrid import Hybrid
from training.plots import Curve, Rates
from training.score import Scores, score_breasts, score_series

_VERIFICATION_IMAGES = 12
_MEASURED_ON = "breasts of the validation patients"


def write_report(
    run: Path,
    model: Hybrid,
    val: Breasts,
    val_series: ExamSeries | None,
    history: Sequence[dict[str, float]],
    positive: int,
) -> dict[str, Any]:
    """Write ``metrics.json``, ``figures.json``, ``val_scores.csv``, plots and ``verification.npz``
    into ``run``.

    Temperature and thresholds are fitted on the same patients that the best epoch was chosen
    on: the figures are of a validation set, not of a test set, and say so.
    """
    per_image, per_breast = score_breasts(model, val, positive)
    temperature = metrics.fit_temperature(per_breast.truth, per_breast.logits, positive)
    calibrated = metrics.positive_probability(per_breast.logits, positive, temperature)
    cases = Cases(per_breast.truth, calibrated, per_breast.patients, per_breast.names)
    figures: dict[str, Any] = {
        "note": "validation patients; the epoch, temperature and thresholds were chosen on them",
        "auc_per_image": _auc(per_image),
        "auc_per_breast": _auc(per_breast),
        "calibration": {
            "temperature": temperature,
            "brier": _estimate(metrics.brier, per_breast, calibrated),
            "expected_calibration_error": _estimate(
                metrics.expected_calibration_error, per_breast, calibrated
            ),
            "prevalence": float(per_breast.truth.mean()),
        },
        "operating_points": operating_points(cases, _MEASURED_ON),
        "counts": {"images": len(per_image.truth), "breasts": len(per_breast.truth)},
    }
    if val_series is not None:
        figures["simulated_series"] = _simulated(model, val_series, positive)
    (run / "metrics.json").write_text(json.dumps(figures, indent=1))
    _write_figures(run, cases, per_image, figures, positive)
    units = {
        unit: Cases(scores.truth, scores.probability, scores.patients, scores.names)
        for unit, scores in (("image", per_image), ("breast", per_breast))
    }
    write_scores(run / "val_scores.csv", units)
    _draw(run, units, cases, figures, history)
    step = max(1, len(val) // _VERIFICATION_IMAGES)
    np.savez_compressed(run / "verification.npz", pixels=val.pixels[::step][:_VERIFICATION_IMAGES])
    return figures


def _write_figures(
    run: Path, breasts: Cases, per_image: Scores, found: dict[str, Any], positive: int
) -> None:
    temperature = found["calibration"]["temperature"]
    images = Cases(
        per_image.truth,
        metrics.positive_probability(per_image.logits, positive, temperature),
        per_image.patients,
        per_image.names,
    )
    figures = bundle_figures(
        breasts,
        images,
        [OperatingPoint(**point) for point in found["operating_points"]],
        measured_on=counted(breasts, images, "validation patients"),
        note=SAME_CASES,
    )
    write_figures(run / FIGURES, figures)


def _auc(scores: Scores) -> dict[str, float]:
    return _estimate(metrics.auc, scores, scores.probability)


def _estimate(
    figure: metrics.Figure, scores: Scores, probability: NDArray[np.float64]
) -> dict[str, float]:
    return asdict(bootstrap(figure, scores.truth, probability, scores.patients))


def _simulated(model: Hybrid, series: ExamSeries, positive: int) -> dict[str, Any]:
    """Does time matter? Growing masses against all others: whole series, the last exam alone, the
    exams in random order, and without the days between them."""
    made = series.take(np.flatnonzero(series.courses != "unchanged"))
    variants = {
        "whole_series": made,
        "last_exam_alone": last_exams(made, 1),
        "exams_shuffled": shuffled(made, np.random.default_rng(0)),
        "without_days": without_days(made),
    }
    return {"series": len(made)} | {
        f"auc_{name}": _auc(score_series(model, chosen, positive))
        for name, chosen in variants.items()
    }


def _draw(
    run: Path,
    units: Mapping[str, Cases],
    calibrated: Cases,
    figures: dict[str, Any],
    history: Sequence[dict[str, float]],
) -> None:
    curves = [
        Curve(
            f"per {unit}: AUC {Estimate(**figures[f'auc_per_{unit}'])}",
            cases.truth,
            cases.probability,
        )
        for unit, cases in units.items()
    ]
    points = [
        Rates(point["name"], point["sensitivity"], point["specificity"])
        for point in figures["operating_points"]
    ]
    plots.roc(run / "roc.png", curves, points, "Validation patients")
    validation = Curve("validation breasts", calibrated.truth, calibrated.probability)
    plots.reliability(run / "reliability.png", [validation])
    plots.history(run / "history.png", history)
