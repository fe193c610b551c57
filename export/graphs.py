"""Keras hybrid -> two ONNX graphs, ``encoder.onnx`` and ``head.onnx``.

The encoder maps images to their last feature maps and the pooled features. The head reads exams
in time order and answers, for every class, the logits and exact Grad-CAM maps: pooling makes the
gradient of a logit constant over the positions of a feature map, so only the gradient of the
small head is needed, and its closed form (backpropagation through time) is written out here as
ordinary operators. No automatic differentiation is needed where the graphs run.

Grad-CAM: Selvaraju et al., ICCV 2017, arXiv:1610.02391. LSTM equations: Hochreiter &
Schmidhuber 1997, gates in Keras' order (input, forget, cell, output).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import tensorflow as tf
import tf2onnx
from numpy.typing import NDArray

from training.models.hybrid import DAYS_PER_YEAR, POOLING_EPSILON, POOLING_POWER, Hybrid

OPSET = 18


@dataclass(frozen=True)
class HeadWeights:
    """The head's weights as numpy constants (captured variables would become graph inputs)."""

    norm_scale: NDArray[np.float32]  # [C], batch normalisation of the pooled features
    norm_offset: NDArray[np.float32]  # [C]
    feature_kernel: NDArray[np.float32]  # [C, F]
    feature_bias: NDArray[np.float32]  # [F]
    lstm_kernel: NDArray[np.float32]  # [F + 1, 4 H]
    lstm_recurrent: NDArray[np.float32]  # [H, 4 H]
    lstm_bias: NDArray[np.float32]  # [4 H]
    classifier_kernel: NDArray[np.float32]  # [H, K]
    classifier_bias: NDArray[np.float32]  # [K]

    @classmethod
    def of(cls, model: Hybrid) -> HeadWeights:
        """Raises ``ValueError`` for a model that the closed form below does not cover."""
        if model.reader != "lstm" or len(model.lstms) != 1 or model.encoder.name == "rows":
            raise ValueError(
                "only a hybrid of a CNN and one LSTM layer can be exported; the baselines and "
                "deeper ones are there to be compared"
            )
        gamma, beta, mean, variance = model.pooled_norm.get_weights()
        scale = gamma / np.sqrt(variance + model.pooled_norm.epsilon)
        return cls(
            scale,
            beta - mean * scale,
            *model.feature.get_weights(),
            *model.lstms[0].get_weights(),
            *model.classifier.get_weights(),
        )


def export_encoder(model: Hybrid, target: Path) -> None:
    """``images`` float32 [N, height, width, 1] -> ``maps`` [N, h, w, C], ``pooled`` [N, C]."""
    height, width, channels = model.encoder.input_shape[1:]
    signature = [tf.TensorSpec((None, height, width, channels), tf.float32, name="images")]

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def encoder(images: Any) -> dict[str, Any]:
        maps = model.feature_maps(images)
        return {"maps": maps, "pooled": tf.reduce_mean(maps, axis=(1, 2))}

    _convert(encoder, signature, target)


def export_head(model: Hybrid, target: Path) -> None:
    """Inputs ``pooled`` [N, C], ``maps`` [N, h, w, C], ``slots`` int32 [B, T, V], ``days``
    [B, T]; outputs ``logits`` [B, K], ``step_logits`` [B, T, K] (after each exam), ``empty_logits``
    [K] (before any exam) and ``heatmaps`` [B, T, V, K, h, w]."""
    rows, columns, channels = model.encoder.output_shape[1:]
    signature = [
        tf.TensorSpec((None, channels), tf.float32, name="pooled"),
        tf.TensorSpec((None, rows, columns, channels), tf.float32, name="maps"),
        tf.TensorSpec((None, None, None), tf.int32, name="slots"),
        tf.TensorSpec((None, None), tf.float32, name="days"),
    ]
    weights = HeadWeights.of(model)

    @tf.function(input_signature=signature)  # type: ignore[untyped-decorator]
    def head(pooled: Any, maps: Any, slots: Any, days: Any) -> dict[str, Any]:
        return read_exams(weights, pooled, maps, slots, days)

    _convert(head, signature, target)


