"""Mammograms as they arrive when something went wrong on the way: what the gate must refuse, but
for an inverted one, which the service understands."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.imaging.preprocess import Crop

_TINY = 160  # rows, where the training images have 640


def _inverted(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    return np.asarray(pixels.max() - pixels)


def _nipple_side_cut_off(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    middle = crop.left + crop.width // 2
    return pixels[:, middle:] if crop.flipped else pixels[:, :middle]


def _lower_half_cut_off(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    return pixels[: crop.top + crop.height // 2]


def _upper_half_cut_off(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    return pixels[crop.top + crop.height // 2 :]


def _overexposed(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    """The brighter half of the breast becomes white."""
    ceiling = int(pixels.max())
    median = np.median(pixels[pixels > ceiling / 10])
    return np.asarray(np.minimum(pixels * (ceiling / median), ceiling), pixels.dtype)


def _tiny(pixels: NDArray[Any], crop: Crop) -> NDArray[Any]:
    rows, columns = pixels.shape
    size = (max(1, columns * _TINY // rows), _TINY)
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


SPOILED: MappingProxyType[str, Callable[[NDArray[Any], Crop], NDArray[Any]]] = MappingProxyType(
    {
        "inverted": _inverted,
        "nipple's half cut off": _nipple_side_cut_off,
        "lower half cut off": _lower_half_cut_off,
        "upper half cut off": _upper_half_cut_off,
        "half of it saturated": _overexposed,
        f"{_TINY} rows": _tiny,
    }
)
