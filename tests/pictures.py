"""Images that the tests make: synthetic breasts, as pixels and as files of every format."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    generate_uid,
)

REAL_DICOM = Path(__file__).parent / "data" / "mg-dicom"
DECODABLE = (
    "explicit",
    "implicit",
    "explicit_bigendian",
    "deflated",
    "rle",
    "jpeg_lossless_sv1",
    "jpegls_lossless",
    "j2k_lossless",
    "monochrome1",
)


def real_dicom(encoding: str) -> bytes:
    """The CBIS-DDSM mammogram in one of its encodings."""
    return (REAL_DICOM / f"P_00820_LEFT_CC_q8_{encoding}.dcm").read_bytes()


def breast(
    rows: int = 600,
    columns: int = 400,
    *,
    spots: Sequence[tuple[float, float]] = (),
    right: bool = False,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Half an ellipse of textured grey on black, uint8 [rows, columns], chest wall at the left
    edge, or at the right one; ``spots`` are (row, column) of bright discs, after mirroring. The
    texture is as coarse at any size: a fine one is unfamiliar to the shipped model."""
    y, x = np.mgrid[:rows, :columns]
    inside = ((y - rows / 2) / (0.42 * rows)) ** 2 + (x / (0.75 * columns)) ** 2 < 1
    noise = np.random.default_rng(seed).normal(0, 1, (38, 26))
    texture = cv2.resize(noise, (columns, rows), interpolation=cv2.INTER_CUBIC)
    grey = np.where(inside, np.clip(90 + 12 * texture, 50, 140), 0)
    if right:
        grey = grey[:, ::-1].copy()
    for row, column in spots:
        distance = np.hypot(y - row, x - column)
        grey = np.maximum(grey, 240 * np.exp(-((distance / (0.04 * rows)) ** 2)))
    return np.rint(grey).astype(np.uint8)


def sixteen_bit(pixels: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """The same picture over the whole range of 16 bit."""
    return pixels.astype(np.uint16) * np.uint16(257)


def encoded(suffix: str, pixels: NDArray[Any]) -> bytes:
    """``pixels`` as a file of the format that ``suffix`` names, such as ".png"."""
    done, data = cv2.imencode(suffix, pixels)
    assert done
    return data.tobytes()


def pixels_of(data: bytes) -> NDArray[Any]:
    """Decode a picture that the service has made."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert pixels is not None
    return pixels


def png(pixels: NDArray[Any]) -> bytes:
    return encoded(".png", pixels)


def png_claiming(rows: int, columns: int) -> bytes:
    """A PNG whose header promises ``rows`` x ``columns`` grey pixels, with none behind it."""
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + _png_chunk(b"IHDR", header)
        + _png_chunk(b"IDAT", zlib.compress(b"\0" * 64))
        + _png_chunk(b"IEND", b"")
    )


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    check = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def dicom(pixels: NDArray[Any], **tags: Any) -> bytes:
    """A mammogram of its own patient, study and date as explicit little endian DICOM.

    ``tags`` are set last, by keyword; None removes one.
    """
    bits = pixels.dtype.itemsize * 8
    dataset = FileDataset(BytesIO(), {}, preamble=b"\0" * 128)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.Modality = "MG"
    dataset.PatientID = "patient-1"
    dataset.StudyDate = "20240131"
    dataset.ImageLaterality = "L"
    dataset.ViewPosition = "CC"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW" if bits == 16 else "OB"
    return patched(dataset, **tags)


def patched(source: bytes | FileDataset, **tags: Any) -> bytes:
    """DICOM with tags set by keyword; None removes one."""
    dataset = pydicom.dcmread(BytesIO(source)) if isinstance(source, bytes) else source
    for keyword, value in tags.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(dataset.get("SOPInstanceUID") or "1.2.3")
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def item(**tags: Any) -> pydicom.Dataset:
    """An item of a sequence."""
    dataset = pydicom.Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def lut(
    data: NDArray[Any], first: int, bits: int, *, entries: int | None = None, packed: bool = False
) -> pydicom.Dataset:
    """An item of a modality or VOI LUT sequence that maps ``first`` to the first entry.

    ``packed`` puts two entries of 8 bit into a word, the first one into its lower half;
    ``entries`` is the number that is claimed.
    """
    count = len(data) if entries is None else entries
    table = item()
    table.add_new("LUTDescriptor", "SS" if first < 0 else "US", [count % 65536, first, bits])
    table.add_new("LUTData", "OW", np.asarray(data, "<u1" if packed else "<u2").tobytes())
    return table
