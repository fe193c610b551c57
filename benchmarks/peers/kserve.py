"""KServe's Python server: its V1 protocol with the bytes as the body, a process per core.

https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor
"""

from __future__ import annotations

import functools
import json
import sys
from typing import Any

import kserve

from benchmarks.peers.work import Work

_work = functools.cache(Work)  # made in the worker: its sessions do not travel to one


class Mammograms(kserve.Model):
    def __init__(self) -> None:
        super().__init__("mammograms")
        self.ready = True

    def predict(self, payload: bytes, headers: Any = None, response_headers: Any = None) -> str:
        return json.dumps(_work().answer(payload))


if __name__ == "__main__":
    server = kserve.ModelServer(
        http_port=int(sys.argv[1]), workers=int(sys.argv[2]), enable_grpc=False
    )
    server.start([Mammograms()])
