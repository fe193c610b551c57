"""Figures -> pictures: one function a plot, data in, the path of a PNG out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import precision_recall_curve, roc_curve

from training import metrics
from training.metrics import Confusion, Estimate

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_DPI = 120
_ON_WHITE = {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1}
_GREY: dict[str, Any] = {"color": "grey", "linewidth": 0.8, "linestyle": "--"}


@dataclass(frozen=True)
class Curve:
    """Scores of one set of cases: ``truth`` 0 or 1 [n], ``score`` [n]; ``label`` for a legend."""

    label: str
    truth: NDArray[np.int32]
    score: NDArray[np.float64]


@dataclass(frozen=True)
class Rates:
    """Sensitivity and specificity of a named operating point."""

    name: str
    sensitivity: float
    specificity: float


@dataclass(frozen=True)
class Row:
    """A line of a forest plot: a group and its figure, None where there are too few cases."""

    label: str
    estimate: Estimate | None


@dataclass(frozen=True)
class Block:
    """A subgrouping in a forest plot, and the figure of all its cases."""

    rows: Sequence[Row]
    overall: Estimate


def roc(
    target: Path, curves: Sequence[Curve], points: Sequence[Rates] = (), title: str = ""
) -> Path:
    """ROC curves, with operating points (of the first curve) as dots."""
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    for curve in curves:
        false_positive, true_positive, _ = roc_curve(curve.truth, curve.score)
        axes.plot(false_positive, true_positive, label=curve.label)
    axes.plot([0, 1], [0, 1], **_GREY)
    for point in points:
        place = (1 - point.specificity, point.sensitivity)
        axes.plot(*place, "o", color="black", markersize=5)
        axes.annotate(
            point.name, place, textcoords="offset points", xytext=(8, -13), bbox=_ON_WHITE
        )
    axes.set(xlabel="1 - specificity", ylabel="sensitivity", title=title, aspect="equal")
    axes.legend(loc="lower right", fontsize=9)
    return _saved(figure, target)


def precision_recall(target: Path, curves: Sequence[Curve], title: str = "") -> Path:
    """Precision-recall curves; a dashed line at each prevalence, where chance is."""
    figure, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    for curve in curves:
        precision, recall, _ = precision_recall_curve(curve.truth, curve.score)
        (line,) = axes.step(recall, precision, where="post", label=curve.label)
        axes.axhline(
            float(curve.truth.mean()), color=line.get_color(), linewidth=0.8, linestyle="--"
        )
    axes.set(xlabel="sensitivity (recall)", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axes.set_title(title)
    axes.legend(
        loc="upper right", fontsize=9, title="dashed: prevalence (chance)", title_fontsize=8
    )
    return _saved(figure, target)


def reliability(target: Path, curves: Sequence[Curve], bins: int = 10) -> Path:
    """Observed frequency against probability, in bins of equal count, one panel a curve, with the
    distribution of the probabilities below. Bars: 95 % intervals as ``metrics.reliability``."""
    figure, axes = plt.subplots(
        2, len(curves), figsize=(4.6 * len(curves), 5.4), layout="constrained", squeeze=False,
        sharex=True, height_ratios=(4, 1),
    )  # fmt: skip
    for (upper, lower), curve in zip(axes.T, curves, strict=True):
        found = metrics.reliability(curve.truth, curve.score, bins)
        expected = np.array([each.probability for each in found])
        observed = np.array([each.observed.value for each in found])
        reach = np.array([(each.observed.low, each.observed.high) for each in found]).T
        upper.plot([0, 1], [0, 1], **_GREY)
        upper.errorbar(
            expected, observed, np.abs(reach - observed), fmt="o-", capsize=2, elinewidth=0.8
        )
        upper.set(ylim=(-0.02, 1.02), xlim=(0, 1), title=curve.label)
        upper.set_ylabel("observed frequency")
        sides = [curve.score[curve.truth == k] for k in (0, 1)]
        lower.hist(
            sides, np.linspace(0, 1, 41), stacked=True, label=("negative", "positive"),
            color=("#9db7d5", "#c44e52"),
        )  # fmt: skip
        lower.set(xlabel="calibrated probability", ylabel="cases")
        lower.legend(fontsize=8, loc="upper right")
    return _saved(figure, target)


def confusion(
    target: Path, matrices: Mapping[str, Confusion], classes: tuple[str, str], title: str = ""
) -> Path:
    """One panel an operating point; ``classes`` names the negative and the positive class. The
    shade is the part of its row, so that the classes' sizes do not hide errors."""
    figure, axes = plt.subplots(
        1, len(matrices), figsize=(3.4 * len(matrices), 3.9), layout="constrained", squeeze=False
    )
    for panel, (name, counts) in zip(axes[0], matrices.items(), strict=True):
        table = np.array(
            [
                [counts.true_negative, counts.false_positive],
                [counts.false_negative, counts.true_positive],
            ]
        )
        share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
        panel.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), count in np.ndenumerate(table):
            panel.text(
                column, row, f"{count}\n{100 * share[row, column]:.0f} %", ha="center",
                va="center", color="white" if share[row, column] > 0.6 else "black",
            )  # fmt: skip
        panel.set_xticks((0, 1), classes)
        panel.set_yticks((0, 1), classes, rotation=90, va="center")
        panel.set(title=name, xlabel="called")
    axes[0, 0].set_ylabel("truth")
    figure.suptitle(title, fontsize=10, x=0.01, ha="left")
    return _saved(figure, target)


