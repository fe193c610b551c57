"""Breasts and series -> scores of a Keras hybrid, with the truth beside them."""

from __future__ import annotations

from dataclasses import dataclass

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from app.imaging.preprocess import to_tensor
from training.breasts import Breasts
from training.exam_series import ExamSeries
from training.manifest import LabelledImage
from training.metrics import positive_probability
from training.models.hybrid import Hybrid
from training.reading import read_series

_BATCH = 16


@dataclass(frozen=True)
class Scores:
    """``truth`` int32 [n], 1 for the positive class; ``logits`` float64 [n, classes];
    ``positive`` the index of the positive class; ``patients`` and ``names`` of length n."""

    truth: NDArray[np.int32]
    logits: NDArray[np.float64]
    positive: int
    patients: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def probability(self) -> NDArray[np.float64]:
        """Of the positive class, float64 [n], uncalibrated."""
        return positive_probability(self.logits, self.positive)


def score_breasts(model: Hybrid, breasts: Breasts, positive: int) -> tuple[Scores, Scores]:
    """Score every image alone, and every breast with all its images as views of one exam."""
    pooled = _pooled(model, breasts.pixels)
    alone = np.arange(len(breasts), dtype=np.int32)[:, None, None]
    groups = breasts.by_breast()
    together = np.full((len(groups), 1, max(map(len, groups))), -1, np.int32)
    for b, indices in enumerate(groups):
        together[b, 0, : len(indices)] = indices
    first = [indices[0] for indices in groups]
    return (
        Scores(
            truth=(breasts.labels == positive).astype(np.int32),
            logits=_logits(model, pooled, alone),
            positive=positive,
            patients=tuple(row.patient_id for row in breasts.rows),
            names=tuple(row.path.name for row in breasts.rows),
        ),
        Scores(
            truth=(breasts.labels[first] == positive).astype(np.int32),
            logits=_logits(model, pooled, together),
            positive=positive,
            patients=tuple(breasts.rows[i].patient_id for i in first),
            names=tuple(_breast_name(breasts.rows[i]) for i in first),
        ),
    )


def score_series(model: Hybrid, series: ExamSeries, positive: int) -> Scores:
    """Score encoded series of any length."""
    return Scores(
        truth=(series.labels == positive).astype(np.int32),
        logits=read_series(model, series),
        positive=positive,
        patients=tuple(series.patients),
        names=tuple(f"series-{i}" for i in range(len(series))),
    )


def _breast_name(row: LabelledImage) -> str:
    return f"{row.patient_id}-{row.laterality}"


def _pooled(model: Hybrid, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pooled encoder features float32 [images, channels]."""
    image = keras.Input(model.encoder.input_shape[1:])
    encode = keras.Model(image, model.pool(model.feature_maps(image)))
    return np.concatenate(
        [
            np.asarray(encode.predict_on_batch(to_tensor(pixels[i : i + _BATCH])))
            for i in range(0, len(pixels), _BATCH)
        ]
    )


def _logits(
    model: Hybrid, pooled: NDArray[np.float32], slots: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Logits of series of one exam each, ``slots`` int32 [series, 1, views]."""
    days = np.zeros(slots.shape[:2], np.float32)
    return np.asarray(ops.convert_to_numpy(model.read_exams(pooled, slots, days)), np.float64)
