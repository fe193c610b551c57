"""Out-of-fold scores -> figures of each fold, of all folds together, and tests between models.

Each fold's scores come from another model, so a figure is first taken within each fold. Pooling
them is a comparison across models; it is done for what needs the cases of all folds, after their
probabilities were brought to one scale by each model's own temperature.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training import metrics
from training.metrics import Estimate
from training.run_folder import replace

# figure -> what a reader calls it
FIGURES = {
    "auc": "AUC",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "pr_auc": "PR AUC",
    "brier": "Brier score",
}
_COLUMNS = ("name", "patient_id", "truth", "probability")


@dataclass(frozen=True)
class OutOfFold:
    """Breasts scored by a model that never saw their patient: ``truth`` int32 [n], 1 for the
    positive class; ``probability`` float64 [n]; ``fold`` int32 [n], from 1; ``patients`` and
    ``names`` of length n."""

    truth: NDArray[np.int32]
    probability: NDArray[np.float64]
    fold: NDArray[np.int32]
    patients: tuple[str, ...]
    names: tuple[str, ...]

    def of_fold(self, number: int) -> OutOfFold:
        keep = np.flatnonzero(self.fold == number)
        return OutOfFold(
            self.truth[keep],
            self.probability[keep],
            self.fold[keep],
            tuple(self.patients[i] for i in keep),
            tuple(self.names[i] for i in keep),
        )

    @property
    def numbers(self) -> list[int]:
        return [int(number) for number in np.unique(self.fold)]


def save(scores: OutOfFold, path: Path) -> None:
    """Write one fold's scores as CSV, whole or not at all."""

    def write(part: Path) -> None:
        with part.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            rows = (scores.names, scores.patients, scores.truth, scores.probability)
            writer.writerows(zip(*rows, strict=True))

    replace(path, write)


def load(paths: Mapping[int, Path]) -> OutOfFold:
    """Read the scores of every fold, by number, one after another."""
    rows: list[tuple[int, dict[str, str]]] = []
    for number, path in paths.items():
        with path.open(newline="") as file:
            rows += [(number, row) for row in csv.DictReader(file)]
    return OutOfFold(
        truth=np.array([int(row["truth"]) for _, row in rows], np.int32),
        probability=np.array([float(row["probability"]) for _, row in rows]),
        fold=np.array([number for number, _ in rows], np.int32),
        patients=tuple(row["patient_id"] for _, row in rows),
        names=tuple(row["name"] for _, row in rows),
    )


def thresholds(scores: OutOfFold) -> dict[int, float]:
    """For each fold the balanced operating point (Youden) of all *other* folds' scores, so that
    it is not chosen on the breasts that it is measured on."""
    found = {}
    for number in scores.numbers:
        others = scores.fold != number
        found[number] = metrics.threshold_of_youden(
            scores.truth[others], scores.probability[others]
        )
    return found


def called(scores: OutOfFold) -> NDArray[np.bool_]:
    """Which breasts are called positive at their fold's threshold, bool [n]."""
    at = thresholds(scores)
    return scores.probability >= np.array([at[int(number)] for number in scores.fold])


def figures(scores: OutOfFold) -> dict[str, Any]:
    """Figures of merit of one architecture: of every fold, their mean and standard deviation, and
    pooled; with 95 % intervals by patient."""
    at, calls = thresholds(scores), called(scores)
    of_folds = []
    for number in scores.numbers:
        part = scores.of_fold(number)
        of_folds.append(_estimates(part, calls[scores.fold == number]))
    return {
        "thresholds": [at[number] for number in scores.numbers],
        "folds": {name: _spread([found[name] for found in of_folds]) for name in FIGURES},
        "pooled": {name: asdict(found) for name, found in _estimates(scores, calls).items()},
    }


def _estimates(scores: OutOfFold, calls: NDArray[np.bool_]) -> dict[str, Estimate]:
    # Side by side [n, 2], so that calls at the thresholds of several folds are drawn together
    columns = np.stack([scores.probability, calls.astype(np.float64)], axis=1)
    return metrics.bootstrap_all(_figures, scores.truth, columns, scores.patients)


def _figures(truth: NDArray[np.int32], columns: NDArray[np.float64]) -> dict[str, float]:
    probability, calls = columns[:, 0], columns[:, 1]
    sensitivity, specificity = metrics.sensitivity_specificity(truth, calls, 0.5)
    return {
        "auc": metrics.auc(truth, probability),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "pr_auc": metrics.pr_auc(truth, probability),
        "brier": metrics.brier(truth, probability),
    }


def _spread(found: Sequence[Estimate]) -> dict[str, Any]:
    values = [estimate.value for estimate in found]
    return {
        "mean": float(np.mean(values)),
        "sd": float(np.std(values, ddof=1)),
        "per_fold": [asdict(estimate) for estimate in found],
    }


def compare(a: OutOfFold, b: OutOfFold) -> dict[str, Any]:
    """Paired tests of two architectures on the pooled scores of the same breasts: DeLong for the
    AUC; McNemar for the calls on all breasts, on the positive ones (sensitivity) and on the others
    (specificity), since a mere shift of the threshold trades one for the other. All take breasts
    as independent; ``auc_difference_by_patient`` does not: patients are drawn with all their
    breasts. Raises ``ValueError`` if the breasts differ."""
    if a.names != b.names or not np.array_equal(a.truth, b.truth):
        raise ValueError("paired tests need the same breasts in the same order")
    both = np.stack([a.probability, b.probability], axis=1)  # [n, 2]

    def difference(truth: NDArray[np.int32], score: NDArray[np.float64]) -> float:
        return metrics.auc(truth, score[:, 0]) - metrics.auc(truth, score[:, 1])

    called_a, called_b, positive = called(a), called(b), a.truth == 1
    parts = {"all": np.ones_like(positive), "sensitivity": positive, "specificity": ~positive}

    def mcnemar(keep: NDArray[np.bool_]) -> dict[str, Any]:
        return asdict(metrics.mcnemar_test(a.truth[keep], called_a[keep], called_b[keep]))

    return {
        "delong": asdict(metrics.delong_test(a.truth, a.probability, b.probability)),
        "auc_difference_by_patient": asdict(
            metrics.bootstrap(difference, a.truth, both, a.patients)
        ),
        "mcnemar": {name: mcnemar(keep) for name, keep in parts.items()},
    }
