"""Pixels -> the picture that overlays are drawn on: what is seen, where, and how bright."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.display import displayed


def ramp(rows: int, columns: int) -> NDArray[np.uint16]:
    """From 1000 at the top to 3000 at the bottom."""
    return np.tile(np.linspace(1000, 3000, rows).astype(np.uint16)[:, None], (1, columns))


@pytest.mark.parametrize("size", [(640, 480), (641, 479), (1283, 963), (4099, 3077)])
@pytest.mark.parametrize("long_side", [640, 300])
def test_things_stay_in_their_place(size: tuple[int, int], long_side: int) -> None:
    rows, columns = size
    pixels = np.full(size, 100, np.uint16)
    row, column, reach = rows * 2 // 3, columns // 4, rows // 40
    pixels[row - reach : row + reach, column - reach : column + reach] = 3000
    picture = displayed(pixels, long_side, inverted=False)
    y, x = (axis.mean() for axis in np.nonzero(picture > 128))
    zoom = picture.shape[0] / rows
    assert (y + 0.5, x + 0.5) == pytest.approx((row * zoom, column * zoom), abs=0.75)


@pytest.mark.parametrize("pixels", [ramp(600, 400), (ramp(600, 400) >> 4).astype(np.uint8)])
def test_grey_range_is_stretched_to_eight_bits(pixels: NDArray[Any]) -> None:
    picture = displayed(pixels, 600, inverted=False)
    assert picture.dtype == np.uint8
    assert picture[0, 0] == 0
    assert picture[-1, 0] == 255
    assert int(picture[300, 0]) == pytest.approx(127, abs=4)


def test_inverted_is_the_same_turned() -> None:
    shown, turned = (displayed(ramp(600, 400), 600, inverted=flag) for flag in (False, True))
    np.testing.assert_array_equal(turned, 255 - shown)


def test_few_pixels_outside_of_the_grey_range_are_black_and_white_and_do_not_shift_it() -> None:
    pixels = ramp(600, 400)
    plain = displayed(pixels, 600, inverted=False)
    pixels[300, 7], pixels[300, 9] = 0, 65535
    picture = displayed(pixels, 600, inverted=False)
    assert (picture[300, 7], picture[300, 9]) == (0, 255)
    np.testing.assert_array_equal(picture[301:], plain[301:])


def test_level_image_is_black() -> None:
    assert (displayed(np.full((40, 30), 500, np.uint16), 40, inverted=False) == 0).all()
