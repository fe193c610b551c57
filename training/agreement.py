"""How far two readings of the same images agree: probabilities, heatmaps and their peaks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Readings:
    """What a bundle says of the images, each alone, and of the breasts, all views together.

    ``image`` float64 [images] and ``breast`` [breasts]: calibrated probability of the positive
    class; ``heatmaps`` float32 [images, rows, columns] of the positive class.
    """

    image: NDArray[np.float64]
    breast: NDArray[np.float64]
    heatmaps: NDArray[np.float32]


def agreement(mine: Readings, reference: Readings) -> dict[str, Any]:
    """Image by image: of calibrated probabilities and of heatmaps. Peaks are apart by a part of the
    breast's bounding box, whose sides are 1."""
    difference = np.abs(mine.image - reference.image)
    correlation = heatmap_correlation(mine.heatmaps, reference.heatmaps)
    apart = np.linalg.norm(_peaks(mine.heatmaps) - _peaks(reference.heatmaps), axis=1)
    return {
        "probability_difference": {
            "mean": float(difference.mean()),
            "largest": float(difference.max()),
        },
        "heatmap_correlation": {
            "mean": float(correlation.mean()),
            "fifth_percentile": float(np.percentile(correlation, 5)),
            "worst": float(correlation.min()),
        },
        "peak_distance": {
            "mean": float(apart.mean()),
            "moved_share": float(np.mean(apart > 0)),
            "largest": float(apart.max()),
        },
    }


def heatmap_correlation(
    heatmaps: NDArray[np.float32], reference: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Pearson correlation of each map with that of the reference, float64 [images]; maps of another
    grid are resized to it. A flat map correlates with another flat one (1) and no other (0)."""
    rows, columns = reference.shape[1:]
    if heatmaps.shape != reference.shape:
        heatmaps = np.stack([cv2.resize(one, (columns, rows)) for one in heatmaps])
    a, b = (
        maps.reshape(len(maps), -1).astype(np.float64) - maps.mean(axis=(1, 2))[:, None]
        for maps in (heatmaps, reference)
    )
    spread = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    flat = (np.ptp(heatmaps, axis=(1, 2)) == 0).astype(int) + (np.ptp(reference, axis=(1, 2)) == 0)
    exact = (a * b).sum(axis=1) / np.where(flat > 0, 1.0, spread)
    return np.asarray(np.where(flat == 0, exact, flat == 2))


def _peaks(heatmaps: NDArray[np.float32]) -> NDArray[np.float64]:
    """(row, column) of each map's largest value, as parts of height and width, [images, 2]."""
    rows, columns = heatmaps.shape[1:]
    place = np.stack(
        np.unravel_index(heatmaps.reshape(len(heatmaps), -1).argmax(axis=1), (rows, columns)),
        axis=1,
    )
    return np.asarray((place + 0.5) / (rows, columns))
