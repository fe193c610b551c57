"""What reports, overlays and maps share as DICOM objects: where they belong, who made them, which
images they refer to, and how they are written.

They go into the study of the newest exam. Of a header only what identifies patient and study is
copied, and what else is copied here must have the form that the standard gives it: no other text
of a header can get into a result.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from io import BytesIO
from types import MappingProxyType
from typing import Any, Literal

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sr.coding import Code
from pydicom.uid import UID, ExplicitVRLittleEndian
from pydicom.valuerep import CUSTOMIZABLE_CHARSET_VR

from app.bundle import DISCLAIMER
from app.imaging.facts import Laterality
from app.render.result import BreastResult, ExamResult, ImageResult, StudyResult
from app.render.uids import series_uid

Kind = Literal["report", "overlay", "map"]

MANUFACTURER = "Mammoseq"
SIDES = MappingProxyType({"L": "Left breast", "R": "Right breast", None: "Breast"})
_SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")  # CID 7202

_SERIES: MappingProxyType[Kind, tuple[str, int]] = MappingProxyType(
    {
        "report": ("Mammoseq report", 9901),
        "overlay": ("Mammoseq heatmap", 9902),
        "map": ("Mammoseq heatmap map", 9903),
    }
)
# PS3.3 C.7.1.1 and C.7.2.1; a PACS files by these, so they are copied as they are
_IDENTITY = (
    "PatientName", "PatientID", "StudyInstanceUID", "AccessionNumber", "StudyID",
    "ReferringPhysicianName",
)  # fmt: skip
_TIME = re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?")
_ZONE = re.compile(r"([+-])(0\d|1[0-4])([0-5]\d)")
_ORIENTATION = re.compile(r"[APRLHF]{1,3}")
_RATIO = re.compile(r"\d{1,6}(\.\d{1,8})?")


class NoStudyError(ValueError):
    """No image of the newest exam is a DICOM image with UIDs, so there is no study to put a result
    into."""


@dataclass(frozen=True)
class Reference:
    """Where a DICOM image is stored."""

    study: str
    series: str
    sop_class: str
    instance: str


@dataclass(frozen=True)
class Stored:
    """A DICOM image that was read, with the breast and the exam that it shows."""

    breast: BreastResult
    exam: ExamResult
    image: ImageResult
    header: Dataset
    reference: Reference

    @property
    def laterality(self) -> Laterality | None:
        return self.breast.laterality or self.image.facts.laterality


def stored_images(result: StudyResult) -> list[Stored]:
    """The images that can be referred to, in the order of the request: others, as a PNG, cannot."""
    found = [
        Stored(breast, exam, image, image.header, reference)
        for breast in result.breasts
        for exam in breast.exams
        for image in exam.images
        if image.header is not None and (reference := _reference(image.header)) is not None
    ]
    return sorted(found, key=lambda stored: stored.image.index)


def current_images(result: StudyResult) -> list[Stored]:
    """The images of the newest exam of either breast. Raises ``NoStudyError``."""
    newest = max(_day(exam) for breast in result.breasts for exam in breast.exams)
    current = [stored for stored in stored_images(result) if _day(stored.exam) == newest]
    if not current:
        raise NoStudyError("no image of the newest exam is stored as DICOM")
    return current


def new_object(
    result: StudyResult,
    kind: Kind,
    *,
    sop_class: UID,
    modality: str,
    instance: str,
    number: int,
    transfer_syntax: UID = ExplicitVRLittleEndian,
) -> FileDataset:
    """An object in the study of the newest exam with patient, study, series, equipment and SOP
    common attributes; ``number`` is its place in its series. Raises ``NoStudyError``."""
    current = current_images(result)[0]
    description, series_number = _SERIES[kind]
    dataset = FileDataset(BytesIO(), {}, preamble=b"\0" * 128)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = transfer_syntax
    _copy_identity(current.header, dataset)
    dataset.SeriesInstanceUID = series_uid(result, current.reference.study, kind)
    dataset.SeriesNumber = series_number
    dataset.SeriesDescription = description
    dataset.Modality = modality
    # Enhanced General Equipment (PS3.3 C.7.5.2)
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = short(result.manifest.name)
    dataset.SoftwareVersions = short(result.manifest.version)
    dataset.DeviceSerialNumber = result.bundle_sha256[:16]
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = instance
    dataset.InstanceNumber = number
    _set_content_time(result.created, current.header, dataset)
    return dataset


def describe_image(dataset: Dataset, stored: Stored, comment: str) -> None:
    """Set the attributes of the General Image module (PS3.3 C.7.6.1) that are the same for every
    image made of ``stored``; ``comment`` is followed by the disclaimer."""
    orientation = _values(stored.header, "PatientOrientation")
    known = len(orientation) == 2 and all(map(_ORIENTATION.fullmatch, orientation))
    dataset.PatientOrientation = orientation if known else ""
    if stored.laterality is not None:
        dataset.ImageLaterality = stored.laterality
    dataset.ImageComments = f"{comment}\r\n{DISCLAIMER}"


def lossy_history(header: Dataset) -> tuple[list[str], list[str]]:
    """Ratios and methods of the lossy compressions that an image has gone through; they are part
    of whatever is derived from it (PS3.3 C.7.6.1.1.5)."""
    ratios = _values(header, "LossyImageCompressionRatio")
    methods = _values(header, "LossyImageCompressionMethod")
    if (
        _values(header, "LossyImageCompression") != ["01"]
        or len(ratios) != len(methods)
        or not all(map(_RATIO.fullmatch, ratios))
        or not all(re.fullmatch(r"ISO_\d{4,5}_\d{1,2}", method) for method in methods)
    ):
        return [], []
    return ratios, methods


def was_lossy(header: Dataset) -> bool:
    return _values(header, "LossyImageCompression") == ["01"]


def by_study(references: Iterable[Reference]) -> list[Dataset]:
    """Items of the Hierarchical SOP Instance Reference macro (PS3.3 Table C.17-3)."""
    return _by_study(references, "ReferencedSOPSequence")


def refer(dataset: Dataset, references: Sequence[Reference]) -> None:
    """Set the Common Instance Reference module (PS3.3 C.12.2)."""
    here = [r for r in references if r.study == dataset.StudyInstanceUID]
    elsewhere = [r for r in references if r.study != dataset.StudyInstanceUID]
    if here:
        dataset.ReferencedSeriesSequence = _by_series(here, "ReferencedInstanceSequence")
    if elsewhere:
        dataset.StudiesContainingOtherReferencedInstancesSequence = _by_study(
            elsewhere, "ReferencedInstanceSequence"
        )


def source_image(reference: Reference) -> Dataset:
    """An item of the Source Image Sequence (PS3.3 C.12.4.1)."""
    item = _sop_reference(reference)
    item.PurposeOfReferenceCodeSequence = [coded(_SOURCE_IMAGE)]
    return item


def coded(code: Code) -> Dataset:
    """An item of a code sequence (PS3.3 Table 8.8-1)."""
    return _item(
        CodeValue=code.value,
        CodingSchemeDesignator=code.scheme_designator,
        CodeMeaning=code.meaning,
    )


def short(text: str) -> str:
    """Text as a Long String holds it (PS3.5 6.2): 64 characters, no backslash."""
    return text.replace("\\", "/")[:64]


def written(dataset: FileDataset) -> bytes:
    """The object as a file (PS3.10); in UTF-8 where ASCII does not do, whatever the source was
    written in."""
    if not all(str(element.value).isascii() for element in dataset.iterall() if _is_text(element)):
        dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


def _is_text(element: DataElement) -> bool:
    return element.VR in CUSTOMIZABLE_CHARSET_VR


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        _set(item, keyword, value)
    return item


def _day(exam: ExamResult) -> date:
    return exam.date or date.min


def _reference(header: Dataset) -> Reference | None:
    uids = [
        _text(header, keyword)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPClassUID", "SOPInstanceUID")
    ]
    return Reference(*uids) if all(uids) else None


def _copy_identity(header: Dataset, dataset: Dataset) -> None:
    for keyword in _IDENTITY:
        _set(dataset, keyword, _text(header, keyword))
    issuer = _text(header, "IssuerOfPatientID")
    if issuer:
        _set(dataset, "IssuerOfPatientID", issuer)
    for keyword, is_valid in (
        ("PatientBirthDate", _is_date),
        ("PatientSex", {"M", "F", "O"}.__contains__),
        ("StudyDate", _is_date),
        ("StudyTime", _TIME.fullmatch),
    ):
        text = _text(header, keyword)
        _set(dataset, keyword, text if is_valid(text) else "")


def _is_date(text: str) -> bool:
    try:
        return re.fullmatch(r"\d{8}", text) is not None and bool(datetime.strptime(text, "%Y%m%d"))
    except ValueError:
        return False


def _set_content_time(created: datetime, header: Dataset, dataset: Dataset) -> None:
    """When it was made, in the time zone of the study: the offset (PS3.3 C.12.1.1.8) would be that
    of the copied study time as well. Without one it is the local time of the service."""
    offset = _ZONE.fullmatch(_text(header, "TimezoneOffsetFromUTC"))
    zone = None
    if offset:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3]))
        zone = timezone(-ahead if offset[1] == "-" else ahead)
        dataset.TimezoneOffsetFromUTC = offset[0]
    local = (created if created.tzinfo else created.replace(tzinfo=UTC)).astimezone(zone)
    dataset.ContentDate = dataset.InstanceCreationDate = local.strftime("%Y%m%d")
    dataset.ContentTime = dataset.InstanceCreationTime = local.strftime("%H%M%S.%f")


def _text(header: Dataset, keyword: str) -> str:
    return "\\".join(_values(header, keyword))


def _values(header: Dataset, keyword: str) -> list[str]:
    """The values of an element as text; none for one that is missing, empty or unreadable."""
    try:
        value = header.get(keyword)
    except Exception:  # pydicom raises whatever a broken element leads it to
        return []
    if value is None or isinstance(value, bytes | Dataset):
        return []
    values = list(value) if isinstance(value, MultiValue) else [value]
    return [str(one) for one in values] if any(str(one) for one in values) else []


def _set(dataset: Dataset, keyword: str, value: Any) -> None:
    """Set an element unchecked: pydicom would quote a value that is not valid in a warning."""
    element = DataElement(keyword, dictionary_VR(keyword), value, validation_mode=config.IGNORE)
    dataset.add(element)


def _by_study(references: Iterable[Reference], instances: str) -> list[Dataset]:
    studies = _grouped(references, lambda reference: reference.study)
    return [
        _item(StudyInstanceUID=study, ReferencedSeriesSequence=_by_series(inside, instances))
        for study, inside in studies.items()
    ]


def _by_series(references: Iterable[Reference], instances: str) -> list[Dataset]:
    """Items that list instances under their series, in a sequence named ``instances``."""
    series = _grouped(references, lambda reference: reference.series)
    return [
        _item(SeriesInstanceUID=uid, **{instances: [_sop_reference(one) for one in inside]})
        for uid, inside in series.items()
    ]


def _sop_reference(reference: Reference) -> Dataset:
    """An item of the SOP Instance Reference macro (PS3.3 Table 10-11)."""
    return _item(
        ReferencedSOPClassUID=reference.sop_class, ReferencedSOPInstanceUID=reference.instance
    )


def _grouped(
    references: Iterable[Reference], key: Callable[[Reference], str]
) -> dict[str, list[Reference]]:
    groups: dict[str, list[Reference]] = defaultdict(list)
    for reference in references:
        groups[key(reference)].append(reference)
    return groups
