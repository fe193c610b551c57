"""Augmentation inside the graph: flip, rotation, zoom, shift and intensity of training images."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import layers, ops

_ROTATION_DEGREES = 12.0
_ZOOM = (0.9, 1.15)
_ASPECT = (0.92, 1.08)
_SHIFT = 0.05  # of the side
_GAMMA = (0.75, 1.33)
_GAIN = (0.9, 1.1)
_NOISE = 4.0 / 255.0  # of the grey range, the largest standard deviation
_BACKGROUND = 0.004  # of the grey range: air stays air


@keras.saving.register_keras_serializable("mammoseq")
class Augment(layers.Layer):  # type: ignore[misc]  # Keras has no types
    """A random variant of each image float32 [images, height, width, 1] in [-1, 1].

    ``vary`` float32 [images] is 1 where an image may be moved and mirrored, 0 where it must stay in
    its place (a mass in it has a known position). Mirroring is top to bottom only: the chest wall
    stays on the left, as preprocessing puts it.
    """

    def __init__(self, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "seed": self._seed}

    def call(self, images: Any, vary: Any) -> Any:
        moved = ops.image.affine_transform(
            images,
            self._transforms(vary, images.shape[1], images.shape[2]),
            interpolation="bilinear",
            fill_mode="constant",
            fill_value=-1.0,
            data_format="channels_last",
        )
        grey = ops.clip((moved + 1.0) / 2.0, 0.0, 1.0)  # [N, H, W, 1] in [0, 1]
        each = (ops.shape(images)[0], 1, 1, 1)
        gamma = ops.exp(self._uniform(each, *np.log(_GAMMA)))
        varied = ops.power(grey, gamma) * self._uniform(each, *_GAIN)
        noise = keras.random.normal(ops.shape(images), seed=self.seed_generator)
        varied = varied + noise * self._uniform(each, 0.0, _NOISE)
        varied = ops.where(grey > _BACKGROUND, ops.clip(varied, 0.0, 1.0), 0.0)
        return varied * 2.0 - 1.0

    def _transforms(self, vary: Any, height: int, width: int) -> Any:
        """The eight numbers of each image's projective transform, from output to input."""
        count = ops.shape(vary)
        angle = self._uniform(count, -1.0, 1.0) * vary * float(np.deg2rad(_ROTATION_DEGREES))
        zoom = ops.exp(self._uniform(count, *np.log(_ZOOM)) * vary)
        aspect = ops.exp(self._uniform(count, *np.log(_ASPECT)) * vary)
        right = self._uniform(count, -_SHIFT, _SHIFT) * vary * width
        down = self._uniform(count, -_SHIFT, _SHIFT) * vary * height
        mirror = ops.where(self._uniform(count, 0.0, 1.0) * vary > 0.5, -1.0, 1.0)
        a, b = ops.cos(angle) * aspect / zoom, -ops.sin(angle) / zoom
        c, d = ops.sin(angle) * mirror / zoom, ops.cos(angle) * mirror / (aspect * zoom)
        middle_x, middle_y = (width - 1) / 2.0, (height - 1) / 2.0
        shift_x = middle_x + right - a * middle_x - b * middle_y
        shift_y = middle_y + down - c * middle_x - d * middle_y
        zero = ops.zeros_like(a)
        return ops.stack([a, b, shift_x, c, d, shift_y, zero, zero], axis=1)

    def _uniform(self, shape: Any, low: float, high: float) -> Any:
        return keras.random.uniform(shape, low, high, seed=self.seed_generator)