def read_exams(w: HeadWeights, pooled: Any, maps: Any, slots: Any, days: Any) -> dict[str, Any]:
    """The head's forward pass and the gradient of every logit, as plain tensor operations."""
    features = w.feature_bias.shape[0]
    shifted = pooled + np.float32(POOLING_EPSILON)  # [N, C]
    g = shifted ** np.float32(1 / POOLING_POWER) * w.norm_scale + w.norm_offset  # [N, C]
    f = tf.nn.relu(g @ w.feature_kernel + w.feature_bias)  # [N, F]
    seen = tf.cast(slots >= 0, tf.float32)[..., None]  # [B, T, V, 1]
    index = tf.maximum(slots, 0)
    view_share = seen / tf.maximum(tf.reduce_sum(seen, 2, keepdims=True), 1.0)  # [B, T, V, 1]
    views = tf.gather(f, index)  # [B, T, V, F]
    exam = tf.reduce_sum(views * view_share, 2)  # [B, T, F]
    gap = tf.math.log(1.0 + days) / np.float32(np.log1p(DAYS_PER_YEAR))  # [B, T]
    x = tf.concat([exam, gap[..., None]], -1)  # [B, T, F + 1]

    steps = _forward(w, x)
    step_logits = steps.hidden @ w.classifier_kernel + w.classifier_bias  # [T, B, K]
    present = tf.reduce_any(slots >= 0, 2)  # [B, T]
    last = tf.reduce_sum(tf.cast(present, tf.int32), 1) - 1  # [B]
    is_last = tf.one_hot(last, tf.shape(slots)[1], dtype=tf.float32)  # [B, T]
    logits = tf.einsum("tbk,bt->bk", step_logits, is_last)

    dx = _backward(w, steps, is_last)  # [T, B, K, F + 1]
    d_exam = tf.transpose(dx[..., :features], (1, 0, 2, 3))  # [B, T, K, F]
    d_view = d_exam[:, :, None] * view_share[..., None]  # [B, T, V, K, F]
    d_f = d_view * tf.cast(views > 0, tf.float32)[:, :, :, None]  # through the ReLU
    d_root = w.norm_scale * shifted ** np.float32(1 / POOLING_POWER - 1) / POOLING_POWER  # [N, C]
    d_pooled = d_f @ w.feature_kernel.T * tf.gather(d_root, index)[:, :, :, None]  # [B, T, V, K, C]
    positions = maps.shape[1] * maps.shape[2]
    placed = tf.reshape(tf.gather(maps, index), _shape(slots, positions, maps.shape[3]))
    cam = tf.matmul(d_pooled / positions, placed, transpose_b=True)  # [B, T, V, K, h w]
    classes = w.classifier_bias.shape[0]
    heatmaps = tf.reshape(tf.nn.relu(cam), _shape(slots, classes, maps.shape[1], maps.shape[2]))
    return {
        "logits": logits,
        "step_logits": tf.transpose(step_logits, (1, 0, 2)),
        "empty_logits": tf.identity(w.classifier_bias),
        "heatmaps": heatmaps,
    }


def _shape(slots: Any, *tail: int) -> Any:
    return tf.concat([tf.shape(slots), tf.constant(tail)], 0)


@dataclass(frozen=True)
class _Steps:
    """LSTM states in time order, each [T, B, H]."""

    hidden: Any
    cell: Any
    input: Any
    forget: Any
    candidate: Any
    output: Any


def _forward(w: HeadWeights, x: Any) -> _Steps:
    driven = tf.transpose(x @ w.lstm_kernel + w.lstm_bias, (1, 0, 2))  # [T, B, 4 H]
    zero = tf.zeros((tf.shape(x)[0], w.lstm_recurrent.shape[0]))

    def step(before: Any, z: Any) -> Any:
        hidden, cell = before[0], before[1]
        i, f, c, o = tf.split(z + hidden @ w.lstm_recurrent, 4, -1)
        i, f, c, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(c), tf.sigmoid(o)
        cell = f * cell + i * c
        return o * tf.tanh(cell), cell, i, f, c, o

    return _Steps(*tf.scan(step, driven, (zero,) * 6))


def _backward(w: HeadWeights, s: _Steps, is_last: Any) -> Any:
    """Gradient of every class logit after the last exam with respect to each exam's input,
    [T, B, K, F + 1]. Walks back by scanning reversed time and turning the result round."""
    before = tf.concat([tf.zeros_like(s.cell[:1]), s.cell[:-1]], 0)
    start = tf.transpose(is_last)[..., None]  # [T, B, 1]
    elements = tuple(
        tf.reverse(e, [0])
        for e in (s.cell, before, s.input, s.forget, s.candidate, s.output, start)
    )
    zero = tf.zeros(
        (tf.shape(is_last)[0], w.classifier_bias.shape[0], w.lstm_recurrent.shape[0])
    )  # [B, K, H]
    seed = w.classifier_kernel.T[None]  # [1, K, H]: d logit / d hidden of the last exam

    def step(after: Any, element: Any) -> Any:
        d_hidden, d_cell = after[0], after[1]
        cell, cell_before, i, f, c, o, last = (e[:, None] for e in element)  # [B, 1, H]
        d_hidden = d_hidden + last * seed
        squashed = tf.tanh(cell)
        d_cell = d_cell + d_hidden * o * (1 - squashed**2)
        dz = tf.concat(
            [
                d_cell * c * i * (1 - i),
                d_cell * cell_before * f * (1 - f),
                d_cell * i * (1 - c**2),
                d_hidden * squashed * o * (1 - o),
            ],
            -1,
        )  # [B, K, 4 H]
        return dz @ w.lstm_recurrent.T, d_cell * f, dz

    wide = tf.zeros((tf.shape(is_last)[0], w.classifier_bias.shape[0], w.lstm_bias.shape[0]))
    dz = tf.scan(step, elements, (zero, zero, wide))[2]
    return tf.reverse(dz, [0]) @ w.lstm_kernel.T


def _convert(function: Any, signature: list[Any], target: Path) -> None:
    """tf2onnx, then ONNX Runtime's hardware-independent optimisation, saved to ``target``."""
    raw = target.with_suffix(".raw.onnx")
    tf2onnx.convert.from_function(function, signature, opset=OPSET, output_path=str(raw))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(raw), options, providers=["CPUExecutionProvider"])
    raw.unlink()
    onnx.checker.check_model(str(target), full_check=True)
