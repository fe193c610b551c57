"""What is particular to NVIDIA GPUs: their options, and what really runs on them.

ONNX Runtime falls back to the CPU without an error, node by node or altogether, and
``get_providers`` does not tell: only the assignment of the graph's nodes does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnxruntime as ort

PROVIDER = "CUDAExecutionProvider"
RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"

PROVIDER_OPTIONS = {
    "device_id": "0",
    # The batch sizes are few and all are run before the first request, so memory is what they
    # need; the default would double it at every step
    "arena_extend_strategy": "kSameAsRequested",
    # cuDNN times its algorithms for each convolution and shape and keeps the fastest: slow the
    # first time, which warming up pays
    "cudnn_conv_algo_search": "EXHAUSTIVE",
    "cudnn_conv_use_max_workspace": "1",
    # TF32 keeps 10 of 23 bits: a float32 bundle would no longer be what was verified. Who wants
    # speed takes a float16 bundle, which says what it costs
    "use_tf32": "0",
}

_LEAST_SHARE = 0.9  # the rest may be bookkeeping of shapes, which ONNX Runtime keeps on the CPU
_HEAVY = ("Conv", "Gemm", "MatMul")


def assignments(session: ort.InferenceSession) -> list[tuple[str, str]]:
    """Provider and operator of every node; the session's options must set ``RECORD_ASSIGNMENT``."""
    return [
        (part.ep_name, node.op_type)
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def fault_of(assigned: Iterable[tuple[str, str]]) -> str | None:
    """What is wrong with the placement of an encoder's nodes, None if they run on the GPU: nine in
    ten of them, and every convolution and matrix product."""
    on_gpu, elsewhere = 0, Counter[str]()
    for provider, operator in assigned:
        if provider == PROVIDER:
            on_gpu += 1
        else:
            elsewhere[operator] += 1
    nodes = on_gpu + elsewhere.total()
    heavy = [name for name in elsewhere if any(part in name for part in _HEAVY)]
    if nodes and not heavy and on_gpu >= _LEAST_SHARE * nodes:
        return None
    listed = ", ".join(f"{count} {name}" for name, count in elsewhere.most_common(5))
    return f"{elsewhere.total()} of the encoder's {nodes} nodes are not on the GPU: {listed}"
