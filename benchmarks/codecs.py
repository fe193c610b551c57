"""Decoders that others offer for the formats we read, each as one call: a file -> its pixels.

All are optional and none is a dependency for being named here: they are what our choice is compared
with. pylibjpeg-libjpeg is GPL-3.0 and can never be ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from io import BytesIO
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.pixels.utils import pixel_array

from benchmarks.inputs import Picture

Decode = Callable[[Picture], Any]


@dataclass(frozen=True)
class Codec:
    """``package`` is what must be importable for ``decode`` to work."""

    name: str
    package: str
    decode: Decode

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None


def codecs_for(picture: Picture) -> list[Codec]:
    """Every decoder known for the picture's format, installed or not."""
    return [*_OF_CODING[picture.coding], *(_OF_FILES if picture.is_dicom else [])]


def _cv2(flags: int) -> Decode:
    return lambda picture: cv2.imdecode(np.frombuffer(picture.frame, np.uint8), flags)


def _imagecodecs(name: str) -> Codec:
    return Codec(f"imagecodecs {name}", "imagecodecs", _call("imagecodecs", f"{name}_decode"))


def _pillow(mode: str | None = None) -> Decode:
    def decode(picture: Picture) -> NDArray[Any]:
        with Image.open(BytesIO(picture.frame)) as image:
            if mode:
                image.draft(mode, image.size)
            return np.asarray(image)

    return decode


def _run_lengths(picture: Picture) -> Any:
    return imagecodecs.dicomrle_decode(picture.frame, "<u2")


def _pylibjpeg_run_lengths(picture: Picture) -> Any:
    return import_module("rle.utils").decode_frame(picture.frame, picture.pixels.size, 16, "<")


def _pyvips(picture: Picture) -> Any:
    return import_module("pyvips").Image.new_from_buffer(picture.frame, "").numpy()


def _dicomsdl(picture: Picture) -> Any:
    return import_module("dicomsdl").open_memory(picture.file).pixelData(storedvalue=True)


def _gdcm(picture: Picture) -> Any:
    return pixel_array(BytesIO(picture.file), raw=True, decoding_plugin="gdcm")


def _call(module: str, function: str, **options: Any) -> Decode:
    return lambda picture: getattr(import_module(module), function)(picture.frame, **options)


_JPEG8_GREY = Codec(
    "imagecodecs jpeg8, grey asked", "imagecodecs",
    _call("imagecodecs", "jpeg8_decode", outcolorspace="GRAYSCALE"),
)  # fmt: skip
_CV2 = Codec("cv2", "cv2", _cv2(cv2.IMREAD_UNCHANGED))
_CV2_GREY = Codec("cv2, grey asked", "cv2", _cv2(cv2.IMREAD_GRAYSCALE))
_PILLOW = Codec("Pillow", "PIL", _pillow())
_PYVIPS = Codec("pyvips", "pyvips", _pyvips)
_LIBJPEG = Codec("pylibjpeg-libjpeg (GPL)", "libjpeg", _call("libjpeg", "decode"))
_OPENJPEG = Codec("pylibjpeg-openjpeg", "openjpeg", _call("openjpeg", "decode"))
_SIMPLEJPEG = Codec(
    "simplejpeg, grey asked", "simplejpeg", _call("simplejpeg", "decode_jpeg", colorspace="GRAY")
)
_PNG = [
    _CV2, _PILLOW, _imagecodecs("png"), _imagecodecs("spng"),
    Codec("pyspng", "pyspng", _call("pyspng", "load")), _PYVIPS,
]  # fmt: skip
_JPEG = [_imagecodecs("jpeg8"), _CV2, _SIMPLEJPEG, _PILLOW, _PYVIPS, _LIBJPEG]
_TIFF = [_CV2, _PILLOW, _imagecodecs("tiff"), _PYVIPS]
_OF_CODING: dict[str, list[Codec]] = {
    "raw": [],
    "RLE": [
        Codec("imagecodecs dicomrle", "imagecodecs", _run_lengths),
        Codec("pylibjpeg-rle", "rle", _pylibjpeg_run_lengths),
    ],
    "JPEG lossless": [
        _imagecodecs("jpeg8"), _imagecodecs("ljpeg"), _imagecodecs("jpegsof3"), _LIBJPEG,
    ],
    "JPEG-LS": [
        _imagecodecs("jpegls"), Codec("pyjpegls", "jpeg_ls", _call("jpeg_ls", "decode_buffer")),
        _LIBJPEG,
    ],
    "JPEG 2000": [
        _imagecodecs("jpeg2k"), _OPENJPEG, _PILLOW, _PYVIPS,
    ],
    "HTJ2K": [_imagecodecs("htj2k"), _imagecodecs("jpeg2k"), _OPENJPEG],
    "JPEG 12 bit": [_imagecodecs("jpeg8"), _LIBJPEG],
    "JPEG baseline": _JPEG,
    "JPEG": _JPEG,
    "JPEG colour": [
        _imagecodecs("jpeg8"), _CV2, _JPEG8_GREY, _CV2_GREY, _SIMPLEJPEG,
        _PILLOW, Codec("Pillow, grey asked", "PIL", _pillow("L")), _PYVIPS, _LIBJPEG,
    ],
    "PNG": _PNG,
    "TIFF": _TIFF,
}  # fmt: skip
_OF_FILES = [Codec("dicomsdl", "dicomsdl", _dicomsdl), Codec("GDCM in pydicom", "gdcm", _gdcm)]
