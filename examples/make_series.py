"""Make ``examples/series``: three exams with a simulated growing mass in a CBIS-DDSM mammogram.

python -m examples.make_series P_00820_RIGHT_CC.dcm
"""

from __future__ import annotations

import json
import sys
from datetime import date, timedelta
from pathlib import Path

import cv2
import numpy as np

from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, crop_breast
from training.config import SeriesConfig
from training.simulate import read_intervals, simulate_series

_FIRST_EXAM = date(2021, 3, 1)


def main(source: Path, target: Path) -> None:
    pixels, _ = decode(source.read_bytes(), max_pixels=50_000_000)
    pixels = pixels[:, : int(pixels.shape[1] * 0.97)]  # the bright rim of the film
    breast, crop, _ = crop_breast(pixels, InputGeometry(512, 320))
    made = simulate_series(
        breast,
        course="growing",
        exams=3,
        intervals=read_intervals(SeriesConfig().study_dates),
        rng=np.random.default_rng(20),
    )
    target.mkdir(exist_ok=True)
    exams = []
    for image, days in zip(made.images, made.days, strict=True):
        taken = str(_FIRST_EXAM + timedelta(days=days))
        # The side that it shows is seen by it: the chest wall lies where it lies in the film
        shown = image[:, ::-1] if crop.flipped else image
        cv2.imwrite(str(target / f"{taken}.png"), shown)
        exams.append({"date": taken, "files": [f"{taken}.png"]})
    (target / "series.json").write_text(json.dumps({"laterality": "R", "exams": exams}, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(__file__).parent / "series")
