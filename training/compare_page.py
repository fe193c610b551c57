"""A comparison of bundles -> plots and the report page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from training.metrics import Estimate
from training.page import Section, Table, write_page

matplotlib.use("Agg")
import matplotlib.pyplot as plt


def write_comparison(
    run: Path,
    result: dict[str, Any],
    probabilities: Sequence[NDArray[np.float64]],
    correlations: Sequence[NDArray[np.float64]],
) -> Path:
    """Write plots and ``report.html`` of ``result``, the contents of ``metrics.json``.

    ``probabilities`` and ``correlations`` of heatmaps with the reference's: float64 [images] for
    each bundle, the reference first. Returns the page.
    """
    bundles = result["bundles"]
    trade, agreement = run / "auc_against_time.png", run / "agreement.png"
    _plot_trade(trade, bundles)
    _plot_agreement(agreement, bundles, probabilities, correlations)
    reference = label(bundles[0])
    return write_page(
        run,
        "Comparison of bundles",
        f"{result['images']} images of {result['breasts']} breasts ({result['split']}), read as "
        f"they are served. Differences are from {reference}; intervals are 95 % by patient.",
        [
            Section(
                "Size and speed",
                [
                    "One image through encoder and head, one thread, the bundles by turns, median "
                    f"of {result['rounds']} rounds. The ratio is of processor time, with the range "
                    "of 90 % of the rounds."
                ],
                Table(
                    [
                        "bundle", "encoder", "whole bundle", "latency", "processor time",
                        "ratio of processor time",
                    ],
                    [_speed_row(bundle) for bundle in bundles],
                ),
            ),
            Section(
                "Accuracy",
                [
                    "The change is that of the same patients. Calls: at each bundle's own default "
                    "operating point."
                ],
                Table(
                    [
                        "bundle", "AUC per breast", "change", "AUC per image", "change",
                        "breasts called otherwise",
                    ],
                    [_accuracy_row(bundle) for bundle in bundles],
                ),
                [trade],
            ),
            Section(
                "Agreement, image by image",
                [
                    "Calibrated probabilities, and heatmaps of the positive class. Peaks are apart "
                    "by a part of the breast's bounding box. A mean hides the map that points "
                    "elsewhere: look at the worst."
                ],
                Table(
                    [
                        "bundle", "probability, mean difference", "largest",
                        "heatmap correlation, mean", "5th percentile", "worst",
                        "peak moved", "peak distance, mean",
                    ],
                    [_agreement_row(bundle) for bundle in bundles[1:]],
                ),
                [agreement],
            ),
        ],
    )  # fmt: skip


def label(bundle: dict[str, Any]) -> str:
    return f"{bundle['name']} {bundle['version']} ({bundle['precision']})"


def _speed_row(bundle: dict[str, Any]) -> list[str]:
    ratio = bundle["time_ratio"]
    return [
        label(bundle),
        f"{bundle['encoder_bytes'] / 1e6:.1f} MB",
        f"{bundle['total_bytes'] / 1e6:.1f} MB",
        f"{bundle['latency_ms']:.1f} ms",
        f"{bundle['processor_ms']:.1f} ms",
        f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})",
    ]


def _accuracy_row(bundle: dict[str, Any]) -> list[str]:
    cells = [label(bundle)]
    for unit in ("breast", "image"):
        change = bundle[f"auc_change_per_{unit}"]
        cells += [
            str(Estimate(**bundle[f"auc_per_{unit}"])),
            f"{change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}]",
        ]
    return [*cells, f"{100 * bundle['calls_changed']:.1f} %"]


def _agreement_row(bundle: dict[str, Any]) -> list[str]:
    difference, correlation = bundle["probability_difference"], bundle["heatmap_correlation"]
    peak = bundle["peak_distance"]
    return [
        label(bundle),
        f"{difference['mean']:.4f}",
        f"{difference['largest']:.4f}",
        f"{correlation['mean']:.3f}",
        f"{correlation['fifth_percentile']:.3f}",
        f"{correlation['worst']:.3f}",
        f"{100 * peak['moved_share']:.1f} %",
        f"{peak['mean']:.3f}",
    ]


def _plot_trade(path: Path, bundles: Sequence[dict[str, Any]]) -> None:
    figure, axes = plt.subplots(figsize=(6.5, 4.6), layout="constrained")
    for bundle in bundles:
        auc = bundle["auc_per_breast"]
        reach = [[auc["value"] - auc["low"]], [auc["high"] - auc["value"]]]
        axes.errorbar(
            bundle["processor_ms"], auc["value"], reach, fmt="o", capsize=4, label=label(bundle)
        )
    axes.set(
        xlabel="processor time of one image (ms)",
        ylabel="AUC per breast, 95 % interval",
        title="Accuracy against time",
    )
    axes.set_xlim(left=0)
    axes.margins(x=0.1)
    axes.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize="small")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_agreement(
    path: Path,
    bundles: Sequence[dict[str, Any]],
    probabilities: Sequence[NDArray[np.float64]],
    correlations: Sequence[NDArray[np.float64]],
) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    ends = [np.min(probabilities), np.max(probabilities)]
    left.plot(ends, ends, color="grey", linewidth=0.8, linestyle="--")
    for index, bundle in enumerate(bundles[1:], start=1):
        color = f"C{index}"
        left.plot(probabilities[0], probabilities[index], ".", color=color, alpha=0.5, ms=4)
        share = (np.arange(len(correlations[index])) + 1) / len(correlations[index])
        right.step(np.sort(correlations[index]), share, color=color, label=label(bundle))
    left.set(
        xlabel=f"probability, {label(bundles[0])}",
        ylabel="probability, variant",
        title="Every image, calibrated",
    )
    right.set(
        xlabel="correlation of the heatmap with the reference's",
        ylabel="share of images at or below",
        ylim=(0, 1),
        title="Heatmaps",
    )
    right.legend(loc="upper left", fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)
