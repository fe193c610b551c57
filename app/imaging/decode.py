"""Bytes -> grey pixels, whatever the format."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from app.imaging.dicom import decode_dicom, looks_like_dicom
from app.imaging.facts import ImageFacts
from app.imaging.header import Unusual
from app.imaging.raster import decode_raster
from app.problems import Refusal


def decode(
    data: bytes, max_pixels: int, accept: frozenset[Unusual] = frozenset()
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], ImageFacts]:
    """Decode PNG, JPEG, TIFF or DICOM bytes to grey uint8 or uint16 [rows, columns].

    The format is told from the content, never from a name or a content type. ``accept`` lists what
    is decoded although the model was not made for it. Raises ``Refusal``.
    """
    if not data:
        raise Refusal("empty_file", "The file is empty.")
    if looks_like_dicom(data):
        return decode_dicom(data, max_pixels, accept)
    return decode_raster(data, max_pixels)
