"""Studies that the tests send: synthetic breasts, with names and ids that must not leak."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from io import BytesIO
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.uid import CTImageStorage, generate_uid

from tests.pictures import breast, dicom, patched, real_dicom

SECRETS = ("Zyxwvut", "PID31415", "ACC27182")
FOUR_VIEWS = ("LCC", "LMLO", "RCC", "RMLO")


@dataclass(frozen=True)
class Sent:
    """A study and its files."""

    uid: str
    files: list[bytes]
    patient: str = ""

    @property
    def images(self) -> set[str]:
        """SOP Instance UIDs."""
        return {
            str(dcmread(BytesIO(f), stop_before_pixels=True).SOPInstanceUID) for f in self.files
        }


def study(
    patient: str = "1", *, days_ago: int = 0, views: Sequence[str] = FOUR_VIEWS, **tags: Any
) -> Sent:
    """A mammography study, one series per view, of ``patient``."""
    uid = str(generate_uid())
    return Sent(uid, [view(uid, name, patient, days_ago, **tags) for name in views], patient)


def view(uid: str, name: str, patient: str = "1", days_ago: int = 0, **tags: Any) -> bytes:
    """One more image for a study: ``name`` is side and view, such as "LCC"."""
    pixels = breast(right=name[0] == "R", seed=sum(map(ord, f"{name} {days_ago} {patient}")))
    return dicom(pixels, **(_identity(uid, name, patient, days_ago) | tags))


def compressed_view(uid: str, name: str, patient: str = "1", days_ago: int = 0) -> bytes:
    """A real mammogram, JPEG 2000, Secondary Capture."""
    return patched(real_dicom("j2k_lossless"), **_identity(uid, name, patient, days_ago))


def blank_view(uid: str, name: str, patient: str) -> bytes:
    """Modality MG, and nothing in the picture."""
    return dicom(np.zeros((600, 400), np.uint8), **_identity(uid, name, patient, 0))


def blank_study() -> Sent:
    uid = str(generate_uid())
    return Sent(uid, [blank_view(uid, "LCC", "blank")])


def ct_study() -> Sent:
    """No mammogram in it."""
    return study("ct", views=("LCC",), Modality="CT", SOPClassUID=CTImageStorage)


def _identity(uid: str, name: str, patient: str, days_ago: int) -> dict[str, Any]:
    return {
        "SOPInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "StudyInstanceUID": uid,
        "StudyDate": f"{date.today() - timedelta(days=days_ago):%Y%m%d}",
        "StudyTime": "101500",
        "StudyID": "1",
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "PatientName": f"{SECRETS[0]}^{patient}",
        "PatientID": f"{SECRETS[1]} {patient}",
        "AccessionNumber": SECRETS[2],
        "ImageLaterality": name[0],
        "ViewPosition": name[1:],
        "SeriesDescription": f"{name[0]} {name[1:]}",
        "Manufacturer": "Acme",
    }
