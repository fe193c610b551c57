"""Cases of a model -> ``figures.json``, from which the page draws (``app.figures``)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_curve

from app.bundle import OperatingPoint, Precision
from app.figures import (
    MAX_ROC_POINTS,
    BandPoint,
    CalibrationBand,
    Figures,
    Measured,
    ReliabilityBin,
    Roc,
    RocPoint,
    Subgroup,
    Unit,
)
from training import metrics
from training.figures import Cases
from training.metrics import Estimate, bootstrap, bootstrap_all

SAME_CASES = (
    "The epoch, the temperature or the thresholds were chosen on the same patients: the figures "
    "flatter the model a little."
)
OTHER_CASES = "The thresholds were chosen on other cases."
_STEPS = 50  # of the probability, in the band
_METHOD = (
    "logistic recalibration, intercept and slope on the logit, 2000 bootstrap draws of patients"
)
_DIGITS = 5


def bundle_figures(
    breasts: Cases,
    images: Cases,
    points: Sequence[OperatingPoint],
    *,
    measured_on: str,
    note: str,
    precision: Precision = "fp32",
    subgroups: Mapping[str, Mapping[str, Any]] | None = None,
) -> Figures:
    """``points`` are the operating points as measured on ``breasts``; ``subgroups`` those of the
    metrics of ``evaluate``. Both kinds of cases need both classes."""
    return Figures(
        measured_on=measured_on,
        note=note,
        precision=precision,
        prevalence=float(breasts.truth.mean()),
        roc={"breast": _roc(breasts), "image": _roc(images)},
        operating_points=tuple(points),
        reliability=tuple(
            ReliabilityBin(
                probability=each.probability, observed=_measured(each.observed), count=each.cases
            )
            for each in metrics.reliability(breasts.truth, breasts.probability)
        ),
        subgroups=tuple(_subgroups(subgroups or {})),
        calibration_band=calibration_band(breasts),
    )


def write_figures(path: Path, figures: Figures) -> None:
    path.write_text(figures.model_dump_json())


def counted(breasts: Cases, images: Cases, patients: str) -> str:
    """``measured_on``; ``patients`` says whose, as in ``validation patients``."""
    count = len(set(breasts.patients))
    return f"{len(breasts)} breasts, {len(images)} images of {count} {patients}"


def _roc(cases: Cases) -> Roc:
    """The corners of the curve, evenly thinned where they are too many."""
    auc = bootstrap(metrics.auc, cases.truth, cases.probability, cases.patients)
    corners = list(zip(*roc_curve(cases.truth, cases.probability), strict=True))
    kept = np.linspace(0, len(corners) - 1, min(len(corners), MAX_ROC_POINTS)).round().astype(int)
    return Roc(
        cases=len(cases),
        positives=int(cases.truth.sum()),
        auc=_measured(auc),
        points=tuple(
            RocPoint(
                false_positive_rate=round(float(fall_out), _DIGITS),
                sensitivity=round(float(sensitivity), _DIGITS),
                threshold=None if math.isinf(threshold) else round(float(threshold), _DIGITS),
            )
            for fall_out, sensitivity, threshold in (corners[i] for i in kept)
        ),
    )


def calibration_band(cases: Cases) -> CalibrationBand:
    """Between what shares the positive class was found among cases of each probability.

    The observed frequency is a + b logit(p) on the logit scale (Cox, Biometrika 1958;45:562-5; as
    a curve of calibration: Van Calster et al., J Clin Epidemiol 2016;74:167-76, "logistic
    calibration"), fitted to each bootstrap draw of patients; the band is the 2.5 and 97.5
    percentile of the draws, at each probability by itself.
    """
    lowest, highest = float(cases.probability.min()), float(cases.probability.max())
    inner = np.arange(1, _STEPS) / _STEPS
    grid = np.array([lowest, *inner[(lowest < inner) & (inner < highest)], highest])

    def frequencies(truth: NDArray[np.int32], probability: NDArray[np.float64]) -> dict[str, float]:
        intercept, slope = recalibration(truth, probability)
        found = expit(intercept + slope * _logit(grid))
        return {str(i): float(share) for i, share in enumerate(found)}

    found = bootstrap_all(frequencies, cases.truth, cases.probability, cases.patients)
    return CalibrationBand(
        method=_METHOD,
        points=tuple(
            BandPoint(
                probability=float(probability),
                low=round(found[str(i)].low, _DIGITS),
                high=round(found[str(i)].high, _DIGITS),
            )
            for i, probability in enumerate(grid)
        ),
    )


def recalibration(
    truth: NDArray[np.int32], probability: NDArray[np.float64]
) -> tuple[float, float]:
    """Intercept and slope on the logit; 0 and 1 where the probability is calibrated."""
    line = LogisticRegression(C=np.inf, solver="newton-cholesky")
    line.fit(_logit(probability)[:, np.newaxis], truth)
    return float(line.intercept_[0]), float(line.coef_[0, 0])


def _logit(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logit(np.clip(probability, 1e-12, 1 - 1e-12)))


def _subgroups(by_column: Mapping[str, Mapping[str, Any]]) -> list[Subgroup]:
    def per(unit: str) -> Unit:
        return "image" if unit == "image" else "breast"

    return [
        Subgroup(
            column=column,
            group=row["group"],
            per=per(by["unit"]),
            positives=row["positives"],
            cases=row["cases"],
            auc=row["auc"] and Measured(**row["auc"]),
        )
        for column, by in by_column.items()
        for row in by["groups"]
    ]


def _measured(estimate: Estimate) -> Measured:
    return Measured(value=estimate.value, low=estimate.low, high=estimate.high)
