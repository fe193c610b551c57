"""A bank of encoded exams: series of any length from it are like simulated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.imaging.preprocess import InputGeometry, crop_breast
from tests.pictures import breast
from training.breasts import Breasts
from training.exam_bank import (
    ExamBank,
    bank_of_masses,
    bank_of_unchanged,
    draw_simulated,
    draw_unchanged,
    load,
    save,
)  # fmt: skip
from training.manifest import LabelledImage
from training.simulate import COURSE_SHARES

INTERVALS = np.array([300, 365, 400])


@pytest.fixture(scope="module")
def breasts() -> Breasts:
    size = InputGeometry(256, 160)
    pixels = np.stack([crop_breast(breast(seed=s), size)[0] for s in range(4)])
    rows = tuple(
        LabelledImage(Path(f"{s}.png"), f"p{s}", None, "L", "CC", "no_cancer") for s in range(4)
    )
    return Breasts(pixels, rows, np.zeros(4, np.int32))


def mean_grey(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    return images.reshape(len(images), -1).mean(axis=1, keepdims=True).astype(np.float32)


def bank_of_sizes(count: int = 20, acquisitions: int = 40) -> ExamBank:
    """The only feature of an exam is the diameter of its mass."""
    sizes = np.concatenate([np.zeros(3), np.geomspace(3, 30, acquisitions - 3)])
    diameters = np.tile(sizes, (count, 1)).astype(np.float32)
    return ExamBank(
        exams=diameters[..., None].astype(np.float16),
        diameters_mm=diameters,
        labels=np.zeros(count, np.int32),
        patients=np.array([f"p{i}" for i in range(count)]),
    )


def test_bank_of_masses_covers_all_sizes_and_none(breasts: Breasts) -> None:
    bank = bank_of_masses(mean_grey, breasts, [0, 2, 3], 15, seed=0)
    assert bank.exams.shape == (3, 15, 1)
    assert list(bank.patients) == ["p0", "p2", "p3"]
    for sizes in bank.diameters_mm:
        seen = np.sort(sizes[sizes > 0])
        assert len(seen) == 12
        assert seen[0] < 4.5
        assert seen[-1] > 22
        assert np.diff(np.log(seen)).max() < 0.5


def test_same_seed_gives_the_same_bank_whatever_else_is_in_it(breasts: Breasts) -> None:
    one = bank_of_masses(mean_grey, breasts, [1], 12, seed=5)
    two = bank_of_masses(mean_grey, breasts, [3, 1], 12, seed=5)
    np.testing.assert_array_equal(one.exams[0], two.exams[1])


def test_bank_of_unchanged_begins_with_the_image_itself(breasts: Breasts) -> None:
    bank = bank_of_unchanged(mean_grey, breasts, [0, 1], 4, seed=0)
    np.testing.assert_allclose(bank.exams[:, 0, 0], mean_grey(breasts.pixels[:2])[:, 0], rtol=2e-3)
    assert not bank.diameters_mm.any()


def test_drawn_series_follow_their_course() -> None:
    series = draw_simulated(bank_of_sizes(), 400, 5, 1, INTERVALS, np.random.default_rng(0))
    assert set(series.lengths) == {2, 3, 4, 5}
    assert set(series.courses) <= set(COURSE_SHARES)
    np.testing.assert_array_equal(series.labels, series.courses == "growing")
    last = series.exams[np.arange(400), series.lengths - 1, 0]
    first = series.exams[:, 0, 0]
    growing, regressing = series.courses == "growing", series.courses == "regressing"
    assert (last[growing] >= first[growing]).all()
    assert (last[regressing] <= first[regressing]).all()
    assert abs(np.median(last[growing]) - np.median(last[~growing])) < 2, "the last cannot tell"
    for s in range(400):
        assert series.days[s, 0] == 0
        assert (series.days[s, 1 : series.lengths[s]] > 0).all()
        assert not series.exams[s, series.lengths[s] :].any()


def test_unchanged_series_stay_with_one_image_and_its_label() -> None:
    bank = bank_of_sizes()
    bank.exams[:] = np.arange(20, dtype=np.float16)[:, None, None] + 1
    series = draw_unchanged(bank, 100, 5, INTERVALS, np.random.default_rng(0))
    assert set(series.lengths) == {1, 2, 3, 4, 5}
    for s, length in enumerate(series.lengths):
        assert len(set(series.exams[s, :length, 0])) == 1
        assert series.courses[s] == "unchanged"


def test_bank_survives_the_disk(tmp_path: Path) -> None:
    bank = bank_of_sizes()
    save(bank, tmp_path / "bank.npz")
    np.testing.assert_array_equal(load(tmp_path / "bank.npz").exams, bank.exams)
