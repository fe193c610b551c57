"""Verdicts on a bundle's heatmaps, and the page that tells them.

The criteria were fixed before these checks were first run on validation patients.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from app.bundle import Bundle
from training.explain.figures import (
    POINTERS,
    curve_figures,
    mean_curves,
    pointing_figures,
    similarity_figures,
)
from training.explain.perturbation import Curve
from training.explain.plots import plot_curves, plot_hits, plot_similarity
from training.explain.pointing import GROWING, SIMULATED, SINGLE, ULTRASOUND, Case
from training.explain.randomised import Similarity
from training.metrics import Estimate
from training.page import Section, Table, write_page
from training.run_folder import write_metrics

SIMILARITY_LIMIT = 0.3
LEAST_DEFINED = 0.25  # of the maps of the wholly random network that are not level
EXAMPLES = "examples.png"


@dataclass(frozen=True)
class Measured:
    similarities: Sequence[Similarity]
    curves: Sequence[Curve]
    cases: Sequence[Case]


@dataclass(frozen=True)
class Verdict:
    """One check: its criterion, what was found, whether it passed, and what that means."""

    check: str
    criterion: str
    found: str
    passed: bool
    meaning: str


def write_report(folder: Path, bundle: Bundle, measured: Measured, split: str) -> list[Verdict]:
    """Write ``metrics.json``, plots and ``report.html`` into ``folder``; returns the verdicts."""
    similarity = similarity_figures(measured.similarities)
    perturbed = curve_figures(measured.curves)
    pointed = pointing_figures(measured.cases)
    verdicts = judge(similarity, perturbed, pointed)
    write_metrics(
        folder,
        {
            "bundle": f"{bundle.manifest.name} {bundle.manifest.version}",
            "split": split,
            "verdicts": [asdict(verdict) for verdict in verdicts],
            "randomised_weights": similarity,
            "deletion_and_insertion": perturbed,
            "pointing_game": pointed,
        },
    )
    plots = {name: folder / f"{name}.png" for name in ("similarity", "curves", "hits")}
    plot_similarity(plots["similarity"], similarity)
    plot_curves(plots["curves"], mean_curves(measured.curves))
    plot_hits(plots["hits"], pointed)
    sections = [
        _summary(verdicts),
        _similarity_section(similarity, measured, plots["similarity"]),
        _curve_section(perturbed, plots["curves"]),
        _pointing_section(pointed, plots["hits"], folder / EXAMPLES),
        *([_ultrasound_section(pointed[ULTRASOUND])] if ULTRASOUND in pointed else []),
    ]
    passed = sum(verdict.passed for verdict in verdicts)
    write_page(
        folder,
        f"Heatmaps of {bundle.manifest.name} {bundle.manifest.version}",
        f"{passed} of {len(verdicts)} checks passed, on images of the {split} split, through the "
        "graphs that are served. Intervals are 95 %, by bootstrap over patients. This page holds "
        "pictures of the data: its terms apply to the page.",
        sections,
    )
    return verdicts


def judge(
    similarity: Mapping[str, Sequence[Mapping[str, Any]]],
    perturbed: Mapping[str, Any],
    pointed: Mapping[str, Any],
) -> list[Verdict]:
    """Pass or fail by the criteria of this module."""
    last = similarity["cascading"][-1]
    rank = Estimate(**last["spearman_breast"])
    deletion = Estimate(**perturbed["deletion"]["heatmap_minus"]["random"])
    insertion = Estimate(**perturbed["insertion"]["heatmap_minus"]["random"])
    verdicts = [
        _verdict(
            "Randomised weights",
            f"with all weights random, median rank correlation with the map of the trained network "
            f"below {SIMILARITY_LIMIT}, its interval too, and at least {LEAST_DEFINED:.0%} of the "
            "maps not level",
            f"{rank}; {last['defined']:.0%} of the maps not level",
            rank.high < SIMILARITY_LIMIT and last["defined"] >= LEAST_DEFINED,
            "The maps depend on what the network has learned, not on the picture alone.",
            "It was not shown that the maps depend on what the network has learned: they may show "
            "the picture, not the reasons for a score.",
        ),
        _verdict(
            "Deletion",
            "area under the curve smaller in the order of the heatmap than in random order, "
            "interval of the difference below 0",
            f"difference {_signed(deletion)}",
            deletion.high < 0,
            "Taking away what the map marks lowers the probability faster than taking anything."
            + _not_beaten(perturbed["deletion"]["heatmap_minus"], sign=-1),
            "Taking away what the map marks does not lower the probability faster than taking "
            "anything.",
        ),
        _verdict(
            "Insertion",
            "area under the curve larger in the order of the heatmap than in random order, "
            "interval of the difference above 0",
            f"difference {_signed(insertion)}",
            insertion.low > 0,
            "Showing what the map marks raises the probability faster than showing anything."
            + _not_beaten(perturbed["insertion"]["heatmap_minus"], sign=1),
            "Showing what the map marks does not raise the probability faster than showing "
            "anything.",
        ),
    ]
    if SINGLE in pointed:
        verdicts.append(_judge_single(pointed[SINGLE]))
    if GROWING in pointed:
        verdicts.append(_judge_growing(pointed[GROWING]))
    return verdicts


def _not_beaten(minus: Mapping[str, Mapping[str, float]], sign: int) -> str:
    """Which baselines the heatmap was not shown to be better than, as a sentence."""
    worst = {order: min(sign * e["low"], sign * e["high"]) for order, e in minus.items()}
    names = [order for order, difference in worst.items() if difference <= 0]
    return f" It was not shown to do better than {' or '.join(names)}." if names else ""


def _judge_single(found: Mapping[str, Any]) -> Verdict:
    chance, twin = (Estimate(**found["heatmap_minus"][p]) for p in ("chance", "twin"))
    return _verdict(
        "Pointing at a single mass",
        "hit rate above that of a random point and of the map of the same picture without the "
        "mass, intervals of both differences above 0",
        f"{_signed(chance)} against a random point, {_signed(twin)} against the map without it",
        chance.low > 0 and twin.low > 0,
        "A mass draws the maximum of the map more often than chance, and than where there is none.",
        "It was not shown that a mass draws the maximum of the map.",
    )


def _judge_growing(found: Mapping[str, Any]) -> Verdict:
    chance, twin = (Estimate(**found["heatmap_minus"][p]) for p in ("chance", "twin"))
    growth = "" if twin.low > 0 else " That the mass grew was not shown to play a part in it."
    return _verdict(
        "Pointing at a growing mass",
        "hit rate in the last exam above that of a random point, interval of the difference above "
        "0",
        f"{_signed(chance)} against a random point, {_signed(twin)} against a mass that did not "
        "grow",
        chance.low > 0,
        "In a series, the map of the last exam marks the mass that grew more often than chance."
        + growth,
        "In a series, the map of the last exam does not mark the mass that grew more often than "
        "chance.",
    )


def _verdict(
    check: str, criterion: str, found: str, passed: bool, when_passed: str, when_failed: str
) -> Verdict:
    return Verdict(check, criterion, found, passed, when_passed if passed else when_failed)


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _summary(verdicts: Sequence[Verdict]) -> Section:
    return Section(
        "Verdict",
        ["The criteria were fixed before these checks were first run on validation patients."],
        Table(
            ["check", "verdict", "what it means", "criterion", "found"],
            [
                [v.check, "passed" if v.passed else "FAILED", v.meaning, v.criterion, v.found]
                for v in verdicts
            ],
        ),
    )


def _similarity_section(
    figures: Mapping[str, Sequence[Mapping[str, Any]]], measured: Measured, plot: Path
) -> Section:
    images = len({row.image for row in measured.similarities})
    draws = len({row.draw for row in measured.similarities})
    return Section(
        "Randomised weights",
        [
            "A map that explains a network must change when what the network has learned is "
            "destroyed (Adebayo et al. 2018). The weights and biases of each stage were put into "
            "random order, from the top of the network down (cascading) or in that stage alone "
            f"(independent), {draws} times, for {images} random images. Normalisation is part of "
            "the served graphs' weights and is randomised with them.",
            "Rank correlations are signed, over the cells of the map within the breast; the last "
            "columns give all cells, and the size of the correlation whatever its sign. A single "
            "random network can be alike or opposite by chance, hence the wide intervals of few "
            "draws. Level maps have no correlation and are left out. That similarity falls is "
            "needed, not enough: noise would pass as well (Binder et al. 2023, arXiv:2211.12486).",
        ],
        Table(
            ["randomised", "stage", "Spearman, breast", "SSIM", "Spearman, all cells",
             "size of Spearman, breast", "maps not level"],
            [
                [kind, stage["name"]]
                + [
                    str(Estimate(**stage[measure]))
                    for measure in (
                        "spearman_breast", "ssim", "spearman_all", "spearman_breast_absolute",
                    )
                ]
                + [f"{stage['defined']:.0%}"]
                for kind, stages in figures.items()
                for stage in stages
            ],
        ),
        [plot],
    )  # fmt: skip


def _curve_section(figures: Mapping[str, Any], plot: Path) -> Section:
    rows = []
    for curve in ("deletion", "insertion"):
        for order, area in figures[curve]["area"].items():
            minus = figures[curve]["heatmap_minus"].get(order)
            difference = _signed(Estimate(**minus)) if minus else ""
            rows.append([curve, order, str(Estimate(**area)), difference])
    return Section(
        "Deletion and insertion",
        [
            f"{figures['images']} images, chosen at random from the quarter of the split with the "
            "highest probability, whatever their label, one a patient: there has to be something "
            "to delete. Pixels of the breast are replaced by a heavily blurred version of it "
            "(deletion), or given back to the blurred breast (insertion), in the order of the map "
            "(Petsiuk et al. 2018). The baselines are maps on the same grid, enlarged in the same "
            "way: random ones, closeness to the centre of the breast, and brightness.",
            "A blurred breast is no mammogram: part of any change is that the picture has become "
            "unusual, which is the same for every order at the ends but not on the way.",
        ],
        Table(["curve", "order", "area", "heatmap minus this order"], rows),
        [plot],
    )


def _pointing_section(figures: Mapping[str, Any], plot: Path, examples: Path) -> Section:
    return Section(
        "Pointing at simulated masses",
        [
            "A mass is composited into a breast without cancer (by its label; benign findings may "
            "be there). A hit is a maximum of the map within the radius of the mass and one cell "
            "of the map (Zhang et al. 2016). No map is a miss. The masses are simulated: how the "
            "maps point at real ones, or at calcifications, is not measured here.",
            "The twin of a single mass is the same picture, acquired alike, without it. The twin "
            "of a growing mass ends in the same exam, but the mass had its size all along. Masses "
            "are placed in bright glandular tissue, away from the skin: the brightest cell and the "
            "centre are what a map without understanding would find.",
            "In training, a mass that does not grow is no sign of cancer, so a map of a single "
            "exam need not go to it.",
        ],
        Table(
            ["scenario", "who points", "hit rate", "heatmap minus this"],
            [
                [f"{scenario} ({found['lesions']})", *row]
                for scenario in SIMULATED
                if (found := figures.get(scenario))
                for row in _pointer_rows(found)
            ],
        ),
        [plot, examples],
    )


def _ultrasound_section(figures: Mapping[str, Any]) -> Section:
    return Section(
        "Stress test: outlined lesions in ultrasound (BUSI)",
        [
            "Not part of the verdict. A model of mammograms was not trained on ultrasound, and "
            "nothing follows for mammograms from what its maps do here. A hit is a maximum inside "
            f"the outline, without tolerance; {figures['lesions']} images with outlined lesions. "
            "Lesions are dark and near the middle in ultrasound. The data names no patients: the "
            "intervals are by image and too narrow where a lesion was taken twice.",
        ],
        Table(
            ["who points", "hit rate", "heatmap minus this"],
            [list(row) for row in _pointer_rows(figures)],
        ),
    )


def _pointer_rows(found: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    for pointer, rate in found["hit_rate"].items():
        minus = found["heatmap_minus"].get(pointer)
        difference = _signed(Estimate(**minus)) if minus else ""
        rows.append([POINTERS[pointer], str(Estimate(**rate)), difference])
    return rows
