"""Grad-CAM map -> plain map, overlay on the mammogram, peak and transform to original pixels."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import simplejpeg
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
# The same colour as a JPEG holds it (JFIF): the mammogram adds to luma alone, for it is grey
_LUMA, _RED, _BLUE = cv2.split(cv2.cvtColor(_COLOUR[:, None], cv2.COLOR_BGR2YCrCb))
_GREY = 128  # chroma without colour

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
    highest, row, column = _highest(heatmap)
    if not highest > 0:
        return None
    rows, columns = heatmap.shape
    y, x = crop.to_original((row + 0.5) / rows, (column + 0.5) / columns)
    return Peak(y - 0.5, x - 0.5)  # counted from the centre of the first pixel


def box(heatmap: NDArray[np.float32], crop: Crop) -> Box | None:
    """The box around the cells that join the peak and reach half of its value; None where the map
    is zero everywhere."""
    highest, row, column = _highest(heatmap)
    if not highest > 0:
        return None
    rows, columns = heatmap.shape
    warm = (heatmap >= _HALF * highest).astype(np.uint8)
    _, regions, boxes, _ = cv2.connectedComponentsWithStats(warm, connectivity=8)
    left, top, width, height, _ = boxes[regions[row, column]].tolist()
    one = crop.to_original(top / rows, left / columns)
    other = crop.to_original((top + height) / rows, (left + width) / columns)
    edge, other_edge = sorted((one[1], other[1]))
    return Box(top=one[0], left=edge, height=other[0] - one[0], width=other_edge - edge)


def _highest(heatmap: NDArray[np.float32]) -> tuple[float, int, int]:
    """The largest value, and its row and column."""
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    return float(heatmap[row, column]), row, column


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
    """The map, which is nowhere negative, in steps of 1/255 of ``scale``, uint8 on its native
    grid."""
    if scale <= 0:
        return np.zeros(heatmap.shape, np.uint8)
    return np.asarray(cv2.convertScaleAbs(heatmap, alpha=255.0 / scale), np.uint8)


def encode_map(heatmap: NDArray[np.float32], scale: float) -> bytes:
    """The map on its native grid as 8-bit PNG; ``scale`` is the value that becomes 255."""
    return _small_png(levels(heatmap, scale))


def encode_overlay(
    shown: NDArray[np.uint8],
    heatmap: NDArray[np.float32],
    box: Crop,
    *,
    scale: float,
    image_type: ImageType,
) -> bytes:
    """``draw_overlay`` as a file."""
    if image_type == "png":
        return _png(draw_overlay(shown, heatmap, box, scale=scale))
    luma, blue, red = _overlay_planes(shown, heatmap, box, scale=scale)
    return bytes(simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, _JPEG_QUALITY))


def draw_overlay(
    shown: NDArray[np.uint8], heatmap: NDArray[np.float32], box: Crop, *, scale: float
) -> NDArray[np.uint8]:
    """The mammogram with the map over it, uint8 [height, width, blue green red].

    ``shown`` [height, width] is the picture to draw on and ``box`` the crop in its pixels: only
    the breast that the model saw is coloured. ``scale`` is the map value of full colour.
    """
    picture: NDArray[Any] = cv2.cvtColor(shown, cv2.COLOR_GRAY2BGR)
    inside = picture[_slices(box)]
    height, width = inside.shape[:2]
    heat = _enlarged(heatmap, box, scale)
    kept = _resized(cv2.LUT(heat, _KEPT), height, width)
    faded = cv2.multiply(shown[_slices(box)], kept, scale=1 / 255)
    cv2.cvtColor(faded, cv2.COLOR_GRAY2BGR, inside)
    cv2.add(inside, _resized(_COLOUR[heat], height, width), inside)
    return picture


def _overlay_planes(
    shown: NDArray[np.uint8], heatmap: NDArray[np.float32], box: Crop, *, scale: float
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """The overlay as a JPEG holds it: luma [height, width], and blue and red chroma of half of
    that, rounded up. It is ``draw_overlay`` with a third of the arithmetic."""
    rows, columns = shown.shape
    heat = _enlarged(heatmap, box, scale)
    # TurboJPEG reads planes of even size: of an odd one also what lies behind it in memory
    even = cv2.copyMakeBorder(shown, 0, rows % 2, 0, columns % 2, cv2.BORDER_REPLICATE)
    luma = np.asarray(even, np.uint8)[:rows, :columns]
    inside = luma[_slices(box)]
    cv2.multiply(inside, _resized(cv2.LUT(heat, _KEPT), *inside.shape), inside, 1 / 255)
    cv2.add(inside, _resized(cv2.LUT(heat, _LUMA), *inside.shape), inside)
    half = _halved(box)
    blue, red = np.full((2, (rows + 1) // 2, (columns + 1) // 2), _GREY, np.uint8)
    for chroma, table in ((blue, _BLUE), (red, _RED)):
        inside = chroma[_slices(half)]
        cv2.resize(cv2.LUT(heat, table), inside.shape[::-1], inside)
    return luma, blue, red


def _enlarged(heatmap: NDArray[np.float32], box: Crop, scale: float) -> NDArray[np.uint8]:
    """The levels of a map as they lie in ``box``, at a quarter of its size, where a map of few
    cells loses nothing."""
    heat = levels(heatmap, scale)
    if box.flipped:
        heat = np.asarray(cv2.flip(heat, 1), np.uint8)
    quarter = (max(1, box.width // 4), max(1, box.height // 4))
    return np.asarray(cv2.resize(heat, quarter, interpolation=cv2.INTER_CUBIC), np.uint8)


def _resized(plane: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    return cv2.resize(plane, (width, height), interpolation=cv2.INTER_LINEAR)


def _slices(box: Crop) -> tuple[slice, slice]:
    return slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)


def _halved(box: Crop) -> Crop:
    """The box in a plane of half of the size; never empty."""
    top, left = box.top // 2, box.left // 2
    bottom, right = (box.top + box.height + 1) // 2, (box.left + box.width + 1) // 2
    return Crop(left, top, right - left, bottom - top, box.flipped)


def _png(picture: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".png", picture)
    if not done:
        raise RuntimeError("OpenCV cannot write PNG")
    return data.tobytes()


def _small_png(grey: NDArray[np.uint8]) -> bytes:
    """Grey values [rows, columns] as they are in a PNG. For a few bytes the start of a compressor
    costs more than all else."""
    rows, columns = grey.shape
    # each line after its filter type, none
    lines = cv2.copyMakeBorder(grey, 0, 0, 1, 0, cv2.BORDER_CONSTANT).tobytes()
    stored = zlib.compressobj(level=0, wbits=9, memLevel=1)
    chunks = (
        (b"IHDR", struct.pack(">2I5B", columns, rows, 8, 0, 0, 0, 0)),
        (b"IDAT", stored.compress(lines) + stored.flush()),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
