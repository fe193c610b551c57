"""A float32 encoder graph -> float16 weights and activations, for GPUs.

Inputs and outputs stay float32, and so do the cube of the last feature map and its mean: they are
what the heatmap and the probability are made of, and a cube loses too much in half precision. On
a CPU, which has no such arithmetic here, the graph runs too, more slowly than float32.
"""

from __future__ import annotations

import onnx
from onnx import helper
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel

_OUTPUTS = ("maps", "pooled")


def halve(encoder: bytes) -> bytes:
    """Convert the graph ``encoder`` to float16."""
    model = onnx.load_from_string(encoder)
    # The converter would pass every output through float16, whichever operators it is told to
    # leave alone: it gets the graph without its cube and mean
    tail = [node for node in model.graph.node if set(node.output) & set(_OUTPUTS)]
    outputs = list(model.graph.output)
    for node in tail:
        model.graph.node.remove(node)
    del model.graph.output[:]
    last_map = helper.make_tensor_value_info(tail[0].input[0], onnx.TensorProto.FLOAT, None)
    model.graph.output.append(last_map)

    converted = convert_float_to_float16(model, keep_io_types=True)
    converted.graph.node.extend(tail)
    del converted.graph.output[:]
    converted.graph.output.extend(outputs)
    OnnxModel.graph_topological_sort(converted.graph)  # its casts are at the end
    onnx.checker.check_model(converted, full_check=True)
    data: bytes = converted.SerializeToString()
    return data
