"""Files to send: synthetic breasts, made here from a fixed seed, as JPEG and as DICOM."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DigitalMammographyXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
)

_BITS = 12  # stored, of 16 allocated: what mammography detectors give


def synthetic_files(*, full_size: bool) -> dict[str, bytes]:
    """Files by name; ``full_size`` adds one with as many pixels as a detector has."""
    jpeg = np.rint(synthetic_breast(640, 512) / 16).astype(np.uint8)
    files = {
        "jpeg-640": _encoded(".jpeg", jpeg),
        "dicom-1280": _dicom(synthetic_breast(1280, 1024)),
    }
    if full_size:
        files["dicom-12mp"] = _dicom(synthetic_breast(4096, 3072))
    return files


def files_of_every_format() -> dict[str, bytes]:
    """Those of ``synthetic_files``, a 16-bit PNG and the largest as lossless JPEG 2000."""
    grey = synthetic_breast(1280, 1024) << (16 - _BITS)
    return {
        **synthetic_files(full_size=True),
        "png-1280-16bit": _encoded(".png", grey),
        "jpeg2000-12mp": _dicom(synthetic_breast(4096, 3072), JPEG2000Lossless),
    }


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


def _encoded(suffix: str, pixels: NDArray[Any]) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, 95] if suffix == ".jpeg" else []
    done, data = cv2.imencode(suffix, pixels, options)
    assert done
    return data.tobytes()


def _dicom(pixels: NDArray[np.uint16], syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """A digital mammogram (PS3.3 A.26) with what the service reads of one."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=["mammoseq", "bench"])
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.Modality = "MG"
    dataset.PatientID = "SYNTHETIC"
    dataset.StudyDate = "20250312"
    dataset.ImageLaterality = "L"
    dataset.ViewPosition = "MLO"
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = _BITS
    dataset.HighBit = _BITS - 1
    dataset.PixelRepresentation = 0
    if syntax == JPEG2000Lossless:
        stream = imagecodecs.jpeg2k_encode(pixels, reversible=True, level=0, codecformat="j2k")
        dataset.PixelData = encapsulate([bytes(stream)])
        dataset["PixelData"].VR = "OB"
    else:
        dataset.PixelData = pixels.astype("<u2").tobytes()
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()
