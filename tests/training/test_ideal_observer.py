"""The bound on what could be told: each reader uses what it may use, and finds what it should."""

from pathlib import Path

import numpy as np
import pytest

from training.ideal_observer import READERS, draw_histories, features, ideal_observer

INTERVALS = np.array([343, 372, 401], dtype=np.int64)


def test_bound_shows_that_order_and_days_matter(tmp_path: Path) -> None:
    found = ideal_observer(
        tmp_path / "observed.csv",
        exams=[4], errors=[0.05], intervals=INTERVALS, series=3000, seed=0,
    )  # fmt: skip
    auc = {row.reader: row.auc for row in found}
    assert auc["order and days"] > 0.97
    assert auc["order, no days"] < auc["order and days"] - 0.01
    assert auc["days, no order"] < 0.9
    assert auc["last exam alone"] == pytest.approx(0.5, abs=0.06)
    assert all(row.low <= row.auc <= row.high for row in found)


def test_finished_rows_are_not_measured_again(tmp_path: Path) -> None:
    def measure(exams: list[int]) -> list[object]:
        stored = tmp_path / "observed.csv"
        return list(
            ideal_observer(
                stored, exams=exams, errors=[0.1], intervals=INTERVALS, series=300, seed=0
            )
        )

    first = measure([1])
    text = (tmp_path / "observed.csv").read_text()
    both = measure([1, 2])
    assert both[: len(first)] == first
    assert (tmp_path / "observed.csv").read_text().startswith(text)
    assert len(both) == len(first) + len(READERS)


def test_reader_without_order_sees_a_set() -> None:
    histories = draw_histories(50, 4, INTERVALS, np.random.default_rng(0))
    shuffled = histories.log_diameters[:, [2, 0, 3, 1]]
    for reader, same in (("days, no order", True), ("order, no days", False)):
        one = features(reader, histories.log_diameters, histories.years)
        two = features(reader, shuffled, histories.years)
        assert np.array_equal(one, two, equal_nan=True) == same


def test_reader_without_days_does_not_see_them() -> None:
    histories = draw_histories(50, 4, INTERVALS, np.random.default_rng(0))
    for reader, same in (("order, no days", True), ("order and days", False)):
        one = features(reader, histories.log_diameters, histories.years)
        two = features(reader, histories.log_diameters, histories.years**1.1)
        assert np.array_equal(one, two, equal_nan=True) == same
