"""The figures of a cross-validation -> plots and its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from sklearn.metrics import roc_curve

from training import page
from training.metrics import Estimate
from training.out_of_fold import FIGURES, OutOfFold

matplotlib.use("Agg")
import matplotlib.pyplot as plt

NOTE = (
    "Figures are per breast: its views are read together. Every patient is scored by models that "
    "were trained on other patients; the epoch was chosen on a part of the training patients, and "
    "each fold's threshold (the balanced one) on the scores of the other folds."
)
_ON_SINGLE_EXAMS = (
    "Every exam is scored on its own. For one exam the hybrid and the CNN alone differ little "
    "by construction: the LSTM takes a single step. What it is worth over time is measured by the "
    "longitudinal verb."
)
_ON_POOLING = (
    "Pooled figures put the scores of different models side by side, after the temperature that "
    "each fit found on its own validation part."
)
_ON_TESTS = (
    "DeLong and McNemar take breasts as independent; two breasts of one patient are not, so the "
    "interval by patient is the safer one. None of them knows the chance in training (first "
    "weights, order of batches): they are about these fitted models, and the spread over the folds "
    "says how far others may lie. The p-values are not corrected for several comparisons."
)
_ON_CALLS = (
    "At the operating points. Thresholds that lie apart trade sensitivity for specificity, which "
    "shows as opposite differences on positive and other breasts, and over all breasts in favour "
    "of whoever calls fewer: that is no better model."
)


def write_page(run: Path, found: dict[str, Any], scores: Mapping[str, OutOfFold]) -> None:
    """Write the plots and ``report.html`` of a cross-validation into ``run``; ``found`` is what
    its ``metrics.json`` holds, ``scores`` the out-of-fold scores by architecture."""
    _plot_folds(run / "auc_of_folds.png", found["architectures"])
    _plot_roc(run / "roc.png", scores, found["architectures"])
    architectures, counts = found["architectures"], found["counts"]
    count = len(next(iter(architectures.values()))["thresholds"])
    summary = page.Table(
        ("mean (sd) over folds", *FIGURES.values()),
        [
            (name, *(_mean_sd(of_one["folds"][figure]) for figure in FIGURES))
            for name, of_one in architectures.items()
        ],
    )
    folds = page.Table(
        ("fold [95 % interval]", "", *FIGURES.values(), "threshold"),
        [
            (
                name,
                str(fold + 1),
                *(str(Estimate(**of_one["folds"][figure]["per_fold"][fold])) for figure in FIGURES),
                f"{of_one['thresholds'][fold]:.3f}",
            )
            for name, of_one in architectures.items()
            for fold in range(count)
        ],
    )
    pooled = page.Table(
        ("pooled [95 % interval]", *FIGURES.values()),
        [
            (name, *(str(Estimate(**of_one["pooled"][figure])) for figure in FIGURES))
            for name, of_one in architectures.items()
        ],
    )
    sections = [
        page.Section("Over the folds", (_ON_SINGLE_EXAMS,), summary, [run / "auc_of_folds.png"]),
        page.Section("All folds together", (_ON_POOLING,), pooled, [run / "roc.png"]),
    ]
    if found["comparisons"]:
        sections += [
            page.Section(
                "Do they rank differently?", (_ON_TESTS,), _auc_tests(found["comparisons"])
            ),
            page.Section(
                "Do they call differently?", (_ON_CALLS,), _call_tests(found["comparisons"])
            ),
        ]
    sections.append(page.Section("Every fold", (), folds))
    lead = (
        f"{count} folds by patient, {counts['patients']} patients, {counts['breasts']} "
        f"breasts ({counts['positive_breasts']} {found['positive_class']}), "
        f"{counts['images']} images. {NOTE}"
    )
    page.write_page(run, "Cross-validation", lead, sections)


def _plot_folds(path: Path, architectures: dict[str, Any]) -> None:
    """AUC of every fold, one line a fold, with the mean and standard deviation beside it."""
    figure, axes = plt.subplots(figsize=(1.5 + 1.7 * len(architectures), 4.5), layout="constrained")
    by_fold = np.array(
        [
            [estimate["value"] for estimate in found["folds"]["auc"]["per_fold"]]
            for found in architectures.values()
        ]
    )  # [architectures, folds]
    places = np.arange(len(architectures))
    for number, values in enumerate(by_fold.T, start=1):
        axes.plot(places, values, "o-", linewidth=0.8, markersize=4, label=f"fold {number}")
    axes.errorbar(
        places + 0.12,
        by_fold.mean(axis=1),
        by_fold.std(axis=1, ddof=1),
        fmt="D",
        color="black",
        capsize=5,
        label="mean, sd",
    )
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle="--")
    axes.set(ylabel="AUC per breast", title="Held-out patients of each fold")
    axes.set_xticks(places, architectures)
    axes.margins(x=0.2)
    figure.legend(loc="outside right upper", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_roc(path: Path, scores: Mapping[str, OutOfFold], architectures: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    for name, of_one in scores.items():
        pooled = architectures[name]["pooled"]
        false_positive, true_positive, _ = roc_curve(of_one.truth, of_one.probability)
        label = f"{name}: AUC {Estimate(**pooled['auc'])}"
        (line,) = axes.plot(false_positive, true_positive, label=label)
        axes.plot(
            1 - pooled["specificity"]["value"],
            pooled["sensitivity"]["value"],
            "o",
            color=line.get_color(),
            markeredgecolor="black",
        )
    axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="1 - specificity",
        ylabel="sensitivity",
        title="Out-of-fold scores, pooled; dots: operating points",
    )
    axes.legend(loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _auc_tests(comparisons: list[dict[str, Any]]) -> page.Table:
    return page.Table(
        ("comparison", "AUC difference (DeLong)", "p", "AUC difference, interval by patient"),
        [
            (
                f"{found['a']} against {found['b']}",
                f"{found['delong']['difference']:.3f} "
                f"[{found['delong']['low']:.3f}, {found['delong']['high']:.3f}]",
                f"{found['delong']['p_value']:.2g}",
                str(Estimate(**found["auc_difference_by_patient"])),
            )
            for found in comparisons
        ],
    )


def _call_tests(comparisons: list[dict[str, Any]]) -> page.Table:
    breasts = {"all": "all", "sensitivity": "positive", "specificity": "others"}
    return page.Table(
        ("comparison", "breasts", "only the first right", "only the second right", "p (McNemar)"),
        [
            (
                f"{found['a']} against {found['b']}",
                kind,
                str(found["mcnemar"][part]["only_a_right"]),
                str(found["mcnemar"][part]["only_b_right"]),
                f"{found['mcnemar'][part]['p_value']:.2g}",
            )
            for found in comparisons
            for part, kind in breasts.items()
        ],
    )


def _mean_sd(values: dict[str, Any]) -> str:
    return f"{values['mean']:.3f} ({values['sd']:.3f})"
