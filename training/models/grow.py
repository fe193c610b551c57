"""Room to learn time in a hybrid that has learned images, without a change to how it reads one.

New features and LSTM units are added beside the old ones. The output gates of the new units are
shut at a first exam, where no days have passed, and open with the days since the exam before:
such a unit can take in a first exam, but speaks from the second on. Everything that a first exam
passes through keeps its weights (``keep_first_exam``), so a single exam is read exactly as before,
whatever is learned from series.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from training.models.hybrid import Hybrid

# sigmoid(-12) = 6e-6. At 90 days the gap is 0.76: half open; at a year it is 1.
_SHUT = -12.0
_OPENS = 16.0
_OUTPUT = 3  # Keras' order of the gates: input, forget, cell, output


def grow(model: Hybrid, features: int, units: int) -> Hybrid:
    """A copy of ``model`` (reader ``lstm``, one layer) with ``features`` more features and
    ``units`` more LSTM units, that reads a single exam as ``model`` does."""
    config = model.get_config()
    old_f, old_h = config["features"], config["lstm_units"]
    options = {k: v for k, v in config.items() if k != "name"}
    options |= {"features": old_f + features, "lstm_units": old_h + units}
    grown: Hybrid = Hybrid.from_config(options)
    grown.build()
    grown.encoder.set_weights(model.encoder.get_weights())
    grown.pooled_norm.set_weights(model.pooled_norm.get_weights())

    kernel, bias = grown.feature.get_weights()
    kernel[:, :old_f], bias[:old_f] = model.feature.get_weights()
    grown.feature.set_weights([kernel, bias])

    inputs, recurrent, biases = (_by_gate(w) for w in grown.lstms[0].get_weights())
    old_inputs, old_recurrent, old_biases = (_by_gate(w) for w in model.lstms[0].get_weights())
    inputs[:old_f, :, :old_h], inputs[-1, :, :old_h] = old_inputs[:-1], old_inputs[-1]
    inputs[old_f:-1, :, :old_h] = 0
    recurrent[:old_h, :, :old_h], recurrent[old_h:, :, :old_h] = old_recurrent, 0
    biases[:, :old_h] = old_biases
    inputs[:-1, _OUTPUT, old_h:], inputs[-1, _OUTPUT, old_h:] = 0, _OPENS
    biases[_OUTPUT, old_h:] = _SHUT
    grown.lstms[0].set_weights([_flat(w) for w in (inputs, recurrent, biases)])

    rows, offset = grown.classifier.get_weights()
    rows[:old_h], offset[:] = model.classifier.get_weights()
    rows[old_h:] = 0
    grown.classifier.set_weights([rows, offset])
    return grown


def keep_first_exam(grown: Hybrid, model: Hybrid) -> Callable[[], None]:
    """Returns what undoes a training step of ``grown`` wherever a single exam would notice it.

    Free to learn: the new features, the new units but for their output gates' inputs, the new rows
    of the classifier, everything recurrent, and what the days do to the old units."""
    old_f, old_h = (model.get_config()[name] for name in ("features", "lstm_units"))
    feature_kernel, feature_bias = (np.ones_like(w, bool) for w in grown.feature.get_weights())
    feature_kernel[:, old_f:] = feature_bias[old_f:] = False
    inputs, recurrent, biases = (
        _by_gate(np.ones_like(w, bool)) for w in grown.lstms[0].get_weights()
    )
    inputs[:, :_OUTPUT, old_h:] = biases[:_OUTPUT, old_h:] = False
    inputs[-1, :, :old_h] = False
    recurrent[:] = False
    rows, offset = (np.ones_like(w, bool) for w in grown.classifier.get_weights())
    rows[old_h:] = False
    kept = [feature_kernel, feature_bias, *map(_flat, (inputs, recurrent, biases)), rows, offset]
    layers = (grown.feature, grown.lstms[0], grown.classifier)
    variables = [variable for layer in layers for variable in layer.trainable_variables]
    start = [ops.convert_to_numpy(variable).copy() for variable in variables]

    def restore() -> None:
        for variable, mask, value in zip(variables, kept, start, strict=True):
            variable.assign(np.where(mask, value, ops.convert_to_numpy(variable)))

    return restore


def _by_gate(weights: NDArray[Any]) -> NDArray[Any]:
    """[..., 4 H] -> [..., 4, H]."""
    return weights.reshape(*weights.shape[:-1], 4, -1)


def _flat(weights: NDArray[Any]) -> NDArray[Any]:
    return weights.reshape(*weights.shape[:-2], -1)
