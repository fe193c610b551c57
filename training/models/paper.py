"""The paper's image encoder: a small CNN, trained from scratch.

Convolution, batch normalisation, pooling and dropout, repeated; the fully connected feature
vector that follows it is part of the hybrid.
"""

from __future__ import annotations

import keras
from keras import layers

_FIRST_FILTERS = 32
_MOST_FILTERS = 256
# Keras' 0.99 needs some 1000 steps until the moving statistics have forgotten that they began at 0
# and 1: after a short fit from scratch every case would be called alike.
NORM_MOMENTUM = 0.9


def build_encoder(height: int, width: int, channels: int = 1, blocks: int = 4) -> keras.Model:
    """Map images float32 [batch, height, width, channels] in [-1, 1] to the last feature map,
    float32 [batch, height / 2**blocks, width / 2**blocks, 256] (fewer channels below 4 blocks)."""
    image = keras.Input((height, width, channels), name="image")
    x = image
    for index in range(blocks):
        filters = min(_FIRST_FILTERS * 2**index, _MOST_FILTERS)
        x = layers.Conv2D(filters, 3, padding="same", use_bias=False, name=f"conv{index}")(x)
        x = layers.BatchNormalization(momentum=NORM_MOMENTUM, name=f"bn{index}")(x)
        x = layers.ReLU(name=f"relu{index}")(x)
        x = layers.MaxPooling2D(2, name=f"pool{index}")(x)
        x = layers.SpatialDropout2D(0.1, name=f"dropout{index}")(x)
    return keras.Model(image, x, name="paper")
