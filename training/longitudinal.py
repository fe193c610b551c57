"""Does time matter? The hybrid against readers that may not use it, on simulated series.

All readers but one get the pooled features of the same encoder and start from the same feature
layer; all learn from series of the training patients for the same number of steps, and are measured
on series of the validation patients. What they may use differs: the order of the exams, the days
between them, the last exam alone. The RNN-only reader gets the images, row by row. Nothing is
chosen on the measured series.

Also: whether priors that show nothing new leave the reading of a real image as it was.

The run folder: ``config.json``, encoded series (to resume), ``metrics.json``, plots,
``report.html``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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

from training import exam_bank, exam_series, run_folder
from training.breasts import Breasts
from training.config import FitConfig, Section
from training.exam_bank import ExamBank
from training.exam_series import ExamSeries, last_exams, shuffled, without_days
from training.fit import load_data
from training.longitudinal_page import write_longitudinal_page
from training.metrics import Estimate, auc, bootstrap, bootstrap_all
from training.models.hybrid import Hybrid, Reader
from training.reading import head_of, label_targets, read_series, train_head
from training.run_folder import RunError, open_run, write_metrics
from training.series import Series, simulated, unchanged
from training.simulate import read_intervals

_COARSE = (64, 40)  # rows and columns of the images that the RNN-only reader sees


class LongitudinalConfig(Section):
    """``fit``: the folder of a finished fit of the hybrid, whose encoder, data and split are used.
    ``test_series`` of each length from 1 to ``max_exams``. Every reader is trained once for each
    of ``seeds``; its answer is the mean of them."""

    run: Path
    fit: Path
    test_series: int = Field(250, ge=20)
    max_exams: int = Field(5, ge=2)
    epochs: int = Field(40, ge=1)
    learning_rate: float = Field(1e-3, gt=0)
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
    bank_path = config.fit / "mass-bank.npz"
    if model.reader != "lstm" or not bank_path.is_file():
        raise RunError(f"{config.fit} is not a fit of the hybrid with simulated series")
    run = open_run(config.run, config)
    cv2.setNumThreads(1)
    fitted = FitConfig.model_validate_json((config.fit / run_folder.CONFIG).read_text())
    train, val, classes = load_data(fitted.model_copy(update={"run": run}))
    positive = len(classes) - 1
    intervals = read_intervals(fitted.series.study_dates)
    tests, still = _encode(config, run, model, val, positive, intervals)
    pooled_bank = exam_bank.load(bank_path)
    coarse_bank = _coarse_bank(run, train, positive, pooled_bank)
    channels = pooled_bank.exams.shape[2]

    suspicion: dict[str, list[NDArray[np.float64]]] = {}
    for name, control in tqdm(CONTROLS.items(), "readers", unit="reader"):
        bank = coarse_bank if control.rows else pooled_bank
        seen = slice(channels, None) if control.rows else slice(channels)
        of_control = [replace(test, exams=test.exams[:, :, seen]) for test in tests]
        suspicion[name] = _kept_scores(
            run / f"scores-{name}.npz",
            partial(_train_and_read, control, model, bank, of_control, config, intervals),
        )
    pooled = [replace(test, exams=test.exams[:, :, :channels]) for test in (*tests, still)]
    suspicion["shipped"] = [_log_odds(read_series(model, t), positive) for t in pooled[:-1]]
    found = {
        "note": "simulated series; readers trained on series of the training patients, measured "
        "on series of the validation patients; nothing was chosen on the latter",
        "titles": {name: control.title for name, control in CONTROLS.items()}
        | {"shipped": "the fitted model itself"},
        "series": {
            "masses": len(pooled_bank),
            "acquisitions": pooled_bank.exams.shape[1],
            "test_per_length": config.test_series,
        },
        "auc": _aucs(suspicion, tests, positive),
        "unchanged_priors": _unchanged_priors(model, pooled[-1], positive),
    }
    write_metrics(run, found)
    write_longitudinal_page(run, found)
    return run


def _encode(
    config: LongitudinalConfig,
    run: Path,
    model: Hybrid,
    val: Breasts,
    positive: int,
    intervals: NDArray[np.int64],
) -> tuple[list[ExamSeries], ExamSeries]:
    """Test series of each length, and series of unchanged real exams, one of each breast, with
    pooled features and coarse image of each exam side by side. Finished sets are kept."""
    by_features = exam_series.pooled_encoder(model)
    lesion_free = np.flatnonzero(val.labels != positive)

    def encode(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.concatenate([by_features(images), _coarse(images)], axis=1)

    def made(name: str, draw: Callable[..., Series], count: int, seed: int) -> ExamSeries:
        stored = run / f"{name}.npz"
        if not stored.exists():
            series = exam_series.encode_series(
                encode, draw, count, config.max_exams, [config.seed, seed], name
            )
            run_folder.replace(stored, lambda path: exam_series.save(series, path))
        return exam_series.load(stored)

    def changing(exams: int, rng: np.random.Generator) -> Series:
        return simulated(val, int(rng.choice(lesion_free)), exams, positive, intervals, rng)

    one_of_each = iter([indices[0] for indices in val.by_breast()])

    def still(rng: np.random.Generator) -> Series:
        return unchanged(val, next(one_of_each), config.max_exams, intervals, rng)

    lengths = range(1, config.max_exams + 1)
    tests = [made(f"test-{n}", partial(changing, n), config.test_series, n) for n in lengths]
    return tests, made("unchanged", still, len(val.by_breast()), 0)


def _coarse(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the RNN-only reader sees: float32 [images, rows x columns] in [-1, 1]."""
    rows, columns = _COARSE
    small = [
        cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA).ravel() for image in images
    ]
    return np.array(small, np.float32) / np.float32(127.5) - np.float32(1)


