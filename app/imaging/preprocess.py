"""Pixels -> tensor.

The breast is found, oriented with the chest wall on the left, cropped to its bounding box,
stretched to the model's input size and its grey values normalised by percentiles inside the
breast. Stretching, not padding: the training images had lost their native aspect ratio, and a
breast cropped to its bounding box looks the same whether its source kept the ratio or not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from app.problems import Refusal

PREPROCESSING_VERSION = "1"

_SEARCH_SIDE = 256  # long side, pixels, of the thumbnail on which the breast is looked for
_BRIGHT_BACKGROUND = 0.7  # of the grey range: a border brighter than this is un-inverted film
_BORDER = 1 / 80  # of the side: width of the frame that is read as background
_BACKGROUND_LEVEL = 0.06  # of the robust maximum: darker than this is air, not breast
_RIM = 0.03  # of the short side: how far the rim of a scanned film may reach in
_FRAME_LEVEL, _FRAME_FULL = 0.95, 0.98  # of white, and of a line: what makes a line of a frame
_FRAME_WIDTH = 0.05  # of the long side: a frame is thinner
_MARGIN = 0.01  # of the side, added around the breast
_PERCENTILES = (5.0, 99.5)


@dataclass(frozen=True)
class InputGeometry:
    """Height and width, in pixels, of the model's input."""

    height: int
    width: int


@dataclass(frozen=True)
class Crop:
    """Where the tensor comes from: a box in original pixels, and how it was turned.

    ``left``, ``top``, ``width`` and ``height`` are in original pixels. ``flipped`` says that the
    box was mirrored left to right before it was stretched to the input geometry.
    """

    left: int
    top: int
    width: int
    height: int
    flipped: bool

    def to_original(self, row: float, column: float) -> tuple[float, float]:
        """Map a position in the tensor, as fractions (0..1) of its height and width, to (row,
        column) in original pixels."""
        if self.flipped:
            column = 1.0 - column
        return self.top + row * self.height, self.left + column * self.width


@dataclass(frozen=True)
class ModelInput:
    """A preprocessed image.

    ``tensor`` is float32 [height, width, 1] in [-1, 1]; background near -1. ``inverted`` says
    that the grey scale was turned because the background was bright.
    """

    tensor: NDArray[np.float32]
    crop: Crop
    inverted: bool


def preprocess(pixels: NDArray[np.uint8] | NDArray[np.uint16], size: InputGeometry) -> ModelInput:
    """Turn grey pixels, uint8 or uint16 [rows, columns], into the model's input.

    Raises ``Refusal`` (``no_breast_found``) when nothing stands out from the background.
    """
    breast, crop, inverted = crop_breast(pixels, size)
    return ModelInput(to_tensor(breast), crop, inverted)


