"""Manifest rows -> breasts with their exams in time order."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from training.exams import BreastSeries, breast_series
from training.manifest import LabelledImage, ManifestError


def row(
    patient: str, side: str = "L", day: str = "", label: str = "normal", name: str = ""
) -> LabelledImage:
    name = name or f"{patient}{side}{day}{label}.png"
    when = date.fromisoformat(day) if day else None
    return LabelledImage(Path(name), patient, when, side, "CC", label)


def shape(breasts: list[BreastSeries]) -> list[tuple[str, list[int], list[bool]]]:
    """Name, images an exam, and which exams are positive."""
    return [(b.name, [len(exam) for exam in b.exams], list(b.positive)) for b in breasts]


def test_views_of_one_breast_are_one_exam_and_sides_are_apart() -> None:
    rows = [row("a", name="1"), row("a", "R", label="cancer"), row("a", name="2"), row("b")]
    assert shape(breast_series(rows, "cancer")) == [
        ("a-L", [2], [False]), ("a-R", [1], [True]), ("b-L", [1], [False]),
    ]  # fmt: skip


def test_dated_exams_are_in_time_order_with_the_label_of_each() -> None:
    rows = [
        row("a", day="2024-01-01", label="cancer"),
        row("a", day="2020-05-01"),
        row("a", day="2022-01-01", name="1"),
        row("a", day="2022-01-01", label="benign", name="2"),
    ]
    (found,) = breast_series(rows, "cancer")
    assert [day.year for day in found.dates if day] == [2020, 2022, 2024]
    assert shape([found]) == [("a-L", [1, 2, 1], [False, False, True])]


def test_exams_of_an_unknown_side_stand_alone() -> None:
    """They may be of either breast: one must not be read as the prior of the other."""
    rows = [row("a", "", "2020-01-01"), row("a", "", "2021-01-01"), row("b", ""),
            row("b", "", label="cancer")]  # fmt: skip
    assert shape(breast_series(rows, "cancer")) == [
        ("a-2020-01-01", [1], [False]), ("a-2021-01-01", [1], [False]),
        ("b-", [1], [False]), ("b-", [1], [True]),
    ]  # fmt: skip


def test_every_breast_that_contradicts_itself_is_named() -> None:
    rows = [
        row("a", name="1"), row("a", label="cancer"),
        row("b", "R", "2020-01-01"), row("b", "R"),
        row("c"),
    ]  # fmt: skip
    with pytest.raises(ManifestError) as caught:
        breast_series(rows, "cancer")
    assert str(caught.value).splitlines() == [
        "2 finding(s) in the manifest",
        "patient a, side L, date unknown: cancer and not cancer",
        "patient b, side R: some exams have a date and some have none",
    ]


def test_series_without_some_images_keeps_the_other_exams() -> None:
    rows = [row("a", day=f"202{i}-01-01", label="cancer" if i else "normal") for i in range(3)]
    (found,) = breast_series(rows, "cancer")
    kept = found.without([str(rows[1].path)])
    assert kept is not None
    assert [image.path for image in kept.images] == [rows[0].path, rows[2].path]
    assert kept.positive == (False, True)
    assert found.without(str(image.path) for image in rows) is None
