"""Reading encoded exams in time order: what the LSTM can learn from them, and what it must keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from tests.training.hybrids import small_hybrid
from training.exam_series import (
    ExamSeries,
    encode_series,
    joined,
    last_exams,
    load,
    pooled_encoder,
    save,
    shuffled,
    without_days,
)  # fmt: skip
from training.models.hybrid import Hybrid
from training.reading import fit_head, read_series
from training.series import Series, pack

CHANNELS = 256  # of the small hybrid's last feature map
LENGTH = 4


def patients_of(count: int) -> NDArray[np.str_]:
    return np.array([f"p{i}" for i in range(count)])


def rising_or_recurring(count: int, seed: int) -> ExamSeries:
    """Some features rise (positive), or have the same values with the earlier exams in reverse:
    the last exam is the same, and so is the set of exams."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(3, LENGTH + 1, count).astype(np.int32)
    labels = rng.integers(0, 2, count).astype(np.int32)
    exams = np.zeros((count, LENGTH, CHANNELS), np.float32)
    days = np.zeros((count, LENGTH), np.float32)
    for s, (length, label) in enumerate(zip(lengths, labels, strict=True)):
        rising = 2 + rng.uniform(0.4, 0.6) * (np.arange(length) - length + 1)
        seen = rising if label else [*rising[-2::-1], rising[-1]]
        roots = rng.uniform(0.3, 1.0, CHANNELS) + rng.normal(0, 0.05, (length, CHANNELS))
        roots[:, ::4] = np.array(seen)[:, None]
        exams[s, :length] = roots**3  # the head takes the root
        days[s, 1:length] = rng.integers(200, 500, length - 1)
    courses = np.where(labels == 1, "growing", "recurring")
    return ExamSeries(exams, days, lengths, labels, courses, patients_of(count))


def unchanged(count: int, seed: int) -> ExamSeries:
    rng = np.random.default_rng(seed)
    roots = rng.uniform(0.3, 2, (count, 1, CHANNELS))
    exams = np.repeat(roots**3, LENGTH, axis=1).astype(np.float32)
    days = np.tile(np.array([0, 365, 365, 365], np.float32), (count, 1))
    return ExamSeries(
        exams, days, np.full(count, LENGTH, np.int32), np.zeros(count, np.int32),
        np.array(["unchanged"] * count), patients_of(count),
    )  # fmt: skip


Taught = tuple[Hybrid, ExamSeries, ExamSeries, NDArray[np.float64], list[dict[str, float]]]


@pytest.fixture(scope="module")
def taught() -> Taught:
    model = small_hybrid()
    changing, still = rising_or_recurring(300, 2), unchanged(100, 3)
    before = read_series(model, last_exams(still, 1))
    grown, history = fit_head(
        model,
        lambda n, rng: rising_or_recurring(n, int(rng.integers(2**32))),
        lambda n, rng: unchanged(n, int(rng.integers(2**32))),
        joined(changing, still),
        positive=1,
        features=8,
        units=8,
        dropout=0.1,
        epochs=20,
        learning_rate=0.003,
        seed=0,
    )
    return grown, changing, still, before, history


def auc(model: Hybrid, series: ExamSeries) -> float:
    logits = read_series(model, series)
    return float(roc_auc_score(series.labels, logits[:, 1] - logits[:, 0]))


def test_reader_learns_what_only_the_order_tells(taught: Taught) -> None:
    model, changing, *_ = taught
    assert auc(model, changing) > 0.95
    assert auc(model, last_exams(changing, 1)) < 0.65
    assert auc(model, shuffled(changing, np.random.default_rng(0))) < 0.8


def test_reading_of_an_unchanged_exam_is_kept(taught: Taught) -> None:
    model, _, still, before, history = taught
    now = softmax(read_series(model, still), axis=1)[:, 1]
    then = softmax(before, axis=1)[:, 1]
    assert np.abs(now - then).mean() < 0.2
    alone = softmax(read_series(model, last_exams(still, 1)), axis=1)[:, 1]
    np.testing.assert_allclose(alone, then, atol=1e-4)  # a single exam is read as before
    assert np.corrcoef(now, then)[0, 1] > 0.7
    assert [row["epoch"] for row in history] == list(range(21)), "the first is before training"
    assert history[-1]["loss"] < history[1]["loss"]


def test_last_exams_are_the_end_of_the_series_and_start_anew() -> None:
    series = rising_or_recurring(20, 5)
    cut = last_exams(series, 2)
    assert set(cut.lengths) == {2}
    for s, length in enumerate(series.lengths):
        np.testing.assert_array_equal(cut.exams[s, :2], series.exams[s, length - 2 : length])
        assert cut.days[s, 0] == 0
        assert cut.days[s, 1] == series.days[s, length - 1]
        assert not cut.exams[s, 2:].any()


def test_shuffling_keeps_the_exams_and_the_days() -> None:
    series = rising_or_recurring(50, 6)
    mixed = shuffled(series, np.random.default_rng(0))
    assert not np.array_equal(mixed.exams, series.exams)
    np.testing.assert_array_equal(mixed.days, series.days)
    for s, length in enumerate(series.lengths):
        np.testing.assert_array_equal(
            np.sort(mixed.exams[s, :length, 0]), np.sort(series.exams[s, :length, 0])
        )
    assert not without_days(series).days.any()


def test_encoded_series_are_those_of_the_hybrid_and_survive_the_disk(tmp_path: Path) -> None:
    model = small_hybrid()
    rng = np.random.default_rng(0)
    pictures = rng.integers(0, 256, (10, 64, 64), dtype=np.uint8)

    def draw(rng: np.random.Generator) -> Series:
        exams = int(rng.integers(1, 4))
        chosen = rng.integers(0, 10, exams)
        return Series(
            tuple((pictures[i],) for i in chosen), (0, 300, 400)[:exams], int(chosen[0] % 2), "slow"
        )

    encoder = pooled_encoder(model)
    encoded = encode_series(encoder, draw, 9, 3, [4], "test")
    again = encode_series(encoder, draw, 9, 3, [4], "test")
    np.testing.assert_array_equal(encoded.exams, again.exams)
    for s in range(9):
        item = draw(np.random.default_rng([4, s]))
        logits = np.asarray(model(pack([item])[0]))[0]
        np.testing.assert_allclose(read_series(model, encoded)[s], logits, atol=1e-4)
        assert encoded.labels[s] == item.label
    save(encoded, tmp_path / "series.npz")
    np.testing.assert_array_equal(load(tmp_path / "series.npz").courses, encoded.courses)
