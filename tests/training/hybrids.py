"""Small hybrids with weights that are random in every layer, also where Keras starts at 0 or 1."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from training.models.hybrid import Hybrid

SIDE = 64


def small_hybrid(classes: int = 2, seed: int = 0, **options: Any) -> Hybrid:
    """The ``paper`` encoder at 64 x 64, untrained but in no layer trivial."""
    keras.utils.set_random_seed(seed)
    model = Hybrid(
        **{
            "encoder": "paper",
            "height": SIDE,
            "width": SIDE,
            "classes": classes,
            "features": 12,
            "lstm_units": 8,
        }
        | options
    )
    model.build()
    rng = np.random.default_rng(seed)
    for layer in (*model.encoder.layers, model.pooled_norm):
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = (weight.shape for weight in layer.get_weights())
            layer.set_weights(
                [
                    rng.uniform(0.6, 1.6, gamma),
                    rng.normal(0, 0.3, beta),
                    rng.normal(0, 0.3, mean),
                    rng.uniform(0.4, 2, variance),
                ]
            )
    for layer in (model.feature, model.classifier, *model.lstms):
        *kernels, bias = layer.get_weights()
        layer.set_weights([*(3 * kernel for kernel in kernels), rng.normal(0, 0.5, bias.shape)])
    return model
