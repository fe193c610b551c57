"""Fit a bundle to a site's own labelled data: a new temperature and new operating points, and the
same weights.

The run folder: ``config.json``, ``readings.jsonl`` (to resume), ``scores.csv``, ``metrics.json``,
``figures.json``, plots, ``report.html``. The new version of the bundle appears whole or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from app.bundle import FIGURES, Bundle, Manifest, OperatingPoint, check_new_version
from app.inference.probability import calibrated
from app.inference.sessions import Device
from training import manifest as manifest_module
from training import metrics, plots
from training.bundle_figures import SAME_CASES, bundle_figures, counted, write_figures
from training.config import DataConfig, OptimiserConfig, Section
from training.exams import BreastSeries
from training.figures import Cases, as_json, choose_thresholds, operating_points, write_scores
from training.manifest import ManifestError
from training.metrics import bootstrap_all
from training.plots import Curve, Rates
from training.readings import (
    Reading,
    Split,
    breast_cases,
    check,
    image_cases,
    read_all,
    start_sessions,
)
from training.recalibrated import write_calibration_page, write_version
from training.run_folder import RunError, open_run, write_metrics

MIN_PATIENTS = 10
_FOLDS = 5


class CalibrateConfig(Section):
    """``bundle`` and ``to`` are ``<store>/<name>/<version>``; ``to`` must not exist. ``data`` are
    patients that the model was not trained on. ``seed`` is that of the fit, for a manifest without
    splits, and of the folds."""

    run: Path
    bundle: Path
    to: Path
    data: DataConfig
    split: Split = "all"
    device: Device = "cpu"
    seed: int = OptimiserConfig().seed


@dataclass(frozen=True)
class CrossFit:
    """Temperature and thresholds of four fifths of the patients, used on the other fifth:
    ``temperatures`` one a fold; ``probability`` float64 [n]; ``called`` bool [n] by operating
    point."""

    temperatures: tuple[float, ...]
    probability: NDArray[np.float64]
    called: dict[str, NDArray[np.bool_]]


def calibrate(config: CalibrateConfig) -> Path:
    """Write ``config.to``, or go on where a stopped run was. Returns the run folder.

    Raises ``RunError`` with everything that is wrong with what was asked.
    """
    faults: list[str] = []
    try:
        check_new_version(config.to)
    except (FileExistsError, ValueError) as error:
        faults.append(str(error))
    asked = check(config.bundle, config.data, config.split, config.seed, faults)
    if asked is not None:
        faults += _too_few(asked.breasts)
    if faults or asked is None:
        raise RunError("\n".join(faults))
    data = manifest_module.fingerprint(asked.images)
    if data == asked.bundle.manifest.data.get("fingerprint_sha256"):
        raise RunError(f"{config.data.manifest} is what {config.bundle} was trained on")
    sessions = start_sessions(asked.bundle, config.device)
    run = open_run(config.run, config)
    readings, left_out = read_all(run, asked.bundle, sessions, asked.breasts, data)
    if too_few := _too_few([reading.series for reading in readings]):
        raise ManifestError("\n".join(["of the images that can be used:", *too_few]))

    source = asked.bundle.manifest
    logits = np.stack([reading.step_logits[-1] for reading in readings])
    before = breast_cases(readings, source)
    temperature = _fit(before.truth, logits, source)
    fitted = with_temperature(source, temperature)
    after, images = breast_cases(readings, fitted), image_cases(readings, fitted)
    crossed = cross_fit(before, logits, source, config.seed)
    facts = _facts(config, asked.bundle, readings, data, len(left_out))
    found = facts | {
        "temperature": {
            "before": source.temperature,
            "after": temperature,
            "cross_fitted": list(crossed.temperatures),
        },
        **_calibration(before, after, crossed),
        "operating_points": operating_points(after, _measured_on(facts)),
        "operating_points_cross_fitted": _cross_fitted_rates(before, crossed),
    }
    write_scores(run / "scores.csv", {"breast": after})
    write_metrics(run, found | {"left_out": left_out})
    figures = bundle_figures(
        after,
        images,
        [OperatingPoint(**point) for point in found["operating_points"]],
        measured_on=counted(after, images, "patients"),
        note=SAME_CASES,
        precision=source.precision,
    )
    write_figures(run / FIGURES, figures)
    pictures = _draw(run, before, after, crossed, found)
    write_calibration_page(run, found, pictures)
    write_version(config.to, asked.bundle, found, pictures, run / FIGURES)
    return run


def _too_few(breasts: Sequence[BreastSeries]) -> list[str]:
    faults = []
    for name, positive in (("with", True), ("without", False)):
        patients = {b.patient_id for b in breasts if b.positive[-1] is positive}
        if len(patients) < MIN_PATIENTS:
            faults.append(
                f"{len(patients)} patient(s) have a breast {name} the positive class; at least "
                f"{MIN_PATIENTS} are needed to calibrate"
            )
    return faults


def with_temperature(manifest: Manifest, temperature: float) -> Manifest:
    return manifest.model_copy(update={"temperature": temperature})


def _fit(truth: NDArray[np.int32], logits: NDArray[np.float32], manifest: Manifest) -> float:
    return metrics.fit_temperature(truth, logits.astype(np.float64), manifest.positive_index)


def cross_fit(cases: Cases, logits: NDArray[np.float32], manifest: Manifest, seed: int) -> CrossFit:
    """Calibrate every fifth of the patients by the other four; ``logits`` float32 [n, classes]."""
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    probability = np.zeros(len(cases))
    called: dict[str, NDArray[np.bool_]] = {}
    temperatures = []
    for fitted, held_out in folds.split(logits, cases.truth, cases.patients):
        truth = cases.truth[fitted]
        temperatures.append(_fit(truth, logits[fitted], manifest))
        served = with_temperature(manifest, temperatures[-1])
        probability[held_out] = calibrated(logits[held_out], served)
        thresholds = choose_thresholds(truth, calibrated(logits[fitted], served))
        for name, threshold in thresholds.items():
            called.setdefault(name, np.zeros(len(cases), np.bool_))
            called[name][held_out] = probability[held_out] >= threshold
    return CrossFit(tuple(temperatures), probability, called)


def _facts(
    config: CalibrateConfig, bundle: Bundle, readings: Sequence[Reading], data: str, left_out: int
) -> dict[str, Any]:
    """Where it was measured: what the new bundle's manifest records."""
    breasts = [reading.series for reading in readings]
    positive = [breast for breast in breasts if breast.positive[-1]]
    return {
        "of": {
            "name": bundle.manifest.name,
            "version": bundle.manifest.version,
            "sha256": bundle.sha256,
        },
        "to": {"name": config.to.parent.name, "version": config.to.name},
        "data": {
            "fingerprint_sha256": data,
            "split": config.split,
            "positive_class": config.data.positive_class,
            "terms": config.data.terms,
            "images": sum(len(breast.images) for breast in breasts),
            "images_left_out": left_out,
            "breasts": len(breasts),
            "positive_breasts": len(positive),
            "patients": len({breast.patient_id for breast in breasts}),
            "positive_patients": len({breast.patient_id for breast in positive}),
            "prevalence": len(positive) / len(breasts),
        },
    }


