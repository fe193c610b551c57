"""A breast as another unit might have taken it: what is common among mammograms, but not among the
training images, must not count as unfamiliar."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

_LOG_GAMMA = 0.8  # largest, of exposure and film curve
_LOG_SCALE = 0.08  # another crop or a narrower breast
_SHIFT = 0.04  # of the height
_BLUR = 2.0  # pixels, largest standard deviation
_SHARPENING = 1.5  # largest, as presentation processing does
_NOISE = 0.04  # of the grey range, largest standard deviation
_RIM_SHARE = 0.3  # of the images are framed like scanned film
_RIM = (2, 12)  # pixels


def altered(breast: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Change scale, place, exposure, sharpness, grain and rim of a preprocessed breast, uint8
    [height, width], chest wall left, at random."""
    image: NDArray[Any] = breast.astype(np.float32) / 255
    height, width = image.shape
    across, along = np.exp(rng.uniform(-_LOG_SCALE, _LOG_SCALE, 2))
    down = (1 - along) * height / 2 + rng.uniform(-_SHIFT, _SHIFT) * height
    warp = np.array([[across, 0, 0], [0, along, down]], np.float32)
    image = cv2.warpAffine(image, warp, (width, height), borderMode=cv2.BORDER_REPLICATE)
    image = image ** np.exp(rng.uniform(-_LOG_GAMMA, _LOG_GAMMA))
    image = _sharper_or_softer(image, rng)
    image = image + _grain(image, rng)
    if rng.random() < _RIM_SHARE:
        _add_rim(image, rng)
    return np.asarray(np.clip(np.rint(image * 255), 0, 255), np.uint8)


def _sharper_or_softer(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    if rng.random() < 0.2:
        detail = image - cv2.GaussianBlur(image, (0, 0), 2)
        return np.clip(image + rng.uniform(0, _SHARPENING) * detail, 0, 1)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.1, _BLUR)))


def _grain(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise, weaker in the background."""
    noise: NDArray[Any] = rng.standard_normal(image.shape, np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), rng.uniform(0.1, 1.0))
    amplitude = rng.uniform(0, _NOISE) * np.where(image > 0.02, 1.0, 0.2)
    return np.asarray(noise / noise.std() * amplitude, np.float32)


def _add_rim(image: NDArray[np.float32], rng: np.random.Generator) -> None:
    brightness = rng.uniform(0.3, 1)
    for side in (image, image[::-1], image.T):  # top, bottom, chest wall
        if rng.random() < 0.4:
            side[: int(rng.integers(*_RIM))] = brightness
