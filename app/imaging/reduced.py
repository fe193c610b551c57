"""Large images made smaller: as far as the model's input allows, whatever is asked of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from app.imaging.facts import ImageFacts
from app.imaging.preprocess import Crop, InputGeometry, ModelInput, preprocess
from app.imaging.wavelet import Words

_LEAST_LONG_SIDE = 1.5  # of the model's input height: training images have 1.25
_LARGEST_SHRINK = 8  # the finest of the five resolutions that JPEG 2000 encoders leave out
_ENLARGED = 1.25  # a picture that is coarser than wanted by less is not decoded again


@dataclass(frozen=True)
class Reduced:
    """A decoded image at 1 / ``shrink`` of its size, sides rounded up.

    ``pixels`` is uint8 or uint16 [rows, columns], ``facts`` have the size of the original.
    ``picture`` shows the same, as fine as it was wanted to look at.
    """

    pixels: Words
    shrink: int
    facts: ImageFacts
    picture: Words


def shrink_for(rows: int, columns: int, size: InputGeometry) -> int:
    """By what power of two an image of this size is made smaller for a model of that input."""
    long_side = _shrink(max(rows, columns), _LEAST_LONG_SIDE * size.height)
    return min(long_side, _shrink(min(rows, columns), size.width))


def shrink_to_show(rows: int, columns: int, long_side: int) -> int:
    """By what power of two it may be made smaller for a picture with so long a side."""
    return _shrink(max(rows, columns), long_side / _ENLARGED)


def shrink_to_fit(rows: int, columns: int, long_side: int) -> int:
    """By what power of two it may be made smaller and still have so long a side."""
    return _shrink(max(rows, columns), long_side)


def preprocess_reduced(reduced: Reduced, size: InputGeometry) -> ModelInput:
    """``preprocess`` for an image made smaller; the crop is in pixels of the original."""
    model_input = preprocess(reduced.pixels, size)
    crop, shrink = model_input.crop, reduced.shrink
    left, top = crop.left * shrink, crop.top * shrink
    right = min(left + crop.width * shrink, reduced.facts.columns)
    bottom = min(top + crop.height * shrink, reduced.facts.rows)
    return replace(model_input, crop=Crop(left, top, right - left, bottom - top, crop.flipped))


def _shrink(long_side: int, least: float) -> int:
    shrink = 1
    while shrink < _LARGEST_SHRINK and long_side >= 2 * shrink * least:
        shrink *= 2
    return shrink
