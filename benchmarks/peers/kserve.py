"""KServe's Python server: its V1 protocol with the bytes as the body, a process per core.

``predict`` computes in threads: a process that computed in its event loop would leave a core idle
whenever it had been given more than its share of the connections.

https://kserve.github.io/website/docs/model-serving/predictive-inference/frameworks/custom-predictor
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import kserve

from benchmarks.peers.work import Work

# Made in the worker: neither travels to one
_work = functools.cache(Work)
_threads = functools.cache(lambda: ThreadPoolExecutor(len(os.sched_getaffinity(0))))


class Mammograms(kserve.Model):
    def __init__(self) -> None:
        super().__init__("mammograms")
        self.ready = True

    async def predict(
        self, payload: bytes, headers: Any = None, response_headers: Any = None
    ) -> str:
        loop = asyncio.get_running_loop()
        return json.dumps(await loop.run_in_executor(_threads(), _work().answer, payload))


if __name__ == "__main__":
    server = kserve.ModelServer(
        http_port=int(sys.argv[1]), workers=int(sys.argv[2]), enable_grpc=False
    )
    server.start([Mammograms()])
