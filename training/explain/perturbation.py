"""Deletion and insertion curves of heatmaps (Petsiuk et al., BMVC 2018, arXiv:1806.07421).

Pixels are taken from the breast in the order of a map, most important first, or put back into an
image that has none, and the model is asked along the way. A map that shows what the score rests on
lets it fall fast when pixels go and rise fast when they come: a small area under the deletion
curve and a large one under the insertion curve.

What is taken away is replaced by the breast itself, heavily blurred, which is nearer to what the
model knows than black. Every map that is compared has the same grid and is enlarged in the same
way, and only pixels of the breast are ordered, so that no map wins or loses by its smoothness or
by spending steps on air.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from app.bundle import Manifest
from app.inference.sessions import Sessions
from training.explain.heatmaps import breast_of, encode, enlarged, on_grid, read_alone

CURVES = ("deletion", "insertion")


@dataclass(frozen=True)
class Curve:
    """``probabilities`` of the positive class after each step, the untouched (deletion) or empty
    (insertion) image first; ``area`` under them over the share of the breast that was changed."""

    image: str
    patient_id: str
    order: str  # "heatmap", "brightness", "centre" or "random"
    draw: int  # of the random order
    curve: str  # "deletion" or "insertion"
    area: float
    probabilities: Sequence[float]


def most_suspicious(
    probability: NDArray[np.float64],
    heatmaps: NDArray[np.float32],
    patients: Sequence[str],
    count: int,
    rng: np.random.Generator,
) -> list[int]:
    """``count`` images at random from the quarter with the highest probability, where there is
    something to delete; one a patient, and none without a heatmap. Fewer if there are not so many.
    """
    upper = np.flatnonzero(probability >= np.quantile(probability, 0.75))
    chosen: dict[str, int] = {}
    for index in rng.permutation(upper):
        if len(chosen) < count and heatmaps[index].max() > 0:
            chosen.setdefault(patients[index], int(index))
    return sorted(chosen.values())


def curves(
    sessions: Sessions,
    manifest: Manifest,
    image: NDArray[np.uint8],
    heatmap: NDArray[np.float32],
    name: str,
    patient_id: str,
    *,
    steps: int,
    random_orders: int,
    seed: Sequence[int],
) -> list[Curve]:
    """Deletion and insertion in the order of the ``heatmap`` [rows, columns] of an ``image`` uint8
    [height, width], and of the baselines."""
    rng = np.random.default_rng(seed)
    empty = blurred(image, len(heatmap))
    found: list[Curve] = []
    for order_name, draw, grid_map in _orders(image, heatmap, random_orders, rng):
        order = pixel_order(image, grid_map, rng)
        for curve in CURVES:
            start, end = (image, empty) if curve == "deletion" else (empty, image)
            features = encode(sessions, exchanged(start, end, order, steps))
            along = read_alone(sessions, features, manifest).probability
            area = float(np.trapezoid(along, dx=1 / steps))
            found.append(Curve(name, patient_id, order_name, draw, curve, area, along.tolist()))
    return found


def blurred(image: NDArray[np.uint8], cells: int) -> NDArray[np.uint8]:
    """The breast without detail: a Gaussian of the size of one of ``cells`` rows, over the breast
    alone, so that its outline stays."""
    inside = breast_of(image)
    sigma = image.shape[0] / cells
    weight = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), sigma)
    spread = cv2.GaussianBlur(np.where(inside, image, 0).astype(np.float32), (0, 0), sigma)
    smooth = spread / np.maximum(weight, 1e-6)
    return np.where(inside, np.rint(smooth), image).astype(np.uint8)


def pixel_order(
    image: NDArray[np.uint8], grid_map: NDArray[np.float32], rng: np.random.Generator
) -> NDArray[np.intp]:
    """Flat indices of the breast's pixels, highest first in the enlarged map; where it is level,
    in the order of a random map, so that a level map is a random one."""
    score = enlarged(grid_map, image.shape).ravel()
    tie = enlarged(rng.random(grid_map.shape, np.float32), image.shape).ravel()
    inside = np.flatnonzero(breast_of(image))
    return inside[np.lexsort((-tie[inside], -score[inside]))]


def exchanged(
    start: NDArray[np.uint8], end: NDArray[np.uint8], order: NDArray[np.intp], steps: int
) -> NDArray[np.uint8]:
    """``start`` turned into ``end`` in equal ``steps``, uint8 [steps + 1, height, width]."""
    images = np.repeat(start[np.newaxis], steps + 1, axis=0)
    for step in range(1, steps + 1):
        first = order[: round(len(order) * step / steps)]
        images[step].flat[first] = end.flat[first]
    return images


def _orders(
    image: NDArray[np.uint8],
    heatmap: NDArray[np.float32],
    random_orders: int,
    rng: np.random.Generator,
) -> Iterator[tuple[str, int, NDArray[np.float32]]]:
    grid = heatmap.shape
    yield "heatmap", 0, heatmap
    yield "brightness", 0, on_grid(image, grid)
    yield "centre", 0, nearness_to_centre(image, grid)
    for draw in range(random_orders):
        yield "random", draw, rng.random(grid, np.float32)


def nearness_to_centre(image: NDArray[np.uint8], grid: tuple[int, ...]) -> NDArray[np.float32]:
    """A map of ``grid`` that falls with the distance to the centre of mass of the breast's
    outline, in pixels."""
    rows, columns = np.nonzero(breast_of(image))
    height, width = image.shape
    y = (np.arange(grid[0]) + 0.5) * height / grid[0]
    x = (np.arange(grid[1]) + 0.5) * width / grid[1]
    distance = np.hypot(y[:, None] - rows.mean(), x[None, :] - columns.mean())
    return np.asarray(np.hypot(height, width) - distance, np.float32)
