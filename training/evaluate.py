"""Evaluate a bundle on labelled images, read exactly as it is served.

The run folder: ``config.json``, ``readings.jsonl`` (to resume), ``scores.csv``, ``metrics.json``,
``figures.json`` (for a bundle), plots, ``report.html``. docs/evaluation.md defines every figure.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from app.bundle import FIGURES, Bundle, Manifest, OperatingPoint
from app.inference.sessions import Device
from training import manifest as manifest_module
from training import plots
from training.bundle_figures import (
    OTHER_CASES,
    SAME_CASES,
    bundle_figures,
    counted,
    write_figures,
)
from training.config import DataConfig, OptimiserConfig, Section
from training.evaluation_page import write_evaluation_page
from training.figures import (
    Cases,
    all_figures,
    as_text,
    confusion_of,
    counts_of,
    decision_curve,
    from_json,
    write_scores,
)
from training.manifest import ManifestError
from training.plots import Block, Curve, Rates, Row
from training.readings import (
    Asked,
    Reading,
    Split,
    breast_cases,
    check,
    exam_cases,
    image_cases,
    read_all,
    start_sessions,
)
from training.run_folder import RunError, open_run, write_metrics
from training.subgroups import figures_by_group, groups_of, known_columns, value_of

_PATIENTS = {"val": "validation patients", "train": "training patients", "all": "patients"}


class EvaluateConfig(Section):
    """``bundle`` is ``model_store/<name>/<version>``. ``data.positive_class`` is the label that is
    measured against the bundle's positive class, every other label counts as negative. ``seed`` is
    that of the fit, for a manifest without splits. ``history`` is the ``history.csv`` to draw, by
    default the bundle's."""

    run: Path
    bundle: Path
    data: DataConfig
    split: Split = "val"
    subgroups: tuple[str, ...] = ("view", "density", "machine", "age", "implant")
    device: Device = "cpu"
    history: Path | None = None
    seed: int = OptimiserConfig().seed


def evaluate(config: EvaluateConfig) -> Path:
    """Measure a bundle, or go on where a stopped run was. Returns the run folder.

    Raises ``RunError`` with everything that is wrong with what was asked.
    """
    faults: list[str] = []
    asked = check(config.bundle, config.data, config.split, config.seed, faults)
    history = _history(config, faults)
    if asked is not None:
        faults += _faults_of_subgroups(config, asked)
    if faults or asked is None:
        raise RunError("\n".join(faults))
    sessions = start_sessions(asked.bundle, config.device)
    run = open_run(config.run, config)
    data = manifest_module.fingerprint(asked.images)
    readings, left_out = read_all(run, asked.bundle, sessions, asked.breasts, data)

    contract = asked.bundle.manifest
    of_unit = {
        "image": image_cases(readings, contract),
        "breast": breast_cases(readings, contract),
        "exam": exam_cases(readings, contract),
    }
    # With one positive breast in every patient, for instance, there is no exam without cancer
    units = {unit: cases for unit, cases in of_unit.items() if 0 < cases.truth.sum() < len(cases)}
    if "breast" not in units:
        raise ManifestError("of the images that can be used, all breasts are of one class")
    write_scores(run / "scores.csv", units)
    point = contract.operating_point(None)
    assert point is not None  # the manifest names its default
    found = {
        "note": "measured on a bundle through its serving path; 95 % bootstrap intervals by "
        "patient",
        "bundle": {
            "name": contract.name,
            "version": contract.version,
            "sha256": asked.bundle.sha256,
        },
        "data": {
            "split": config.split,
            "positive_class": config.data.positive_class,
            "fingerprint_sha256": data,
            "terms": config.data.terms,
            "left_out": left_out,
            "units_of_one_class": sorted(of_unit.keys() - units.keys()),
            "series_of_several_exams": sum(len(r.series.exams) > 1 for r in readings),
        },
        "default_operating_point": point.name,
        "units": {
            unit: all_figures(cases, contract.operating_points)
            for unit, cases in tqdm(units.items(), "figures", unit="unit")
        },
        "decision_curve_per_breast": decision_curve(units["breast"]),
        "subgroups": {
            column: _by_subgroup(column, readings, units, point)
            for column in tqdm(config.subgroups, "subgroups", unit="column")
            if column in known_columns(asked.images)
        },
    }
    write_metrics(run, found)
    _write_figures(run, units, found, contract)
    pictures = _draw(run, units, found, asked.bundle, history)
    write_evaluation_page(run, found, pictures)
    return run


def _faults_of_subgroups(config: EvaluateConfig, asked: Asked) -> list[str]:
    """A default column may be missing from a manifest, one that was asked for may not."""
    known = known_columns(asked.images)
    faults = []
    for column in config.subgroups:
        if column in known:
            try:
                groups_of(column, [value_of([image], column) for image in asked.images])
            except ValueError as fault:
                faults.append(f"{config.data.manifest}: {fault}")
        elif "subgroups" in config.model_fields_set:
            faults.append(f"{config.data.manifest} has no column {column} to make subgroups of")
    return faults


