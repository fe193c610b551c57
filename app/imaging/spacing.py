"""How far apart a DICOM header says that the pixels are, within the breast."""

from __future__ import annotations

import math

from pydicom.dataset import Dataset

from app.imaging.attributes import numbers, texts, word

_SMALLEST_MM, _LARGEST_MM = 0.01, 1.0  # detectors and digitisers of mammography: 0.025 to 0.2
_MOST_UNEQUAL = 1.25
_LARGEST_MAGNIFICATION = 3.0

Spacing = tuple[float, float]


def magnification_of(dataset: Dataset) -> float:
    """Estimated Radiographic Magnification Factor (0018,1114): the distance from source to
    detector over that to the breast (PS3.3 C.8.11.7); 1 where unknown or impossible."""
    factor = numbers(dataset, "EstimatedRadiographicMagnificationFactor")
    return factor[0] if len(factor) == 1 and 1 <= factor[0] <= _LARGEST_MAGNIFICATION else 1.0


def spacing_of(dataset: Dataset) -> tuple[Spacing | None, bool]:
    """Distance in mm between rows and between columns, and whether one that is written is
    impossible.

    Pixel Spacing (0028,0030) counts as it stands where it says that it was calibrated, differs
    from that of the receptor, which it then corrects, or is alone (PS3.3 10.7.1.1, 10.7.1.2).
    Else the spacing on the receptor or film is divided by the magnification.
    """
    written = {
        keyword: _plausible(numbers(dataset, keyword))
        for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")
        if any(texts(dataset, keyword))
    }
    impossible = None in written.values()
    in_patient = written.get("PixelSpacing")
    on_receptor = written.get("ImagerPixelSpacing") or written.get("NominalScannedPixelSpacing")
    calibrated = word(dataset, "PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL")
    if in_patient and (calibrated or not on_receptor or not _same(in_patient, on_receptor)):
        return in_patient, impossible
    if on_receptor is None:
        return None, impossible
    factor = magnification_of(dataset)
    return (on_receptor[0] / factor, on_receptor[1] / factor), impossible


def _plausible(values: tuple[float, ...]) -> Spacing | None:
    if len(values) != 2 or not all(_SMALLEST_MM <= value <= _LARGEST_MM for value in values):
        return None
    rows, columns = values
    return (rows, columns) if max(values) / min(values) <= _MOST_UNEQUAL else None


def _same(one: Spacing, other: Spacing) -> bool:
    return all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(one, other, strict=True))
