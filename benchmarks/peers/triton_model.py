"""The model that Triton's Python backend runs (``triton.py`` puts it into a model repository)."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

from benchmarks.peers.work import Work


class TritonPythonModel:
    """One instance, in a process of its own."""

    def initialize(self, args: dict[str, str]) -> None:
        self._work = Work()

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answered(request) for request in requests]

    def _answered(self, request: Any) -> Any:
        file = triton.get_input_tensor_by_name(request, "file").as_numpy()
        answer = json.dumps(self._work.answer(file.tobytes())).encode()
        return triton.InferenceResponse([triton.Tensor("answer", np.frombuffer(answer, np.uint8))])