def _measured_on(facts: dict[str, Any]) -> str:
    data = facts["data"]
    return (
        f"{data['breasts']} breasts of {data['patients']} patients that the thresholds were chosen "
        f"on, data {data['fingerprint_sha256'][:12]}"
    )


def _calibration(before: Cases, after: Cases, crossed: CrossFit) -> dict[str, Any]:
    def figures(truth: NDArray[np.int32], p: NDArray[np.float64]) -> dict[str, float]:
        return {
            "auc": metrics.auc(truth, p),
            "brier": metrics.brier(truth, p),
            "expected_calibration_error": metrics.expected_calibration_error(truth, p),
            "mean_probability": float(p.mean()),
        }

    probabilities = {
        "before": before.probability,
        "after": after.probability,
        "cross_fitted": crossed.probability,
    }
    found = {
        name: bootstrap_all(figures, before.truth, probability, before.patients)
        for name, probability in probabilities.items()
    }
    return {
        figure: {name: as_json(estimates[figure]) for name, estimates in found.items()}
        for figure in found["before"]
    }


def _cross_fitted_rates(cases: Cases, crossed: CrossFit) -> dict[str, Any]:
    def figures(truth: NDArray[np.int32], called: NDArray[np.float64]) -> dict[str, float]:
        counts = metrics.confusion(truth, called, 0.5)
        return {"sensitivity": counts.sensitivity, "specificity": counts.specificity}

    return {
        name: {
            figure: as_json(estimate)
            for figure, estimate in bootstrap_all(
                figures, cases.truth, called.astype(np.float64), cases.patients
            ).items()
        }
        for name, called in crossed.called.items()
    }


def _draw(
    run: Path, before: Cases, after: Cases, crossed: CrossFit, found: dict[str, Any]
) -> dict[str, Path]:
    points, positive = found["operating_points"], found["data"]["positive_class"]
    auc = metrics.Estimate(**found["auc"]["after"])
    curves = [
        Curve(label, before.truth, probability)
        for label, probability in (
            ("before", before.probability),
            ("after, same data", after.probability),
            ("after, cross-fitted", crossed.probability),
        )
    ]
    name = f"{found['to']['name']} {found['to']['version']}"
    return {
        "roc": plots.roc(
            run / "roc.png",
            [Curve(f"per breast: AUC {auc}", after.truth, after.probability)],
            [Rates(p["name"], p["sensitivity"], p["specificity"]) for p in points],
            name,
        ),
        "reliability": plots.reliability(run / "reliability.png", curves),
        "confusion": plots.confusion(
            run / "confusion.png",
            {
                p["name"]: metrics.confusion(after.truth, after.probability, p["threshold"])
                for p in points
            },
            (f"not {positive}", positive),
            "per breast, same data as the thresholds",
        ),
    }
