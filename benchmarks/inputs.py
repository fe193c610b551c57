"""Files to send: synthetic breasts, made here from a fixed seed, in every format that is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

_BITS = 12  # stored, of 16 allocated: what mammography detectors give


def synthetic_files(*, full_size: bool) -> dict[str, bytes]:
    """Files by name; ``full_size`` adds one with as many pixels as a detector has."""
    jpeg = np.rint(synthetic_breast(640, 512) / 16).astype(np.uint8)
    files = {"jpeg-640": _jpeg(jpeg), "dicom-1280": _dicom(synthetic_breast(1280, 1024))}
    if full_size:
        files["dicom-12mp"] = _dicom(synthetic_breast(4096, 3072))
    return files


def synthetic_breast(rows: int, columns: int) -> NDArray[np.uint16]:
    """A left breast of 12-bit grey values, uint16 [rows, columns]: half an ellipse at the chest
    wall, brighter where it is thick, with glandular texture at several scales and noise."""
    random = np.random.default_rng(20260101)
    y, x = np.mgrid[-1 : 1 : rows * 1j, 0 : 1 : columns * 1j]
    depth = 1 - (y / 0.9) ** 2 - (x / 0.8) ** 2  # 1 at the chest wall, 0 at the skin
    tissue = np.zeros((rows, columns), np.float32)
    for cells in (4, 16, 64):
        coarse = random.standard_normal((cells, cells), dtype=np.float32) / np.log2(cells)
        tissue += cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_CUBIC)
    grey = np.where(depth > 0, 1200 + 1400 * np.sqrt(np.maximum(depth, 0)) + 300 * tissue, 60)
    grey = grey + random.standard_normal((rows, columns), dtype=np.float32) * 25
    return np.clip(np.rint(grey), 0, (1 << _BITS) - 1).astype(np.uint16)


@dataclass(frozen=True)
class Picture:
    """The synthetic breast in one format.

    ``frame`` is what a codec reads: the compressed frame of a DICOM ``file``, else the file.
    ``pixels`` are those that were coded, uint8 or uint16 [rows, columns].
    """

    name: str
    coding: str
    file: bytes
    frame: bytes
    pixels: NDArray[Any]

    @property
    def is_dicom(self) -> bool:
        return self.file is not self.frame


def pictures(rows: int, columns: int, part: str = "") -> Iterator[Picture]:
    """The same breast in every format, one after the other, or where ``part`` is in the name."""
    deep = synthetic_breast(rows, columns)
    grey = _eight_bit(deep)
    if part in "DICOM raw":
        yield Picture("DICOM raw", "raw", _dicom(deep), deep.tobytes(), deep)
    for coding, syntax, encode in _CODINGS:
        if part not in f"DICOM {coding}":
            continue
        pixels = grey if syntax == uid.JPEGBaseline8Bit else deep
        frame = bytes(encode(pixels))
        yield Picture(f"DICOM {coding}", coding, _dicom(pixels, frame, syntax), frame, pixels)
    for name, coding, encode in _FILES:
        if part not in name:
            continue
        pixels = deep if name.endswith("16 bit") else grey
        file = bytes(encode(pixels))
        yield Picture(name, coding, file, file, pixels)


def exams_of_a_breast(exams: int, *, dicom: bool = False) -> list[bytes]:
    """A file for each exam, the oldest first, no two the same: JPEG as ``jpeg-640`` or DICOM as
    ``dicom-1280`` of ``synthetic_files``."""
    pixels = synthetic_breast(1280, 1024) if dicom else synthetic_breast(640, 512)
    moved = [np.roll(pixels, number, axis=0) for number in range(exams)]
    return [
        _dicom(image, date=f"{2000 + number}0312") if dicom else _jpeg(_eight_bit(image))
        for number, image in enumerate(moved)
    ]


def _eight_bit(pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
    return np.rint(pixels / 16).clip(0, 255).astype(np.uint8)


def _jpeg(pixels: NDArray[np.uint8]) -> bytes:
    done, data = cv2.imencode(".jpeg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])
    assert done
    return data.tobytes()


def _colour_jpeg(pixels: NDArray[np.uint8]) -> bytes:
    return _jpeg(cv2.merge([pixels] * 3))  # type: ignore[arg-type]


def _tiff(compression: int) -> Callable[[NDArray[Any]], bytes]:
    def encode(pixels: NDArray[Any]) -> bytes:
        done, data = cv2.imencode(".tiff", pixels, [cv2.IMWRITE_TIFF_COMPRESSION, compression])
        assert done
        return data.tobytes()

    return encode


def _png(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.png_encode(pixels, level=6))


def _run_lengths(pixels: NDArray[np.uint16]) -> bytes:
    """PS3.5 G: a segment a byte, the most significant first; each row by itself."""
    segments = []
    for place in (1, 0):
        plane = pixels.astype("<u2").view(np.uint8)[:, place::2]
        segment = b"".join(imagecodecs.packbits_encode(row.tobytes()) for row in plane)
        segments.append(segment + b"\0" * (len(segment) % 2))
    header = np.array([2, 64, 64 + len(segments[0])], "<u4").tobytes()
    return header.ljust(64, b"\0") + b"".join(segments)


def _jpeg8(**options: Any) -> Callable[[NDArray[Any]], bytes]:
    return lambda pixels: bytes(imagecodecs.jpeg8_encode(pixels, **options))


def _jpeg_2000(pixels: NDArray[Any]) -> bytes:
    return bytes(
        imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", bitspersample=_BITS, reversible=True)
    )


def _jpeg_ls(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.jpegls_encode(pixels))


def _htj2k(pixels: NDArray[Any]) -> bytes:
    return bytes(imagecodecs.htj2k_encode(pixels, reversible=True))


_CODINGS: tuple[tuple[str, str, Callable[[NDArray[Any]], bytes]], ...] = (
    ("RLE", uid.RLELossless, _run_lengths),
    ("JPEG lossless", uid.JPEGLosslessSV1, _jpeg8(bitspersample=_BITS, lossless=True, predictor=1)),
    ("JPEG-LS", uid.JPEGLSLossless, _jpeg_ls),
    ("JPEG 2000", uid.JPEG2000Lossless, _jpeg_2000),
    ("HTJ2K", uid.HTJ2KLossless, _htj2k),
    ("JPEG baseline", uid.JPEGBaseline8Bit, _jpeg),
    ("JPEG 12 bit", uid.JPEGExtended12Bit, _jpeg8(bitspersample=_BITS, level=95)),
)
_FILES: tuple[tuple[str, str, Callable[[NDArray[Any]], bytes]], ...] = (
    ("JPEG", "JPEG", _jpeg),
    ("JPEG colour", "JPEG colour", _colour_jpeg),
    ("PNG 8 bit", "PNG", _png),
    ("PNG 16 bit", "PNG", _png),
    ("TIFF 16 bit", "TIFF", _tiff(cv2.IMWRITE_TIFF_COMPRESSION_NONE)),
    ("TIFF LZW 16 bit", "TIFF", _tiff(cv2.IMWRITE_TIFF_COMPRESSION_LZW)),
)


def _dicom(
    pixels: NDArray[Any],
    frame: bytes | None = None,
    syntax: str = ExplicitVRLittleEndian,
    *,
    date: str = "20250312",
) -> bytes:
    """A digital mammogram (PS3.3 A.26) with what the service reads of one; ``frame`` is what
    ``pixels`` are in a compressed transfer ``syntax``."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = _uid("image", date, syntax)
    meta.TransferSyntaxUID = UID(syntax)
    bits = _BITS if pixels.dtype == np.uint16 else 8
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = _uid("study", date)
    dataset.SeriesInstanceUID = _uid("series", date)
    dataset.Modality = "MG"
    dataset.PatientID = "SYNTHETIC"
    dataset.StudyDate = date
    dataset.ImageLaterality = "L"
    dataset.ViewPosition = "MLO"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 8 * pixels.dtype.itemsize
    dataset.BitsStored = bits
    dataset.HighBit = bits - 1
    dataset.PixelRepresentation = 0
    if frame is None:
        dataset.PixelData = pixels.astype("<u2").tobytes()
    else:
        dataset.PixelData = encapsulate([frame])
        dataset["PixelData"].VR = "OB"
        dataset["PixelData"].is_undefined_length = True
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _uid(*names: str) -> UID:
    return generate_uid(entropy_srcs=["mammoseq", "bench", *names])
