"""The hybrid: CNN encoder per image, mean over the views of an exam, LSTM over exams, softmax.

Images are *packed*: the encoder sees each real image once, ``[images, height, width, 1]``, and
``slots`` says where it belongs, ``int32 [series, exams, views]`` with an index into the images or
-1 for none. Padding therefore costs nothing in the encoder, and training, export and serving
share one arithmetic: a single image is a series of one exam with one view.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from training.models import efficientnet_lite0, paper

DAYS_PER_YEAR = 365.0
# Generalised-mean pooling (Radenovic et al., TPAMI 2018, arXiv:1711.02512): the mean of cubes lets
# a small bright finding count for more than its area. The cube belongs to the feature map and the
# root to the head, so what lies between them is still a plain mean, which exact Grad-CAM needs.
POOLING_POWER = 3.0
POOLING_EPSILON = 1e-6
ENCODERS = {
    "paper": paper.build_encoder,
    "efficientnet_lite0": efficientnet_lite0.build_encoder,
}


@keras.saving.register_keras_serializable("mammoseq")
class Hybrid(keras.Model):  # type: ignore[misc]  # Keras has no types
    """CNN + LSTM over the exams of one breast.

    Call with a dict: ``images`` float32 [images, height, width, 1] in [-1, 1]; ``slots`` int32
    [series, exams, views], exams in time order, padding (-1) on the right; ``days`` float32
    [series, exams], days since the previous exam, 0 for the first. Returns class logits float32
    [series, classes]. ``frozen_until`` names the last encoder layer that keeps its weights ("" for
    none): the first, high-resolution layers cost most and change least.
    """

    def __init__(
        self,
        *,
        encoder: str,
        height: int,
        width: int,
        classes: int,
        features: int = 128,
        lstm_units: int = 64,
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
            "features": features,
            "lstm_units": lstm_units,
            "dropout": dropout,
            "frozen_until": frozen_until,
        }
        self.encoder = ENCODERS[encoder](height, width)
        self.freeze_until(frozen_until)
        self.pool = layers.GlobalAveragePooling2D(name="pool")
        self.pooled_norm = layers.BatchNormalization(name="pooled_norm")
        self.pooled_dropout = layers.Dropout(dropout, name="pooled_dropout")
        self.feature = layers.Dense(features, activation="relu", name="feature")
        self.feature_dropout = layers.Dropout(dropout, name="feature_dropout")
        self.lstm = layers.LSTM(lstm_units, return_sequences=True, name="lstm")
        self.classifier = layers.Dense(classes, name="classifier")

    def build(self, input_shape: Any = None) -> None:
        channels = self.encoder.output_shape[-1]
        self.pooled_norm.build((None, channels))
        self.feature.build((None, channels))
        self.lstm.build((None, None, self._config["features"] + 1))
        self.classifier.build((None, self._config["lstm_units"]))
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
        return self.encoder(images, training=training) ** POOLING_POWER

    def read_exams(self, pooled: Any, slots: Any, days: Any, *, training: bool = False) -> Any:
        """From pooled features [images, channels] to the logits of each series' last exam."""
        logits = self.read_every_exam(pooled, slots, days, training=training)  # [B, T, K]
        present = ops.any(slots >= 0, axis=2)  # [B, T]
        last = ops.sum(ops.cast(present, "int32"), axis=1) - 1  # [B]
        chosen = ops.one_hot(last, ops.shape(slots)[1], dtype=logits.dtype)  # [B, T]
        return ops.einsum("btk,bt->bk", logits, chosen)

    def read_every_exam(self, pooled: Any, slots: Any, days: Any, *, training: bool = False) -> Any:
        """From pooled features [images, channels] to logits after each exam [series, exams,
        classes]. Steps beyond a series' last exam carry no meaning: the LSTM runs forward and
        padding is on the right, so it cannot reach an earlier step."""
        g = (pooled + POOLING_EPSILON) ** (1.0 / POOLING_POWER)  # [N, C]
        g = self.pooled_dropout(self.pooled_norm(g, training=training), training=training)
        f = self.feature(g)  # [N, F]
        f = self.feature_dropout(f, training=training)
        seen = ops.cast(slots >= 0, f.dtype)[..., None]  # [B, T, V, 1]
        views = ops.take(f, ops.maximum(slots, 0), axis=0) * seen  # [B, T, V, F]
        exam = ops.sum(views, axis=2) / ops.maximum(ops.sum(seen, axis=2), 1.0)  # [B, T, F]
        gap = ops.log1p(days) / float(np.log1p(DAYS_PER_YEAR))  # [B, T]; a year is 1
        x = ops.concatenate([exam, gap[..., None]], axis=-1)  # [B, T, F + 1]
        return self.classifier(self.lstm(x))
