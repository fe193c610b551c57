"""What the DICOM results share: their place, their names, and nothing of a header but identity."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime
from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset

from app.bundle import DISCLAIMER, Bundle
from app.render.dicom import NoStudyError
from app.render.result import BreastResult, StudyResult
from app.render.secondary_capture import secondary_captures
from app.render.segmentation import segmentations
from app.render.sr import structured_report
from tests.pictures import breast, dicom, png
from tests.render.readings import (
    ABSENT,
    PATIENT,
    SHA256,
    cbis,
    exam,
    full_field,
    image,
    of_breast,
    over_years,
    study,
)
from tests.render.validation import dciodvfy

REPOSITORY = Path(__file__).resolve().parents[2]
SPARSE = dict.fromkeys(PATIENT, ABSENT) | {"PatientID": None, "ViewPosition": None}
Source = Callable[[Bundle], StudyResult]
SOURCES: dict[str, Source] = {
    "CBIS-DDSM": lambda bundle: cbis(bundle.manifest),
    "CBIS-DDSM, MONOCHROME1": lambda bundle: cbis(bundle.manifest, "monochrome1"),
    "left": lambda bundle: full_field(bundle.manifest, "L"),
    "right": lambda bundle: full_field(bundle.manifest, "R"),
    "sparse": lambda bundle: full_field(bundle.manifest, "L", **SPARSE),
    "several exams, both breasts": lambda bundle: over_years(bundle.manifest),
    "values out of form": lambda bundle: full_field(
        bundle.manifest, "R",
        PatientBirthDate="unknown", PatientSex="female", StudyDate="2024.01.31", StudyTime="9:00",
        PatientOrientation="MLO", TimezoneOffsetFromUTC="CET", LossyImageCompression="yes",
    ),
    "lossy": lambda bundle: full_field(
        bundle.manifest, "L", LossyImageCompression="01", LossyImageCompressionRatio="12",
        LossyImageCompressionMethod="ISO_15444_1",
    ),
    "accents": lambda bundle: full_field(
        bundle.manifest, "L", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë"
    ),
    "three scripts": lambda bundle: full_field(
        bundle.manifest, "L", SpecificCharacterSet="ISO_IR 192",
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
}  # fmt: skip


def written(result: StudyResult) -> list[bytes]:
    """All that can be written of a reading."""
    return [structured_report(result), *secondary_captures(result), *segmentations(result)]


def read(data: bytes) -> FileDataset:
    return pydicom.dcmread(BytesIO(data))


def texts(dataset: Dataset) -> str:
    return "\n".join(str(element.value) for element in dataset.iterall() if element.VR != "SQ")


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_results_are_valid_dicom(source: Source, bundle: Bundle, tmp_path: Path) -> None:
    for data in written(source(bundle)):
        assert dciodvfy(data, tmp_path) == []


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_results_belong_to_patient_and_study_of_the_newest_exam(
    source: Source, bundle: Bundle
) -> None:
    result = source(bundle)
    header = result.breasts[0].exams[-1].images[0].header
    assert header is not None
    for data in written(result):
        dataset = read(data)
        for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "AccessionNumber",
                        "StudyID", "ReferringPhysicianName"):  # fmt: skip
            assert str(dataset[keyword].value or "") == str(header.get(keyword) or ""), keyword


@pytest.mark.parametrize("keyword", ["PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"])
def test_dates_and_codes_are_copied_if_they_are_any(keyword: str, bundle: Bundle) -> None:
    good = full_field(bundle.manifest, "L")
    bad = SOURCES["values out of form"](bundle)
    for data in written(good):
        assert read(data)[keyword].value == (PATIENT | {"StudyDate": "20240131"})[keyword]
    for data in written(bad):
        assert read(data)[keyword].value in ("", None)


def test_identity_out_of_form_is_kept_so_that_it_stays_the_same_patient(bundle: Bundle) -> None:
    result = full_field(
        bundle.manifest, "L", PatientID="7" * 70, IssuerOfPatientID="clinic", PatientName="a" * 80
    )
    for data in written(result):
        dataset = read(data)
        assert (dataset.PatientID, dataset.IssuerOfPatientID) == ("7" * 70, "clinic")
        assert dataset.PatientName == "a" * 80


def test_results_say_who_made_them(bundle: Bundle) -> None:
    manifest = bundle.manifest
    kinds = set()
    for data in written(over_years(manifest)):
        dataset = read(data)
        assert dataset.Manufacturer == "Mammoseq"
        assert dataset.ManufacturerModelName == manifest.name
        assert dataset.SoftwareVersions == manifest.version
        assert dataset.DeviceSerialNumber == SHA256[:16]
        assert DISCLAIMER in texts(dataset)
        kinds.add((dataset.SOPClassUID.name, dataset.Modality, dataset.SeriesDescription))
    assert kinds == {
        ("Comprehensive 3D SR Storage", "SR", "Mammoseq report"),
        ("Secondary Capture Image Storage", "OT", "Mammoseq heatmap"),
        ("Segmentation Storage", "SEG", "Mammoseq heatmap map"),
    }


def test_nothing_else_of_a_header_gets_into_results_and_nothing_of_it_is_printed(
    bundle: Bundle,
) -> None:
    """In a process of its own, where no test runner swallows warnings and logs."""
    done = subprocess.run(
        [sys.executable, "-c", "import tests.render.planted"],
        cwd=REPOSITORY, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# the newest exam


def test_pictures_and_maps_are_of_the_newest_exam_of_either_breast(bundle: Bundle) -> None:
    result = over_years(bundle.manifest)
    for files in (secondary_captures(result), segmentations(result)):
        assert [_source(read(data)) for data in files] == [
            f"1.2.2024.1.{number}" for number in (1, 2, 3, 4)
        ]
        assert [read(data).InstanceNumber for data in files] == [1, 2, 3, 4]


def test_a_breast_last_seen_in_an_older_exam_is_reported_but_not_drawn(bundle: Bundle) -> None:
    both = over_years(bundle.manifest)
    right = both.breasts[1]
    older = replace(both, breasts=(both.breasts[0], replace(right, exams=right.exams[:1])))
    assert len(secondary_captures(older)) == len(segmentations(older)) == 2
    assert "Right breast" in texts(read(structured_report(older)))


def test_undated_exam_is_the_newest_if_it_is_the_only_one(bundle: Bundle) -> None:
    result = full_field(bundle.manifest, "L", StudyDate=None)
    assert result.breasts[0].exams[0].date is None
    assert len(written(result)) == 3


@pytest.mark.parametrize(
    "data",
    [
        png(breast()),
        dicom(breast(), SeriesInstanceUID=None),
        dicom(breast(), StudyInstanceUID=""),
    ],
    ids=["PNG", "no series", "no study"],
)
@pytest.mark.parametrize("write", [structured_report, secondary_captures, segmentations])
def test_without_a_study_nothing_is_written(
    write: Callable[[StudyResult], object], data: bytes, bundle: Bundle
) -> None:
    with pytest.raises(NoStudyError):
        write(study(bundle.manifest, of_breast("L", exam(image(data)))))


def test_priors_of_another_format_do_no_harm(bundle: Bundle) -> None:
    new = exam(image(dicom(breast(), **PATIENT), 0), days=400)
    old = replace(exam(image(png(breast()), 1)), date=date(2022, 1, 1))
    result = study(bundle.manifest, of_breast("L", old, new))
    report = read(structured_report(result))
    assert "2022-01-01" in texts(report)
    assert "PertinentOtherEvidenceSequence" not in report


# time


@pytest.mark.parametrize(
    ("offset", "expected"),
    [("+0530", ("20260304", "103607", "+0530")), ("-1100", ("20260303", "180607", "-1100"))],
)
def test_times_are_in_the_time_zone_of_the_study(
    offset: str, expected: tuple[str, str, str], bundle: Bundle
) -> None:
    result = full_field(bundle.manifest, "L", TimezoneOffsetFromUTC=offset)
    for naive in (False, True):
        created = result.created.replace(tzinfo=None) if naive else result.created
        for data in written(replace(result, created=created)):
            dataset = read(data)
            time = dataset.ContentTime.split(".")[0]
            assert (dataset.ContentDate, time, dataset.TimezoneOffsetFromUTC) == expected


def test_no_time_zone_is_claimed_for_a_study_that_has_none(bundle: Bundle) -> None:
    result = full_field(bundle.manifest, "L")
    local = result.created.astimezone()
    for data in written(result):
        dataset = read(data)
        assert "TimezoneOffsetFromUTC" not in dataset
        written_at = datetime.strptime(dataset.ContentDate + dataset.ContentTime, "%Y%m%d%H%M%S.%f")
        assert written_at == local.replace(tzinfo=None)


# names


def _uids(result: StudyResult) -> list[tuple[str, str]]:
    datasets = [read(data) for data in written(result)]
    return [(dataset.SeriesInstanceUID, dataset.SOPInstanceUID) for dataset in datasets]


def test_writing_again_gives_the_same_names(bundle: Bundle) -> None:
    first = _uids(over_years(bundle.manifest))
    later = replace(over_years(bundle.manifest), created=datetime(2027, 1, 1), request_id="other")
    assert _uids(later) == first
    backwards = replace(later, breasts=later.breasts[::-1])
    assert sorted(_uids(backwards)) == sorted(first)


def test_each_file_has_its_own_name_and_each_kind_its_series(bundle: Bundle) -> None:
    uids = _uids(over_years(bundle.manifest))
    instances, series = {uid for _, uid in uids}, {uid for uid, _ in uids}
    assert (len(instances), len(series)) == (9, 3)
    for uid in instances | series:
        assert pydicom.uid.UID(uid).is_valid
        assert uid.startswith("2.25.")
        bits = int(uid.removeprefix("2.25."))
        assert (bits >> 76 & 0xF, bits >> 62 & 0x3) == (8, 2), "not a UUID"


def _fewer_priors(breasts: tuple[BreastResult, ...]) -> tuple[BreastResult, ...]:
    return (replace(breasts[0], exams=breasts[0].exams[1:]), *breasts[1:])


def _another_date(breasts: tuple[BreastResult, ...]) -> tuple[BreastResult, ...]:
    oldest, *others = breasts[0].exams
    moved = replace(oldest, date=date(2020, 1, 1))
    return (replace(breasts[0], exams=(moved, *others)), *breasts[1:])


@pytest.mark.parametrize(
    ("change", "same_series"),
    [
        (lambda r: replace(r, bundle_sha256="f" * 64), False),
        (lambda r: replace(r, target_class="no_cancer"), True),
        (lambda r: replace(r, operating_point=r.manifest.operating_points[1]), True),
        (lambda r: replace(r, breasts=_fewer_priors(r.breasts)), True),
        (lambda r: replace(r, breasts=_another_date(r.breasts)), True),
    ],
    ids=["model", "class", "operating point", "priors", "date"],
)
def test_another_reading_has_other_names(
    change: Callable[[StudyResult], StudyResult], same_series: bool, bundle: Bundle
) -> None:
    result = over_years(bundle.manifest)
    before, after = _uids(result), _uids(change(result))
    assert not {uid for _, uid in before} & {uid for _, uid in after}
    assert ({uid for uid, _ in before} == {uid for uid, _ in after}) == same_series


def _source(dataset: FileDataset) -> str:
    if "SourceImageSequence" in dataset:
        return str(dataset.SourceImageSequence[0].ReferencedSOPInstanceUID)
    frame = dataset.PerFrameFunctionalGroupsSequence[0]
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    return str(source.ReferencedSOPInstanceUID)
