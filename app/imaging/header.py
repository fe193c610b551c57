"""What a DICOM header says of the image: whether it is a mammogram, of which breast, view and date.

Only dates, numbers and known codes leave this module; any other text might name a patient.
"""

from __future__ import annotations

import hashlib
import os
from datetime import datetime
from typing import Any, Literal

from pydicom.dataset import Dataset

from app.imaging.facts import ImageFacts, Laterality

Unusual = Literal[
    "for_processing", "tomosynthesis", "spot_view", "magnification", "specimen", "other_modality"
]  # what is refused unless the operator accepts it

_KEY_SALT = os.urandom(16)  # identities are compared within this process and mean nothing outside
_VIEWS = {"CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "FB", "SIO", "ISO", "AT", "CV"}
_EXAM_DATES = (
    ("StudyDate", "StudyTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("ContentDate", "ContentTime"),
)


def refuse_unless_mammogram(dataset: Dataset, accept: frozenset[Unusual]) -> None:
    """Raise ``Refusal`` for what the model was not made for and ``accept`` does not name."""


def facts_of(dataset: Dataset, rows: int, columns: int) -> ImageFacts:
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


def _laterality(dataset: Dataset) -> Laterality | None:
    for name in ("ImageLaterality", "Laterality"):
        if dataset.get(name) == "L":
            return "L"
        if dataset.get(name) == "R":
            return "R"
    return None


def _view(dataset: Dataset) -> str | None:
    """View Position (0018,5101); CBIS-DDSM writes the view into Patient Orientation instead.

    Only known codes (PS3.3 C.8.11.7.1.1) are taken: any other text might name a patient.
    """
    for name in ("ViewPosition", "PatientOrientation"):
        position = str(dataset.get(name) or "").strip().upper()
        if position in _VIEWS:
            return position
    return None


def _exam_time(dataset: Dataset) -> datetime | None:
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
