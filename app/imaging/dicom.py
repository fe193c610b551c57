"""DICOM bytes -> grey pixels as presented, and what the header knows of the exam.

pydicom reads the header here; the modules ``stored``, ``presentation`` and ``header`` do the rest.
"""

from __future__ import annotations

import logging
import warnings
import zlib
from io import BytesIO

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import _read_file_meta_info

from app.imaging.facts import ImageFacts
from app.imaging.header import Unusual, facts_of, refuse_unless_mammogram
from app.imaging.presentation import presented
from app.imaging.stored import stored_values
from app.problems import Refusal

# pydicom quotes header values in warnings and logs: they may name a patient
warnings.filterwarnings("ignore", module=r"pydicom\..*")
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE


def looks_like_dicom(data: bytes) -> bool:
    """Whether the 128-byte preamble is followed by the DICOM prefix (PS3.10 7.1)."""
    return data[128:132] == b"DICM"


def decode_dicom(
    data: bytes, max_pixels: int, accept: frozenset[Unusual]
) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], ImageFacts]:
    """Decode a single-frame grey image to uint8 or uint16 [rows, columns], bright is dense.

    The size is read from the header before pixels are touched. Raises ``Refusal``:
    ``broken_image``, ``too_many_pixels``, ``several_frames``, ``unsupported_transfer_syntax``,
    ``unsupported_photometric``, ``unsupported_depth``, ``no_pixels``.
    """
    dataset = read_dataset(data, max_pixels)
    try:
        refuse_unless_mammogram(dataset, accept)
        rows, columns = _check_geometry(dataset, max_pixels)
        pixels = presented(stored_values(dataset, rows, columns), dataset)
        return pixels, facts_of(dataset, rows, columns)
    except Refusal:
        raise
    except Exception:  # codecs and pydicom raise whatever a broken file leads them to
        raise Refusal("broken_image", "The DICOM image cannot be decoded.") from None


def read_dataset(data: bytes, max_pixels: int) -> FileDataset:
    """Read the header and the undecoded pixel data. Raises ``Refusal``: ``broken_image``,
    ``too_many_pixels`` for a deflated file that inflates beyond the limit."""
    try:
        _check_inflated_size(data, max_pixels)
        return pydicom.dcmread(BytesIO(data))
    except Refusal:
        raise
    except Exception:  # as above
        raise Refusal("broken_image", "The DICOM header cannot be read.") from None


def read_header(data: bytes) -> Dataset:
    """The header, without pixels, of a file that ``decode_dicom`` has read."""
    return pydicom.dcmread(BytesIO(data), stop_before_pixels=True)


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
        photometric = dataset.get("PhotometricInterpretation")
        allocated, stored = int(dataset.BitsAllocated), int(dataset.BitsStored)
    except Exception:  # what is missing or malformed, as above
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
    if samples != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        raise Refusal("unsupported_photometric", "Only MONOCHROME1 and MONOCHROME2 are accepted.")
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise Refusal("unsupported_depth", "Only 8 and 16 allocated bits are accepted.")
    return rows, columns
