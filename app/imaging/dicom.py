"""DICOM bytes -> grey pixels as presented, and what the header knows of the exam.

Order of operations (PS3.4 N.2): stored values -> modality LUT or rescale -> VOI LUT or window ->
MONOCHROME1 inversion. pydicom reads the header, imagecodecs the compressed pixels.
"""

from __future__ import annotations

import hashlib
import logging
import os
import warnings
import zlib
from collections.abc import Callable
from datetime import datetime
from io import BytesIO
from typing import Any

import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import generate_frames
from pydicom.filereader import _read_file_meta_info
from pydicom.pixels.processing import apply_modality_lut, apply_windowing

from app.imaging.facts import ImageFacts, Laterality
from app.problems import Refusal

# pydicom quotes header values in warnings and logs: they may name a patient
warnings.filterwarnings("ignore", module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE

_KEY_SALT = os.urandom(16)  # identities are compared within this process and mean nothing outside

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
_VIEWS = {"CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "FB", "SIO", "ISO", "AT", "CV"}
# SOF markers of JPEG (all but DHT, JPG and DAC, which share their range) and of JPEG-LS
_START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_EXAM_DATES = (
    ("StudyDate", "StudyTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
)


def looks_like_dicom(data: bytes) -> bool:
    """Whether the 128-byte preamble is followed by the DICOM prefix (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


def decode_dicom(
    data: bytes, max_pixels: int
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], ImageFacts]:
    """Decode a single-frame grey image to uint8 or uint16 [rows, columns], bright is dense.

    The size is read from the header before pixels are touched. Raises ``Refusal``:
    ``broken_image``, ``too_many_pixels``, ``several_frames``, ``unsupported_transfer_syntax``,
    ``unsupported_photometric``, ``unsupported_depth``, ``no_pixels``.
    """
    dataset = _read(data, max_pixels)
    rows, columns = _check_geometry(dataset, max_pixels)
    try:
        stored = _stored_values(dataset, rows, columns)
        presented = _presented(stored, dataset)
    except Refusal:
        raise
    except Exception:  # codecs and pydicom raise whatever a broken file leads them to
        raise Refusal("broken_image", "The DICOM pixel data cannot be decoded.") from None
    return presented, _facts(dataset, rows, columns)


def _read(data: bytes, max_pixels: int) -> FileDataset:
    try:
        _check_inflated_size(data, max_pixels)
        return pydicom.dcmread(BytesIO(data))
    except Refusal:
        raise
    except Exception:  # as above
        raise Refusal("broken_image", "The DICOM header cannot be read.") from None


def _check_inflated_size(data: bytes, max_pixels: int) -> None:
    """Refuse a deflate bomb before pydicom inflates it whole."""
    stream = BytesIO(data)
    stream.seek(132)  # preamble and prefix
    meta = _read_file_meta_info(stream)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        return
    limit = 2 * max_pixels + (16 << 20)
    rest = data[stream.tell() :]
    if len(zlib.decompressobj(-zlib.MAX_WBITS).decompress(rest, limit)) >= limit:
        raise Refusal("too_many_pixels", "The deflated DICOM file inflates beyond the limit.")


def _check_geometry(dataset: FileDataset, max_pixels: int) -> tuple[int, int]:
    try:
        rows, columns = int(dataset.Rows), int(dataset.Columns)
        frames = int(dataset.get("NumberOfFrames") or 1)
        samples = int(dataset.get("SamplesPerPixel", 1))
        allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    except (AttributeError, TypeError, ValueError):
        raise Refusal("no_pixels", "The DICOM file describes no image.") from None
    if "PixelData" not in dataset or rows < 1 or columns < 1:
        raise Refusal("no_pixels", "The DICOM file holds no pixel data.")
    if frames != 1:
        raise Refusal("several_frames", "The DICOM file holds more than one frame.")
    if rows * columns > max_pixels:
        raise Refusal(
            "too_many_pixels",
            f"The image has {rows} x {columns} pixels; at most {max_pixels} are accepted.",
        )
    if samples != 1 or dataset.get("PhotometricInterpretation") not in (
        "MONOCHROME1",
        "MONOCHROME2",
    ):
        raise Refusal("unsupported_photometric", "Only MONOCHROME1 and MONOCHROME2 are accepted.")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise Refusal("unsupported_depth", "Only 8 and 16 allocated bits are accepted.")
    return rows, columns


def _stored_values(dataset: FileDataset, rows: int, columns: int) -> NDArray[Any]:
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


def _presented(stored: NDArray[Any], dataset: FileDataset) -> NDArray[Any]:
    """Stored values -> unsigned grey values, bright is dense."""
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        values, ceiling = _look_up(values, dataset)
    else:
        values, ceiling = _unsigned(apply_windowing(values, dataset, index=0), dataset)
    values = values.astype(np.uint8 if ceiling < 256 else np.uint16, copy=False)
    inverse = dataset.PhotometricInterpretation == "MONOCHROME1"
    return values.dtype.type(ceiling) - values if inverse else values


def _look_up(values: NDArray[Any], dataset: FileDataset) -> tuple[NDArray[Any], int]:
    """Apply the first VOI LUT (PS3.3 C.11.2.1.1); returns the values and the highest possible."""
    item = dataset.VOILUTSequence[0]
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 65536
    data = item.LUTData
    if isinstance(data, bytes):
        order = ">" if dataset.file_meta.TransferSyntaxUID == uid.ExplicitVRBigEndian else "<"
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * entries else f"{order}u2")
    table = np.asarray(data, np.uint16)[:entries]
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, len(table) - 1)
    return table[index], (1 << bits) - 1


def _unsigned(values: NDArray[Any], dataset: FileDataset) -> tuple[NDArray[Any], int]:
    """Signed or real values -> unsigned ones, and the highest possible."""
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        return np.rint((values - low) * (65535.0 / max(high - low, 1e-9))), 65535
    if values.dtype.kind == "i":
        values = values - values.min()
        return values, int(values.max())
    return values, (1 << int(dataset.BitsStored)) - 1


def _facts(dataset: FileDataset, rows: int, columns: int) -> ImageFacts:
    modality = str(dataset.get("Modality", ""))
    notes: list[tuple[str, str]] = []
    if modality != "MG":
        notes.append(("modality_not_mg", "The DICOM modality is not MG (mammography)."))
    laterality = _laterality(dataset)
    view = _view(dataset)
    if laterality is None or view is None:
        notes.append(("view_unknown", "The DICOM file does not say which breast or view it is."))
    return ImageFacts(
        format="dicom",
        rows=rows,
        columns=columns,
        bits=int(dataset.BitsStored),
        laterality=laterality,
        view=view,
        exam_time=_exam_time(dataset),
        patient_key=_key(dataset.get("PatientID"), dataset.get("IssuerOfPatientID")),
        study_key=_key(dataset.get("StudyInstanceUID")),
        instance_key=_key(dataset.get("SOPInstanceUID")),
        warnings=tuple(notes),
    )


def _laterality(dataset: FileDataset) -> Laterality | None:
    for name in ("ImageLaterality", "Laterality"):
        if dataset.get(name) == "L":
            return "L"
        if dataset.get(name) == "R":
            return "R"
    return None


def _view(dataset: FileDataset) -> str | None:
    """View Position (0018,5101); CBIS-DDSM writes the view into Patient Orientation instead.

    Only known codes (PS3.3 C.8.11.7.1.1) are taken: any other text might name a patient.
    """
    for name in ("ViewPosition", "PatientOrientation"):
        position = str(dataset.get(name) or "").strip().upper()
        if position in _VIEWS:
            return position
    return None


def _exam_time(dataset: FileDataset) -> datetime | None:
    for day, time in _EXAM_DATES:
        text = str(dataset.get(day) or "").replace(".", "").replace("-", "")
        clock = str(dataset.get(time) or "").split(".")[0].replace(":", "")
        for value, pattern in ((text + clock, "%Y%m%d%H%M%S"), (text, "%Y%m%d")):
            try:
                return datetime.strptime(value, pattern)
            except ValueError:
                continue
    return None


def _key(*values: Any) -> str | None:
    text = "\0".join(str(value) for value in values if value)
    return hashlib.sha256(_KEY_SALT + text.encode()).hexdigest()[:16] if text else None
