"""Plots of simulated series: what was drawn, how it looks, and what could be told from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from numpy.typing import NDArray

from training.ideal_observer import READERS, Observed
from training.lesion import VISIBLE_DIAMETER_MM, px_per_mm
from training.simulate import COURSES, LARGEST_DIAMETER_MM, PROGRAMMES, Course, SimulatedSeries

matplotlib.use("Agg")
import matplotlib.pyplot as plt

_COLOURS: dict[Course, str] = {
    "growing": "#c0392b",
    "slow": "#d99a00",
    "stable": "#7f8c8d",
    "regressing": "#2c7fb8",
    "recurring": "#1b9e77",
}
# Median volume doubling times of breast cancers, days
_PUBLISHED = {
    "Peer 1993, below 50": 80,
    "Peer 1993, 50 to 70": 157,
    "Peer 1993, above 70": 188,
    "Weedon-Fekjaer 2008": 207,
    "Fornvik 2016": 282,
}
_DAYS_PER_YEAR = 365.25
_SHOWN_SERIES = 25


@dataclass(frozen=True)
class Made:
    """The truth about a series on disk, as its json holds it."""

    name: str
    course: Course
    final_diameter_mm: float
    growing_doubling_days: float
    slow_doubling_days: float
    days: list[int]
    diameters_mm: list[float]
    lesion_px: list[list[float]]  # (row, column) of every exam
    images: list[str]  # relative to the run folder


def plot_observer(path: Path, observed: Sequence[Observed]) -> None:
    """AUC over the number of exams, one line a reader, one panel an error."""
    errors = sorted({row.error for row in observed})
    figure, panels = plt.subplots(
        1, len(errors), figsize=(4.5 * len(errors), 4), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, error in zip(panels[0], errors, strict=True):
        for reader in READERS:
            rows = [r for r in observed if r.error == error and r.reader == reader]
            value = np.array([r.auc for r in rows])
            spread = [value - [r.low for r in rows], [r.high for r in rows] - value]
            axes.errorbar([r.exams for r in rows], value, spread, fmt="o-", capsize=3, label=reader)
        axes.set(xlabel="exams", title=f"diameters known to {error:.0%}", ylim=(0.45, 1.02))
        axes.set_xticks(sorted({r.exams for r in observed}))
        axes.grid(alpha=0.3)
    panels[0][0].set_ylabel("AUC, growing against the rest")
    panels[0][0].legend(loc="center right")
    _save(figure, path)


def plot_doubling(path: Path, made: Sequence[Made]) -> None:
    """Histograms of both doubling times of every series, and the published medians."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    bins = np.geomspace(40, 4500, 45).tolist()
    growing = [m.growing_doubling_days for m in made]
    slow = [m.slow_doubling_days for m in made]
    axes.hist(growing, bins, alpha=0.6, color=_COLOURS["growing"], label="drawn, growing")
    axes.hist(slow, bins, alpha=0.6, color=_COLOURS["slow"], label="drawn, slow")
    top = axes.get_ylim()[1]
    for height, (source, days) in enumerate(_PUBLISHED.items()):
        axes.axvline(days, color="black", linewidth=0.8, linestyle="--")
        y = top * (0.97 - 0.07 * height)
        axes.annotate(
            f"{source}: {days} d", (days, y), xytext=(0.98, y),
            textcoords=("axes fraction", "data"), ha="right", fontsize=8,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4},
        )  # fmt: skip
    axes.set_xscale("log")
    ticks = [50, 100, 200, 400, 800, 1600, 3200]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set(
        xlabel="volume doubling time, days", ylabel="series",
        title="Doubling times drawn; dashed: published medians of cancers",
    )  # fmt: skip
    axes.legend(loc="center left")
    _save(figure, path)


