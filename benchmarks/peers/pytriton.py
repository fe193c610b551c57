"""pytriton: Triton in front of Python functions in this process, one instance per core.

https://triton-inference-server.github.io/pytriton/latest/binding_models/
"""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from typing import Any

import numpy as np
from pytriton.model_config import ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

from benchmarks.peers.work import Work
from benchmarks.service import free_port


def main(port: int, workers: int) -> None:
    # its backend must load the library of this Python, not another's of the same name
    os.environ["LD_LIBRARY_PATH"] = str(sysconfig.get_config_var("LIBDIR"))
    work = Work()

    def infer(requests: list[Any]) -> list[dict[str, Any]]:
        answers = [json.dumps(work.answer(request["file"].tobytes())) for request in requests]
        return [{"answer": np.frombuffer(answer.encode(), np.uint8)} for answer in answers]

    config = TritonConfig(
        http_address="127.0.0.1", http_port=port, grpc_port=free_port(), allow_metrics=False
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="mammograms",
            infer_func=[infer] * workers,
            inputs=[Tensor(name="file", dtype=np.uint8, shape=(-1,))],
            outputs=[Tensor(name="answer", dtype=np.uint8, shape=(-1,))],
            config=ModelConfig(batching=False),
        )
        triton.serve()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
