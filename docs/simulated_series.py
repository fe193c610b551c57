"""Make ``docs/images/simulated-series.png``: every course in the shipped CBIS-DDSM film.

python -m docs.simulated_series
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from app.imaging.decode import decode
from app.imaging.preprocess import InputGeometry, crop_breast
from training.config import SeriesConfig
from training.simulate import COURSES, read_intervals, simulate_series
from training.simulated_plots import plot_sheet

_FILM = Path(__file__).parents[1] / "examples" / "mammogram.dcm"
_PICTURE = Path(__file__).parent / "images" / "simulated-series.png"
_SEED = 519  # of a mass that is seen at every exam, whatever its course


def main() -> None:
    pixels, _ = decode(_FILM.read_bytes(), max_pixels=50_000_000)
    pixels = pixels[:, int(pixels.shape[1] * 0.03) :]  # the bright rim of the film
    breast, _, _ = crop_breast(pixels, InputGeometry(512, 320))
    intervals = read_intervals(SeriesConfig().study_dates)
    shown = [
        simulate_series(
            breast,
            course=course,
            exams=4,
            intervals=intervals,
            rng=np.random.default_rng(_SEED),
        )
        for course in COURSES
    ]
    plot_sheet(_PICTURE, shown, column_inches=1.4)


if __name__ == "__main__":
    main()
