"""Stored values -> grey values as a radiologist sees them.

Order of operations (PS3.4 N.2): modality LUT or rescale -> VOI LUT or window -> MONOCHROME1
inversion.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.pixels.processing import apply_modality_lut, apply_windowing


def presented(stored: NDArray[Any], dataset: FileDataset) -> NDArray[Any]:
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
