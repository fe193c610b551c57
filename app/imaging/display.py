"""Pixels -> the small 8-bit picture of the whole image that overlays are drawn on."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import Crop

_SAMPLED_SIDE = 160  # pixels a side from which the grey range is estimated


def displayed(pixels: NDArray[Any], long_side: int, *, inverted: bool) -> NDArray[np.uint8]:
    """Shrink uint8 or uint16 [rows, columns] to at most ``long_side`` and stretch the grey range
    to 8 bit; small images are not enlarged. ``inverted`` turns the grey scale."""
    rows, columns = pixels.shape
    height, width = _fitted(rows, columns, long_side)
    whole = min(rows // height, columns // width)
    if whole > 1:  # averaging by a whole factor first is several times cheaper
        size = (columns // whole, rows // whole)
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    step = max(1, max(pixels.shape) // _SAMPLED_SIDE)
    low, high = np.percentile(pixels[::step, ::step], (0.5, 99.8))
    grey = cv2.convertScaleAbs(cv2.subtract(pixels, low), alpha=255.0 / max(high - low, 1.0))
    if grey.shape != (height, width):
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(255 - grey if inverted else grey, np.uint8)


def smaller(picture: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Shrink a picture [height, width] to at most ``long_side``."""
    rows, columns = picture.shape
    height, width = _fitted(rows, columns, long_side)
    if (height, width) == picture.shape:
        return picture
    return np.asarray(cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA), np.uint8)


def crop_in(picture: NDArray[Any], crop: Crop, rows: int, columns: int) -> Crop:
    """``crop``, in pixels of an image of ``rows`` x ``columns``, in those of its ``picture``."""
    height, width = picture.shape
    down, across = height / rows, width / columns
    top, left = round(crop.top * down), round(crop.left * across)
    bottom = min(height, round((crop.top + crop.height) * down))
    right = min(width, round((crop.left + crop.width) * across))
    return Crop(left, top, right - left, bottom - top, crop.flipped)


def _fitted(rows: int, columns: int, long_side: int) -> tuple[int, int]:
    zoom = min(1.0, long_side / max(rows, columns))
    return max(1, round(rows * zoom)), max(1, round(columns * zoom))
