"""The 5/3 wavelet's low-pass (ISO 15444-1 annex F): an image at 1/2, 1/4 or 1/8 of its size.

It is what a reversible JPEG 2000 stream holds of an image at that size. All large images are made
smaller this way, so the same picture has the same pixels whether its file is decoded at a lower
resolution or whole.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint8] | NDArray[np.uint16]

_STRIP_ROWS = 256  # of the result of a level: fewer miss no cache, more calls cost more
_GAIN = 2.25  # a level widens the range of values at most by so much: 1.5 for each direction


def low_pass(words: Words, shrink: int, ceiling: int, table: Words | None = None) -> NDArray[Any]:
    """Low-pass words [rows, columns] to [ceil(rows / shrink), ceil(columns / shrink)].

    ``shrink`` is a power of two above 1 and ``ceiling`` the highest value. Each word is first
    looked up in ``table``, if there is one. The result may lie outside of the range a little, and
    its pixels on the first of those that they stand for (``centred``).
    """
    level = 0
    values: NDArray[Any] = words
    while shrink > 1:
        largest_sum = 3 * ceiling * _GAIN**level + 2  # of two details, in the second direction
        kind = np.int16 if largest_sum < 1 << 15 else np.int32
        values = _level(values, np.dtype(kind), table if level == 0 else None)
        level, shrink = level + 1, shrink // 2
    return values


def centred(values: NDArray[Any], shrink: int, ceiling: int) -> Words:
    """Values of ``low_pass``, moved to the middle of the ``shrink`` x ``shrink`` pixels that each
    stands for and kept from 0 to ``ceiling``: uint8 or uint16 [rows, columns]."""
    dtype = np.uint8 if ceiling < 256 else np.uint16
    words: NDArray[Any] = values.clip(0, ceiling).astype(dtype)
    offset = (shrink - 1) / (2 * shrink)
    kernel = np.array([0, 1 - offset, offset], np.float32)
    moved: Words = cv2.sepFilter2D(words, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE)  # type: ignore[assignment]
    return moved


def _level(values: NDArray[Any], kind: np.dtype[Any], table: Words | None) -> NDArray[Any]:
    """Halve [rows, columns] in both directions, strip by strip: columns first (F.4.2)."""
    rows, columns = values.shape
    halved = np.empty((-(-rows // 2), -(-columns // 2)), kind)
    for first in range(0, len(halved), _STRIP_ROWS):
        last = min(first + _STRIP_ROWS, len(halved))
        above = max(0, 2 * first - 2)  # a sample leans on two before it and two behind
        strip = values[above : min(rows, 2 * last + 1)]
        if table is not None:
            strip = cv2.LUT(strip, table)
        # of the same width: no word is so high that it would turn negative
        same = strip.dtype.itemsize == kind.itemsize
        strip = strip.view(kind) if same else strip.astype(kind)
        smooth = _smooth(strip[0::2], strip[1::2])[first - above // 2 : last - above // 2]
        even, odd = (np.ascontiguousarray(smooth[:, start::2]) for start in (0, 1))
        halved[first:last] = _smooth(even.T, odd.T).T
    return halved


def _smooth(even: NDArray[Any], odd: NDArray[Any]) -> NDArray[Any]:
    """The low-pass along the first axis of the samples of even and odd place (F.4.8.1): what the
    odd ones differ by from the mean of their neighbours goes by a quarter to each of these.
    Beyond its ends the signal is mirrored."""
    count = len(odd)
    if count == 0:
        return even
    detail = np.empty_like(odd)  # keeps the order in memory, as all that follows
    np.add(even[: len(even) - 1], even[1:], out=detail[: len(even) - 1])
    if len(even) == count:
        np.add(even[-1], even[-1], out=detail[-1])
    np.right_shift(detail, 1, out=detail)
    np.subtract(odd, detail, out=detail)
    smooth = np.empty_like(even)
    np.add(detail[: count - 1], detail[1:], out=smooth[1:count])
    np.add(detail[0], detail[0], out=smooth[0])
    if len(even) > count:
        np.add(detail[-1], detail[-1], out=smooth[-1])
    np.add(smooth, 2, out=smooth)
    np.right_shift(smooth, 2, out=smooth)
    np.add(smooth, even, out=smooth)
    return smooth
