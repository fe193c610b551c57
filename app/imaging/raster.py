"""PNG, JPEG and TIFF bytes -> grey pixels, 8 or 16 bit."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from app.imaging.facts import ImageFacts
from app.imaging.jpeg import end_of_image, is_whole, jpeg_header
from app.imaging.memory_file import memory_file
from app.imaging.wavelet import Words, centred, low_pass
from app.problems import Refusal

Image.MAX_IMAGE_PIXELS = None  # the caller gives the limit; Pillow only reads headers here
_FORMATS = ("PNG", "JPEG", "TIFF")
# An element of file meta information or of group 8 with its representation, as DICOM without its
# preamble begins (PS3.10 7.1): no other file, and what cannot be read of a mammogram is told
_BARE_DICOM = re.compile(rb"[\x02\x08]\x00.\x00[A-Z][A-Z]", re.DOTALL)


def open_raster(data: bytes, max_pixels: int) -> tuple[ImageFacts, Callable[[int], Words]]:
    """What is known of an image, and its greys, uint8 or uint16 [rows, columns], at 1 / 1, 2, 4 or
    8 of its size.

    The size is read from the header before anything is decompressed. Raises ``Refusal``:
    ``unsupported_format``, ``too_many_pixels``, ``broken_image``, ``several_frames``.
    """
    name, rows, columns = _read_header(data)
    if rows * columns > max_pixels:
        raise Refusal(
            "too_many_pixels",
            f"The image has {rows} x {columns} pixels; at most {max_pixels} are accepted.",
        )
    pixels = _DECODERS[name](data)
    if pixels is None:
        raise Refusal("broken_image", f"The {name} data cannot be decoded.")
    grey, notes = _to_grey(pixels)
    bits = grey.dtype.itemsize * 8
    facts = ImageFacts(format=name, rows=rows, columns=columns, bits=bits, warnings=notes)
    ceiling = (1 << bits) - 1

    def greys(shrink: int) -> Words:
        return grey if shrink == 1 else centred(low_pass(grey, shrink, ceiling), shrink, ceiling)

    return facts, greys


def _decode(data: bytes) -> NDArray[Any] | None:
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None  # no fault of the file's
        return None


def _decode_jpeg(data: bytes) -> NDArray[Any] | None:
    """None too for a file that ends too soon, or that is made of countless scans."""
    header = jpeg_header(data)
    end = end_of_image(data, header) if header else None
    if header is None or end is None:
        return None
    pixels = _decode(data)
    if pixels is None or not is_whole(data, header.precision, end, pixels, _decode):
        return None
    return pixels


def _decode_png(data: bytes) -> NDArray[Any] | None:
    """None too for a file with a chunk that is longer than the file: opencv makes room for it
    first, for up to four gigabytes."""
    place, kind = 8, b""  # after the signature (ISO 15948 5.2, 5.3)
    while kind != b"IEND":
        length, kind = int.from_bytes(data[place : place + 4]), data[place + 4 : place + 8]
        place += 12 + length
        if place > len(data):
            return None
    return _decode(data)


_DECODERS = {"png": _decode_png, "jpeg": _decode_jpeg, "tiff": _decode}


def _read_header(data: bytes) -> tuple[str, int, int]:
    try:
        with Image.open(memory_file(data), formats=_FORMATS) as image:
            if image.format == "MPO":  # a phone's JPEG with a preview behind it
                return "jpeg", image.height, image.width
            if getattr(image, "is_animated", False):
                if image.format == "TIFF":
                    # to the second page only: counting a chain of a few MB takes seconds
                    image.seek(1)
                raise Refusal("several_frames", "The file holds more than one image.")
            return str(image.format).lower(), image.height, image.width
    except UnidentifiedImageError:
        if data[:4] in (b"II*\0", b"MM\0*"):
            raise Refusal("broken_image", "The TIFF header cannot be read.") from None
        if _BARE_DICOM.match(data):
            raise Refusal("broken_image", "The DICOM file lacks its preamble.") from None
        raise Refusal(
            "unsupported_format", "The data is neither PNG, JPEG, TIFF nor DICOM."
        ) from None
    except (OSError, ValueError, SyntaxError, KeyError, TypeError, EOFError, OverflowError):
        raise Refusal("broken_image", "The image header cannot be read.") from None


def _to_grey(pixels: NDArray[Any]) -> tuple[Words, tuple[tuple[str, str], ...]]:
    if pixels.dtype not in (np.uint8, np.uint16):
        raise Refusal("unsupported_depth", "Only 8-bit and 16-bit unsigned pixels are accepted.")
    if pixels.ndim == 2:
        return pixels, ()
    if pixels.shape[2] == 2:  # grey with transparency
        return np.ascontiguousarray(pixels[..., 0]), ()
    colour = pixels[..., :3]
    if np.array_equal(colour[..., 0], colour[..., 1]) and np.array_equal(
        colour[..., 1], colour[..., 2]
    ):
        return np.ascontiguousarray(colour[..., 0]), ()
    grey: NDArray[Any] = cv2.cvtColor(colour, cv2.COLOR_BGR2GRAY)
    return grey, (("colour_image", "The image is in colour; mammograms are grey."),)
