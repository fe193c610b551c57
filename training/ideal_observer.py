"""How well could any reader tell growing masses from the rest? A bound for the simulated series.

The observer is given what a reader can only estimate: the diameter of the mass at every exam, with
a stated relative error, or that there is none to be seen. Gradient boosting learns from many
simulated histories, never from pictures, and is measured on others. It is close to the ideal from
below: a reader with the same error can do little better. Readers differ in what they may use, and
so tell whether the design of the series makes the order and the days matter.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from tqdm import tqdm

from training.lesion import VISIBLE_DIAMETER_MM
from training.metrics import auc, bootstrap
from training.run_folder import replace
from training.simulate import diameters, draw_course, draw_timeline

Reader = Literal["order and days", "order, no days", "days, no order", "last exam alone"]
READERS: tuple[Reader, ...] = get_args(Reader)
_BOOTSTRAP_DRAWS = 200
_DAYS_PER_YEAR = 365.25


@dataclass(frozen=True)
class Observed:
    """AUC of one reader, growing against all other courses, with its 95 % interval."""

    exams: int
    error: float  # relative, of a measured diameter
    reader: Reader
    auc: float
    low: float
    high: float


@dataclass(frozen=True)
class Histories:
    """Many masses seen at the same number of exams."""

    log_diameters: NDArray[np.float64]  # [series, exams], of millimetres
    years: NDArray[np.float64]  # [series, exams], since the first exam
    growing: NDArray[np.int32]  # [series], 0 or 1


def ideal_observer(
    stored: Path,
    *,
    exams: Sequence[int],
    errors: Sequence[float],
    intervals: NDArray[np.int64],
    series: int,
    seed: int,
) -> list[Observed]:
    """Measure every reader for every number of exams and error, on a third as many histories as
    the ``series`` it learns from. Finished rows are kept in ``stored`` (csv) and reused."""
    found = _read(stored)
    done = {(row.exams, row.error) for row in found}
    wanted = [(count, error) for count in exams for error in errors]
    for count, error in tqdm(wanted, "ideal observer", unit="setting"):
        if (count, error) in done:
            continue
        rng = np.random.default_rng([seed, count, round(1000 * error)])
        learn = draw_histories(series, count, intervals, rng)
        test = draw_histories(series // 3, count, intervals, rng)
        found += _observe(learn, test, count, error, rng)
        replace(stored, partial(_write, rows=tuple(found)))
    return [row for row in found if (row.exams, row.error) in wanted]


def draw_histories(
    series: int, exams: int, intervals: NDArray[np.int64], rng: np.random.Generator
) -> Histories:
    """Draw courses and timelines as `simulate_series` does, without the pictures."""
    courses = [draw_course(rng) for _ in range(series)]
    timelines = [draw_timeline(exams, intervals, rng) for _ in range(series)]
    sizes = [diameters(t, course) for t, course in zip(timelines, courses, strict=True)]
    return Histories(
        log_diameters=np.log(np.array(sizes)),
        years=np.array([timeline.days for timeline in timelines]) / _DAYS_PER_YEAR,
        growing=np.array([course == "growing" for course in courses], np.int32),
    )


def _observe(
    learn: Histories, test: Histories, exams: int, error: float, rng: np.random.Generator
) -> list[Observed]:
    measured = [_measure(histories, error, rng) for histories in (learn, test)]
    rows = []
    for reader in READERS if exams > 1 else READERS[-1:]:
        inputs, test_inputs = (
            features(reader, seen, histories.years)
            for seen, histories in zip(measured, (learn, test), strict=True)
        )
        model = HistGradientBoostingClassifier(max_iter=120, l2_regularization=1.0, random_state=0)
        with threadpool_limits(1):  # many threads for so little work only wait for each other
            model.fit(inputs, learn.growing)
        score = model.predict_proba(test_inputs)[:, 1]
        names = [str(i) for i in range(len(score))]
        estimate = bootstrap(auc, test.growing, score, names, draws=_BOOTSTRAP_DRAWS)
        rows.append(Observed(exams, error, reader, estimate.value, estimate.low, estimate.high))
    return rows


def _measure(histories: Histories, error: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Log diameters as measured, float64 [series, exams]; nan where there is nothing to see."""
    drawn = histories.log_diameters >= np.log(VISIBLE_DIAMETER_MM)
    noise = rng.normal(0.0, error, drawn.shape)
    return np.where(drawn, histories.log_diameters + noise, np.nan)


def features(
    reader: Reader, measured: NDArray[np.float64], years: NDArray[np.float64]
) -> NDArray[np.float64]:
    """What ``reader`` makes of measured log diameters and years, both [series, exams] in time
    order: float64 [series, features], nan where unknown."""
    if reader == "last exam alone":
        return measured[:, -1:]
    if reader == "days, no order":
        # The days stay where they are while the exams are shuffled: a set of sizes, and the days.
        sizes = np.sort(measured, axis=1)
        largest = np.fmax.reduce(sizes, axis=1)[:, None]
        unseen = np.isnan(sizes).sum(axis=1)[:, None]
        span = years[:, -1:]
        spread = largest - sizes[:, :1]
        return np.hstack([sizes, largest, spread, spread / span, unseen, np.diff(years, axis=1)])
    ordered = np.broadcast_to(np.arange(measured.shape[1], dtype=np.float64), measured.shape)
    time = years if reader == "order and days" else ordered
    # A mass not seen has at most the smallest visible size, hence grew at least so fast.
    at_most = np.where(np.isnan(measured), np.log(VISIBLE_DIAMETER_MM), measured)
    growth = at_most[:, -1:] - at_most[:, :-1]
    parts = [
        measured,
        growth,
        growth / (time[:, -1:] - time[:, :-1]),
        np.diff(at_most, axis=1) / np.diff(time, axis=1),
        _slope(measured, time),
        np.isnan(measured).sum(axis=1)[:, None],
    ]
    if reader == "order and days":
        parts.append(np.diff(years, axis=1))
    return np.hstack(parts)


def _slope(measured: NDArray[np.float64], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Least-squares growth of the log diameter over the exams that show it, [series, 1]."""
    seen = ~np.isnan(measured)
    count = seen.sum(axis=1, keepdims=True)
    values = np.where(seen, measured, 0.0)
    late = time - (seen * time).sum(axis=1, keepdims=True) / count
    large = values - values.sum(axis=1, keepdims=True) / count
    squares = (seen * late**2).sum(axis=1, keepdims=True)
    slope = (seen * late * large).sum(axis=1, keepdims=True) / np.where(squares > 0, squares, 1.0)
    return np.asarray(np.where(squares > 0, slope, np.nan))


def _read(stored: Path) -> list[Observed]:
    if not stored.exists():
        return []
    with stored.open(newline="") as file:
        return [_row(row) for row in csv.DictReader(file)]


def _row(row: dict[str, Any]) -> Observed:
    reader: Reader = row["reader"]
    figures = (float(row["auc"]), float(row["low"]), float(row["high"]))
    return Observed(int(row["exams"]), float(row["error"]), reader, *figures)


def _write(path: Path, rows: Sequence[Observed]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Observed)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
