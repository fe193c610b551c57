"""The second stage of a fit: the head learns to read exams in time order, on encoded exams.

Simulated series teach what change means. Real exams after priors that differ from them only in how
they were acquired teach that nothing has changed: their target is what the model already says of
the last exam alone (learning without forgetting: Li & Hoiem, TPAMI 2018, arXiv:1606.09282). The
reading of a single exam cannot change at all: see ``training.models.grow``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray
from scipy.special import softmax
from sklearn.metrics import roc_auc_score
from tqdm import tqdm

from training.exam_series import ExamSeries, joined, last_exams
from training.models.grow import grow, keep_first_exam
from training.models.hybrid import Hybrid

_SMOOTHING = 0.02  # of a simulated label
_STEPS_PER_EPOCH = 40

Draw = Callable[[int, np.random.Generator], ExamSeries]


def read_series(model: Hybrid, series: ExamSeries) -> NDArray[np.float64]:
    """Logits after each series' last exam, float64 [series, classes], from the pooled features of
    exams."""
    return _read(head_of(model, series.exams.shape[1]), series)


def head_of(model: Hybrid, exams: int) -> keras.Model:
    """Everything of ``model`` that follows the encoder, sharing its layers: pooled features
    [series, exams, channels], days and the mark of the last exam -> logits."""
    channels = model.encoder.output_shape[-1]
    pooled, days = keras.Input((exams, channels)), keras.Input((exams,))
    is_last = keras.Input((exams,))
    flat = ops.reshape(pooled, (-1, channels))
    features = model.features(flat, training=None)  # dropout while the head is trained
    width = model.get_config()["features"]
    every: Any = model.read_features(ops.reshape(features, (-1, exams, width)), days)  # [B, T, K]
    every = every + 0.0 * days[..., None]  # not every reader looks at the days, Keras insists
    return keras.Model([pooled, days, is_last], ops.einsum("btk,bt->bk", every, is_last))


def fit_head(
    model: Hybrid,
    draw_changing: Draw,
    draw_unchanged: Draw,
    val: ExamSeries,
    *,
    positive: int,
    features: int,
    units: int,
    epochs: int,
    learning_rate: float,
    dropout: float,
    seed: int,
) -> tuple[Hybrid, list[dict[str, float]]]:
    """A hybrid that has grown by ``features`` and LSTM ``units`` and learned to read series.

    Keeps the epoch that does best on ``val``: AUC of simulated series, less what real exams moved.
    Returns it with the history, a row per epoch.
    """
    exams = val.exams.shape[1]
    teacher = head_of(model, exams)
    known = softmax(_read(teacher, last_exams(val, 1)), axis=1)[:, positive]
    grown = grow(model, features, units)
    grown.pooled_norm.trainable = False  # it describes real images
    grown.pooled_dropout.rate = grown.feature_dropout.rate = dropout
    head = head_of(grown, exams)
    history = [{"epoch": 0.0, "loss": np.nan} | _judge(head, val, known, positive)]
    best, best_weights = -np.inf, grown.get_weights()

    def draw(rng: np.random.Generator) -> tuple[ExamSeries, NDArray[np.float32]]:
        changing, unchanged = draw_changing(32, rng), draw_unchanged(32, rng)
        present = softmax(_read(teacher, last_exams(unchanged, 1)), axis=1)
        targets = np.concatenate([label_targets(changing, present.shape[1]), present])
        return joined(changing, unchanged), targets.astype(np.float32)

    restore = keep_first_exam(grown, model)
    losses = train_head(head, draw, epochs, learning_rate, seed, restore)
    bar = tqdm(losses, "reading", total=epochs, unit="epoch")
    for epoch, loss in enumerate(bar, start=1):
        row = {"epoch": float(epoch), "loss": loss} | _judge(head, val, known, positive)
        history.append(row)
        choice = row["val_auc_simulated"] - row["val_moved"]
        if choice > best:
            best, best_weights = choice, grown.get_weights()
    grown.set_weights(best_weights)
    return grown, history


def train_head(
    head: keras.Model,
    draw: Callable[[np.random.Generator], tuple[ExamSeries, NDArray[np.float32]]],
    epochs: int,
    learning_rate: float,
    seed: int,
    after_step: Callable[[], None] = lambda: None,
) -> Iterator[float]:
    """Train ``head`` (see ``head_of``) on series and targets float32 [series, classes] that are
    drawn anew for every step; yields each epoch's mean loss. The learning rate falls over half a
    cosine to a hundredth."""
    head.compile(
        keras.optimizers.AdamW(learning_rate, weight_decay=1e-3, clipnorm=1.0),
        keras.losses.CategoricalCrossentropy(from_logits=True),
    )
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        share = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * epoch / epochs))
        head.optimizer.learning_rate = learning_rate * share
        losses = []
        for _ in range(_STEPS_PER_EPOCH):
            series, targets = draw(rng)
            head.reset_metrics()  # else the loss is the mean since the beginning
            losses.append(float(head.train_on_batch(_inputs(series), targets)))
            after_step()
        yield float(np.mean(losses))


def label_targets(series: ExamSeries, classes: int) -> NDArray[np.float32]:
    """The labels as targets, a little smoothed, float32 [series, classes]."""
    wanted = np.eye(classes)[series.labels] * (1 - _SMOOTHING) + _SMOOTHING / classes
    return np.asarray(wanted, np.float32)


def _inputs(series: ExamSeries) -> list[NDArray[np.float32]]:
    return [series.exams, series.days, series.is_last]


def _read(head: keras.Model, series: ExamSeries) -> NDArray[np.float64]:
    parts = [
        ops.convert_to_numpy(head(_inputs(series.take(np.arange(i, min(i + 512, len(series)))))))
        for i in range(0, len(series), 512)
    ]
    return np.concatenate(parts).astype(np.float64)


def _judge(
    head: keras.Model, val: ExamSeries, known: NDArray[np.float64], positive: int
) -> dict[str, float]:
    """AUC on simulated series, and how far real exams' probability moved (mean)."""
    now = softmax(_read(head, val), axis=1)[:, positive]
    is_real = val.courses == "unchanged"
    made = ~is_real
    return {
        "val_auc_simulated": float(roc_auc_score(val.labels[made] == positive, now[made])),
        "val_moved": float(np.abs(now - known)[is_real].mean()) if is_real.any() else 0.0,
    }
