"""The plot and the page of a ``longitudinal`` run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from training.metrics import Estimate
from training.page import Section, Table, write_page

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator

_PICTURE = "auc_by_exams.png"


def write_longitudinal_page(run: Path, found: dict[str, Any]) -> None:
    """Write the plot and ``report.html`` from what ``metrics.json`` holds."""
    _plot(run / _PICTURE, found)
    lengths = list(found["auc"]["hybrid"])
    rows = [
        [found["titles"][name], *(str(Estimate(**figures[length])) for length in lengths)]
        for name, figures in found["auc"].items()
    ]
    priors = found["unchanged_priors"]
    write_page(
        run,
        "Does time matter?",
        "Growing masses against slow, stable, regressing and recurring ones, in simulated series "
        "of patients that no reader has seen. AUC with 95 % bootstrap intervals by patient.",
        [
            Section(
                "By number of exams",
                [
                    "All masses end at the same size, so the last exam alone cannot tell. "
                    f"{found['series']['masses']} masses, each encoded "
                    f"{found['series']['acquisitions']} times, to make series to learn from; "
                    f"{found['series']['test_per_length']} of each length to measure on. "
                    f"{found['note'].capitalize()}.",
                    "Simulated series only: no repeat mammograms with pixels could be had. How a "
                    "reader does on real ones has not been measured.",
                ],
                Table(["reader", *(f"{n} exam(s)" for n in lengths)], rows),
                [run / _PICTURE],
            ),
            Section(
                "Real images with priors that show nothing new",
                ["The change is against the same image read alone; it should not be below zero."],
                Table(
                    ["exams", "AUC per image", "change"],
                    [
                        [n, str(Estimate(**at["auc"])), str(Estimate(**at["change"]))]
                        for n, at in priors.items()
                    ],
                ),
            ),
        ],
    )


def _plot(path: Path, found: dict[str, Any]) -> None:
    figure, axes = plt.subplots(figsize=(8, 6), layout="constrained")
    readers = found["auc"]
    for k, (name, by_length) in enumerate(readers.items()):
        lengths = [n for n in by_length if n.isdigit()]
        values = [by_length[n]["value"] for n in lengths]
        low = [by_length[n]["value"] - by_length[n]["low"] for n in lengths]
        high = [by_length[n]["high"] - by_length[n]["value"] for n in lengths]
        shift = 0.05 * (k - len(readers) / 2)
        axes.errorbar(
            [int(n) + shift for n in lengths],
            values,
            (low, high),
            marker="o",
            markersize=4,
            capsize=2,
            linewidth=2 if name == "hybrid" else 1,
            label=found["titles"][name],
        )
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle="--")
    axes.set(
        xlabel="exams in the series",
        ylabel="AUC, growing against the rest",
        ylim=(0.4, 1.02),
        title="Simulated series of unseen patients",
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(fontsize=8, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)
