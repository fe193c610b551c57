"""Does time matter? The hybrid against readers that may not use it, on simulated series.

All readers but one get the feature vectors of the same encoder, learn from the same series of the
training patients for the same number of epochs, and are measured on series of the validation
patients. What they may use differs: the order of the exams, the days between them, the last exam
alone. The RNN-only reader gets the images, row by row. Nothing is chosen on the measured series.

Also: whether priors that show nothing new leave the reading of a real image as it was.

The run folder: ``config.json``, encoded series (to resume), ``metrics.json``, plots,
``report.html``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import softmax
from tqdm import tqdm

from training import exam_series, run_folder
from training.breasts import Breasts
from training.config import FitConfig, Section
from training.exam_series import ExamSeries, last_exams, shuffled, without_days
from training.fit import load_data
from training.longitudinal_page import write_longitudinal_page
from training.metrics import Estimate, auc, bootstrap, bootstrap_all
from training.models.hybrid import Hybrid, Reader
from training.reading import label_targets, read_series, reader_of, train_reader
from training.run_folder import RunError, open_run, write_metrics
from training.series import simulated, unchanged
from training.simulate import read_intervals

_COARSE = (64, 40)  # rows and columns of the images that the RNN-only reader sees


class LongitudinalConfig(Section):
    """``fit``: the folder of a finished fit of the hybrid, whose encoder, data and split are used.
    ``test_series`` of each length from 1 to ``max_exams``. Every reader is trained once for each
    of ``seeds``; its answer is the mean of them."""

    run: Path
    fit: Path
    train_series: int = Field(3000, ge=64)
    test_series: int = Field(300, ge=20)
    max_exams: int = Field(5, ge=2)
    epochs: int = Field(30, ge=1)
    learning_rate: float = Field(2e-3, gt=0)
    seeds: int = Field(3, ge=1)
    seed: int = 20261124


@dataclass(frozen=True)
class Control:
    """A reader, and what of a series it may use."""

    title: str
    reader: Reader
    prepare: Callable[[ExamSeries, np.random.Generator], ExamSeries]
    rows: bool = False  # whether it reads coarse images in place of feature vectors


def _whole(series: ExamSeries, rng: np.random.Generator) -> ExamSeries:
    return series


CONTROLS = {
    "hybrid": Control("hybrid: order and days", "lstm", _whole),
    "hybrid_shuffled": Control("hybrid, exams in random order", "lstm", shuffled),
    "hybrid_without_days": Control(
        "hybrid, without the days between exams", "lstm", lambda series, _: without_days(series)
    ),
    "cnn_last": Control("CNN only, the last exam", "last", _whole),
    "cnn_mean": Control("CNN, mean over exams", "mean", _whole),
    "rnn_only": Control("RNN only, no convolution", "lstm", _whole, rows=True),
}


def longitudinal(config: LongitudinalConfig) -> Path:
    """Train and measure every reader, or go on where a stopped run was. Returns the run folder."""
    stored = config.fit / "best.keras"
    if not stored.is_file():
        raise RunError(f"{stored} is missing: fit must name the folder of a finished fit")
    model: Hybrid = keras.models.load_model(stored, compile=False)
    if model.reader != "lstm":
        raise RunError(f"{config.fit} is not a fit of the hybrid")
    run = open_run(config.run, config)
    cv2.setNumThreads(1)
    fitted = FitConfig.model_validate_json((config.fit / run_folder.CONFIG).read_text())
    train, val, classes = load_data(fitted.model_copy(update={"run": run}))
    positive = len(classes) - 1
    encoded = _encode(config, run, model, train, val, positive, fitted.series.study_dates)
    tests = [encoded[f"test-{n}"] for n in range(1, config.max_exams + 1)]
    widest = model.get_config()["features"]

    suspicion = {
        name: _train_and_read(control, encoded["train"], tests, config, len(classes), widest)
        for name, control in tqdm(CONTROLS.items(), "readers", unit="reader")
    }
    suspicion["shipped"] = [
        _log_odds(read_series(model, _features(test, widest)), positive) for test in tests
    ]
    found = {
        "note": "simulated series; readers trained on series of the training patients, measured "
        "on series of the validation patients; nothing was chosen on the latter",
        "titles": {name: control.title for name, control in CONTROLS.items()}
        | {"shipped": "the fitted model itself"},
        "series": {"train": config.train_series, "test_per_length": config.test_series},
        "auc": _aucs(suspicion, tests, positive),
        "unchanged_priors": _unchanged_priors(
            model, _features(encoded["unchanged"], widest), positive
        ),
    }
    write_metrics(run, found)
    write_longitudinal_page(run, found)
    return run


def _encode(
    config: LongitudinalConfig,
    run: Path,
    model: Hybrid,
    train: Breasts,
    val: Breasts,
    positive: int,
    study_dates: Path,
) -> dict[str, ExamSeries]:
    """Every set of series, with the feature vector and the coarse image of each exam side by
    side. Finished sets are kept in ``run``."""
    intervals = read_intervals(study_dates)
    by_features = exam_series.feature_encoder(model)

    def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        rows, columns = _COARSE
        coarse = [
            cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).ravel() / 127.5 - 1
            for image in images
        ]
        return np.concatenate([by_features(images), np.array(coarse, np.float32)], axis=1)

    def made(
        name: str, breasts: Breasts, count: int, exams: Sequence[int], seed: int
    ) -> ExamSeries:
        lesion_free = np.flatnonzero(breasts.labels != positive)

        def draw(rng: np.random.Generator) -> Any:
            index = int(rng.choice(lesion_free))
            return simulated(breasts, index, int(rng.choice(exams)), positive, intervals, rng)

        return _kept(
            run / f"{name}.npz",
            lambda: exam_series.encode_series(
                encode, draw, count, config.max_exams, [config.seed, seed], name
            ),
        )

    lengths = range(1, config.max_exams + 1)
    sets = {"train": made("train", train, config.train_series, lengths, 0)}
    for n in lengths:
        sets[f"test-{n}"] = made(f"test-{n}", val, config.test_series, (n,), n)
    order = iter(range(len(val)))
    sets["unchanged"] = _kept(
        run / "unchanged.npz",
        lambda: exam_series.encode_series(
            encode,
            lambda rng: unchanged(val, next(order), config.max_exams, intervals, rng),
            len(val),
            config.max_exams,
            [config.seed, 99],
            "unchanged",
        ),
    )
    return sets


def _kept(stored: Path, make: Callable[[], ExamSeries]) -> ExamSeries:
    if not stored.exists():
        series = make()
        run_folder.replace(stored, lambda path: exam_series.save(series, path))
    return exam_series.load(stored)


def _features(series: ExamSeries, features: int) -> ExamSeries:
    return replace(series, exams=series.exams[:, :, :features])


def _train_and_read(
    control: Control,
    train: ExamSeries,
    tests: Sequence[ExamSeries],
    config: LongitudinalConfig,
    classes: int,
    features: int,
) -> list[NDArray[np.float64]]:
    """Log odds of the positive class for every test series, the mean over seeds."""
    total = [np.zeros(len(test)) for test in tests]
    for repeat in range(config.seeds):
        seed = config.seed + repeat
        keras.utils.set_random_seed(seed)
        rng = np.random.default_rng(seed)
        shell = _shell(control.reader, classes, features)

        def given(series: ExamSeries, rng: np.random.Generator = rng) -> ExamSeries:
            series = control.prepare(series, rng)
            if control.rows:
                return replace(series, exams=series.exams[:, :, features:])
            return _features(series, features)

        reader = (
            _rows_reader(shell, config.max_exams)
            if control.rows
            else reader_of(shell, config.max_exams)
        )
        targets = label_targets(train, classes)
        for _ in train_reader(
            reader, given(train), targets, config.epochs, config.learning_rate, seed
        ):
            pass
        for sums, test in zip(total, tests, strict=True):
            seen = given(test)
            logits = reader.predict([seen.exams, seen.days, seen.is_last], verbose=0)
            sums += _log_odds(np.asarray(logits, np.float64), classes - 1)
    return [sums / config.seeds for sums in total]


def _shell(reader: Reader, classes: int, features: int) -> Hybrid:
    """A hybrid whose encoder reads coarse images by rows: for the RNN-only reader all of it, for
    the others only what follows the feature vectors."""
    rows, columns = _COARSE
    model = Hybrid(
        encoder="rows",
        height=rows,
        width=columns,
        classes=classes,
        features=features,
        reader=reader,
        dropout=0.0,
    )
    model.build()
    return model


def _rows_reader(model: Hybrid, exams: int) -> keras.Model:
    """Coarse images of exams, days and the mark of the last exam -> logits."""
    rows, columns = _COARSE
    flat, days = keras.Input((exams, rows * columns)), keras.Input((exams,))
    is_last = keras.Input((exams,))
    images = ops.reshape(flat, (-1, rows, columns, 1))  # [B T, rows, columns, 1]
    features = model.features(model.pool(model.feature_maps(images)))
    features = ops.reshape(features, (-1, exams, model.get_config()["features"]))
    every = model.read_features(features, days)
    return keras.Model([flat, days, is_last], ops.einsum("btk,bt->bk", every, is_last))


def _log_odds(logits: NDArray[np.float64], positive: int) -> NDArray[np.float64]:
    p = np.clip(softmax(logits, axis=1)[:, positive], 1e-9, 1 - 1e-9)
    return np.asarray(np.log(p / (1 - p)))


def _aucs(
    suspicion: dict[str, list[NDArray[np.float64]]], tests: Sequence[ExamSeries], positive: int
) -> dict[str, dict[str, Any]]:
    """By reader, by number of exams and for two and more together: growing against the rest."""
    found: dict[str, dict[str, Any]] = {}
    for name, scores in suspicion.items():
        by_length = {str(n): [n - 1] for n in range(1, len(tests) + 1)}
        by_length["two or more"] = list(range(1, len(tests)))
        found[name] = {
            length: asdict(_auc([tests[i] for i in chosen], [scores[i] for i in chosen], positive))
            for length, chosen in by_length.items()
        }
    return found


def _auc(
    tests: Sequence[ExamSeries], scores: Sequence[NDArray[np.float64]], positive: int
) -> Estimate:
    truth = np.concatenate([(test.labels == positive).astype(np.int32) for test in tests])
    patients = np.concatenate([test.patients for test in tests])
    return bootstrap(auc, truth, np.concatenate(scores), list(patients))


def _unchanged_priors(model: Hybrid, series: ExamSeries, positive: int) -> dict[str, Any]:
    """Real images of the validation patients, alone and after priors that differ from them only
    in how they were acquired: AUC per image, and its change against the last exam alone."""
    truth = (series.labels == positive).astype(np.int32)
    alone = _log_odds(read_series(model, last_exams(series, 1)), positive)
    found: dict[str, Any] = {}
    for exams in range(1, series.exams.shape[1] + 1):
        read = _log_odds(read_series(model, last_exams(series, exams)), positive)

        def figures(truth: NDArray[np.int32], scores: NDArray[np.float64]) -> dict[str, float]:
            with_priors, without = auc(truth, scores[:, 0]), auc(truth, scores[:, 1])
            return {"auc": with_priors, "change": with_priors - without}

        both = np.stack([read, alone], axis=1)
        estimates = bootstrap_all(figures, truth, both, list(series.patients))
        found[str(exams)] = {name: asdict(value) for name, value in estimates.items()}
    return found
