"""Lesion-free breasts -> a data set of simulated exam series, as PNG files with a manifest.

The run folder: ``manifest.csv`` (like any other, one row an exam, every series a patient of its own
with made-up dates), ``images/``, ``truth.csv`` (one row a series), ``ideal_observer.csv``, plots of
what was drawn, ``metrics.json``, ``report.html``. A finished series is kept
under ``series/`` and reused, so a stopped run goes on where it was.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator
from tqdm import tqdm

from app.imaging.preprocess import InputGeometry
from training import breasts as breasts_module
from training import manifest
from training.breasts import Breasts
from training.config import DataConfig, Section
from training.ideal_observer import ideal_observer
from training.manifest import COLUMNS, LabelledImage, ManifestError
from training.run_folder import open_run, replace
from training.simulate import (
    draw_course,
    read_intervals,
    simulate_series,
)
from training.simulated_plots import Made
from training.simulated_report import write_simulated_report

MANIFEST = "manifest.csv"
FIRST_EXAM = date(2001, 1, 1)  # made up, and so are all others
EXTRA_COLUMNS = (
    "course", "diameter_mm", "lesion_row", "lesion_column", "source_patient", "source_image",
)  # fmt: skip
OBSERVER_ERRORS = (0.05, 0.10)


class SimulateConfig(Section):
    """``split`` names the patients whose lesion-free breasts are used; "all" keeps the split of
    each, so that a model can be trained on the set. ``exams`` are the fewest and the most."""

    run: Path
    cache: Path = Path("runs/cache")
    data: DataConfig
    split: Literal["train", "val", "all"] = "val"
    series: int = Field(200, ge=1)
    exams: tuple[int, int] = (2, 5)
    height: int = Field(512, ge=64, multiple_of=32)
    width: int = Field(320, ge=64, multiple_of=32)
    study_dates: Path = Path(__file__).parent / "data" / "ea1141_study_dates.csv"
    observer_series: int = Field(15000, ge=500)
    seed: int = 20261122

    @field_validator("exams")
    @classmethod
    def _in_order(cls, exams: tuple[int, int]) -> tuple[int, int]:
        fewest, most = exams
        if not 1 <= fewest <= most:
            raise ValueError(f"exams are [fewest, most], at least 1, not {list(exams)}")
        return exams


def simulate(config: SimulateConfig) -> Path:
    """Make, or finish, the set that ``config`` names. Returns its folder."""
    lesion_free, classes, intervals = _check(config)
    cv2.setNumThreads(1)
    run = open_run(config.run, config)
    breasts = _load(config, lesion_free, classes)
    made = [
        _make_once(run, config, breasts, intervals, i)
        for i in tqdm(range(config.series), "simulate", unit="series")
    ]
    sources = [breasts.rows[i % len(breasts)] for i in range(config.series)]
    _write_manifest(run / MANIFEST, made, sources, config.data.positive_class)
    _write_truth(run / "truth.csv", made)
    observed = ideal_observer(
        run / "ideal_observer.csv",
        exams=range(1, max(config.exams[1], 2) + 1),
        errors=OBSERVER_ERRORS,
        intervals=intervals,
        series=config.observer_series,
        seed=config.seed,
    )
    write_simulated_report(run, made, observed, intervals)
    return run


def _check(
    config: SimulateConfig,
) -> tuple[list[LabelledImage], tuple[str, ...], NDArray[np.int64]]:
    """Lesion-free images of the split, classes and intervals; raises ``ManifestError`` with
    everything that is wrong."""
    faults: list[str] = []
    sources: list[LabelledImage] = []
    classes: tuple[str, ...] = ()
    intervals = np.array([], np.int64)
    try:
        images = manifest.read(config.data.manifest, config.data.image_root)
        images = manifest.with_splits(images, config.data.val_fraction, config.seed)
        classes = manifest.classes_of(images, config.data.positive_class)
        wanted = manifest.SPLITS if config.split == "all" else (config.split,)
        sources = [
            image
            for image in images
            if image.split in wanted and image.label != config.data.positive_class
        ]
        if not sources:
            faults.append(f"no image of split {config.split!r} is free of lesions")
    except (ManifestError, OSError) as fault:
        faults.append(str(fault))
    try:
        intervals = read_intervals(config.study_dates)
        if not len(intervals):
            faults.append(f"{config.study_dates}: no patient has two study dates")
    except (OSError, KeyError, ValueError) as fault:
        faults.append(f"{config.study_dates}: no study dates can be read ({fault!r})")
    if faults:
        raise ManifestError("\n".join(faults))
    return sources, classes, intervals


def _load(
    config: SimulateConfig, sources: Sequence[LabelledImage], classes: Sequence[str]
) -> Breasts:
    """As many breasts as there are series, if there are so many; all are used equally often."""
    order = np.random.default_rng(config.seed).permutation(len(sources))[: config.series]
    size = InputGeometry(config.height, config.width)
    chosen = [sources[i] for i in order]
    breasts, left_out = breasts_module.load(chosen, classes, size, config.cache)
    if left_out:
        tqdm.write(f"{len(left_out)} image(s) left out")
    return breasts


def _make_once(
    run: Path, config: SimulateConfig, breasts: Breasts, intervals: NDArray[np.int64], index: int
) -> Made:
    """Make series ``index``, unless it is there; no series depends on another."""
    name = f"simulated-{index:05d}"
    record = run / "series" / f"{name}.json"
    if record.exists():
        return Made(**json.loads(record.read_text()))
    rng = np.random.default_rng([config.seed, index])
    fewest, most = config.exams
    source = index % len(breasts)
    series = simulate_series(
        breasts.pixels[source],
        course=draw_course(rng),
        exams=int(rng.integers(fewest, most + 1)),
        intervals=intervals,
        rng=rng,
    )
    images = [f"images/{name}/{exam}.png" for exam in range(1, len(series.images) + 1)]
    (run / images[0]).parent.mkdir(parents=True, exist_ok=True)
    for path, pixels in zip(images, series.images, strict=True):
        _, png = cv2.imencode(".png", pixels)
        (run / path).write_bytes(png.tobytes())
    made = Made(
        name=name,
        course=series.course,
        final_diameter_mm=series.timeline.final_diameter_mm,
        growing_doubling_days=series.timeline.growing_doubling_days,
        slow_doubling_days=series.timeline.slow_doubling_days,
        days=list(series.days),
        diameters_mm=list(series.diameters_mm),
        lesion_px=[[float(row), float(column)] for row, column in series.lesion_px],
        images=images,
    )
    record.parent.mkdir(exist_ok=True)
    # Written last: a series without its record is made again
    replace(record, lambda path: path.write_text(json.dumps(asdict(made))))
    return made


def _write_manifest(
    path: Path, made: Sequence[Made], sources: Sequence[LabelledImage], positive_class: str
) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS, "split", *EXTRA_COLUMNS])
        for series, source in zip(made, sources, strict=True):
            label = positive_class if series.course == "growing" else source.label
            for exam, image in enumerate(series.images):
                row, column = series.lesion_px[exam]
                writer.writerow(
                    [
                        image,
                        series.name,
                        FIRST_EXAM + timedelta(days=series.days[exam]),
                        source.laterality,
                        source.view,
                        label,
                        source.split,
                        series.course,
                        f"{series.diameters_mm[exam]:.2f}",
                        f"{row:.1f}",
                        f"{column:.1f}",
                        source.patient_id,
                        source.path.name,
                    ]
                )


def _write_truth(path: Path, made: Sequence[Made]) -> None:
    """One row a series; the doubling time is empty where the mass does not grow by one."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["patient_id", "course", "growing", "exams", "days", "diameters_mm", "doubling_days"]
        )
        for series in made:
            doubling = {
                "growing": f"{series.growing_doubling_days:.0f}",
                "slow": f"{series.slow_doubling_days:.0f}",
            }.get(series.course, "")
            writer.writerow(
                [
                    series.name,
                    series.course,
                    int(series.course == "growing"),
                    len(series.days),
                    " ".join(map(str, series.days)),
                    " ".join(f"{d:.2f}" for d in series.diameters_mm),
                    doubling,
                ]
            )
