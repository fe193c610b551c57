"""ONNX against Keras: probabilities and heatmaps on real images, or the export fails.

The reference heatmap is taken by automatic differentiation, so the closed form in the graph is
checked against something that does not share its derivation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tqdm import tqdm

from app.imaging.preprocess import to_tensor
from app.inference.probability import softmax
from app.inference.sessions import Sessions
from training.models.hybrid import Hybrid

TOLERANCE = 1e-4
_SIZES = range(1, 9)


class VerificationError(Exception):
    """The exported graphs do not answer what Keras answers."""


@dataclass(frozen=True)
class Verification:
    """Largest differences found, over ``cases`` series."""

    cases: int
    probability: float
    heatmap: float


def verify(model: Hybrid, sessions: Sessions, pixels: NDArray[np.uint8]) -> Verification:
    """Compare on ``pixels`` uint8 [images, height, width]: encoder batches of 1 to 8 images, and
    series of 1 to 8 exams with one or two views, all classes. Heatmaps are compared relative to
    the largest value of the map where that exceeds 1. Raises ``VerificationError``."""
    if not len(pixels):
        raise VerificationError("there are no images to verify on")
    probabilities, heatmaps = [], []
    for count, slots, days in tqdm(list(_cases()), "verify", unit="series"):
        images = to_tensor(pixels[np.arange(count) % len(pixels)])
        logits, maps = _keras(model, images, slots, days)
        reading = sessions.read(sessions.encode(images), slots, days)
        probabilities.append(_largest(softmax(reading.logits), softmax(logits)))
        heatmaps.append(_largest(reading.heatmaps, maps) / max(1.0, float(maps.max())))
    # numpy's maximum is NaN if any is, and NaN is not within any tolerance
    found = Verification(len(probabilities), float(np.max(probabilities)), float(np.max(heatmaps)))
    if not (found.probability <= TOLERANCE and found.heatmap <= TOLERANCE):
        raise VerificationError(
            f"ONNX differs from Keras by {found.probability:.2e} in probability and "
            f"{found.heatmap:.2e} in heatmaps; at most {TOLERANCE:.0e} is allowed"
        )
    return found


def _cases() -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
    """Number of images, slots [exams, views] and days [exams]."""
    rng = np.random.default_rng(0)
    for exams in _SIZES:
        for views in (1, 2):
            slots = np.full((exams, views), -1, np.int32)
            count = 0
            for t in range(exams):
                for v in range(1 if t % 2 else views):  # some lack the second view
                    slots[t, v] = count
                    count += 1
            days = np.concatenate([[0], rng.integers(30, 1500, exams - 1)]).astype(np.float32)
            yield count, slots, days


def _keras(
    model: Hybrid, images: NDArray[np.float32], slots: NDArray[np.int32], days: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits [classes] and Grad-CAM maps [exams, views, classes, rows, columns]."""
    with tf.GradientTape(persistent=True) as tape:
        maps = model.feature_maps(tf.constant(images))
        tape.watch(maps)
        logits = model.read_exams(model.pool(maps), slots[None], days[None])[0]
        each: list[Any] = tf.unstack(logits)
    cams = []
    for logit in each:
        gradient = tape.gradient(logit, maps)  # [N, h, w, C]
        weights = tf.reduce_mean(gradient, axis=(1, 2))
        cams.append(tf.nn.relu(tf.einsum("nc,nhwc->nhw", weights, maps)).numpy())
    by_image = np.stack(cams, axis=1)  # [N, K, h, w]
    placed = by_image[np.maximum(slots, 0)] * (slots >= 0)[..., None, None, None]
    return logits.numpy(), placed


def _largest(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.max(np.abs(a - b)))
