"""The trials of a search -> their table, plots and page."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np

from training import page
from training.metrics import Estimate

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, MaxNLocator

NOTE = (
    "The figure of a trial is the AUC per breast on the validation patients, at its best epoch. "
    "The best of many trials is optimistic: epoch and hyperparameters were chosen on these "
    "patients, and its interval does not know that. Measure what is made of it on other patients."
)
_ON_IMPORTANCE = (
    "The share of the variance among these trials that a hyperparameter explains (fANOVA). From "
    "few trials it is a hint, and it says nothing outside of the ranges that were searched."
)


@dataclass(frozen=True)
class Hyperparameter:
    """Where a fit config holds it, and whether it is searched and drawn on a logarithmic scale."""

    table: Literal["model", "optimiser"]
    log: bool


HYPERPARAMETERS = {
    "learning_rate": Hyperparameter("optimiser", log=True),
    "images_per_batch": Hyperparameter("optimiser", log=True),
    "blocks": Hyperparameter("model", log=False),
    "lstm_layers": Hyperparameter("model", log=False),
    "lstm_units": Hyperparameter("model", log=True),
    "dropout": Hyperparameter("model", log=False),
}


@dataclass(frozen=True)
class Trial:
    """A finished trial: ``values`` by hyperparameter, ``auc`` per breast on the validation
    patients at ``best_epoch`` (from 1) of ``epochs``."""

    number: int
    values: Mapping[str, float]
    auc: Estimate
    best_epoch: int
    epochs: int


def write_table(path: Path, trials: Sequence[Trial]) -> None:
    """Write the trials as CSV, in the order in which they ran."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        names = list(trials[0].values)
        writer.writerow(["trial", *names, "auc_per_breast", "low", "high", "best_epoch", "epochs"])
        for trial in trials:
            auc = trial.auc
            writer.writerow(
                (
                    trial.number,
                    *(trial.values[name] for name in names),
                    *(auc.value, auc.low, auc.high, trial.best_epoch, trial.epochs),
                )
            )


def write_page(run: Path, trials: Sequence[Trial], importance: Mapping[str, float]) -> None:
    """Write the plots and ``report.html`` of a search into ``run``."""
    ranked = sorted(trials, key=lambda trial: -trial.auc.value)
    best = ranked[0]
    overlapping = sum(trial.auc.value >= best.auc.low for trial in trials) - 1
    _plot_history(run / "history.png", trials)
    _plot_slices(run / "slices.png", trials)
    names = list(best.values)
    table = page.Table(
        ("trial", *map(_spoken, names), "AUC per breast [95 % interval]", "best epoch"),
        [
            (
                str(trial.number),
                *(_number(trial.values[name]) for name in names),
                str(trial.auc),
                f"{trial.best_epoch} of {trial.epochs}",
            )
            for trial in ranked
        ],
    )
    sections = [
        page.Section(
            "The best trial",
            (
                f"Trial {best.number}: {written(best.values)}. AUC {best.auc}; {overlapping} of "
                f"the other {len(trials) - 1} trials lie within its interval. best.toml is its "
                "config for fit.",
                NOTE,
            ),
            pictures=[run / "history.png"],
        ),
        page.Section("Each hyperparameter", pictures=[run / "slices.png"]),
    ]
    if importance:
        _plot_importance(run / "importance.png", importance)
        sections.append(
            page.Section("What mattered", (_ON_IMPORTANCE,), pictures=[run / "importance.png"])
        )
    sections.append(page.Section("All trials, best first", (), table))
    lead = f"{len(trials)} trials over {', '.join(map(_spoken, names))}."
    page.write_page(run, "Hyperparameter search", lead, sections)


def written(values: Mapping[str, float]) -> str:
    """Hyperparameters as a line of text."""
    return ", ".join(f"{_spoken(name)} {_number(value)}" for name, value in values.items())


def _spoken(name: str) -> str:
    return name.replace("_", " ").replace("lstm", "LSTM")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3g}"


def _plot_history(path: Path, trials: Sequence[Trial]) -> None:
    """The AUC of every trial with its interval, and the best so far."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    numbers = [trial.number for trial in trials]
    values = np.array([trial.auc.value for trial in trials])
    reach = np.array([(t.auc.value - t.auc.low, t.auc.high - t.auc.value) for t in trials]).T.clip(
        0
    )  # [2, trials]
    axes.errorbar(numbers, values, reach, fmt="o", capsize=3, label="trial, 95 % interval")
    axes.step(numbers, np.maximum.accumulate(values), where="post", color="black", label="best")
    axes.axhline(0.5, color="grey", linewidth=0.8, linestyle="--")
    axes.set(xlabel="trial", ylabel="validation AUC per breast", title="Trials in their order")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.legend(loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_slices(path: Path, trials: Sequence[Trial]) -> None:
    """The AUC of the trials over each hyperparameter; colour is the order of the trials."""
    names = list(trials[0].values)
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure, grid = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns + 1, 3 * rows),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(grid.flat, names, strict=False):
        values: list[Any] = [trial.values[name] for trial in trials]
        points = axes.scatter(
            values,
            [trial.auc.value for trial in trials],
            c=[trial.number for trial in trials],
            cmap="viridis",
            edgecolors="black",
            linewidths=0.5,
        )
        axes.set(xlabel=_spoken(name))
        if HYPERPARAMETERS[name].log:
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        elif all(isinstance(value, int) for value in values):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for row in grid:
        row[0].set(ylabel="AUC per breast")
    figure.colorbar(points, ax=grid, label="trial", ticks=MaxNLocator(integer=True))
    figure.savefig(path, dpi=120)
    plt.close(figure)


def _plot_importance(path: Path, importance: Mapping[str, float]) -> None:
    ordered = sorted(importance.items(), key=lambda item: item[1])
    figure, axes = plt.subplots(figsize=(6, 1 + 0.4 * len(ordered)), layout="constrained")
    bars = axes.barh([_spoken(name) for name, _ in ordered], [share for _, share in ordered])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel="share of the variance explained", xlim=(0, max(importance.values()) + 0.1))
    figure.savefig(path, dpi=120)
    plt.close(figure)
