"""Augmentation of preprocessed breasts: flip, rotation, zoom, shift and intensity, in one warp.

On the CPU, where the default model is trained, one ``cv2.warpAffine`` is far cheaper than the
same steps as layers of the graph.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_ROTATION_DEGREES = 12.0
_ZOOM = (0.9, 1.15)
_ASPECT = (0.92, 1.08)
_SHIFT = 0.05  # of the side
_GAMMA = (0.75, 1.33)
_GAIN = (0.9, 1.1)
_NOISE_GREY = 4.0


def augment(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a random variant of ``pixels`` uint8 [height, width].

    Mirroring is top to bottom only: the chest wall stays on the left, as preprocessing puts it.
    """
    height, width = pixels.shape
    matrix: NDArray[Any] = cv2.getRotationMatrix2D(
        (width / 2, height / 2),
        rng.uniform(-_ROTATION_DEGREES, _ROTATION_DEGREES),
        rng.uniform(*_ZOOM),
    )
    matrix[0] *= rng.uniform(*_ASPECT)
    matrix[:, 2] += rng.uniform(-_SHIFT, _SHIFT, 2) * (width, height)
    if rng.random() < 0.5:
        matrix[1] *= -1
        matrix[1, 2] += height - 1
    warped = cv2.warpAffine(pixels, matrix, (width, height), flags=cv2.INTER_LINEAR)
    levels = np.linspace(0, 1, 256) ** np.exp(rng.uniform(*np.log(_GAMMA)))
    curve = np.clip(levels * rng.uniform(*_GAIN) * 255, 0, 255).astype(np.uint8)
    varied = cv2.LUT(warped, curve)
    noise = rng.standard_normal(pixels.shape, np.float32) * rng.uniform(0, _NOISE_GREY)
    noisy = np.clip(varied + noise, 0, 255).astype(np.uint8)
    return np.where(varied > 0, noisy, 0).astype(np.uint8)
