"""Pictures of the heatmap checks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray

from app.bundle import Bundle
from app.inference.sessions import Sessions
from training.explain import pointing
from training.explain.figures import POINTERS
from training.explain.heatmaps import enlarged, peak
from training.explain.pointing import SIMULATED, Mass

matplotlib.use("Agg")
import matplotlib.pyplot as plt

COLOURS = {
    "heatmap": "C3", "random": "C7", "brightness": "C0", "centre": "C2",
    "cascading": "C3", "independent": "C0",
}  # fmt: skip


def plot_similarity(path: Path, stages: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Similarity with the original map against depth, cascading and independent."""
    figure, panels = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained", sharey=True)
    names = [stage["name"] for stage in next(iter(stages.values()))]
    for axes, key, title in (
        (panels[0], "spearman_breast", "Rank correlation within the breast"),
        (panels[1], "ssim", "Structural similarity"),
    ):
        for offset, (kind, found) in zip((-0.08, 0.08), stages.items(), strict=True):
            x = np.arange(1, len(found) + 1) + offset
            _points(axes, x, [stage[key] for stage in found], kind, "o-")
        axes.plot(0, 1, "k.", markersize=9)
        axes.annotate("as trained", (0, 1), xytext=(8, -3), textcoords="offset points")
        axes.axhline(0, color="grey", linewidth=0.8, linestyle="--")
        axes.set_xticks(range(len(names) + 1), ["nothing", *names], rotation=40, ha="right")
        axes.set(xlabel="randomised, from the top of the network down", title=title)
    panels[0].set_ylabel("similarity with the trained\nnetwork's map (median)")
    panels[0].legend(loc="upper right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_curves(path: Path, means: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
    """Mean probability along deletion and insertion; ``means`` by curve and order."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained", sharey=True)
    for axes, (curve, orders) in zip(panels, means.items(), strict=True):
        for order, along in orders.items():
            share = np.linspace(0, 100, len(along))
            width = 2.4 if order == "heatmap" else 1.4
            axes.plot(share, along, color=COLOURS[order], linewidth=width, label=order)
        done = "deleted" if curve == "deletion" else "inserted"
        better = "lower is better" if curve == "deletion" else "higher is better"
        axes.set(xlabel=f"breast pixels {done}, %", title=f"{curve.capitalize()} ({better})")
    panels[0].set_ylabel("probability of the positive class\n(calibrated, mean)")
    panels[1].legend(title="order of the pixels", loc="lower right")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_hits(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Hit rates by scenario and pointer, and of the simulated masses by diameter."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 5.2), layout="constrained")
    for n, (pointer, name) in enumerate(POINTERS.items()):
        shown = [
            (s + (n - (len(POINTERS) - 1) / 2) * 0.14, rates["hit_rate"][pointer])
            for s, rates in enumerate(found.values())
            if pointer in rates["hit_rate"]
        ]
        colour = "C3" if pointer == "heatmap" else f"C{(0, 1, 2, 4, 7)[n]}"
        _points(left, [x for x, _ in shown], [estimate for _, estimate in shown], name, "o", colour)
    left.set_xticks(range(len(found)), list(found))
    left.set(ylabel="hit rate", title="Who points at the lesion", ylim=(0, None))
    groups: dict[str, int] = {}  # a group of diameters -> its place on the axis
    for n, scenario in enumerate(s for s in SIMULATED if s in found):
        parts = found[scenario]["by_diameter"]
        x = [groups.setdefault(p["millimetres"], len(groups)) + (n - 0.5) * 0.2 for p in parts]
        colour = ("C3", "C5")[n]
        _points(right, x, [p["heatmap"] for p in parts], f"heatmap, {scenario}", "o", colour)
        _points(right, x, [p["chance"] for p in parts], f"random point, {scenario}", "_", colour)
    right.set_xticks(list(groups.values()), list(groups))
    right.set(xlabel="diameter of the mass, mm", title="By size", ylim=(0, None))
    for axes in (left, right):
        axes.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_examples(path: Path, bundle: Bundle, masses: Sequence[Mass]) -> None:
    """Simulated masses (circles: where a maximum is a hit) with the heatmap's maximum (cross)."""
    sessions = Sessions(bundle.encoder, bundle.head, device="cpu")
    figure, panels = plt.subplots(
        1, len(masses), figsize=(2.3 * len(masses), 4.4), layout="constrained", squeeze=False
    )
    for axes, mass in zip(panels[0], masses, strict=True):
        answers = pointing.read(sessions, bundle.manifest, (mass.lesioned,))
        _overlay(axes, mass.lesioned.exams[-1], answers.heatmaps[0])
        axes.contour(mass.lesioned.target, levels=[0.5], colors="cyan", linewidths=1)
        axes.set_title(
            f"{mass.scenario}\n{mass.diameter_mm:.0f} mm, p = {answers.probability[0]:.2f}",
            fontsize="small",
        )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _overlay(axes: Any, image: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> None:
    heat = enlarged(heatmap, image.shape)
    axes.imshow(image, cmap="gray", vmin=0, vmax=255)
    axes.imshow(heat, cmap="inferno", alpha=0.6 * heat / max(float(heat.max()), 1e-12))
    place = peak(heatmap, image.shape)
    if place is not None:
        axes.plot(place[1], place[0], "x", color="lime", markersize=9, markeredgewidth=2)
    axes.set_axis_off()


def _points(
    axes: Any,
    x: Any,
    estimates: Sequence[Mapping[str, float]],
    label: str,
    marker: str,
    colour: str | None = None,
) -> None:
    """Estimates with their 95 % intervals."""
    value, low, high = (np.array([e[k] for e in estimates]) for k in ("value", "low", "high"))
    axes.errorbar(
        x,
        value,
        yerr=np.maximum(0, [value - low, high - value]),
        fmt=marker,
        capsize=2.5,
        label=label,
        color=colour or COLOURS[label],
    )
