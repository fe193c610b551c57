"""The encoder of the RNN-only baseline: no convolution, an LSTM over the rows of the image.

The rows of an image as a sequence, top to bottom, is what an RNN baseline for images usually is
(Le, Jaitly & Hinton 2015, arXiv:1504.00941, who go pixel by pixel).
"""

from __future__ import annotations

import keras
from keras import layers

_MOST_ROWS = 64  # a longer sequence is averaged down: an LSTM forgets, and costs, with its length
_UNITS = 128


def build_encoder(height: int, width: int, channels: int = 1) -> keras.Model:
    """Map images float32 [batch, height, width, channels] in [-1, 1] to the state after the last
    row, as a feature map of one position, float32 [batch, 1, 1, 128]."""
    step = max(1, -(-height // _MOST_ROWS))
    image = keras.Input((height, width, channels), name="image")
    x = layers.AveragePooling2D(step, padding="same", name="shrink")(image)
    x = layers.Reshape((x.shape[1], x.shape[2] * channels), name="rows")(x)
    x = layers.LSTM(_UNITS, name="rows_lstm")(x)
    # Not negative, as pooling by a generalised mean wants it
    x = layers.Dense(_UNITS, activation="relu", name="rows_dense")(x)
    x = layers.Reshape((1, 1, _UNITS), name="map")(x)
    return keras.Model(image, x, name="rows")
