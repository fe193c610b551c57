"""The second stage of a fit: an LSTM learns to read exams in time order, on encoded exams.

Simulated series teach what change means. Real exams, alone and after priors that differ from them
only in how they were acquired, teach that nothing has changed: their target is what the model
already says of the last exam alone, so that learning time does not cost the reading of an image.
(Learning without forgetting: Li & Hoiem, TPAMI 2018, arXiv:1606.09282.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

from training.exam_series import ExamSeries, last_exams
from training.models.hybrid import Hybrid

_SMOOTHING = 0.02  # of a simulated label
_BATCH = 64


def read_series(model: Hybrid, series: ExamSeries) -> NDArray[np.float64]:
    """Logits after each series' last exam, float64 [series, classes]."""
    found = []
    for i in range(0, len(series), 512):
        part = series.take(np.arange(i, min(i + 512, len(series))))
        every = np.asarray(model.read_features(part.exams, part.days), np.float64)  # [B, T, K]
        found.append(np.einsum("btk,bt->bk", every, part.is_last))
    return np.concatenate(found)


def fit_reader(
    model: Hybrid,
    train: ExamSeries,
    val: ExamSeries,
    *,
    positive: int,
    epochs: int,
    learning_rate: float,
    seed: int,
) -> list[dict[str, float]]:
    """Train what follows the feature vectors (LSTM and classifier) in place.

    Series whose course is "unchanged" keep the model's present reading of their last exam; the
    others learn their label. Keeps the epoch that does best on ``val``: AUC of simulated series,
    less what real exams moved. Returns the history, a row per epoch.
    """
    taught = _targets(model, train)
    known = softmax(read_series(model, last_exams(val, 1)), axis=1)[:, positive]
    reader = reader_of(model, train.exams.shape[1])
    history: list[dict[str, float]] = []
    best, best_weights = -np.inf, model.get_weights()
    losses = train_reader(reader, train, taught, epochs, learning_rate, seed)
    for epoch, loss in enumerate(losses, start=1):
        row = {"epoch": float(epoch), "loss": loss} | _judge(model, val, known, positive)
        history.append(row)
        choice = row["val_auc_simulated"] - row["val_moved"]
        if choice > best:
            best, best_weights = choice, model.get_weights()
    model.set_weights(best_weights)
    return history


def train_reader(
    reader: keras.Model,
    series: ExamSeries,
    targets: NDArray[np.float32],
    epochs: int,
    learning_rate: float,
    seed: int,
) -> Iterator[float]:
    """Train ``reader`` (see ``reader_of``) towards ``targets`` float32 [series, classes]; yields
    each epoch's mean loss. The learning rate falls over half a cosine to a hundredth."""
    reader.compile(
        keras.optimizers.Adam(learning_rate, clipnorm=1.0),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(seed)
    batch = min(_BATCH, len(series))
    for epoch in range(epochs):
        share = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        reader.optimizer.learning_rate = learning_rate * share
        order = rng.permutation(len(series))
        losses = []
        for i in range(0, len(order) - batch + 1, batch):
            chosen = order[i : i + batch]
            part = series.take(chosen)
            reader.reset_metrics()  # else the loss is the mean since the beginning
            inputs = [part.exams, part.days, part.is_last]
            losses.append(float(reader.train_on_batch(inputs, targets[chosen])))
        yield float(np.mean(losses))


def reader_of(model: Hybrid, exams: int) -> keras.Model:
    """Features of exams, days and the mark of the last exam -> logits, sharing the layers of
    ``model``."""
    features = keras.Input((exams, model.get_config()["features"]))
    days, is_last = keras.Input((exams,)), keras.Input((exams,))
    every: Any = model.read_features(features, days)  # [B, T, K]
    return keras.Model([features, days, is_last], ops.einsum("btk,bt->bk", every, is_last))


def _targets(model: Hybrid, series: ExamSeries) -> NDArray[np.float32]:
    """What each series should be answered with, float32 [series, classes]."""
    present = softmax(read_series(model, last_exams(series, 1)), axis=1)
    label = label_targets(series, present.shape[1])
    is_real = (series.courses == "unchanged")[:, None]
    return np.asarray(np.where(is_real, present, label), np.float32)


def label_targets(series: ExamSeries, classes: int) -> NDArray[np.float32]:
    """The labels as targets, a little smoothed, float32 [series, classes]."""
    wanted = np.eye(classes)[series.labels] * (1 - _SMOOTHING) + _SMOOTHING / classes
    return np.asarray(wanted, np.float32)


def _judge(
    model: Hybrid, val: ExamSeries, known: NDArray[np.float64], positive: int
) -> dict[str, float]:
    """AUC on simulated series, and how far real exams' probability moved (mean)."""
    now = softmax(read_series(model, val), axis=1)[:, positive]
    is_real = val.courses == "unchanged"
    made = ~is_real
    return {
        "val_auc_simulated": float(roc_auc_score(val.labels[made] == positive, now[made])),
        "val_moved": float(np.abs(now - known)[is_real].mean()) if is_real.any() else 0.0,
    }
