"""Cases with truth and probability -> every figure of merit, each with its interval.

What ``fit``, ``evaluate`` and ``calibrate`` have in common: one definition of each figure.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from training import metrics
from training.metrics import Confusion, Estimate, bootstrap_all

# A figure of fewer cases of a class than this says nothing
MIN_CASES = 10
DECISION_THRESHOLDS = tuple(float(t) for t in np.arange(2, 81, 2) / 100)
_AT_A_THRESHOLD = ("accuracy", "sensitivity", "specificity", "precision", "f1")


@dataclass(frozen=True)
class Cases:
    """Cases of one unit (image, breast or exam): ``truth`` int32 [n], 1 for the positive class;
    ``probability`` float64 [n], calibrated; ``patients`` and ``names`` of length n."""

    truth: NDArray[np.int32]
    probability: NDArray[np.float64]
    patients: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.truth)

    def chosen(self, indices: Sequence[int]) -> Cases:
        return Cases(
            self.truth[list(indices)],
            self.probability[list(indices)],
            tuple(self.patients[i] for i in indices),
            tuple(self.names[i] for i in indices),
        )


class Threshold(Protocol):
    """An operating point, of a bundle or of another kind."""

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float: ...


def counts_of(cases: Cases) -> dict[str, Any]:
    positives = int(cases.truth.sum())
    return {
        "cases": len(cases),
        "positives": positives,
        "patients": len(set(cases.patients)),
        "prevalence": positives / len(cases),
    }


def enough(cases: Cases) -> bool:
    """Whether each class has at least ``MIN_CASES`` cases."""
    positives = int(cases.truth.sum())
    return min(positives, len(cases) - positives) >= MIN_CASES


def all_figures(cases: Cases, points: Iterable[Threshold]) -> dict[str, Any]:
    """Counts, ranking and calibration, and the calls at each operating point, as for JSON."""
    points = tuple(points)

    def figures(truth: NDArray[np.int32], p: NDArray[np.float64]) -> dict[str, float]:
        found = {
            "auc": metrics.auc(truth, p),
            "pr_auc": metrics.pr_auc(truth, p),
            "sensitivity_at_90_specificity": metrics.sensitivity_at_specificity(truth, p, 0.9),
            "specificity_at_90_sensitivity": metrics.specificity_at_sensitivity(truth, p, 0.9),
            "brier": metrics.brier(truth, p),
            "expected_calibration_error": metrics.expected_calibration_error(truth, p),
            "mean_probability": float(p.mean()),
        }
        for point in points:
            counts = metrics.confusion(truth, p, point.threshold)
            found |= {f"{point.name}/{name}": getattr(counts, name) for name in _AT_A_THRESHOLD}
        return found

    found = bootstrap_all(figures, cases.truth, cases.probability, cases.patients)
    return {
        "counts": counts_of(cases),
        **{name: as_json(value) for name, value in found.items() if "/" not in name},
        "operating_points": {
            point.name: {
                "threshold": point.threshold,
                "confusion": asdict(confusion_of(cases, point)),
                **{name: as_json(found[f"{point.name}/{name}"]) for name in _AT_A_THRESHOLD},
            }
            for point in points
        },
    }


def confusion_of(cases: Cases, point: Threshold) -> Confusion:
    return metrics.confusion(cases.truth, cases.probability, point.threshold)


def as_json(estimate: Estimate) -> dict[str, float | None]:
    """JSON has no NaN: a figure that is not defined is null."""
    return {name: None if math.isnan(v) else v for name, v in asdict(estimate).items()}


def from_json(figure: Mapping[str, float | None]) -> Estimate:
    return Estimate(**{name: math.nan if v is None else v for name, v in figure.items()})


def as_text(figure: Mapping[str, float | None]) -> str:
    return "not defined" if figure["value"] is None else str(from_json(figure))


def operating_points(cases: Cases, measured_on: str) -> list[dict[str, Any]]:
    """Thresholds chosen on these cases, and what they reach there, as a bundle's manifest wants
    them: the best sum of sensitivity and specificity, and 90 % of either."""
    truth, probability = cases.truth, cases.probability
    thresholds = choose_thresholds(truth, probability)

    def figures(truth: NDArray[np.int32], p: NDArray[np.float64]) -> dict[str, float]:
        rates = {n: metrics.sensitivity_specificity(truth, p, t) for n, t in thresholds.items()}
        return {
            f"{name}/{rate}": pair[k]
            for name, pair in rates.items()
            for k, rate in enumerate(("sensitivity", "specificity"))
        }

    found = bootstrap_all(figures, truth, probability, cases.patients)
    points = []
    for name, threshold in thresholds.items():
        point: dict[str, Any] = {
            "name": name,
            "threshold": threshold,
            "measured_on": measured_on,
        }
        for rate in ("sensitivity", "specificity"):
            estimate = found[f"{name}/{rate}"]
            point[rate] = estimate.value
            point[f"{rate}_interval"] = [estimate.low, estimate.high]
        points.append(point)
    return points


def choose_thresholds(
    truth: NDArray[np.int32], probability: NDArray[np.float64]
) -> dict[str, float]:
    """The thresholds of the three operating points that every bundle has.

    Each lies halfway to the next lower probability: on these cases that changes no call, and the
    case that decided it is called alike by a graph that rounds otherwise.
    """
    chosen = {
        "balanced": metrics.threshold_of_youden(truth, probability),
        "sensitivity-90": metrics.threshold_for_sensitivity(truth, probability, 0.9),
        "specificity-90": metrics.threshold_for_specificity(truth, probability, 0.9),
    }

    def halfway(threshold: float) -> float:
        lower = float(probability[probability < threshold].max(initial=-np.inf))
        middle = (threshold + max(lower, 0.0)) / 2
        return middle if middle > lower else threshold  # neighbouring numbers have no middle

    return {name: halfway(threshold) for name, threshold in chosen.items()}


def decision_curve(cases: Cases) -> dict[str, Any]:
    """Net benefit over ``DECISION_THRESHOLDS``, of the model and of calling every case."""
    thresholds = np.array(DECISION_THRESHOLDS)

    def figures(truth: NDArray[np.int32], p: NDArray[np.float64]) -> dict[str, float]:
        values = metrics.net_benefit(truth, p, thresholds)
        return {f"{t:.2f}": float(v) for t, v in zip(thresholds, values, strict=True)}

    found = bootstrap_all(figures, cases.truth, cases.probability, cases.patients)
    everyone = metrics.net_benefit(cases.truth, np.ones(len(cases)), thresholds)
    return {
        "thresholds": list(DECISION_THRESHOLDS),
        "model": [as_json(found[f"{t:.2f}"]) for t in DECISION_THRESHOLDS],
        "call_all": [float(v) for v in everyone],
    }


def write_scores(path: Path, units: Mapping[str, Cases]) -> None:
    """One row a case: unit, name, patient_id, truth, probability."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["unit", "name", "patient_id", "truth", "probability"])
        for unit, cases in units.items():
            rows = zip(cases.names, cases.patients, cases.truth, cases.probability, strict=True)
            writer.writerows([unit, *row] for row in rows)
