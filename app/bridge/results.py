"""What is ours in an archive, and which images a report was made from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

from app.bridge.dicomweb import Attributes, Instance

MANUFACTURER = "Mammoseq"
# What is asked of a report. Both evidence sequences: PS3.3, C.17.2 (table C.17-2)
_REPORT_TAGS = ("00080070", "00181000", "0040A375", "0040A385")


@dataclass(frozen=True)
class Result:
    """A result as the service answered it. ``model`` is its DeviceSerialNumber."""

    uid: str
    study_uid: str
    modality: str
    manufacturer: str
    model: str
    references: frozenset[str]
    file: bytes

    @property
    def is_report(self) -> bool:
        return self.modality == "SR"


def parse_result(file: bytes) -> Result:
    """Read the header of an object that the service made; ``ValueError`` if it is none."""
    try:
        header = dcmread(BytesIO(file), stop_before_pixels=True)
        return Result(
            uid=str(header.SOPInstanceUID),
            study_uid=str(header.StudyInstanceUID),
            modality=str(header.Modality),
            manufacturer=str(header.get("Manufacturer", "")),
            model=str(header.get("DeviceSerialNumber", "")),
            references=_references(header),
            file=file,
        )
    except (InvalidDicomError, AttributeError) as error:
        raise ValueError("not a DICOM object") from error


def mammograms(instances: Iterable[Instance]) -> frozenset[Instance]:
    """The images of a study that are to be read: those of modality MG that are not ours.

    SOP classes do not tell: mammograms are stored as Secondary Capture, too. Should an archive have
    changed the description, the service itself leaves out what it has made.
    """
    return frozenset(
        instance
        for instance in instances
        if instance.modality == "MG"
        and not instance.series_description.startswith(f"{MANUFACTURER} ")
    )


def images_read(report: Attributes, model: str) -> frozenset[str]:
    """SOP Instance UIDs that a stored SR names as evidence, from its DICOM JSON; none if another
    device or another model made it."""
    wanted = Dataset.from_json({tag: report[tag] for tag in _REPORT_TAGS if tag in report})
    if (wanted.get("Manufacturer"), wanted.get("DeviceSerialNumber")) != (MANUFACTURER, model):
        return frozenset()
    return _references(wanted)


def _references(header: Dataset) -> frozenset[str]:
    return frozenset(
        str(image.ReferencedSOPInstanceUID)
        for sequence in (
            "CurrentRequestedProcedureEvidenceSequence",
            "PertinentOtherEvidenceSequence",
        )
        for study in header.get(sequence, ())
        for series in study.ReferencedSeriesSequence
        for image in series.ReferencedSOPSequence
    )
