"""A reading -> a structured report: Comprehensive 3D SR, TID 1500 Measurement Report.

One measurement group per breast holds its probability; it is the only item of that concept in the
group, and the only group of the breast that has it. Further groups say what each exam changed and
where each heatmap is highest. No finding is coded: the model finds nothing, it gives a
probability, and a coded finding would be read as one. Never a BI-RADS category.

Only this module imports highdicom, which takes a tenth of a second: import it when it is needed.
No header is given to highdicom, which quotes values in its logs and warnings.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from datetime import date

import numpy as np
from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DateContentItem,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    ImageRegion,
    LongitudinalTemporalOffsetFromEvent,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    PlanarROIMeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    RelationshipTypeValues,
    ScoordContentItem,
    SourceImageForMeasurementGroup,
    SourceImageForRegion,
    TextContentItem,
    TimePointContext,
    TrackingIdentifier,
)
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import Comprehensive3DSRStorage

from app.bundle import DISCLAIMER
from app.render import dicom
from app.render.heatmap import peak
from app.render.result import BreastResult, ExamResult, StudyResult
from app.render.uids import device_uid, instance_uid

warnings.filterwarnings("ignore", module=r"(highdicom|pydicom)\..*")
for _library in ("highdicom", "pydicom"):
    logging.getLogger(_library).setLevel(logging.CRITICAL + 1)

_SCHEME = "99MAMMOSEQ"
_SCHEME_NAME = "Mammoseq codes"

_IMAGE_REGION = Code("111030", "DCM", "Image Region")
_MAMMOGRAPHY = Code("71651007", "SCT", "Mammography")
_MG = Code("MG", "DCM", "Mammography")
_DEVICE = CodedConcept("121007", "DCM", "Device")
_BREAST = Code("76752008", "SCT", "Breast")
_SIDE = {"L": Code("7771000", "SCT", "Left"), "R": Code("24028007", "SCT", "Right")}  # CID 244
_VIEW = {  # CID 4014
    "CC": Code("399162004", "SCT", "cranio-caudal"),
    "FB": Code("399196006", "SCT", "caudo-cranial (from below)"),
    "XCCL": Code("399192008", "SCT", "cranio-caudal exaggerated laterally"),
    "XCCM": Code("399101009", "SCT", "cranio-caudal exaggerated medially"),
    "MLO": Code("399368009", "SCT", "medio-lateral oblique"),
    "ML": Code("399260004", "SCT", "medio-lateral"),
    "LM": Code("399352003", "SCT", "latero-medial"),
    "LMO": Code("399099002", "SCT", "latero-medial oblique"),
    "SIO": Code("399188001", "SCT", "superolateral to inferomedial oblique"),
    "ISO": Code("441555000", "SCT", "inferomedial to superolateral oblique"),
}
_ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162

_PROBABILITY = Code("111047", "DCM", "Probability of cancer")
_ACTIVATION = Code("130403", "DCM", "Gradient-weighted class activation")
_COMMENT = Code("121106", "DCM", "Comment")
_STUDY_DATE = Code("111060", "DCM", "Study Date")
_IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
_IMAGE_LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
_SOURCE = Code("260753009", "SCT", "Source")
_MODALITY = Code("121139", "DCM", "Modality")
_IMAGE_LATERALITY = Code("111027", "DCM", "Image Laterality")
_IMAGE_VIEW = Code("111031", "DCM", "Image View")
_ROWS = Code("110910", "DCM", "Pixel Data Rows")
_COLUMNS = Code("110911", "DCM", "Pixel Data Columns")
# The standard's sensitivity and specificity (CID 6048) are per case, lesion or image; ours are of
# what the operating point was measured on, which the text of the operating point says
_THRESHOLD = Code("threshold", _SCHEME, "Threshold of the operating point")
_SENSITIVITY = Code("sensitivity", _SCHEME, "Sensitivity at the operating point")
_SPECIFICITY = Code("specificity", _SCHEME, "Specificity at the operating point")
_RESULT = Code("result", _SCHEME, "Probability compared with the threshold")
_REACHED = Code("at-or-above", _SCHEME, "At or above the threshold")
_NOT_REACHED = Code("below", _SCHEME, "Below the threshold")
_OPERATING_POINT = Code("operating-point", _SCHEME, "Operating point")
_CLASS = Code("class", _SCHEME, "Class that the probability is of")
_WARNING = Code("warning", _SCHEME, "Warning")
_AFTER = Code("after-exam", _SCHEME, "Probability once this exam was read")
_CHANGE = Code("change", _SCHEME, "Change of probability by this exam")
_PREVIOUS_EXAM = Code("previous-exam", _SCHEME, "Previous exam")

_PERCENT = Code("%", "UCUM", "Percent")
_DAY = Code("d", "UCUM", "day")
_NO_UNITS = Code("1", "UCUM", "no units")
_PIXELS = Code("{pixels}", "UCUM", "pixels")


def structured_report(result: StudyResult) -> bytes:
    """The report as a DICOM file. Raises ``NoStudyError``.

    It is complete, but preliminary and not verified: no person has seen it.
    """
    dataset = dicom.new_object(
        result,
        "report",
        sop_class=Comprehensive3DSRStorage,
        modality="SR",
        instance=instance_uid(result, "report"),
        number=1,
    )
    # SR Document General (PS3.3 C.17.2)
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.PreliminaryFlag = "PRELIMINARY"
    dataset.PerformedProcedureCodeSequence = []
    dataset.ReferencedPerformedProcedureStepSequence = []
    images = dicom.stored_images(result)
    study = dataset.StudyInstanceUID
    here = [image.reference for image in images if image.reference.study == study]
    elsewhere = [image.reference for image in images if image.reference.study != study]
    dataset.CurrentRequestedProcedureEvidenceSequence = dicom.by_study(here)
    if elsewhere:
        dataset.PertinentOtherEvidenceSequence = dicom.by_study(elsewhere)
    dataset.CodingSchemeIdentificationSequence = [_coding_scheme()]
    dataset.update(_document(result, images))
    return dicom.written(dataset)


def _document(result: StudyResult, images: Sequence[dicom.Stored]) -> Dataset:
    """The root of the content tree."""
    report = MeasurementReport(
        observation_context=ObservationContext(
            ObserverContext(
                _DEVICE,
                DeviceObserverIdentifyingAttributes(
                    uid=device_uid(result),
                    name=dicom.MANUFACTURER,
                    manufacturer_name=dicom.MANUFACTURER,
                    model_name=result.manifest.name,
                    serial_number=result.bundle_sha256[:16],
                ),
            )
        ),
        procedure_reported=_MAMMOGRAPHY,
        imaging_measurements=[
            group
            for breast in result.breasts
            for group in _breast_groups(
                result, breast, [image for image in images if image.breast is breast]
            )
        ],
    )
    root: Dataset = report[0]
    content = root.ContentSequence
    # Before the measurements, which are last: nobody shall read them without it
    content.insert(len(content) - 1, _contained(TextContentItem(_COMMENT, DISCLAIMER)))
    content.insert(len(content) - 1, _image_library(images))
    return root


def _breast_groups(
    result: StudyResult, breast: BreastResult, images: Sequence[dicom.Stored]
) -> Iterable[
    MeasurementsAndQualitativeEvaluations | PlanarROIMeasurementsAndQualitativeEvaluations
]:
    yield _result_group(result, breast, images)
    for number, exam in enumerate(breast.exams, 1):
        own = [image for image in images if image.exam is exam]
        yield _exam_group(result, breast, exam, number, own)
        for image in own:
            found = peak(image.image.heatmap, image.image.crop)
            if found is not None:
                yield _peak_group(result, image, found.row, found.column)


def _result_group(
    result: StudyResult, breast: BreastResult, images: Sequence[dicom.Stored]
) -> MeasurementsAndQualitativeEvaluations:
    point = result.operating_point
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, dicom.SIDES[breast.laterality]),
        algorithm_id=_algorithm(result),
        finding_sites=[_site(breast)],
        measurements=[
            _percentage(_PROBABILITY, breast.probability),
            _percentage(_THRESHOLD, point.threshold),
            _percentage(_SENSITIVITY, point.sensitivity),
            _percentage(_SPECIFICITY, point.specificity),
        ],
        qualitative_evaluations=[
            QualitativeEvaluation(_RESULT, _REACHED if breast.positive else _NOT_REACHED)
        ],
        source_images=_sources(images),
    )
    texts = [
        (_CLASS, result.manifest.positive_class),
        (_OPERATING_POINT, _operating_point(result)),
        *((_WARNING, f"{code}: {sentence}") for code, sentence in breast.warnings),
    ]
    group[0].ContentSequence.extend(_contained(TextContentItem(*text)) for text in texts)
    return group


def _exam_group(
    result: StudyResult,
    breast: BreastResult,
    exam: ExamResult,
    number: int,
    images: Sequence[dicom.Stored],
) -> MeasurementsAndQualitativeEvaluations:
    day = exam.date.isoformat() if exam.date else "date unknown"
    name = f"{dicom.SIDES[breast.laterality]}, exam {number}"
    offset = (
        LongitudinalTemporalOffsetFromEvent(exam.days_since_previous, _DAY, _PREVIOUS_EXAM)
        if number > 1
        else None
    )
    # the first exam changed nothing that a reader knows of
    change = [_percentage(_CHANGE, exam.change)] if number > 1 else []
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(result, name),
        time_point_context=TimePointContext(
            day, time_point_order=number, temporal_offset_from_event=offset
        ),
        finding_sites=[_site(breast)],
        measurements=[_percentage(_AFTER, exam.probability_after), *change],
        source_images=_sources(images),
    )
    if exam.date is not None:
        group[0].ContentSequence.append(_contained(_study_date(exam.date)))
    return group


def _peak_group(
    result: StudyResult, image: dicom.Stored, row: float, column: float
) -> PlanarROIMeasurementsAndQualitativeEvaluations:
    """TID 1410: a point in the image. The service counts pixels from the centre of the first one,
    DICOM from its corner (PS3.3 C.18.6.1.1)."""
    reference = image.reference
    point = ScoordContentItem(
        _IMAGE_REGION,
        "POINT",
        np.array([[column + 0.5, row + 0.5]]),
        relationship_type=RelationshipTypeValues.CONTAINS,
    )
    source = SourceImageForRegion(reference.sop_class, reference.instance)
    point.ContentSequence = ContentSequence([source])
    # The constructor looks the class up in a table of all attributes, which stays in memory
    # (61 MB), and raises for a class that it does not know, as a private one
    region = ImageRegion.from_dataset(point, copy=False)
    seen = " ".join(filter(None, (dicom.SIDES[image.laterality], image.image.facts.view)))
    scale = image.breast.scale
    highest = float(image.image.heatmap.max()) / scale if scale > 0 else 0.0
    return PlanarROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(
            result, f"{seen}, highest point of the heatmap, not a lesion", reference.instance
        ),
        referenced_region=region,
        finding_sites=[_site(image.breast)],
        measurements=[Measurement(_ACTIVATION, highest, _NO_UNITS)],
    )


def _image_library(images: Sequence[dicom.Stored]) -> ContainerContentItem:
    """TID 1600, with a group for each exam of each breast."""
    library = ContainerContentItem(_IMAGE_LIBRARY, relationship_type="CONTAINS")
    groups: dict[tuple[int, int], list[dicom.Stored]] = {}
    for image in images:
        groups.setdefault((id(image.breast), id(image.exam)), []).append(image)
    library.ContentSequence = ContentSequence(
        [_image_library_group(inside) for inside in groups.values()]
    )
    return library


def _image_library_group(images: Sequence[dicom.Stored]) -> ContainerContentItem:
    group = ContainerContentItem(_IMAGE_LIBRARY_GROUP, relationship_type="CONTAINS")
    shared: list[ContentItem] = [CodeContentItem(_MODALITY, _MG)]
    if images[0].exam.date is not None:
        shared.append(_study_date(images[0].exam.date))
    entries = [_image_library_entry(image) for image in images]
    group.ContentSequence = ContentSequence([*map(_acquired, shared), *entries])
    return group


def _image_library_entry(image: dicom.Stored) -> ImageContentItem:
    reference, facts = image.reference, image.image.facts
    entry = ImageContentItem(
        _SOURCE, reference.sop_class, reference.instance, relationship_type="CONTAINS"
    )
    described: list[ContentItem] = []
    if image.laterality is not None:
        described.append(CodeContentItem(_IMAGE_LATERALITY, _SIDE[image.laterality]))
    if facts.view in _VIEW:
        described.append(CodeContentItem(_IMAGE_VIEW, _VIEW[facts.view]))
    described += [
        NumContentItem(_ROWS, facts.rows, _PIXELS),
        NumContentItem(_COLUMNS, facts.columns, _PIXELS),
    ]
    entry.ContentSequence = ContentSequence([*map(_acquired, described)])
    return entry


def _algorithm(result: StudyResult) -> AlgorithmIdentification:
    """TID 4019."""
    manifest = result.manifest
    return AlgorithmIdentification(
        name=manifest.name,
        version=manifest.version,
        manufacturer=dicom.MANUFACTURER,
        parameters=[
            f"sha256 {result.bundle_sha256}",
            f"preprocessing {manifest.preprocessing.version}",
            f"temperature {manifest.temperature:.6g}",
        ],
        family=_ARTIFICIAL_INTELLIGENCE,
    )


def _operating_point(result: StudyResult) -> str:
    point = result.operating_point
    intervals = [
        f"{100 * low:.1f} to {100 * high:.1f} %"
        for low, high in (point.sensitivity_interval, point.specificity_interval)
    ]
    return (
        f"{point.name}: sensitivity {100 * point.sensitivity:.1f} % ({intervals[0]}), specificity "
        f"{100 * point.specificity:.1f} % ({intervals[1]}), measured on {point.measured_on}"
    )


def _tracking(result: StudyResult, name: str, *what: str) -> TrackingIdentifier:
    return TrackingIdentifier(instance_uid(result, "tracking", name, *what), name)


def _site(breast: BreastResult) -> FindingSite:
    return FindingSite(_BREAST, _SIDE[breast.laterality] if breast.laterality else None)


def _percentage(name: Code, share: float) -> Measurement:
    return Measurement(name, round(100 * float(share), 4), _PERCENT)


def _sources(images: Sequence[dicom.Stored]) -> list[SourceImageForMeasurementGroup]:
    return [
        SourceImageForMeasurementGroup(image.reference.sop_class, image.reference.instance)
        for image in images
    ]


def _study_date(day: date) -> DateContentItem:
    return DateContentItem(_STUDY_DATE, day)


def _contained(item: ContentItem) -> ContentItem:
    item.RelationshipType = "CONTAINS"
    return item


def _acquired(item: ContentItem) -> ContentItem:
    item.RelationshipType = "HAS ACQ CONTEXT"
    return item


def _coding_scheme() -> Dataset:
    """PS3.3 C.12.1.1.1: what the codes that are not of the standard are."""
    item = Dataset()
    item.CodingSchemeDesignator = _SCHEME
    item.CodingSchemeName = _SCHEME_NAME
    item.CodingSchemeResponsibleOrganization = dicom.MANUFACTURER
    return item
