"""DICOM pixel data in any transfer syntax -> stored values.

imagecodecs decodes the compressed ones; nothing is decoded before its size was compared with the
header's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames

from app.problems import Refusal

_NATIVE = {
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
}
_CODECS: dict[str, Callable[[bytes], NDArray[Any]]] = {
    uid.JPEGBaseline8Bit: imagecodecs.jpeg_decode,
    uid.JPEGExtended12Bit: imagecodecs.jpeg_decode,
    uid.JPEGLossless: imagecodecs.ljpeg_decode,
    uid.JPEGLosslessSV1: imagecodecs.ljpeg_decode,
    uid.JPEGLSLossless: imagecodecs.jpegls_decode,
    uid.JPEGLSNearLossless: imagecodecs.jpegls_decode,
    uid.JPEG2000Lossless: imagecodecs.jpeg2k_decode,
    uid.JPEG2000: imagecodecs.jpeg2k_decode,
}
# SOF markers of JPEG (all but DHT, JPG and DAC, which share their range) and of JPEG-LS
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}


def stored_values(dataset: FileDataset, rows: int, columns: int) -> NDArray[Any]:
    """The stored values, integer [rows, columns], signed if the header says so."""
    syntax = dataset.file_meta.TransferSyntaxUID
    allocated, bits = int(dataset.BitsAllocated), int(dataset.BitsStored)
    signed = int(dataset.get("PixelRepresentation", 0)) == 1
    if syntax in _NATIVE:
        order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
        dtype = np.dtype(f"{order}u{allocated // 8}")
        expected = rows * columns * dtype.itemsize
        if len(dataset.PixelData) < expected:
            raise Refusal("broken_image", "The pixel data is shorter than the image it describes.")
        values = np.frombuffer(dataset.PixelData, dtype, rows * columns).reshape(rows, columns)
        values = values.astype(dtype.newbyteorder("="), copy=False)
    elif syntax == uid.RLELossless:
        dtype = np.dtype(f"<u{allocated // 8}")
        expected = rows * columns * dtype.itemsize
        decoded = imagecodecs.dicomrle_decode(_first_frame(dataset), dtype, out=expected)
        values = np.frombuffer(decoded, dtype).reshape(rows, columns)
    elif syntax in _CODECS:
        frame = _first_frame(dataset)
        if _coded_size(frame) != (rows, columns):  # before a few bytes become gigabytes
            raise Refusal("broken_image", "The pixel data does not have the size the header gives.")
        values = _CODECS[syntax](frame)
    else:
        raise Refusal("unsupported_transfer_syntax", "The file's transfer syntax is not read.")
    if values.shape != (rows, columns):
        raise Refusal("broken_image", "The pixel data does not have the size the header gives.")
    if values.dtype.kind == "i":  # some codecs answer signed already
        return values
    values = values & values.dtype.type((1 << bits) - 1)
    if signed:
        sign = 1 << (bits - 1)
        return np.asarray((values.astype(np.int32) ^ sign) - sign)
    return np.asarray(values)


def _first_frame(dataset: FileDataset) -> bytes:
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def _coded_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns in the header of a JPEG, JPEG-LS or JPEG 2000 code stream."""
    if frame[:4] == b"\xff\x4f\xff\x51":  # SOC, SIZ (ISO 15444-1 A.5.1)
        right, bottom, left, top = (int.from_bytes(frame[i : i + 4]) for i in range(8, 24, 4))
        return bottom - top, right - left
    place = 2  # after SOI (ISO 10918-1 B.1.1)
    while place + 9 <= len(frame) and frame[place] == 0xFF:
        if frame[place + 1] in _START_OF_FRAME:
            return (
                int.from_bytes(frame[place + 5 : place + 7]),
                int.from_bytes(frame[place + 7 : place + 9]),
            )
        place += 2 + int.from_bytes(frame[place + 2 : place + 4])
    return None
