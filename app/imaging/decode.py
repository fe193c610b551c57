"""Bytes -> grey pixels, whatever the format."""

from __future__ import annotations

from collections.abc import Callable

from app.imaging.dicom import looks_like_dicom, open_dicom
from app.imaging.facts import ImageFacts
from app.imaging.header import Unusual
from app.imaging.preprocess import InputGeometry
from app.imaging.raster import open_raster
from app.imaging.reduced import Reduced, shrink_for, shrink_to_show
from app.imaging.wavelet import Words
from app.problems import Refusal


def decode(
    data: bytes, max_pixels: int, accept: frozenset[Unusual] = frozenset()
) -> tuple[Words, ImageFacts]:
    """Decode PNG, JPEG, TIFF or DICOM bytes to grey uint8 or uint16 [rows, columns].

    The format is told from the content, never from a name or a content type. ``accept`` lists what
    is decoded although the model was not made for it. Raises ``Refusal``.
    """
    facts, greys = opened(data, max_pixels, accept)
    return greys(1), facts


def decode_reduced(
    data: bytes,
    max_pixels: int,
    size: InputGeometry,
    accept: frozenset[Unusual] = frozenset(),
    *,
    long_side: int | None = None,
) -> Reduced:
    """Decode only as finely as a model with an input of ``size`` needs.

    Its pixels do not depend on ``long_side``, the side of a picture that is wanted besides: where
    they are too coarse for it, the picture alone is decoded more finely. Raises ``Refusal``.
    """
    facts, greys = opened(data, max_pixels, accept)
    shrink = shrink_for(facts.rows, facts.columns, size)
    pixels = picture = greys(shrink)
    if long_side is not None:
        finer = shrink_to_show(facts.rows, facts.columns, long_side)
        picture = greys(finer) if finer < shrink else pixels
    return Reduced(pixels, shrink, facts, picture)


def opened(
    data: bytes, max_pixels: int, accept: frozenset[Unusual]
) -> tuple[ImageFacts, Callable[[int], Words]]:
    """What is known of an image, and its greys at 1 / 1, 2, 4 or 8 of its size. Both raise
    ``Refusal``."""
    if not data:
        raise Refusal("empty_file", "The file is empty.")
    if looks_like_dicom(data):
        return open_dicom(data, max_pixels, accept)
    return open_raster(data, max_pixels)
