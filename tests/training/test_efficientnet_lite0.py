"""The Keras port gives what the weights' origin gives.

The classes below are the top answers of the original PyTorch network with the same weights, on
scikit-learn's two sample photographs.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_sample_image

from training.models.efficientnet_lite0 import STRIDE, build_encoder, load_imagenet_weights

BELL_COTE, DAISY = 442, 985


def photograph(name: str) -> NDArray[np.float32]:
    """As float32 [1, 224, 224, 3] in [-1, 1], red first."""
    small = cv2.resize(load_sample_image(name), (224, 224), interpolation=cv2.INTER_AREA)
    return np.asarray(small[np.newaxis] / 127.5 - 1, np.float32)


@pytest.fixture(scope="module")
def colour() -> tuple[Any, ...]:
    encoder = build_encoder(224, 224, 3)
    return encoder, *load_imagenet_weights(encoder)


@pytest.mark.parametrize(("name", "expected"), [("china.jpg", BELL_COTE), ("flower.jpg", DAISY)])
def test_port_sees_what_the_original_sees(
    colour: tuple[Any, ...], name: str, expected: int
) -> None:
    encoder, kernel, bias = colour
    maps = np.asarray(encoder(photograph(name), training=False))
    assert maps.shape == (1, 224 // STRIDE, 224 // STRIDE, 1280)
    logits = maps.mean(axis=(1, 2)) @ kernel + bias
    assert int(logits.argmax()) == expected


def test_grey_encoder_sees_what_the_colour_encoder_sees_in_a_grey_image(
    colour: tuple[Any, ...],
) -> None:
    grey_encoder = build_encoder(224, 224)
    load_imagenet_weights(grey_encoder)
    grey = photograph("china.jpg").mean(axis=3, keepdims=True)
    one = np.asarray(grey_encoder(grey, training=False))
    other = np.asarray(colour[0](np.repeat(grey, 3, axis=3), training=False))
    np.testing.assert_allclose(one, other, atol=2e-3)
