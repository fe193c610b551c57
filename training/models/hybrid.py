"""The hybrid: CNN encoder per image, mean over the views of an exam, LSTM over exams, softmax.

Images are *packed*: the encoder sees each real image once, ``[images, height, width, 1]``, and
``slots`` says where it belongs, ``int32 [series, exams, views]`` with an index into the images or
-1 for none. Padding therefore costs nothing in the encoder, and training, export and serving
share one arithmetic: a single image is a series of one exam with one view.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from training.models import efficientnet_lite0, paper, rows

DAYS_PER_YEAR = 365.0
# Generalised-mean pooling (Radenovic et al., TPAMI 2018, arXiv:1711.02512): the mean of cubes lets
# a small bright finding count for more than its area. The cube belongs to the feature map and the
# root to the head, so what lies between them is still a plain mean, which exact Grad-CAM needs.
POOLING_POWER = 3.0
POOLING_EPSILON = 1e-6
ENCODERS: dict[str, Callable[..., keras.Model]] = {
    "paper": paper.build_encoder,
    "efficientnet_lite0": efficientnet_lite0.build_encoder,
    "rows": rows.build_encoder,
}
Reader = Literal["lstm", "last", "mean"]


@keras.saving.register_keras_serializable("mammoseq")
class Hybrid(keras.Model):  # type: ignore[misc]  # Keras has no types
    """CNN + LSTM over the exams of one breast.

    Call with a dict: ``images`` float32 [images, height, width, 1] in [-1, 1]; ``slots`` int32
    [series, exams, views], exams in time order, padding (-1) on the right; ``days`` float32
    [series, exams], days since the previous exam, 0 for the first. Returns class logits float32
    [series, classes]. ``encoder_options`` are further arguments of the encoder's builder.
    ``frozen_until`` names the last encoder layer that keeps its weights ("" for none): the first,
    high-resolution layers cost most and change least.

    ``reader`` says how exams become one answer: ``lstm`` is the hybrid. ``last`` reads the last
    exam alone (the CNN-only baseline), ``mean`` the mean of all exams, in no order: controls of
    what the LSTM is worth.
    """

    def __init__(
        self,
        *,
        encoder: str,
        height: int,
        width: int,
        classes: int,
        encoder_options: dict[str, Any] | None = None,
        reader: Reader = "lstm",
        features: int = 128,
        lstm_units: int = 64,
        lstm_layers: int = 1,
        dropout: float = 0.3,
        frozen_until: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._config: dict[str, Any] = {
            "encoder": encoder,
            "height": height,
            "width": width,
            "classes": classes,
            "encoder_options": encoder_options,
            "reader": reader,
            "features": features,
            "lstm_units": lstm_units,
            "lstm_layers": lstm_layers,
            "dropout": dropout,
            "frozen_until": frozen_until,
        }
        self.reader = reader
        self.encoder = ENCODERS[encoder](height, width, **(encoder_options or {}))
        self.freeze_until(frozen_until)
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.pooled_norm = layers.BatchNormalization(
            momentum=paper.NORM_MOMENTUM, name="pooled_norm"
        )
        self.pooled_dropout = layers.Dropout(dropout, name="pooled_dropout")
        self.feature = layers.Dense(features, activation="relu", name="feature")
        self.feature_dropout = layers.Dropout(dropout, name="feature_dropout")
        self.lstms = [
            layers.LSTM(lstm_units, return_sequences=True, name="lstm" if i == 0 else f"lstm{i}")
            for i in range(lstm_layers if reader == "lstm" else 0)
        ]
        self.classifier = layers.Dense(classes, name="classifier")

    def build(self, input_shape: Any = None) -> None:
        channels = self.encoder.output_shape[-1]
        self.pooled_norm.build((None, channels))
        self.feature.build((None, channels))
        width = self._config["features"]
        for lstm in self.lstms:
            lstm.build((None, None, width + 1 if lstm is self.lstms[0] else width))
            width = self._config["lstm_units"]
        self.classifier.build((None, width))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._config}

    def freeze_until(self, last: str) -> None:
        """Keep the weights of the encoder's layers up to ``last``, and train the others; "" trains
        all. Raises ``ValueError`` if there is no such layer. Compile afterwards."""
        names = [layer.name for layer in self.encoder.layers]
        frozen = names.index(last) + 1 if last else 0
        for position, layer in enumerate(self.encoder.layers):
            layer.trainable = position >= frozen

    def call(self, inputs: dict[str, Any], training: bool = False) -> Any:
        maps = self.feature_maps(inputs["images"], training=training)  # [N, h, w, C]
        pooled = self.pool(maps)  # [N, C]
        return self.read_exams(pooled, inputs["slots"], inputs["days"], training=training)

    def feature_maps(self, images: Any, *, training: bool = False) -> Any:
        """From images [images, height, width, 1] to the last feature map, the one that Grad-CAM
        weighs, [images, rows, columns, channels]."""
        return cubed(self.encoder(images, training=training))

    def features(self, pooled: Any, *, training: bool | None = False) -> Any:
        """From pooled features [images, channels] to the feature vectors [images, features]."""
        g = (pooled + POOLING_EPSILON) ** (1.0 / POOLING_POWER)  # [N, C]
        g = self.pooled_dropout(self.pooled_norm(g, training=training), training=training)
        return self.feature_dropout(self.feature(g), training=training)  # [N, F]

    def read_exams(self, pooled: Any, slots: Any, days: Any, *, training: bool = False) -> Any:
        """From pooled features [images, channels] to the logits of each series' last exam."""
        logits = self.read_every_exam(pooled, slots, days, training=training)  # [B, T, K]
        return last_exam(logits, slots)

    def read_every_exam(self, pooled: Any, slots: Any, days: Any, *, training: bool = False) -> Any:
        """From pooled features [images, channels] to logits after each exam [series, exams,
        classes]. Steps beyond a series' last exam carry no meaning: the LSTM runs forward and
        padding is on the right, so it cannot reach an earlier step."""
        exam = exam_features(self.features(pooled, training=training), slots)  # [B, T, F]
        return self.read_features(exam, days)

    def read_features(self, exam: Any, days: Any) -> Any:
        """From the exams' features [series, exams, features] to logits after each exam."""
        if self.reader == "last":
            return self.classifier(exam)
        if self.reader == "mean":
            count = ops.cumsum(ops.ones_like(exam[..., :1]), axis=1)  # [B, T, 1]
            return self.classifier(ops.cumsum(exam, axis=1) / count)
        gap = ops.cast(ops.log1p(days) / float(np.log1p(DAYS_PER_YEAR)), exam.dtype)  # a year is 1
        x = ops.concatenate([exam, gap[..., None]], axis=-1)  # [B, T, F + 1]
        for lstm in self.lstms:
            x = lstm(x)
        return self.classifier(x)


def cubed(maps: Any) -> Any:
    """The feature map as pooling wants it, in single precision: cubes lose too much in half."""
    return ops.cast(maps, "float32") ** POOLING_POWER


def exam_features(features: Any, slots: Any) -> Any:
    """From features of images [images, features] to those of exams, the mean of each exam's views
    (no order, any number), [series, exams, features]."""
    seen = ops.cast(slots >= 0, features.dtype)[..., None]  # [B, T, V, 1]
    views = ops.take(features, ops.maximum(slots, 0), axis=0) * seen  # [B, T, V, F]
    return ops.sum(views, axis=2) / ops.maximum(ops.sum(seen, axis=2), 1.0)


def last_exam(of_exams: Any, slots: Any) -> Any:
    """From values of exams [series, exams, values] to those of each series' last exam."""
    present = ops.any(slots >= 0, axis=2)  # [B, T]
    last = ops.sum(ops.cast(present, "int32"), axis=1) - 1  # [B]
    chosen = ops.one_hot(last, ops.shape(slots)[1], dtype=of_exams.dtype)  # [B, T]
    return ops.einsum("btk,bt->bk", of_exams, chosen)
