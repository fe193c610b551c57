"""What a hybrid is trained in: augmentation before it, and two small heads beside it.

A few thousand image labels say little about where to look. Simulated masses say it exactly, so
while training a 1 x 1 convolution on the last feature map learns where a mass lies, and a linear
unit on the feature vector how large it is. Both heads are thrown away afterwards; what stays is an
encoder that sees masses and a feature vector that knows their size, which is what the LSTM needs
to read change.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import layers, ops

from training.augment import Augment
from training.models.hybrid import Hybrid, cubed, exam_features, last_exam

# Of the losses beside the classes'. A mass covers few of the positions, so their mean is small.
PLACE_WEIGHT = 5.0
SIZE_WEIGHT = 0.3
_RARE_LOGIT = -3.0


@keras.saving.register_keras_serializable("mammoseq")
class Lesson(keras.Model):  # type: ignore[misc]  # Keras has no types
    """Wraps ``hybrid``; call with its inputs and ``vary`` (see ``Augment``).

    Answers a dict: ``label`` logits [series, classes], ``place`` logits [images, rows, columns] of
    a mass at each position of the last feature map, ``size`` [images], the logarithm of its
    diameter in units of 10 mm.

    Targets: ``label`` float32 [series, classes], ``place`` float32 [images, rows, columns] in 0 to
    1, ``size`` float32 [images]; each with a ``..._weight`` (of series, images, images), 0 where
    the truth is not known.
    """

    def __init__(
        self, hybrid: Hybrid, mass_weight: float = 1.0, seed: int = 0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._seed = seed
        self._mass_weight = mass_weight
        self.hybrid = hybrid
        self.augment = Augment(seed, name="augment")
        self.place = layers.Conv2D(
            1, 1, bias_initializer=keras.initializers.Constant(_RARE_LOGIT), name="place"
        )
        self.size = layers.Dense(1, name="size")

    def build(self, input_shape: Any = None) -> None:
        if not self.hybrid.built:
            self.hybrid.build()
        self.place.build((None, None, None, self.hybrid.encoder.output_shape[-1]))
        self.size.build((None, self.hybrid.get_config()["features"]))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        hybrid = keras.saving.serialize_keras_object(self.hybrid)
        options = {"hybrid": hybrid, "mass_weight": self._mass_weight, "seed": self._seed}
        return {**super().get_config(), **options}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Lesson:
        hybrid = keras.saving.deserialize_keras_object(config.pop("hybrid"))
        return cls(hybrid, **config)

    def call(self, inputs: dict[str, Any], training: bool = False) -> dict[str, Any]:
        hybrid = self.hybrid
        images = self.augment(inputs["images"], inputs["vary"]) if training else inputs["images"]
        seen = hybrid.encoder(images, training=training)  # [N, h, w, C]
        features = hybrid.features(hybrid.pool(cubed(seen)), training=training)  # [N, F]
        slots = inputs["slots"]
        exams = exam_features(features, slots)  # [B, T, F]
        answers = {
            "label": last_exam(hybrid.read_features(exams, inputs["days"]), slots),
            "place": self.place(seen)[..., 0],
            "size": self.size(features)[:, 0],
        }
        return {name: ops.cast(answer, "float32") for name, answer in answers.items()}

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        label = keras.losses.categorical_crossentropy(y["label"], y_pred["label"], from_logits=True)
        place = ops.mean(
            keras.losses.binary_crossentropy(
                y["place"][..., None], y_pred["place"][..., None], from_logits=True
            ),
            axis=(1, 2),
        )
        size = keras.losses.huber(y["size"][:, None], y_pred["size"][:, None], delta=0.5)
        masses = PLACE_WEIGHT * _mean(place, y["place_weight"]) + SIZE_WEIGHT * _mean(
            size, y["size_weight"]
        )
        return _mean(label, y["label_weight"]) + self._mass_weight * masses


def _mean(losses: Any, weights: Any) -> Any:
    weights = ops.convert_to_tensor(weights)
    return ops.sum(losses * weights) / ops.maximum(ops.sum(weights), 1e-6)
