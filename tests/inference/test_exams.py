"""Images with their facts -> exams of one breast in time order, or a refusal that says why."""

from __future__ import annotations

import itertools
from datetime import date, datetime
from typing import Any

import numpy as np
import pytest

from app.imaging.facts import ImageFacts
from app.inference.exams import (
    LONG_GAP_DAYS,
    Exam,
    Sent,
    order_exams,
    series_warnings,
    single_exam,
    slots_and_days,
)
from app.problems import Refusal

FACTS = ImageFacts("png", 600, 400, 8)


def sent(index: int, day: str | None = None, **given: Any) -> Sent:
    """An image with a stated date; ``given`` are fields of ``Sent`` or of its facts."""
    own = {k: v for k, v in given.items() if k in Sent.__dataclass_fields__}
    facts = {k: v for k, v in given.items() if k not in own}
    return Sent(
        index,
        ImageFacts("dicom", 600, 400, 16, **facts) if facts else FACTS,
        stated_date=date.fromisoformat(day) if day else None,
        **own,
    )


def at(day: str) -> datetime:
    return datetime.fromisoformat(day)


def refusal_of(*images: Sent) -> Refusal:
    with pytest.raises(Refusal) as caught:
        order_exams(images)
    return caught.value


def test_exams_come_out_in_time_order_whatever_the_order_sent() -> None:
    days = ["2020-02-01", "2021-02-01", "2021-08-01", "2024-01-01"]
    for order in itertools.permutations(range(4)):
        exams = order_exams([sent(place, days[which]) for place, which in enumerate(order)])
        assert [exam.date and exam.date.isoformat() for exam in exams] == days
        assert [exam.days_since_previous for exam in exams] == [0, 366, 181, 883]
        assert [order[exam.images[0]] for exam in exams] == [0, 1, 2, 3]


def test_images_of_one_day_are_views_of_one_exam() -> None:
    exams = order_exams(
        [
            sent(0, "2024-01-31", view="CC"),
            sent(1, "2023-01-31"),
            sent(2, exam_time=at("2024-01-31T15:20:00"), view="MLO"),
            sent(3, exam_time=at("2024-01-31T09:00:00")),
        ]
    )
    assert exams == (
        Exam(date(2023, 1, 31), 0, (1,)),
        Exam(date(2024, 1, 31), 365, (0, 2, 3)),
    )


def test_stated_facts_win_over_those_of_the_file() -> None:
    image = sent(
        0, "2024-01-31", exam_time=at("2020-05-05"), laterality="R", view="CC",
        stated_laterality="L", stated_view="MLO",
    )  # fmt: skip
    assert (image.exam_date, image.laterality, image.view) == (date(2024, 1, 31), "L", "MLO")


def test_single_image_is_an_exam_even_without_a_date() -> None:
    assert single_exam(sent(0)) == (Exam(None, 0, (0,)),)
    dated = sent(0, exam_time=at("2024-01-31T09:00"))
    assert single_exam(dated) == (Exam(date(2024, 1, 31), 0, (0,)),)


@pytest.mark.parametrize(
    ("images", "code", "named"),
    [
        ([sent(0, "2024-01-01"), sent(1), sent(2)], "no_exam_date", "1, 2"),
        (
            [
                sent(0, "2024-01-01", patient_key="a"),
                sent(1, "2023-01-01", patient_key="b"),
                sent(2, "2022-01-01"),
            ],
            "mixed_patients",
            "0; 1",
        ),
        (
            [
                sent(0, "2024-01-01", laterality="L"),
                sent(1, "2023-01-01", laterality="R"),
                sent(2, "2022-01-01", laterality="L"),
            ],
            "mixed_breasts",
            "0, 2; 1",
        ),
        (
            [sent(0, "2024-01-01", content_key="x"), sent(1, "2023-01-01", content_key="x")],
            "duplicate_image",
            "0 and 1",
        ),
        (
            [sent(0, "2024-01-01", instance_key="x"), sent(1, "2023-01-01", instance_key="x")],
            "duplicate_image",
            "0 and 1",
        ),
    ],
)
def test_series_that_cannot_be_one_breasts_is_refused_and_the_images_are_named(
    images: list[Sent], code: str, named: str
) -> None:
    refusal = refusal_of(*images)
    assert refusal.code == code
    assert named in refusal.detail


def test_images_that_do_not_say_whose_they_are_join_those_that_do() -> None:
    exams = order_exams(
        [
            sent(0, "2024-01-01", patient_key="a", laterality="L"),
            sent(1, "2023-01-01"),
            sent(2, "2022-01-01", patient_key="a"),
        ]
    )
    assert len(exams) == 3


def test_slots_and_days_place_every_image() -> None:
    slots, days = slots_and_days(
        [Exam(None, 0, (3,)), Exam(None, 200, (0, 2)), Exam(None, 365, (1,))]
    )
    np.testing.assert_array_equal(slots, [[3, -1], [0, 2], [1, -1]])
    np.testing.assert_array_equal(days, [0, 200, 365])
    assert slots.dtype == np.int32
    assert days.dtype == np.float32


def warnings_of(*images: Sent) -> list[str]:
    return [code for code, _ in series_warnings(images, order_exams(images))]


def test_series_without_doubt_has_no_warning() -> None:
    assert (
        warnings_of(
            sent(0, "2024-01-01", laterality="L"),
            sent(1, exam_time=at("2023-01-01"), laterality="L"),
        )
        == []
    )


def test_unknown_side_is_warned_of_once() -> None:
    assert warnings_of(sent(0, "2024-01-01"), sent(1, "2023-01-01")) == ["laterality_unknown"]


def test_stated_date_that_contradicts_the_file_is_warned_of() -> None:
    wrong = sent(0, "2024-01-01", exam_time=at("2023-06-06"), laterality="L")
    right = sent(1, "2023-01-01", exam_time=at("2023-01-01T12:00"), laterality="L")
    assert warnings_of(wrong, right) == ["date_differs_from_file"]


def test_stated_side_that_contradicts_the_file_is_warned_of() -> None:
    wrong = sent(0, "2024-01-01", laterality="R", stated_laterality="L")
    right = sent(1, "2023-01-01", laterality="L", stated_laterality="L")
    assert warnings_of(wrong, right) == ["laterality_differs_from_file"]


@pytest.mark.parametrize(("days", "warned"), [(LONG_GAP_DAYS, False), (LONG_GAP_DAYS + 1, True)])
def test_long_gap_is_warned_of(days: int, warned: bool) -> None:
    first = date(2015, 1, 1)
    last = date.fromordinal(first.toordinal() + days)
    images = [sent(0, first.isoformat(), laterality="L"), sent(1, str(last), laterality="L")]
    assert warnings_of(*images) == (["long_gap"] if warned else [])
