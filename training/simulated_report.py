"""What a simulated set holds, and what could be told from it: metrics and the page."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from training import simulated_plots as plots
from training.ideal_observer import READERS, Observed
from training.metrics import Estimate, auc, bootstrap
from training.page import Section, Table, write_page
from training.run_folder import write_metrics
from training.simulate import COURSES, SimulatedSeries, Timeline
from training.simulated_plots import Made

SOURCES = (
    "Peer et al., Cancer 1993;71:3547-51 (doubling times of breast cancers by age).",
    "Weedon-Fekjaer et al., Breast Cancer Res 2008;10:R41 (growth of screen-detected cancers).",
    "Fornvik et al., Radiat Prot Dosimetry 2016;169:151-7 (doubling times of invasive cancers).",
    "Gordon et al., Radiology 2003;229:233-8 (acceptable growth of fibroadenomas).",
    "Sterns, Surg Gynecol Obstet 1992;174:36-40 (cysts recur).",
    "Study dates: ECOG-ACRIN EA1141, Comstock et al., The Cancer Imaging Archive, CC BY 4.0.",
)


def write_simulated_report(
    run: Path, made: Sequence[Made], observed: Sequence[Observed], intervals: NDArray[np.int64]
) -> None:
    """Write ``metrics.json``, plots and ``report.html`` into ``run``."""
    of_course = {course: sum(m.course == course for m in made) for course in COURSES}
    final = np.array([m.diameters_mm[-1] for m in made])
    growing = np.array([m.course == "growing" for m in made], np.int32)
    metrics: dict[str, Any] = {
        "series": len(made),
        "exams": sum(len(m.days) for m in made),
        "series_of_course": of_course,
        "ideal_observer": [asdict(row) for row in observed],
    }
    if 0 < growing.sum() < len(made):
        by_size = bootstrap(auc, growing, final, [m.name for m in made])
        metrics["auc_of_final_diameter"] = asdict(by_size)
    write_metrics(run, metrics)

    plots.plot_doubling(run / "doubling_times.png", made)
    plots.plot_intervals(run / "intervals.png", made, intervals)
    plots.plot_diameters(run / "diameters.png", made)
    plots.plot_final(run / "final_sizes.png", made)
    plots.plot_observer(run / "ideal_observer.png", observed)
    plots.plot_sheet(run / "examples.png", [_read(run, m) for m in _examples(made)])

    counts = [[c, str(of_course[c]), "positive" if c == "growing" else ""] for c in COURSES]
    sections = [
        Section("Courses", table=Table(("course", "series", ""), counts)),
        Section("Examples", pictures=[run / "examples.png"]),
        Section(
            "What could be told at all",
            (
                "Gradient boosting on true diameters with a stated measurement error, growing "
                "against all other courses, AUC with 95 % interval. No reader of the pictures "
                "with the same error can do much better. How often each course and programme is "
                "drawn was tuned so that order and days matter here.",
            ),
            _observer_table(observed),
            [run / "ideal_observer.png"],
        ),
        Section(
            "What was drawn",
            pictures=[
                run / f"{name}.png"
                for name in ("doubling_times", "intervals", "diameters", "final_sizes")
            ],
        ),
        Section("Sources", SOURCES),
    ]
    lead = (
        f"{len(made)} series, {metrics['exams']} exams, of masses composited into lesion-free "
        "mammograms. Masses do what their course says and nothing else; breasts do not change; "
        "there are no calcifications. All dates are made up."
    )
    write_page(run, "Simulated exam series", lead, sections)


def _observer_table(observed: Sequence[Observed]) -> Table:
    rows: defaultdict[tuple[int, float], dict[str, str]] = defaultdict(dict)
    for o in observed:
        rows[o.exams, o.error][o.reader] = str(Estimate(o.auc, o.low, o.high))
    return Table(
        ("exams", "error of a diameter", *READERS),
        [
            [str(exams), f"{error:.0%}", *(cells.get(reader, "") for reader in READERS)]
            for (exams, error), cells in sorted(rows.items(), key=lambda row: row[0][::-1])
        ],
    )


def _examples(made: Sequence[Made]) -> list[Made]:
    """Of every course, the first of the series with the most exams."""
    found = []
    for course in COURSES:
        of_course = [m for m in made if m.course == course]
        if of_course:
            found.append(max(of_course, key=lambda m: len(m.days)))
    return found


def _read(run: Path, made: Made) -> SimulatedSeries:
    read = [cv2.imread(str(run / image), cv2.IMREAD_GRAYSCALE) for image in made.images]
    timeline = Timeline(
        tuple(made.days),
        made.final_diameter_mm,
        made.growing_doubling_days,
        made.slow_doubling_days,
    )
    return SimulatedSeries(
        images=np.stack([image for image in read if image is not None]).astype(np.uint8),
        timeline=timeline,
        course=made.course,
        lesion_px=np.array(made.lesion_px, np.float32),
        diameters_mm=tuple(made.diameters_mm),
    )
