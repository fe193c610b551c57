"""Pixels -> the small 8-bit picture of the whole image that overlays are drawn on."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import Crop

_SAMPLED_SIDE = 96  # pixels a side from which the grey range is estimated
_GREYS = (0.005, 0.998)  # of the pixels: what becomes black, and white


def displayed(pixels: NDArray[Any], long_side: int, *, inverted: bool) -> NDArray[np.uint8]:
    """Shrink uint8 or uint16 [rows, columns] to at most ``long_side`` and stretch the grey range
    to 8 bit; small images are not enlarged. ``inverted`` turns the grey scale."""
    rows, columns = pixels.shape
    height, width = fitted(rows, columns, long_side)
    small = _shrunk(pixels, height, width)
    low, high = grey_range(small)
    scale = 255.0 / max(high - low, 1)
    # raised to `low`, for OpenCV takes the absolute value of what lies below
    grey = cv2.convertScaleAbs(np.maximum(small, low), alpha=scale, beta=-low * scale)
    return np.asarray(255 - grey if inverted else grey, np.uint8)


def placed(
    picture: NDArray[np.uint8], crop: Crop, size: tuple[int, int], long_side: int
) -> tuple[NDArray[np.uint8], Crop]:
    """The picture of an image of ``size`` (rows, columns) with at most ``long_side``, and where its
    ``crop``, in pixels of the image, lies in it."""
    shown = smaller(picture, long_side)
    return shown, crop_in(shown, crop, *size)


def smaller(picture: NDArray[np.uint8], long_side: int) -> NDArray[np.uint8]:
    """Shrink a picture [height, width] to at most ``long_side``."""
    rows, columns = picture.shape
    height, width = fitted(rows, columns, long_side)
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


def fitted(rows: int, columns: int, long_side: int) -> tuple[int, int]:
    """Height and width of a picture of ``rows`` x ``columns`` that is shrunk, where that is needed,
    to at most ``long_side``."""
    zoom = min(1.0, long_side / max(rows, columns))
    return max(1, round(rows * zoom)), max(1, round(columns * zoom))


def _shrunk(pixels: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Halve as often as it can be, which is several times cheaper than any other factor; the rest
    is less than a half."""
    while (rows := pixels.shape[0] // 2) >= height and (columns := pixels.shape[1] // 2) >= width:
        even = pixels[: 2 * rows, : 2 * columns]
        pixels = cv2.resize(even, (columns, rows), interpolation=cv2.INTER_AREA)
    if pixels.shape == (height, width):
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)


def grey_range(pixels: NDArray[Any]) -> tuple[int, int]:
    """What is shown as black and as white of uint8 or uint16 [rows, columns]: the darkest and
    the brightest grey value, but for a few pixels."""
    step = max(1, max(pixels.shape) // _SAMPLED_SIDE)
    # numpy sorts 16 bits ten times as fast as 8, and faster than it finds percentiles
    sample = np.sort(pixels[::step, ::step].astype(np.uint16), axis=None)
    low, high = (round(share * (sample.size - 1)) for share in _GREYS)
    return int(sample[low]), int(sample[high])
