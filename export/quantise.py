"""A float32 encoder graph -> int8 weights and activations, calibrated on real images.

Static quantisation with quantise/dequantise pairs: unsigned activations, signed weights with a
scale for every channel. What departs from the defaults of ONNX Runtime, and why, in the order of
what it brings:

- The first quarter of the convolutions stays in float32. They work on cancelling sums over channels
  that are often constant, where a small error of a weight moves every position alike.
- Biases are corrected, layer after layer, until the mean of every channel is again that of the
  float32 graph (Nagel et al., ICCV 2019, arXiv:1906.04721, section 4.2).
- The range of an activation is the mean of the images' extremes, not the extreme of them all.

What follows the last feature map (its cube and its mean) is not quantised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from tqdm import tqdm

from app.imaging.preprocess import to_tensor

FLOAT32_PART = 4  # one in so many convolutions, counted from the image, is not quantised
_QUANTISED = ["Conv", "Clip", "Relu", "Add", "MaxPool"]
_CORRECTION_IMAGES = 16


def quantise(encoder: bytes, pixels: NDArray[np.uint8]) -> bytes:
    """Quantise the graph ``encoder``, calibrated on ``pixels`` uint8 [images, height, width], 64 or
    more of those that it was trained on."""
    original = onnx.load_from_string(encoder)
    # It was optimised when it was exported; ONNX Runtime would ask for it here
    original.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    convolutions = [node for node in original.graph.node if node.op_type == "Conv"]
    in_float32 = convolutions[: max(1, len(convolutions) // FLOAT32_PART)]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
        onnx.save(original, source)  # a model that is handed over would be changed
        quantize_static(
            source,
            target,
            _Images(pixels),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_QUANTISED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=[node.name for node in in_float32],
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"CalibMovingAverage": True},
        )
        quantised = onnx.load(target)
    few = pixels[:: max(1, len(pixels) // _CORRECTION_IMAGES)][:_CORRECTION_IMAGES]
    _correct_biases(quantised, original, few)
    onnx.checker.check_model(quantised)
    data: bytes = quantised.SerializeToString()
    return data


class _Images(CalibrationDataReader):  # type: ignore[misc]  # ONNX Runtime has no types
    """Images one by one, as ONNX Runtime asks for them."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self._left = iter(tqdm(pixels, "calibrate", unit="image", mininterval=2))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        image = next(self._left, None)
        return None if image is None else {"images": to_tensor(image[np.newaxis])}


def _correct_biases(quantised: Any, original: Any, pixels: NDArray[np.uint8]) -> None:
    """Move the biases of ``quantised`` in place. One layer after the other: a correction changes
    what all later layers see."""
    layers = list(_quantised_biases(quantised, original))
    wanted = _channel_means(original, [name for name, *_ in layers], pixels)
    for (_, output, bias, scale), mean in zip(
        tqdm(layers, "correct biases", unit="layer", mininterval=2), wanted, strict=True
    ):
        error = mean - _channel_means(quantised, [output], pixels)[0]
        held = numpy_helper.to_array(bias).astype(np.float64)
        # The scale of a channel without weights is next to nothing; its bias stays as it is
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            moved = held + np.round(error / numpy_helper.to_array(scale))
            fits = np.abs(moved) < np.iinfo(np.int32).max
        corrected = np.where(fits, moved, held).astype(np.int32)
        bias.CopyFrom(numpy_helper.from_array(corrected, bias.name))


def _quantised_biases(quantised: Any, original: Any) -> Iterator[tuple[str, str, Any, Any]]:
    """Of every quantised convolution, in order: its output's name in the original and in the
    quantised graph, its bias (int32) and the scale of that."""
    constants = {tensor.name: tensor for tensor in quantised.graph.initializer}
    origin = {name: node for node in quantised.graph.node for name in node.output}
    ours = {node.name: node for node in quantised.graph.node}
    for node in original.graph.node:
        if node.op_type == "Conv" and len(node.input) == 3:
            now = ours[node.name]
            dequantise = origin.get(now.input[2])
            if dequantise is not None:
                bias, scale = (constants[name] for name in dequantise.input[:2])
                yield node.output[0], now.output[0], bias, scale


def _channel_means(
    graph: Any, outputs: Sequence[str], pixels: NDArray[np.uint8]
) -> list[NDArray[np.float64]]:
    """Mean over images and positions of each named tensor [images, channels, rows, columns]."""
    asked = onnx.ModelProto()
    asked.CopyFrom(graph)
    del asked.graph.output[:]
    for name in outputs:
        asked.graph.output.append(onnx.ValueInfoProto(name=name))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        asked.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    sums: list[Any] = [0.0] * len(outputs)
    for image in pixels:
        found = session.run(list(outputs), {"images": to_tensor(image[np.newaxis])})
        sums = [
            total + tensor.mean(axis=(0, 2, 3), dtype=np.float64)
            for total, tensor in zip(sums, found, strict=True)
        ]
    return [total / len(pixels) for total in sums]