def to_tensor(breast: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale uint8 [..., height, width] to float32 [..., height, width, 1] in [-1, 1]."""
    return (breast.astype(np.float32) / np.float32(127.5) - np.float32(1))[..., np.newaxis]


def crop_breast(
    pixels: NDArray[np.uint8] | NDArray[np.uint16], size: InputGeometry
) -> tuple[NDArray[np.uint8], Crop, bool]:
    """Return the breast as uint8 [height, width], its crop, and whether it was inverted.

    Eight bits are enough after normalisation: one step is 0.4 % of the breast's grey range.
    """
    ceiling = pixels.max()
    top, left, pixels = _without_frame(pixels, ceiling)
    rows, columns = pixels.shape
    thumbnail, inverted = _upright(_thumbnail(pixels), ceiling)
    mask = _breast_mask(thumbnail)
    crop = _crop_around(mask, rows, columns)

    box: NDArray[Any] = pixels[
        crop.top : crop.top + crop.height, crop.left : crop.left + crop.width
    ]
    box = cv2.resize(box, (size.width, size.height), interpolation=cv2.INTER_AREA)
    if inverted:
        box = ceiling - box
    if crop.flipped:
        box = cv2.flip(box, 1)
    low, high = _percentiles(thumbnail[mask], _PERCENTILES)
    stretched = (box.astype(np.float32) - low) * (255.0 / max(high - low, 1.0))
    crop = replace(crop, left=left + crop.left, top=top + crop.top)
    return np.clip(np.rint(stretched), 0, 255).astype(np.uint8), crop, inverted


def is_inverted(pixels: NDArray[np.uint8] | NDArray[np.uint16]) -> bool:
    """Whether ``preprocess`` turns the grey scale; not where it finds no breast."""
    ceiling = pixels.max()
    _, _, inner = _without_frame(pixels, ceiling)
    thumbnail, inverted = _upright(_thumbnail(inner), ceiling)
    try:
        _breast_mask(thumbnail)
    except Refusal:
        return False
    return inverted


def _without_frame(pixels: NDArray[Any], ceiling: Any) -> tuple[int, int, NDArray[Any]]:
    """The image within a white frame that was burnt in around it, and its first row and column.

    A frame is white on all four sides, thin, and dark inside: not so the background of a film
    that was never inverted, nor the bright rim of a scanned one.
    """
    rows, columns = pixels.shape

    def white_lines(lines: NDArray[Any], most: int) -> int:
        for number, line in enumerate(lines[:most]):
            if (line >= _FRAME_LEVEL * ceiling).mean() < _FRAME_FULL:
                return number
        return most

    most = min(round(max(rows, columns) * _FRAME_WIDTH), (min(rows, columns) - 1) // 2)
    top, bottom = white_lines(pixels, most), white_lines(pixels[::-1], most)
    if not 0 < top < most or not 0 < bottom < most:
        return 0, 0, pixels
    left, right = white_lines(pixels.T, most), white_lines(pixels.T[::-1], most)
    if not 0 < left < most or not 0 < right < most:
        return 0, 0, pixels
    inner = pixels[top : rows - bottom, left : columns - right]
    border = np.concatenate((inner[0], inner[-1], inner[:, 0], inner[:, -1]))
    if np.median(border) > _BRIGHT_BACKGROUND * ceiling:
        return 0, 0, pixels
    return top, left, inner


def _thumbnail(pixels: NDArray[Any]) -> NDArray[Any]:
    rows, columns = pixels.shape
    scale = min(1.0, _SEARCH_SIDE / max(rows, columns))
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)


def _upright(thumbnail: NDArray[Any], ceiling: Any) -> tuple[NDArray[Any], bool]:
    """The thumbnail with a dark background, and whether it had to be inverted for that."""
    inverted = _has_bright_background(thumbnail)
    return (ceiling - thumbnail if inverted else thumbnail), inverted


def _has_bright_background(thumbnail: NDArray[Any]) -> bool:
    frame = max(1, round(max(thumbnail.shape) * _BORDER))
    inside = np.zeros(thumbnail.shape, dtype=bool)
    inside[frame:-frame, frame:-frame] = True
    low, high = float(thumbnail.min()), float(thumbnail.max())
    return bool(np.median(thumbnail[~inside]) > low + _BRIGHT_BACKGROUND * (high - low))


def _breast_mask(thumbnail: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest connected region brighter than air: labels and markers are smaller.

    The outer edge is looked at last: the bright rim of a scanned film must not join the breast
    to a label, but a breast that reaches the edge goes on to it.
    """
    air, bright = _percentiles(thumbnail, _PERCENTILES)
    above = (thumbnail > air + _BACKGROUND_LEVEL * (bright - air)).astype(np.uint8)
    above = cv2.morphologyEx(above, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    rim = max(1, round(min(thumbnail.shape) * _RIM))
    inner = cv2.copyMakeBorder(
        above[rim:-rim, rim:-rim], rim, rim, rim, rim, cv2.BORDER_CONSTANT, value=0
    )
    count, regions = cv2.connectedComponents(inner, connectivity=4)
    if count < 2:
        raise Refusal("no_breast_found", "Nothing in the image stands out from its background.")
    breast = regions == 1 + int(np.argmax(np.bincount(regions.ravel())[1:]))
    breast[:rim], breast[-rim:] = breast[rim], breast[-rim - 1]
    breast[:, :rim], breast[:, -rim:] = breast[:, rim : rim + 1], breast[:, -rim - 1 : -rim]
    return np.asarray(breast)


def _percentiles(values: NDArray[Any], shares: tuple[float, float]) -> tuple[Any, Any]:
    """As ``np.percentile``, several times faster: 16 bits are sorted by the processor's vectors."""
    ordered = np.sort(values.astype(np.uint16), axis=None)
    low, high = (_between(ordered, share / 100 * (ordered.size - 1)) for share in shares)
    return np.float64(low), np.float64(high)  # what is computed with them has 64 bits too


def _between(ordered: NDArray[Any], place: float) -> float:
    first = int(place)
    part = place - first
    low, high = float(ordered[first]), float(ordered[min(first + 1, ordered.size - 1)])
    # from the nearer one, as numpy does: the same to the last bit
    return low + (high - low) * part if part < 0.5 else high - (high - low) * (1 - part)


def _crop_around(mask: NDArray[np.bool_], rows: int, columns: int) -> Crop:
    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    height, width = mask.shape
    top = max(0, round((ys[0] / height - _MARGIN) * rows))
    bottom = min(rows, round(((ys[-1] + 1) / height + _MARGIN) * rows))
    left = max(0, round((xs[0] / width - _MARGIN) * columns))
    right = min(columns, round(((xs[-1] + 1) / width + _MARGIN) * columns))
    middle = (xs[0] + xs[-1] + 1) // 2
    flipped = bool(mask[:, middle:].sum() > mask[:, :middle].sum())
    return Crop(left, top, right - left, bottom - top, flipped)
