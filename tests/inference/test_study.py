"""Images of a patient and the exams of each breast."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from app.imaging.facts import ImageFacts
from app.inference.exams import Sent
from app.inference.study import Ignored, group_by_breast, raise_if_none_left
from app.problems import Refusal

MORNING, NOON = datetime(2024, 3, 1, 9), datetime(2024, 3, 1, 12)


def sent(index: int, side: str | None = "L", view: str | None = "CC", **more: Any) -> Sent:
    keys = {"patient_key": "p", "instance_key": f"i{index}", "exam_time": MORNING} | more
    return Sent(index, ImageFacts("dicom", 9, 9, 8, laterality=side, view=view, **keys))  # type: ignore[arg-type]


def grouped(*images: Sent) -> tuple[dict[str | None, list[tuple[int, ...]]], dict[int, str]]:
    breasts, ignored = group_by_breast(images)
    return (
        {breast.laterality: [exam.images for exam in breast.exams] for breast in breasts},
        {note.index: note.code for note in ignored},
    )


def test_breasts_come_in_order_with_their_exams_in_time_order() -> None:
    old = datetime(2020, 1, 1)
    found = grouped(sent(0, "R"), sent(1), sent(2, exam_time=old), sent(3, "R", "MLO"))
    assert found == ({"L": [(2,), (1,)], "R": [(0, 3)]}, {})


def test_newest_of_a_view_is_kept() -> None:
    found = grouped(sent(0, acquired=MORNING), sent(1, acquired=NOON))
    assert found == ({"L": [(1,)]}, {0: "older_image"})


def test_exposed_view_is_kept_before_a_synthetic_one_whenever_it_was_taken() -> None:
    synthetic = (("synthetic_2d", "Computed."),)
    found = grouped(sent(0, acquired=MORNING), sent(1, acquired=NOON, warnings=synthetic))
    assert found == ({"L": [(0,)]}, {1: "synthetic_image"})
    alone = grouped(sent(1, acquired=NOON, warnings=synthetic))
    assert alone == ({"L": [(1,)]}, {})


@pytest.mark.parametrize(
    "other",
    [
        {"view": "MLO"},
        {"side": "R"},
        {"view_modifiers": ("implant_displaced",)},
        {"exam_time": datetime(2023, 1, 1)},
        {"view": None},
    ],
    ids=["view", "side", "modifier", "exam", "unknown view"],
)
def test_images_that_differ_in_more_than_time_are_all_kept(other: dict[str, Any]) -> None:
    _, ignored = grouped(sent(0, acquired=MORNING), sent(1, acquired=NOON, **other))
    assert ignored == {}


def test_images_taken_at_the_same_time_are_all_kept() -> None:
    assert grouped(sent(0, acquired=NOON), sent(1, acquired=NOON)) == ({"L": [(0, 1)]}, {})


def test_first_of_copies_is_kept() -> None:
    found = grouped(sent(0), sent(1, instance_key="i0"), sent(2, "R"))
    assert found == ({"L": [(0,)], "R": [(2,)]}, {1: "duplicate_image"})


def test_unknown_breast_is_left_out_only_beside_known_ones() -> None:
    assert grouped(sent(0, None), sent(1, "R")) == ({"R": [(1,)]}, {0: "breast_unknown"})
    assert grouped(sent(0, None), sent(1, None, "MLO")) == ({None: [(0, 1)]}, {})


@pytest.mark.parametrize(
    ("images", "code"),
    [
        ([sent(0), sent(1, patient_key="q")], "mixed_patients"),
        ([sent(0), sent(1, exam_time=None)], "no_exam_date"),
    ],
)
def test_images_that_make_no_study_are_refused(images: list[Sent], code: str) -> None:
    with pytest.raises(Refusal) as caught:
        group_by_breast(images)
    assert caught.value.code == code


def test_request_of_which_nothing_is_left_is_refused_with_all_reasons() -> None:
    raise_if_none_left(1, [Ignored(0, "empty_file", "")])
    for ignored, code in (
        ([Ignored(0, "empty_file", "The file is empty.")], "empty_file"),
        ([Ignored(0, "empty_file", ""), Ignored(1, "no_pixels", "")], "nothing_to_read"),
    ):
        with pytest.raises(Refusal) as caught:
            raise_if_none_left(0, ignored)
        assert caught.value.code == code
    assert "0 empty_file; 1 no_pixels" in caught.value.detail
