"""Grad-CAM map -> plain map, overlay on the mammogram, peak and transform to original pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import Crop

_OPACITY = 0.55  # of the overlay where the map is at its maximum
_JPEG_QUALITY = 85
_HALF = 0.5  # of the peak: what the box holds

_LEVELS = np.arange(256, dtype=np.uint8)
# By map level: how much of the mammogram is kept, of 255, and the colour laid over it
_KEPT = np.rint(255 - _LEVELS * _OPACITY).astype(np.uint8)
_COLOUR = np.rint(
    cv2.applyColorMap(_LEVELS[:, None], cv2.COLORMAP_INFERNO)[:, 0]
    * (_LEVELS[:, None] * _OPACITY / 255)
).astype(np.uint8)

ImageType = Literal["jpeg", "png"]


@dataclass(frozen=True)
class Peak:
    """Where the map is highest, in original pixels (row and column of the cell's centre)."""

    row: float
    column: float


@dataclass(frozen=True)
class Box:
    """A box in original pixels, counted from the top left corner of the image."""

    top: float
    left: float
    height: float
    width: float


def peak(heatmap: NDArray[np.float32], crop: Crop) -> Peak | None:
    """The peak of a map [rows, columns]; None where the map is zero everywhere."""
    if not heatmap.max() > 0:
        return None
    rows, columns = heatmap.shape
    row, column = np.unravel_index(int(np.argmax(heatmap)), heatmap.shape)
    y, x = crop.to_original((float(row) + 0.5) / rows, (float(column) + 0.5) / columns)
    return Peak(y - 0.5, x - 0.5)  # counted from the centre of the first pixel


def box(heatmap: NDArray[np.float32], crop: Crop) -> Box | None:
    """The box around the cells that join the peak and reach half of its value; None where the map
    is zero everywhere."""
    if not heatmap.max() > 0:
        return None
    rows, columns = heatmap.shape
    warm = (heatmap >= _HALF * heatmap.max()).astype(np.uint8)
    _, regions = cv2.connectedComponents(warm, connectivity=8)
    here = regions == regions.ravel()[int(np.argmax(heatmap))]
    ys, xs = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
    one = crop.to_original(float(ys[0]) / rows, float(xs[0]) / columns)
    other = crop.to_original(float(ys[-1] + 1) / rows, float(xs[-1] + 1) / columns)
    left, right = sorted((one[1], other[1]))
    return Box(top=one[0], left=left, height=other[0] - one[0], width=right - left)


def map_to_original(heatmap: NDArray[np.float32], crop: Crop) -> list[list[float]]:
    """Affine matrix [2][3] from (column, row, 1) of the map's cells to (column, row) in original
    pixels; both count from the centre of the first cell and of the first pixel."""
    rows, columns = heatmap.shape
    step_x, step_y = crop.width / columns, crop.height / rows
    if crop.flipped:
        first_x, step_x = crop.left + crop.width - step_x / 2 - 0.5, -step_x
    else:
        first_x = crop.left + step_x / 2 - 0.5
    return [[step_x, 0.0, first_x], [0.0, step_y, crop.top + step_y / 2 - 0.5]]


def levels(heatmap: NDArray[np.float32], scale: float) -> NDArray[np.uint8]:
    """The map in steps of 1/255 of ``scale``, uint8 on its native grid."""
    if scale <= 0:
        return np.zeros(heatmap.shape, np.uint8)
    return np.asarray(np.clip(np.rint(heatmap * (255.0 / scale)), 0, 255).astype(np.uint8))


def encode_map(heatmap: NDArray[np.float32], scale: float) -> bytes:
    """The map on its native grid as 8-bit PNG; ``scale`` is the value that becomes 255."""
    return _encoded(".png", levels(heatmap, scale))


def encode_overlay(
    shown: NDArray[np.uint8],
    heatmap: NDArray[np.float32],
    box: Crop,
    *,
    scale: float,
    image_type: ImageType,
) -> tuple[bytes, int, int]:
    """``draw_overlay`` as a file; returns it with its height and width."""
    picture = draw_overlay(shown, heatmap, box, scale=scale)
    height, width = picture.shape[:2]
    return _encoded(f".{image_type}", picture), height, width


def draw_overlay(
    shown: NDArray[np.uint8], heatmap: NDArray[np.float32], box: Crop, *, scale: float
) -> NDArray[np.uint8]:
    """The mammogram with the map over it, uint8 [height, width, blue green red].

    ``shown`` [height, width] is the picture to draw on and ``box`` the crop in its pixels: only
    the breast that the model saw is coloured. ``scale`` is the map value of full colour.
    """
    rows = slice(box.top, box.top + box.height)
    columns = slice(box.left, box.left + box.width)
    picture: NDArray[Any] = cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)
    heat: NDArray[Any] = cv2.flip(heatmap, 1) if box.flipped else heatmap
    picture[rows, columns] = _blend(shown[rows, columns], levels(heat, scale))
    return picture


def _blend(grey: NDArray[np.uint8], heat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Colour ``grey`` [rows, columns] by the small map ``heat``; returns [rows, columns, 3].

    The colours are made at a quarter of the size, where a map of few cells loses nothing.
    """
    height, width = grey.shape
    quarter = (max(1, width // 4), max(1, height // 4))
    heat = np.asarray(cv2.resize(heat, quarter, interpolation=cv2.INTER_CUBIC), np.uint8)
    colour = cv2.resize(_COLOUR[heat], (width, height), interpolation=cv2.INTER_LINEAR)
    kept = cv2.resize(_KEPT[heat], (width, height), interpolation=cv2.INTER_LINEAR)
    faded = cv2.multiply(grey, kept, scale=1 / 255)
    return np.asarray(cv2.add(cv2.cvtColor(faded, cv2.COLOR_GRAY2BGR), colour), np.uint8)


def _encoded(suffix: str, image: NDArray[np.uint8]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY] if suffix == ".jpeg" else []
    done, data = cv2.imencode(suffix, image, options)
    if not done:
        raise RuntimeError(f"OpenCV cannot write {suffix}")
    return data.tobytes()
