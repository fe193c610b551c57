"""Bytes -> grey pixels for a viewer, with what it needs to show them as a reader expects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
from numpy.typing import NDArray

from app.imaging.decode import opened
from app.imaging.display import fitted, grey_range
from app.imaging.facts import ImageFacts
from app.imaging.header import Unusual
from app.imaging.preprocess import InputGeometry, is_inverted
from app.imaging.reduced import shrink_for, shrink_to_fit
from app.imaging.wavelet import Words


@dataclass(frozen=True)
class Shown:
    """An image to look at.

    ``words`` is uint8 or uint16 [rows, columns]; ``facts`` have the size of the original. The grey
    values ``low`` and ``high`` are black and white, or white and black if the image is
    ``inverted``: its background is bright, and the model sees it turned.
    """

    words: Words
    facts: ImageFacts
    low: int
    high: int
    inverted: bool


def decode_to_show(
    data: bytes,
    max_pixels: int,
    size: InputGeometry,
    accept: frozenset[Unusual] = frozenset(),
    *,
    long_side: int | None = None,
) -> Shown:
    """Decode as ``decode`` does, or to a picture of at most ``long_side`` at the same depth; small
    images are not enlarged. ``size`` is the model's input. Raises ``Refusal``."""
    facts, greys = opened(data, max_pixels, accept)
    rows, columns = facts.rows, facts.columns
    shrink = 1 if long_side is None else shrink_to_fit(rows, columns, long_side)
    words = greys(shrink)
    searched = shrink_for(rows, columns, size)
    inverted = is_inverted(words if shrink >= searched else greys(searched))
    if long_side is not None:
        words = _shrunk(words, *fitted(rows, columns, long_side))
    low, high = grey_range(words)
    return Shown(words, facts, low, high, inverted)


def _shrunk(words: Words, height: int, width: int) -> Words:
    if words.shape == (height, width):
        return words
    small: NDArray[Any] = cv2.resize(words, (width, height), interpolation=cv2.INTER_AREA)
    return small
