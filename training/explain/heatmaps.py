"""Breasts -> probability and heatmap of the positive class, through the graphs that are served."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from app.bundle import Manifest
from app.imaging.preprocess import to_tensor
from app.inference.probability import calibrated
from app.inference.sessions import Features, Sessions

_AT_ONCE = 32
_BACKGROUND_GREY = 10  # of a preprocessed breast; air is 0, but for compression and noise


@dataclass(frozen=True)
class Answers:
    """``probability`` float64 [n], calibrated, of the positive class; ``heatmaps`` float32 [n,
    rows, columns] of that class, of the last exam's first view."""

    probability: NDArray[np.float64]
    heatmaps: NDArray[np.float32]


def encode(sessions: Sessions, images: NDArray[np.uint8]) -> Features:
    """Encode uint8 [n, height, width], one image a call and as many calls at once as there are
    cores: as it is served."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = list(pool.map(lambda image: sessions.encode(to_tensor(image)[np.newaxis]), images))
    return Features(
        np.concatenate([part.maps for part in parts]),
        np.concatenate([part.pooled for part in parts]),
    )


def read_many(sessions: Sessions, images: NDArray[np.uint8], manifest: Manifest) -> Answers:
    """Encode and read any number of images, each alone, with a progress bar; their feature maps
    are not kept."""
    parts = []
    with tqdm(total=len(images), desc="read", unit="image") as bar:
        for start in range(0, len(images), _AT_ONCE):
            features = encode(sessions, images[start : start + _AT_ONCE])
            parts.append(read_alone(sessions, features, manifest))
            bar.update(len(features.pooled))
    return Answers(
        np.concatenate([part.probability for part in parts]),
        np.concatenate([part.heatmaps for part in parts]),
    )


def read_alone(sessions: Sessions, features: Features, manifest: Manifest) -> Answers:
    """Read every encoded image as a series of one exam."""
    days = [0] * len(features.pooled)
    return read_series(sessions, features, [[day] for day in days], manifest)


def read_series(
    sessions: Sessions, features: Features, gaps: Sequence[Sequence[int]], manifest: Manifest
) -> Answers:
    """Read series of one view an exam, one after the other in ``features``; ``gaps`` are the days
    since the previous exam of each, 0 for the first."""
    probability, heatmaps = [], []
    start = 0
    for days in gaps:
        own = slice(start, start + len(days))
        start += len(days)
        reading = sessions.read(
            Features(features.maps[own], features.pooled[own]),
            np.arange(len(days), dtype=np.int32)[:, np.newaxis],
            np.array(days, np.float32),
        )
        probability.append(float(calibrated(reading.logits, manifest)))
        heatmaps.append(reading.heatmaps[-1, 0, manifest.positive_index])
    return Answers(np.array(probability), np.stack(heatmaps))


def breast_of(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which pixels of a preprocessed image [height, width] show the breast."""
    return np.asarray(image > _BACKGROUND_GREY)


def on_grid(image: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The mean of ``image`` in each cell of a map of ``grid`` rows and columns."""
    mean = cv2.resize(image, grid[::-1], interpolation=cv2.INTER_AREA)
    return np.asarray(mean, np.float32)


def cells_of_breast(image: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Cells of a map of ``grid`` that lie at least by half in the breast."""
    return np.asarray(on_grid(breast_of(image).astype(np.uint8) * 255, grid) >= 127.5)


def enlarged(grid_map: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """A map of cells, bilinear, at the ``shape`` of its image."""
    return np.asarray(cv2.resize(grid_map, shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)


def peak(grid_map: NDArray[np.float32], shape: tuple[int, int]) -> tuple[float, float] | None:
    """Row and column, in pixels of an image of ``shape``, of the centre of the highest cell; None
    where the map is empty."""
    if not grid_map.max() > 0:
        return None
    row, column = divmod(int(np.argmax(grid_map)), grid_map.shape[1])
    cell_height, cell_width = (s / g for s, g in zip(shape, grid_map.shape, strict=True))
    return (row + 0.5) * cell_height - 0.5, (column + 0.5) * cell_width - 0.5
