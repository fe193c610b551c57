"""The structured report, as dcmtk prints it and as highdicom reads it back."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from highdicom._standard_utils import get_module_attribute_map
from highdicom.sr import Comprehensive3DSR, srread

from app.bundle import DISCLAIMER, Bundle
from app.render.heatmap import peak
from app.render.result import StudyResult
from app.render.sr import structured_report
from tests.pictures import breast, dicom
from tests.render.readings import (
    SHA256,
    cbis,
    exam,
    full_field,
    image,
    of_breast,
    over_years,
    study,
)
from tests.render.validation import dsrdump


def report(result: StudyResult) -> Comprehensive3DSR:
    read = srread(BytesIO(structured_report(result)))
    assert isinstance(read, Comprehensive3DSR)
    return read


def measured(group: Any) -> dict[str, float]:
    """Values of a group by the code of their concept, time point aside."""
    return {item.name.value: item.value for item in group.get_measurements()}


def texts(group: Any) -> list[tuple[str, str]]:
    return [
        (item.name.value, item.value)
        for item in group[0].ContentSequence
        if item.ValueType == "TEXT" and item.RelationshipType == "CONTAINS"
    ]


def sources(group: Any) -> list[str]:
    return [
        str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID) for item in group.source_images
    ]


def groups(result: StudyResult) -> dict[str, Any]:
    found = report(result).content.get_image_measurement_groups()
    return {group.tracking_identifier: group for group in found}


# the document


def test_report_is_whole_but_preliminary_and_seen_by_no_one(bundle: Bundle) -> None:
    document = report(over_years(bundle.manifest))
    flags = (document.CompletionFlag, document.PreliminaryFlag, document.VerificationFlag)
    assert flags == ("COMPLETE", "PRELIMINARY", "UNVERIFIED")
    root = document.content[0]
    assert root.template_id == "1500"
    assert root.name.meaning == "Imaging Measurement Report"


def test_report_prints_its_probability_and_its_disclaimer(bundle: Bundle, tmp_path: Path) -> None:
    printed = dsrdump(structured_report(cbis(bundle.manifest)), tmp_path)
    assert '(111047,DCM,"Probability of cancer")="43.21" (%,UCUM,"Percent")' in printed
    assert "(en-US,RFC5646," in printed
    assert printed.index(DISCLAIMER) < printed.index("Probability of cancer")
    assert not [line for line in printed.splitlines() if line.startswith(("E:", "W:", "F:"))]


def test_model_is_the_observer(bundle: Bundle) -> None:
    observers = report(over_years(bundle.manifest)).content.get_observer_contexts()
    assert len(observers) == 1
    device = observers[0].observer_identifying_attributes
    assert (device.manufacturer_name, device.model_name) == ("Mammoseq", bundle.manifest.name)
    assert device.serial_number == SHA256[:16]


def test_codes_of_our_own_are_declared(bundle: Bundle) -> None:
    document = report(over_years(bundle.manifest))
    used = {
        element.value
        for element in document.iterall()
        if element.keyword == "CodingSchemeDesignator"
    }
    declared = {item.CodingSchemeDesignator for item in document.CodingSchemeIdentificationSequence}
    assert declared == {"99MAMMOSEQ"}
    assert used - declared == {"DCM", "SCT", "UCUM", "UMLS", "RFC5646"}


def test_no_finding_and_no_category_is_coded(bundle: Bundle) -> None:
    data = structured_report(over_years(bundle.manifest))
    document = srread(BytesIO(data))
    for group in document.content.get_image_measurement_groups():
        assert group.finding_type is None
    assert b"BI-RADS" not in data
    assert b"BIRADS" not in data


# each breast


def test_each_breast_has_one_probability(bundle: Bundle) -> None:
    found = groups(over_years(bundle.manifest))
    probabilities = {
        name: measured(group)["111047"]
        for name, group in found.items()
        if "111047" in measured(group)
    }
    assert probabilities == {"Left breast": 60.0, "Right breast": 15.0}


@pytest.mark.parametrize("probability", [0.0, 1.0, 0.123456789, 1e-7])
def test_probability_is_a_percentage(probability: float, bundle: Bundle) -> None:
    result = full_field(bundle.manifest, "L")
    result = replace(result, breasts=(replace(result.breasts[0], probability=probability),))
    value = measured(groups(result)["Left breast"])["111047"]
    assert value == pytest.approx(100 * probability, abs=5e-5)


@pytest.mark.parametrize(("laterality", "expected"), [("L", "Left"), ("R", "Right"), (None, None)])
def test_breast_is_the_finding_site(laterality: Any, expected: str | None, bundle: Bundle) -> None:
    data = dicom(breast(), ImageLaterality=laterality or "")
    result = study(bundle.manifest, of_breast(laterality, exam(image(data))))
    for group in report(result).content.get_image_measurement_groups():
        (site,) = group.finding_sites
        assert site.value.value == "76752008"
        side = site.laterality
        assert (side.meaning if side else None) == expected


def test_result_and_operating_point_stand_beside_the_probability(bundle: Bundle) -> None:
    found = groups(over_years(bundle.manifest))
    point = bundle.manifest.operating_point(None)
    assert point is not None
    for name, reached in (("Left breast", "at-or-above"), ("Right breast", "below")):
        values = measured(found[name])
        assert values["threshold"] == pytest.approx(100 * point.threshold, abs=1e-4)
        assert values["sensitivity"] == pytest.approx(100 * point.sensitivity, abs=1e-4)
        assert values["specificity"] == pytest.approx(100 * point.specificity, abs=1e-4)
        said = {i.name.value: i.value.value for i in found[name].get_qualitative_evaluations()}
        assert said["result"] == reached
        stated = dict(texts(found[name]))
        assert stated["class"] == bundle.manifest.positive_class
        assert stated["operating-point"].startswith(f"{point.name}: sensitivity ")
        assert stated["operating-point"].endswith(point.measured_on)


def test_algorithm_is_identified_by_name_version_and_hash(bundle: Bundle, tmp_path: Path) -> None:
    printed = dsrdump(structured_report(cbis(bundle.manifest)), tmp_path)
    assert f'"Algorithm Name")="{bundle.manifest.name}"' in printed
    assert f'"Algorithm Version")="{bundle.manifest.version}"' in printed
    assert f'"Algorithm Parameters")="sha256 {SHA256}"' in printed


def test_warnings_are_told_with_the_breast_they_are_of(bundle: Bundle) -> None:
    found = groups(over_years(bundle.manifest))
    warning = ("warning", "long_gap: Exam 1 is 730 days after the one before it.")
    assert [text for text in texts(found["Left breast"]) if text[0] == "warning"] == [warning]
    assert not [text for text in texts(found["Right breast"]) if text[0] == "warning"]


# each exam


def test_each_exam_says_when_it_was_and_what_it_changed(bundle: Bundle) -> None:
    found = groups(over_years(bundle.manifest))
    exams = {
        name: (
            [str(i.value) for i in group[0].ContentSequence if i.ValueType == "DATE"],
            [i.value for i in group[0].ContentSequence if i.name.value == "128740"],
            measured(group)["after-exam"],
            measured(group).get("change"),
        )
        for name, group in found.items()
        if "exam" in name
    }
    assert exams == {
        "Left breast, exam 1": (["2021-03-04"], [], 30.0, None),
        "Left breast, exam 2": (["2023-03-04"], [730.0], 25.0, -5.0),
        "Left breast, exam 3": (["2024-03-04"], [366.0], 60.0, 35.0),
        "Right breast, exam 1": (["2023-03-04"], [], 20.0, None),
        "Right breast, exam 2": (["2024-03-04"], [366.0], 15.0, -5.0),
    }


# images


def test_breasts_and_exams_refer_to_their_images(bundle: Bundle) -> None:
    found = groups(over_years(bundle.manifest))
    assert {name: sources(group) for name, group in found.items()} == {
        "Left breast": ["1.2.2024.1.1", "1.2.2024.1.2", "1.2.2021.1.5", "1.2.2023.1.6"],
        "Left breast, exam 1": ["1.2.2021.1.5"],
        "Left breast, exam 2": ["1.2.2023.1.6"],
        "Left breast, exam 3": ["1.2.2024.1.1", "1.2.2024.1.2"],
        "Right breast": ["1.2.2024.1.3", "1.2.2024.1.4", "1.2.2023.1.7"],
        "Right breast, exam 1": ["1.2.2023.1.7"],
        "Right breast, exam 2": ["1.2.2024.1.3", "1.2.2024.1.4"],
    }


def test_evidence_tells_the_current_study_from_priors(bundle: Bundle) -> None:
    document = report(over_years(bundle.manifest))
    current = {str(uids[2]) for uids in document.get_evidence(current_procedure_only=True)}
    assert current == {f"1.2.2024.1.{number}" for number in (1, 2, 3, 4)}
    everything = {tuple(map(str, uids[:3])) for uids in document.get_evidence()}
    assert everything - {uids for uids in everything if uids[2] in current} == {
        ("1.2.2021", "1.2.2021.1", "1.2.2021.1.5"),
        ("1.2.2023", "1.2.2023.1", "1.2.2023.1.6"),
        ("1.2.2023", "1.2.2023.1", "1.2.2023.1.7"),
    }


def test_image_library_lists_every_image_with_side_and_view(bundle: Bundle) -> None:
    root = report(over_years(bundle.manifest)).content[0]
    (library,) = [item for item in root.ContentSequence if item.name.value == "111028"]
    listed = {}
    for group in library.ContentSequence:
        for entry in group.ContentSequence:
            if entry.ValueType == "IMAGE":
                said = {i.name.value: i.value for i in entry.ContentSequence}
                uid = entry.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
                listed[str(uid)] = (said["111027"].meaning, said["111031"].value)
                assert (said["110910"], said["110911"]) == (600, 400)
    cc, mlo = "399162004", "399368009"
    assert listed == {
        "1.2.2024.1.1": ("Left", cc), "1.2.2024.1.2": ("Left", mlo),
        "1.2.2024.1.3": ("Right", cc), "1.2.2024.1.4": ("Right", mlo),
        "1.2.2021.1.5": ("Left", cc), "1.2.2023.1.6": ("Left", cc),
        "1.2.2023.1.7": ("Right", mlo),
    }  # fmt: skip


def test_highest_point_of_each_heatmap_is_a_point_in_its_image(bundle: Bundle) -> None:
    """In pixels from the corner of the image; ``peak`` counts from the centre of the first one."""
    result = over_years(bundle.manifest)
    expected = {}
    for of_one in result.breasts:
        for one_exam in of_one.exams:
            for one in one_exam.images:
                found = peak(one.heatmap, one.crop)
                assert one.header is not None
                if found is not None:
                    place = (found.column + 0.5, found.row + 0.5)
                    expected[str(one.header.SOPInstanceUID)] = pytest.approx(place, abs=0.01)
    assert len(expected) == 6, "one of seven heatmaps is zero"
    regions = report(result).content.get_planar_roi_measurement_groups()
    drawn = {}
    for group in regions:
        source = group.roi.ContentSequence[0].ReferencedSOPSequence[0]
        drawn[str(source.ReferencedSOPInstanceUID)] = tuple(group.roi.value[0])
        assert group.roi.graphic_type.value == "POINT"
        assert source.ReferencedSOPClassUID.name.startswith("Digital Mammography")
        assert measured(group) == {"130403": 1.0}
        assert "not a lesion" in group.tracking_identifier
    assert drawn == expected


def test_point_lies_in_the_cell_that_is_highest_on_either_side(bundle: Bundle) -> None:
    for laterality, mirrored in (("L", False), ("R", True)):
        result = full_field(bundle.manifest, laterality)  # type: ignore[arg-type]
        crop = result.breasts[0].exams[0].images[0].crop
        assert crop.flipped == mirrored
        (group,) = report(result).content.get_planar_roi_measurement_groups()
        x, y = group.roi.value[0]
        from_chest_wall = crop.left + crop.width - x if mirrored else x - crop.left
        assert from_chest_wall == pytest.approx(3.5 * crop.width / 10, abs=0.01)
        assert y == pytest.approx(crop.top + 8.5 * crop.height / 16, abs=0.01)


def test_image_of_a_private_class_is_referred_to_by_it(bundle: Bundle) -> None:
    document = report(full_field(bundle.manifest, "L", SOPClassUID="1.3.46.670589.2"))
    classes = {
        str(element.value)
        for element in document.iterall()
        if element.keyword == "ReferencedSOPClassUID"
    }
    assert classes == {"1.3.46.670589.2"}


def test_report_is_written_without_the_table_of_all_attributes(bundle: Bundle) -> None:
    get_module_attribute_map.cache_clear()
    structured_report(full_field(bundle.manifest, "L"))
    assert not get_module_attribute_map.cache_info().currsize  # 61 MB for the life of the process
