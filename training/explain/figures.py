"""The measurements of ``explain-check`` -> figures with 95 % bootstrap intervals by patient."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.explain.perturbation import CURVES, Curve
from training.explain.pointing import SIMULATED, ULTRASOUND, Case
from training.explain.randomised import KINDS, Similarity
from training.metrics import Estimate

BASELINES = ("random", "centre", "brightness")
POINTERS = {
    "heatmap": "heatmap",
    "twin": "heatmap of the twin",
    "brightest": "brightest cell",
    "centre": "centre of the breast",
    "chance": "random point",
}
_DRAWS = 1000


def by_patient(
    values: NDArray[np.float64],
    patients: Sequence[str],
    figure: Callable[[NDArray[np.float64]], Any] = np.mean,
    *,
    seed: int = 0,
) -> Estimate:
    """``figure`` of ``values`` [n] or [repeats, n] with its 95 % percentile interval: patients are
    drawn with replacement and all of their columns come along; so are the repeats, if any."""
    _, patient = np.unique(np.asarray(patients), return_inverse=True)
    columns = [np.flatnonzero(patient == p) for p in range(patient.max() + 1)]
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(_DRAWS):
        picked = rng.integers(len(columns), size=len(columns))
        sample = values[..., np.concatenate([columns[p] for p in picked])]
        if sample.ndim == 2:
            sample = sample[rng.integers(len(sample), size=len(sample))]
        drawn.append(float(figure(sample)))
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return Estimate(float(figure(values)), float(low), float(high))


def similarity_figures(rows: Sequence[Similarity]) -> dict[str, list[dict[str, Any]]]:
    """By kind, from the top stage down: the median of each measure, over images and draws."""
    found: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        found[kind] = []
        for stage in sorted({row.stage for row in rows}):
            own = [row for row in rows if (row.kind, row.stage) == (kind, stage)]
            draws = len({row.draw for row in own})
            patients = [row.patient_id for row in own if row.draw == own[0].draw]

            def grid(measure: str, own: Sequence[Similarity] = own, draws: int = draws) -> Any:
                return np.array([getattr(row, measure) for row in own]).reshape(draws, -1)

            ranks = grid("spearman_breast")
            found[kind].append(
                {"name": own[0].stage_name}
                | {
                    measure: asdict(by_patient(grid(measure), patients, _median))
                    for measure in ("spearman_breast", "spearman_all", "ssim")
                }
                | {
                    "spearman_breast_absolute": asdict(by_patient(abs(ranks), patients, _median)),
                    "defined": float(np.isfinite(ranks).mean()),
                }
            )
    return found


def _median(values: NDArray[np.float64]) -> float:
    """Of what is defined; 0 where nothing is."""
    held = values[np.isfinite(values)]
    return float(np.median(held)) if held.size else 0.0


def curve_figures(rows: Sequence[Curve]) -> dict[str, Any]:
    """By curve: mean area of each order, and its difference from the heatmap's, paired by image;
    random orders of one image are averaged first."""
    found: dict[str, Any] = {}
    for curve in CURVES:
        images = sorted({row.image for row in rows})
        patient = {row.image: row.patient_id for row in rows}
        patients = [patient[image] for image in images]
        areas = {}
        for order in ("heatmap", *BASELINES):
            held: dict[str, list[float]] = {image: [] for image in images}
            for row in rows:
                if (row.curve, row.order) == (curve, order):
                    held[row.image].append(row.area)
            areas[order] = np.array([np.mean(held[image]) for image in images])
        found[curve] = {
            "area": {order: asdict(by_patient(area, patients)) for order, area in areas.items()},
            "heatmap_minus": {
                order: asdict(by_patient(areas["heatmap"] - areas[order], patients))
                for order in BASELINES
            },
        }
    found["images"] = len({row.image for row in rows})
    return found


def mean_curves(rows: Sequence[Curve]) -> dict[str, dict[str, list[float]]]:
    """Mean probability along the way, by curve and order."""
    return {
        curve: {
            order: np.mean(
                [r.probabilities for r in rows if (r.curve, r.order) == (curve, order)], axis=0
            ).tolist()
            for order in ("heatmap", *BASELINES)
        }
        for curve in CURVES
    }


def pointing_figures(rows: Sequence[Case]) -> dict[str, Any]:
    """By scenario: hit rates, differences from the heatmap's paired by lesion, and by diameter, in
    thirds of all simulated masses."""
    found: dict[str, Any] = {}
    simulated = [row.diameter_mm for row in rows if row.scenario in SIMULATED]
    edges = np.quantile(simulated, (0, 1 / 3, 2 / 3, 1)) if simulated else np.empty(0)
    for scenario in (*SIMULATED, ULTRASOUND):
        own = [row for row in rows if row.scenario == scenario]
        if not own:
            continue
        pointers = [p for p in POINTERS if p != "twin" or own[0].twin is not None]
        hits = {p: np.array([float(getattr(row, p)) for row in own]) for p in pointers}
        patients = [row.patient_id for row in own]
        found[scenario] = {
            "lesions": len(own),
            "patients": len({row.patient_id for row in own}),
            "without_heatmap": sum(row.empty for row in own),
            "hit_rate": {p: asdict(by_patient(hit, patients)) for p, hit in hits.items()},
            "heatmap_minus": {
                p: asdict(by_patient(hits["heatmap"] - hit, patients))
                for p, hit in hits.items()
                if p != "heatmap"
            },
        }
        if scenario != ULTRASOUND:
            found[scenario]["by_diameter"] = _by_diameter(own, edges)
    return found


def _by_diameter(rows: Sequence[Case], edges: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Hit rates of the heatmap and of chance between one edge and the next."""
    found = []
    for low, high in pairwise(edges):
        own = [row for row in rows if low <= row.diameter_mm < high or row.diameter_mm == high]
        if own:
            patients = [row.patient_id for row in own]
            hits = np.array([float(row.heatmap) for row in own])
            chance = np.array([row.chance for row in own])
            found.append(
                {
                    "millimetres": f"{low:.0f} to {high:.0f}",
                    "lesions": len(own),
                    "heatmap": asdict(by_patient(hits, patients)),
                    "chance": asdict(by_patient(chance, patients)),
                }
            )
    return found