def plot_intervals(path: Path, made: Sequence[Made], intervals: NDArray[np.int64]) -> None:
    """Histograms of the trial's intervals and of those between simulated exams."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    left.hist(intervals, np.arange(90, 1600, 30).tolist(), color="#7f8c8d")
    left.set(xlabel="days", ylabel="intervals", title="Real: EA1141, nearly annual", yscale="log")
    drawn = [b - a for m in made for a, b in pairwise(m.days)]
    right.hist(drawn, np.arange(0, 2700, 45).tolist(), color="#2c7fb8")
    for factor in PROGRAMMES:
        right.axvline(factor * float(np.median(intervals)), color="black", lw=0.8, ls="--")
    right.set(xlabel="days", title="Drawn; dashed: programmes")
    _save(figure, path)


def plot_diameters(path: Path, made: Sequence[Made]) -> None:
    """Diameters over the years, one panel a course."""
    figure, panels = plt.subplots(
        1, len(COURSES), figsize=(3 * len(COURSES), 3.3), sharey=True, layout="constrained"
    )
    for axes, course in zip(panels, COURSES, strict=True):
        for m in [m for m in made if m.course == course][:_SHOWN_SERIES]:
            years = (np.array(m.days) - m.days[-1]) / _DAYS_PER_YEAR
            axes.plot(years, m.diameters_mm, "o-", ms=3, lw=0.8, alpha=0.6, color=_COLOURS[course])
        axes.axhspan(0, VISIBLE_DIAMETER_MM, color="black", alpha=0.1)
        axes.set(title=course, xlabel="years before the last exam")
    panels[0].set_ylim(0, 1.05 * LARGEST_DIAMETER_MM)  # shared
    panels[0].set_ylabel("diameter, mm; grey: not drawn")
    _save(figure, path)


def plot_final(path: Path, made: Sequence[Made]) -> None:
    """Cumulative distribution of the last diameter, one line a course."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for course in COURSES:
        final = np.sort([m.diameters_mm[-1] for m in made if m.course == course])
        if final.size:
            share = np.arange(1, final.size + 1) / final.size
            label = f"{course}, {final.size} series"
            axes.step(final, share, where="post", color=_COLOURS[course], label=label)
    axes.set(
        xlabel="diameter at the last exam, mm", ylabel="share of the series up to that diameter",
        title="Final sizes, by course",
    )  # fmt: skip
    axes.legend()
    _save(figure, path)


def plot_sheet(path: Path, shown: Sequence[SimulatedSeries], column_inches: float = 1.9) -> None:
    """One row a series, one column an exam, the mass marked with a circle around it."""
    columns = max(len(series.images) for series in shown)
    height, width = shown[0].images.shape[1:]
    row_inches = 0.97 * column_inches * height / width + 0.23
    size = (column_inches * columns, row_inches * len(shown))
    figure, panels = plt.subplots(
        len(shown), columns, figsize=size, squeeze=False, layout="constrained"
    )
    for axes in panels.flat:
        axes.set_axis_off()
    for line, series in zip(panels, shown, strict=True):
        for axes, exam in zip(line, range(len(series.images)), strict=False):
            _show_exam(axes, series, exam)
    _save(figure, path)


def _show_exam(axes: Axes, series: SimulatedSeries, exam: int) -> None:
    pixels = series.images[exam]
    axes.imshow(pixels, cmap="gray", vmin=0, vmax=255)
    row, column = (float(place) for place in series.lesion_px[exam])
    diameter = series.diameters_mm[exam]
    around = 0.75 * diameter * px_per_mm(pixels.shape) + 6
    axes.add_patch(
        Circle((column, row), around, fill=False, color=_COLOURS[series.course], linewidth=1.2)
    )
    size = f"{diameter:.0f} mm" if diameter >= VISIBLE_DIAMETER_MM else "not visible"
    when = f"+{series.days[exam] / _DAYS_PER_YEAR:.1f} y" if exam else series.course
    axes.set_title(f"{when}: {size}", fontsize=9)


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=120)
    plt.close(figure)
