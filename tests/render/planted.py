"""Run as a program by a test: plants a word in all of a header and looks for it in the results."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.datadict import DicomDictionary, keyword_dict
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from app.bundle import find_bundle, load_bundle
from app.render.secondary_capture import secondary_captures
from app.render.segmentation import segmentations
from app.render.sr import structured_report
from tests.pictures import breast, dicom
from tests.render.readings import exam, image, of_breast, study

_WORD = "PLANTED"
_IDENTITY = {
    "PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
}  # fmt: skip
_UIDS = ("SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_TEXT = {"AE", "AS", "CS", "DA", "DT", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT"}


def planted_header() -> Dataset:
    """A header that holds the word, as read from a file, in every text element of the dictionary,
    in a private one and within a sequence; identity is out of form as well."""
    header = Dataset()
    for tag, (vr, *_, retired, keyword) in DicomDictionary.items():
        if vr in _TEXT and keyword and not retired:
            _plant(header, tag, vr, _WORD * 12 if keyword in _IDENTITY else _WORD)
    for keyword in _UIDS:
        _plant(header, keyword_dict[keyword], "UI", f"1.02.{_WORD}")
    inner = Dataset()
    _plant(inner, keyword_dict["CodeMeaning"], "LO", _WORD)
    header.ViewCodeSequence = [inner]
    _plant(header, 0x00130010, "LO", _WORD)
    _plant(header, 0x00131010, "UT", _WORD)
    return header


def _plant(dataset: Dataset, tag: int, vr: str, value: str) -> None:
    text = value.encode()
    dataset[tag] = RawDataElement(BaseTag(tag), vr, len(text), text, 0, False, True)


def main() -> None:
    manifest = load_bundle(find_bundle(Path("model_store"), None)).manifest
    seen = image(dicom(breast()))
    result = study(manifest, of_breast("L", exam(replace(seen, header=planted_header()))))
    for data in [structured_report(result), *secondary_captures(result), *segmentations(result)]:
        dataset = pydicom.dcmread(BytesIO(data))
        assert _WORD in str(dataset.PatientName)
        for element in dataset.iterall():
            if _WORD in str(element.value) and element.VR not in ("UI", "SQ"):
                assert element.keyword in _IDENTITY, element.keyword


main()