def _history(config: EvaluateConfig, faults: list[str]) -> list[dict[str, float]]:
    """The epochs of the training; empty if there is no record of them."""
    path = config.history or config.bundle / "history.csv"
    if not path.is_file():
        if config.history:
            faults.append(f"{path} is missing")
        return []
    try:
        with path.open(newline="") as file:
            rows = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    except (ValueError, TypeError):
        rows = []
    if not (rows and {"epoch", "loss"} <= rows[0].keys()):
        faults.append(f"{path} is not a table of numbers with the columns epoch and loss")
    return rows


def _by_subgroup(
    column: str, readings: Sequence[Reading], units: Mapping[str, Cases], point: Any
) -> dict[str, Any]:
    """Views are groups of images, all else groups of breasts, by the images of the last exam."""
    unit = "image" if column == "view" else "breast"
    values = (
        [value_of([image], column) for reading in readings for image in reading.series.images]
        if unit == "image"
        else [value_of(reading.series.exams[-1], column) for reading in readings]
    )
    groups = groups_of(column, values)
    return {"unit": unit, "groups": figures_by_group(units[unit], groups, point)}


def _write_figures(
    run: Path, units: Mapping[str, Cases], found: dict[str, Any], contract: Manifest
) -> None:
    """The plots' data for a bundle. Where the operating points reach what their manifest says, to
    the last case, it is on these cases that they were chosen."""
    measured_on = counted(units["breast"], units["image"], _PATIENTS[found["data"]["split"]])
    points = [
        OperatingPoint(
            name=name,
            threshold=at["threshold"],
            measured_on=measured_on,
            sensitivity=at["sensitivity"]["value"],
            specificity=at["specificity"]["value"],
            sensitivity_interval=(at["sensitivity"]["low"], at["sensitivity"]["high"]),
            specificity_interval=(at["specificity"]["low"], at["specificity"]["high"]),
        )
        for name, at in found["units"]["breast"]["operating_points"].items()
    ]

    def rates(points: Sequence[OperatingPoint]) -> list[tuple[float, float]]:
        return [(point.sensitivity, point.specificity) for point in points]

    chosen_here = rates(points) == rates(contract.operating_points)
    figures = bundle_figures(
        units["breast"],
        units["image"],
        points,
        measured_on=measured_on,
        note=SAME_CASES if chosen_here else OTHER_CASES,
        precision=contract.precision,
        subgroups=found["subgroups"],
    )
    write_figures(run / FIGURES, figures)


def _draw(
    run: Path,
    units: Mapping[str, Cases],
    found: dict[str, Any],
    bundle: Bundle,
    history: Sequence[Mapping[str, float]],
) -> dict[str, Path]:
    contract, breasts, per_breast = bundle.manifest, units["breast"], found["units"]["breast"]
    title = f"{contract.name} {contract.version}"

    def curves(figure: str, name: str) -> list[Curve]:
        return [
            Curve(
                f"per {unit}: {name} {as_text(found['units'][unit][figure])}",
                cases.truth,
                cases.probability,
            )
            for unit, cases in sorted(units.items(), key=lambda item: item[0] != "breast")
        ]

    rates = [
        Rates(name, at["sensitivity"]["value"], at["specificity"]["value"])
        for name, at in per_breast["operating_points"].items()
    ]
    matrices = {p.name: confusion_of(breasts, p) for p in contract.operating_points}
    negative = " or ".join(c for c in contract.classes if c != contract.positive_class)
    curve = found["decision_curve_per_breast"]
    blocks = {
        f"{column} (per {by['unit']})": Block(
            [
                Row(
                    f"{row['group']}: {row['positives']} of {row['cases']}",
                    row["auc"] and from_json(row["auc"]),
                )
                for row in by["groups"]
            ],
            from_json(found["units"][by["unit"]]["auc"]),
        )
        for column, by in found["subgroups"].items()
    }
    pictures = {
        "roc": plots.roc(run / "roc.png", curves("auc", "AUC"), rates, title),
        "precision_recall": plots.precision_recall(
            run / "precision_recall.png", curves("pr_auc", "PR AUC"), title
        ),
        "reliability": plots.reliability(
            run / "reliability.png",
            [Curve(f"per {unit}", cases.truth, cases.probability) for unit, cases in units.items()],
        ),
        "confusion": plots.confusion(
            run / "confusion.png", matrices, (negative, contract.positive_class), "per breast"
        ),
        "decision_curve": plots.decision_curve(
            run / "decision_curve.png",
            curve["thresholds"],
            [from_json(figure) for figure in curve["model"]],
            curve["call_all"],
            f"{title}, per breast, prevalence {counts_of(breasts)['prevalence']:.3f}",
        ),
    }
    if blocks:
        pictures["subgroups"] = plots.forest(run / "subgroups.png", blocks)
    if history:
        pictures["history"] = plots.history(run / "history.png", history)
    return pictures