def history(target: Path, rows: Sequence[Mapping[str, float]]) -> Path:
    """Training curves: the columns of ``history.csv`` by kind (loss, AUC, accuracy), by epoch."""
    kinds = {"loss": "loss", "auc": "AUC", "accuracy": "accuracy"}
    panels = {
        label: columns
        for kind, label in kinds.items()
        if (columns := [name for name in rows[0] if kind in name.lower()])
    }
    epochs = [row["epoch"] for row in rows]
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.6 * len(panels), 4), layout="constrained", squeeze=False
    )
    for panel, (label, columns) in zip(axes[0], panels.items(), strict=True):
        for name in columns:
            values = [row[name] for row in rows]
            panel.plot(epochs, values, ".-", label=name.replace("_", " "))
        panel.set(xlabel="epoch", ylabel=label)
        panel.xaxis.get_major_locator().set_params(integer=True)
        panel.legend(fontsize=9, loc="upper right" if label == "loss" else "lower right")
    return _saved(figure, target)


def decision_curve(
    target: Path,
    thresholds: Sequence[float],
    model: Sequence[Estimate],
    call_all: Sequence[float],
    title: str = "",
) -> Path:
    """Net benefit of the model with its interval, of calling every case, and of calling none."""
    figure, axes = plt.subplots(figsize=(6.2, 4.6), layout="constrained")
    values = [estimate.value for estimate in model]
    (line,) = axes.plot(thresholds, values, label="model (95 % interval)")
    axes.fill_between(
        thresholds, [e.low for e in model], [e.high for e in model], alpha=0.2,
        color=line.get_color(), linewidth=0,
    )  # fmt: skip
    axes.plot(thresholds, call_all, color="tab:orange", label="call every case positive")
    axes.axhline(0, color="black", linewidth=0.8, label="call none positive")
    top = max(*values, *call_all)
    axes.set(
        xlabel="threshold probability", ylabel="net benefit, true positives a case",
        xlim=(min(thresholds), max(thresholds)), ylim=(-0.25 * top, 1.1 * top), title=title,
    )  # fmt: skip
    axes.legend(fontsize=9, loc="upper right")
    return _saved(figure, target)


def forest(target: Path, blocks: Mapping[str, Block], xlabel: str = "AUC") -> Path:
    """Figures of groups with their intervals, a block a subgrouping; the blue line is the figure
    of all cases of the block, its band the interval. A row without a figure says so."""
    count = sum(len(block.rows) + 1 for block in blocks.values())
    figure, axes = plt.subplots(figsize=(7.5, 1.0 + 0.27 * count), layout="constrained")
    axes.axvline(0.5, **_GREY)
    labels: list[tuple[float, str, str]] = []
    place = 0.0
    for heading, block in blocks.items():
        labels.append((place, heading, "bold"))
        last = place - len(block.rows)
        overall = block.overall
        axes.fill_betweenx(
            (last - 0.4, place - 0.6), overall.low, overall.high, color="tab:blue", alpha=0.12,
            linewidth=0,
        )  # fmt: skip
        axes.plot((overall.value,) * 2, (last - 0.4, place - 0.6), color="tab:blue", linewidth=1)
        _remark(axes, place, f"all: {overall}", color="tab:blue")
        for row in block.rows:
            place -= 1
            labels.append((place, row.label, "normal"))
            if row.estimate is None:
                _remark(axes, place, "too few cases", color="grey")
                continue
            axes.plot((row.estimate.low, row.estimate.high), (place, place), color="black")
            axes.plot(row.estimate.value, place, "s", color="black", markersize=5)
            _remark(axes, place, str(row.estimate), color="black")
        place -= 1
    axes.set_yticks([at for at, _, _ in labels], [text for _, text, _ in labels])
    for tick, (_, _, weight) in zip(axes.get_yticklabels(), labels, strict=True):
        tick.set_fontweight(weight)
    axes.tick_params(axis="y", length=0)
    axes.set(xlabel=f"{xlabel}, 95 % interval", ylim=(place + 0.4, 0.6))
    return _saved(figure, target)


def _remark(axes: Any, place: float, text: str, color: str) -> None:
    """Text to the right of the axes, at a height."""
    axes.annotate(
        text, (1.02, place), xycoords=("axes fraction", "data"), va="center", fontsize=8,
        color=color,
    )  # fmt: skip


def _saved(figure: Any, target: Path) -> Path:
    figure.savefig(target, dpi=_DPI)
    plt.close(figure)
    return target
