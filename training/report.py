"""A finished fit -> its figures, plots and the images that an export is verified on."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_curve

from training import metrics
from training.breasts import Breasts
from training.exam_series import ExamSeries, last_exams, shuffled, without_days
from training.metrics import Estimate, bootstrap
from training.models.hybrid import Hybrid
from training.score import Scores, score_breasts, score_series

matplotlib.use("Agg")
import matplotlib.pyplot as plt

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
    """Write ``metrics.json``, ``val_scores.csv``, plots and ``verification.npz`` into ``run``.

    Temperature and thresholds are fitted on the same patients that the best epoch was chosen
    on: the figures are of a validation set, not of a test set, and say so.
    """
    per_image, per_breast = score_breasts(model, val, positive)
    temperature = metrics.fit_temperature(per_breast.truth, per_breast.logits, positive)
    calibrated = metrics.positive_probability(per_breast.logits, positive, temperature)
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
        "operating_points": _operating_points(per_breast, calibrated),
        "counts": {"images": len(per_image.truth), "breasts": len(per_breast.truth)},
    }
    if val_series is not None:
        figures["simulated_series"] = _simulated(model, val_series, positive)
    (run / "metrics.json").write_text(json.dumps(figures, indent=1))
    _write_scores(run / "val_scores.csv", per_image, per_breast)
    _plot_roc(run / "roc.png", per_image, per_breast, figures)
    _plot_reliability(run / "reliability.png", per_breast.truth, calibrated)
    _plot_history(run / "history.png", history)
    step = max(1, len(val) // _VERIFICATION_IMAGES)
    np.savez_compressed(run / "verification.npz", pixels=val.pixels[::step][:_VERIFICATION_IMAGES])
    return figures


def _auc(scores: Scores) -> dict[str, float]:
    return _estimate(metrics.auc, scores, scores.probability)


def _estimate(
    figure: metrics.Figure, scores: Scores, probability: NDArray[np.float64]
) -> dict[str, float]:
    return asdict(bootstrap(figure, scores.truth, probability, scores.patients))


def _operating_points(scores: Scores, calibrated: NDArray[np.float64]) -> list[dict[str, Any]]:
    truth = scores.truth
    thresholds = {
        "balanced": metrics.threshold_of_youden(truth, calibrated),
        "sensitivity-90": metrics.threshold_for_sensitivity(truth, calibrated, 0.9),
        "specificity-90": metrics.threshold_for_specificity(truth, calibrated, 0.9),
    }
    return [
        {"name": name, "threshold": threshold, "measured_on": _MEASURED_ON}
        | _sensitivity_specificity(scores, calibrated, threshold)
        for name, threshold in thresholds.items()
    ]


def _sensitivity_specificity(
    scores: Scores, calibrated: NDArray[np.float64], threshold: float
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for position, name in enumerate(("sensitivity", "specificity")):

        def figure(
            truth: NDArray[np.int32], score: NDArray[np.float64], position: int = position
        ) -> float:
            return metrics.sensitivity_specificity(truth, score, threshold)[position]

        estimate = bootstrap(figure, scores.truth, calibrated, scores.patients)
        found[name] = estimate.value
        found[f"{name}_interval"] = [estimate.low, estimate.high]
    return found


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


def _write_scores(path: Path, per_image: Scores, per_breast: Scores) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unit", "name", "patient_id", "truth", "probability"])
        for unit, scores in (("image", per_image), ("breast", per_breast)):
            rows = zip(scores.names, scores.patients, scores.truth, scores.probability, strict=True)
            writer.writerows([unit, *row] for row in rows)


def _plot_roc(path: Path, per_image: Scores, per_breast: Scores, figures: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    for label, scores, key in (
        ("per breast", per_breast, "auc_per_breast"),
        ("per image", per_image, "auc_per_image"),
    ):
        false_positive, true_positive, _ = roc_curve(scores.truth, scores.probability)
        axes.plot(false_positive, true_positive, label=f"{label}: AUC {Estimate(**figures[key])}")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    for point in figures["operating_points"]:
        axes.plot(1 - point["specificity"], point["sensitivity"], "o", color="black")
        axes.annotate(
            point["name"],
            (1 - point["specificity"], point["sensitivity"]),
            textcoords="offset points",
            xytext=(7, -10),
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title="Validation patients")
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_reliability(
    path: Path, truth: NDArray[np.int32], calibrated: NDArray[np.float64]
) -> None:
    groups = np.array_split(np.argsort(calibrated, kind="stable"), 10)
    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.plot([calibrated[g].mean() for g in groups], [truth[g].mean() for g in groups], "o-")
    axes.set(
        xlabel="calibrated probability",
        ylabel="observed frequency",
        xlim=(0, 1),
        ylim=(0, 1),
        title="Reliability, tenths of the validation breasts",
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    epochs = [row["epoch"] for row in history]
    left.plot(epochs, [row["loss"] for row in history])
    left.set(xlabel="epoch", ylabel="training loss")
    for key in ("val_auc_breast", "val_auc_image"):
        right.plot(epochs, [row[key] for row in history], label=key.removeprefix("val_auc_"))
    right.set(xlabel="epoch", ylabel="validation AUC", ylim=(0.4, 1))
    right.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)
