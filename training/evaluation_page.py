"""The figures of an evaluation -> its page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.figures import MIN_CASES, as_text
from training.page import Section, Table, write_page

_FIGURES = {
    "auc": "ROC AUC",
    "pr_auc": "PR AUC (average precision)",
    "sensitivity_at_90_specificity": "Sensitivity at 90 % specificity",
    "specificity_at_90_sensitivity": "Specificity at 90 % sensitivity",
    "brier": "Brier score",
    "expected_calibration_error": "Expected calibration error",
    "mean_probability": "Mean probability",
}
_AT_A_POINT = {
    "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity",
    "precision": "precision", "f1": "F1",
}  # fmt: skip


def write_evaluation_page(
    run: Path, found: Mapping[str, Any], pictures: Mapping[str, Path]
) -> Path:
    """Write ``report.html`` of an evaluation's ``metrics.json`` and plots."""
    bundle, data = found["bundle"], found["data"]
    left_out = len(data["left_out"])
    sections = [
        Section(
            "What was measured",
            (
                f"Bundle {bundle['name']} {bundle['version']}, SHA-256 {bundle['sha256']}.",
                f"Split {data['split']}; data fingerprint {data['fingerprint_sha256']}; positive "
                f"class {data['positive_class']}. Terms of the data: {data['terms']}",
                f"Images that the service refuses, left out: {left_out}. Breasts whose exams were "
                f"read as a series of several: {data['series_of_several_exams']}.",
                "Image: each alone. Breast: its views together, after its last exam, with its "
                "priors. Exam: all images of a patient at one date, the more suspicious breast.",
                *(
                    f"Every {unit} is of one class: there are no figures per {unit}."
                    for unit in data["units_of_one_class"]
                ),
            ),
            _counts(found["units"]),
        ),
        Section(
            "Figures",
            ("95 % bootstrap intervals by patient.",),
            Table(
                ("figure", *(f"per {unit}" for unit in found["units"])),
                [
                    (label, *(as_text(unit[name]) for unit in found["units"].values()))
                    for name, label in _FIGURES.items()
                ],
            ),
            (pictures["roc"], pictures["precision_recall"]),
        ),
        Section(
            "Operating points",
            (
                "The thresholds of the bundle, fixed before this evaluation; they are thresholds "
                "on the calibrated probability of a breast.",
            ),
            _points(found["units"]),
            (pictures["confusion"],),
        ),
        Section(
            "Calibration",
            (
                "Bins of equal count. The probability holds at the prevalence of the data that the "
                "bundle was calibrated on.",
            ),
            pictures=(pictures["reliability"],),
        ),
        Section(
            "Decision curve",
            (
                "Net benefit (Vickers & Elkin 2006): worth using where the model lies above both "
                "calling every case and calling none. It holds at the prevalence of these data.",
            ),
            pictures=(pictures["decision_curve"],),
        ),
    ]
    if found["subgroups"]:
        sections.append(_subgroups(found, pictures["subgroups"]))
    if "history" in pictures:
        sections.append(Section("Training curves", pictures=(pictures["history"],)))
    title = f"Evaluation of {bundle['name']} {bundle['version']}"
    lead = "Read through the serving path: what is measured is what is deployed."
    return write_page(run, title, lead, sections)


def _counts(units: Mapping[str, Any]) -> Table:
    return Table(
        ("unit", "cases", "positive", "patients", "prevalence"),
        [
            (
                unit,
                *(str(figures["counts"][name]) for name in ("cases", "positives", "patients")),
                f"{figures['counts']['prevalence']:.3f}",
            )
            for unit, figures in units.items()
        ],
    )


def _points(units: Mapping[str, Any]) -> Table:
    return Table(
        ("unit", "operating point", "threshold", *_AT_A_POINT.values()),
        [
            (unit, name, f"{at['threshold']:.3f}", *(as_text(at[figure]) for figure in _AT_A_POINT))
            for unit, figures in units.items()
            for name, at in figures["operating_points"].items()
        ],
    )


def _subgroups(found: Mapping[str, Any], picture: Path) -> Section:
    rows = [
        (
            f"{column}: {row['group']}",
            by["unit"],
            str(row["cases"]),
            str(row["positives"]),
            str(row["patients"]),
            *(
                as_text(row[figure]) if row[figure] else "too few cases"
                for figure in ("auc", "sensitivity", "specificity")
            ),
        )
        for column, by in found["subgroups"].items()
        for row in by["groups"]
    ]
    return Section(
        "Subgroups",
        (
            f"Groups with fewer than {MIN_CASES} cases of a class are listed with their counts "
            "alone. Sensitivity and specificity at the operating point "
            f"{found['default_operating_point']}. Many groups are looked at: one that differs "
            "may do so by chance.",
        ),
        Table(
            ("group", "unit", "cases", "positive", "patients", "AUC", "sensitivity", "specificity"),
            rows,
        ),
        (picture,),
    )