def _coarse_bank(run: Path, train: Breasts, positive: int, like: ExamBank) -> ExamBank:
    """As many masses as the encoder's readers learn from, as coarse images."""
    stored = run / "coarse-bank.npz"
    if not stored.exists():
        lesion_free = np.flatnonzero(train.labels != positive)
        chosen = np.random.default_rng(0).permutation(lesion_free)[: len(like)]
        bank = exam_bank.bank_of_masses(
            _coarse, train, [int(i) for i in chosen], like.exams.shape[1], 0
        )
        run_folder.replace(stored, lambda path: exam_bank.save(bank, path))
    return exam_bank.load(stored)


def _kept_scores(
    stored: Path, make: Callable[[], list[NDArray[np.float64]]]
) -> list[NDArray[np.float64]]:
    if not stored.exists():
        scores = make()

        def write(path: Path) -> None:
            with path.open("wb") as file:
                np.savez(file, *scores)

        run_folder.replace(stored, write)
    with np.load(stored) as held:
        return [held[f"arr_{i}"] for i in range(len(held.files))]


def _train_and_read(
    control: Control,
    fitted: Hybrid,
    bank: ExamBank,
    tests: Sequence[ExamSeries],
    config: LongitudinalConfig,
    intervals: NDArray[np.int64],
) -> list[NDArray[np.float64]]:
    """Log odds of the positive class for every test series, the mean over seeds."""
    classes = fitted.get_config()["classes"]
    total = [np.zeros(len(test)) for test in tests]

    def draw(rng: np.random.Generator) -> tuple[ExamSeries, NDArray[np.float32]]:
        series = exam_bank.draw_simulated(
            bank, 64, config.max_exams, classes - 1, intervals, rng, shortest=1
        )
        return control.prepare(series, rng), label_targets(series, classes)

    for repeat in range(config.seeds):
        seed = config.seed + repeat
        keras.utils.set_random_seed(seed)
        order = np.random.default_rng(seed)
        model = _untrained(control, fitted)
        head = (_rows_head if control.rows else head_of)(model, config.max_exams)
        for _ in train_head(head, draw, config.epochs, config.learning_rate, seed):
            pass
        for sums, test in zip(total, tests, strict=True):
            seen = control.prepare(test, order)
            logits = head.predict([seen.exams, seen.days, seen.is_last], verbose=0)
            sums += _log_odds(np.asarray(logits, np.float64), classes - 1)
    return [sums / config.seeds for sums in total]


def _untrained(control: Control, fitted: Hybrid) -> Hybrid:
    """A model of the control's kind that has the fitted one's feature layer, but for the RNN-only
    reader, which learns everything."""
    options = {name: value for name, value in fitted.get_config().items() if name != "name"}
    options |= {"reader": control.reader}
    if control.rows:
        rows, columns = _COARSE
        options |= {"encoder": "rows", "encoder_options": None, "height": rows, "width": columns}
        options |= {"frozen_until": ""}
    model: Hybrid = Hybrid.from_config(options)
    model.build()
    if not control.rows:
        for layer in ("pooled_norm", "feature"):
            getattr(model, layer).set_weights(getattr(fitted, layer).get_weights())
        model.pooled_norm.trainable = False
    return model


def _rows_head(model: Hybrid, exams: int) -> keras.Model:
    """Coarse images of exams, days and the mark of the last exam -> logits."""
    rows, columns = _COARSE
    flat, days = keras.Input((exams, rows * columns)), keras.Input((exams,))
    is_last = keras.Input((exams,))
    images = ops.reshape(flat, (-1, rows, columns, 1))  # [B T, rows, columns, 1]
    features = model.features(model.pool(model.feature_maps(images)), training=None)
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
