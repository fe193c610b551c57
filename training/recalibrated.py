"""A calibration's figures -> the new version of the bundle, its model card, and the run's page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from app.bundle import ENCODER, FIGURES, HEAD, MODEL_CARD, Bundle, new_version, seal
from training.figures import as_text
from training.page import Section, Table, write_page

CALIBRATION = "calibration.json"
_FIGURES = {
    "brier": "Brier score",
    "expected_calibration_error": "Expected calibration error",
    "mean_probability": "Mean probability",
}
_WHEN = {"before": "before", "after": "after, same data", "cross_fitted": "after, cross-fitted"}
_CROSS_FITTED = (
    "Cross-fitted: temperature and thresholds of four fifths of the patients, measured on the "
    "other fifth, which is what to expect of new patients; on the same data the figures flatter."
)
_TEMPERATURE = (
    "A temperature draws all probabilities towards even or away from it. It does not move them to "
    "another prevalence: where the mean probability is far from the prevalence above, it still is."
)


def write_version(
    target: Path,
    source: Bundle,
    found: Mapping[str, Any],
    pictures: Mapping[str, Path],
    figures: Path,
) -> Bundle:
    """Write ``source`` with the temperature and operating points that were found to ``target``,
    ``<store>/<name>/<version>``, whole or not at all.

    The graphs are the bytes that were measured; the files of the training stay as they are, but
    for ``figures``, which are of the new temperature. Raises as ``app.bundle.new_version``.
    """
    old = source.manifest
    points = found["operating_points"]
    names = {point["name"] for point in points}
    keeps_default = old.default_operating_point in names
    manifest = old.model_dump(exclude={"files"}) | {
        "name": target.parent.name,
        "version": target.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "temperature": found["temperature"]["after"],
        "operating_points": points,
        "default_operating_point": old.default_operating_point if keeps_default else "balanced",
        "data": old.data
        | {
            "prevalence": found["data"]["prevalence"],
            "calibration": {"of": found["of"], **found["data"]},
        },
    }
    with new_version(target) as work:
        for name in old.files:
            shutil.copyfile(source.folder / name, work / name)
        (work / ENCODER).write_bytes(source.encoder)
        (work / HEAD).write_bytes(source.head)
        (work / CALIBRATION).write_text(json.dumps(found, indent=1))
        shutil.copyfile(figures, work / FIGURES)
        for name in ("roc", "reliability"):
            shutil.copyfile(pictures[name], work / f"calibration_{name}.png")
        card = (source.folder / MODEL_CARD).read_text()
        (work / MODEL_CARD).write_text(recalibrated_card(card, found))
        sealed = seal(work, manifest)
    return replace(sealed, folder=target)


def recalibrated_card(card: str, found: Mapping[str, Any]) -> str:
    """The card under its new name, with a section on the calibration before all others."""
    rest = card.partition("\n")[2] if card.startswith("# ") else card
    first, heading, others = rest.partition("\n## ")
    name, version = found["to"]["name"], found["to"]["version"]
    return f"# {name} {version}\n{first}\n{_card_section(found)}{heading}{others}"


def _card_section(found: Mapping[str, Any]) -> str:
    of, to, data = found["of"], found["to"], found["data"]
    figures, points = _figures(found), _points(found)
    return f"""## Calibration of {to["version"]}

The weights are those of {of["name"]} {of["version"]} (SHA-256 of its manifest `{of["sha256"]}`),
byte for byte. Only the temperature ({found["temperature"]["before"]:.3f} before,
{found["temperature"]["after"]:.3f} now) and the operating points were measured anew. **They replace
those given below**; all other figures below are of {of["name"]} {of["version"]}.

Measured on {data["patients"]} patients, {data["breasts"]} breasts, {data["images"]} images
({data["images_left_out"]} left out as unusable); {data["positive_breasts"]} breasts of
{data["positive_patients"]} patients are positive, a prevalence of {data["prevalence"]:.3f}.
Fingerprint of the data: `{data["fingerprint_sha256"]}`. Terms of the data: {data["terms"]}

{_markdown(figures)}

{_markdown(points)}

{_CROSS_FITTED} {_TEMPERATURE}
95 % bootstrap intervals by patient.
"""


def _figures(found: Mapping[str, Any]) -> Table:
    return Table(
        ("figure per breast", *_WHEN.values()),
        [
            (label, *(as_text(found[figure][when]) for when in _WHEN))
            for figure, label in _FIGURES.items()
        ],
    )


def _points(found: Mapping[str, Any]) -> Table:
    def interval(point: Mapping[str, Any], rate: str) -> str:
        low, high = point[f"{rate}_interval"]
        return f"{point[rate]:.3f} [{low:.3f}, {high:.3f}]"

    crossed = found["operating_points_cross_fitted"]
    rates = ("sensitivity", "specificity")
    return Table(
        ("operating point", "threshold", *rates, *(f"{rate}, cross-fitted" for rate in rates)),
        [
            (
                point["name"],
                f"{point['threshold']:.3f}",
                *(interval(point, rate) for rate in rates),
                *(as_text(crossed[point["name"]][rate]) for rate in rates),
            )
            for point in found["operating_points"]
        ],
    )


def _markdown(table: Table) -> str:
    rows = [table.headings, ["---"] * len(table.headings), *table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_calibration_page(
    run: Path, found: Mapping[str, Any], pictures: Mapping[str, Path]
) -> Path:
    """Write ``report.html`` of a calibration."""
    of, to, data = found["of"], found["to"], found["data"]
    counts = ("images", "breasts", "positive_breasts", "patients", "positive_patients")
    sections = [
        Section(
            "What it was measured on",
            (
                f"Data fingerprint {data['fingerprint_sha256']}; split {data['split']}; positive "
                f"class {data['positive_class']}; {data['images_left_out']} image(s) left out as "
                f"unusable. Terms of the data: {data['terms']}",
            ),
            Table(
                (*(name.replace("_", " ") for name in counts), "prevalence"),
                [(*(str(data[name]) for name in counts), f"{data['prevalence']:.3f}")],
            ),
        ),
        Section(
            "Calibration",
            (
                f"Temperature {found['temperature']['before']:.3f} before, "
                f"{found['temperature']['after']:.3f} now.",
                _CROSS_FITTED,
                _TEMPERATURE,
            ),
            _figures(found),
            (pictures["reliability"],),
        ),
        Section(
            "Operating points",
            (),
            _points(found),
            (pictures["roc"], pictures["confusion"]),
        ),
    ]
    title = f"Calibration of {to['name']} {to['version']}"
    lead = f"The weights of {of['name']} {of['version']}; a new temperature and operating points."
    return write_page(run, title, lead, sections)
