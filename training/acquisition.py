"""The same breast taken again: new position, compression, exposure and noise.

The ranges are our choice, made by eye, not measured.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from training.lesion import px_per_mm

SHIFT_MM = 3.0  # these are half-widths of uniform distributions around no change
ROTATION_DEGREES = 4.0
SCALE_LOG = 0.05
ASPECT_LOG = 0.03
GAIN_LOG = 0.10
GAMMA_LOG = 0.16
NOISE_GREY = (1.0, 3.5)  # standard deviation at grey level 128

_NOISE_POOL = 1 << 22  # 16 MiB; a 512 x 320 exam takes a slice of 164 thousand


def acquire(
    image: NDArray[np.uint8], rng: np.random.Generator
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Take the same breast again: new position, compression, exposure and noise.

    Returns the exam (uint8 [H, W]) and the affine matrix [2, 3] that takes (column, row, 1) of
    `image` to (column, row) of the exam.
    """
    matrix = _draw_positioning(image.shape, rng)
    height, width = image.shape
    # Tissue goes on beyond the chest wall and its mirror image is the best guess there; what enters
    # from the other sides is background, even where nipple or axilla touch the frame.
    margin = width // 8
    padded = cv2.copyMakeBorder(image, 0, 0, margin, 0, cv2.BORDER_REFLECT_101)
    from_padded = matrix.copy()
    from_padded[:, 2] -= margin * matrix[:, 0]
    moved = cv2.warpAffine(padded, from_padded, (width, height), flags=cv2.INTER_LINEAR)
    return _expose(moved.astype(np.uint8, copy=False), rng), matrix


def _draw_positioning(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float64]:
    """Affine matrix [2, 3]: rotation, scale and compression about the image centre, and shift."""
    height, width = shape
    angle = np.deg2rad(rng.uniform(-ROTATION_DEGREES, ROTATION_DEGREES))
    scale = np.exp(rng.uniform(-SCALE_LOG, SCALE_LOG))
    aspect = np.exp(rng.uniform(-ASPECT_LOG, ASPECT_LOG))
    shift = rng.uniform(-SHIFT_MM, SHIFT_MM, 2) * px_per_mm(shape)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = rotation @ np.diag([scale * aspect, scale / aspect])
    centre = np.array([width / 2.0, height / 2.0])
    return np.column_stack([linear, centre + shift - linear @ centre])


def _expose(image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """New gain and gamma, and noise that grows with the square root of the signal."""
    gain = np.exp(rng.uniform(-GAIN_LOG, GAIN_LOG))
    gamma = np.exp(rng.uniform(-GAMMA_LOG, GAMMA_LOG))
    noise_grey = rng.uniform(*NOISE_GREY)
    grey = np.arange(256) / 255.0
    signal = (255.0 * gain * grey**gamma).astype(np.float32)
    spread = (noise_grey * np.sqrt(signal / 128.0)).astype(np.float32)
    noise = cv2.multiply(_draw_noise(image.shape, rng), cv2.LUT(image, spread))
    # the sum is rounded and saturated
    exam = cv2.add(noise, cv2.LUT(image, signal), dtype=cv2.CV_8U)
    return exam.astype(np.uint8, copy=False)


def _draw_noise(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    """White noise of standard deviation 1, float32 [H, W]: a random slice of a pool, since
    drawing every pixel anew would be most of the cost of an exam."""
    size = shape[0] * shape[1]
    if size > _NOISE_POOL // 8:
        return rng.standard_normal(shape, dtype=np.float32)
    start = int(rng.integers(_NOISE_POOL - size))
    return _noise_pool()[start : start + size].reshape(shape)


@cache
def _noise_pool() -> NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(_NOISE_POOL, dtype=np.float32)
