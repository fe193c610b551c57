"""Ray Serve: a replica with a core of its own for every core.

https://docs.ray.io/en/latest/serve/advanced-guides/performance.html
"""

import json
import os
import sys

os.environ.setdefault("RAY_SERVE_THROUGHPUT_OPTIMIZED", "1")  # read at import

import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.peers.work import Work

_MAX_ONGOING_REQUESTS = 32  # of a replica; with the default of 5 the proxy polls for a free one


class Mammograms:
    def __init__(self) -> None:
        self._work = Work()

    async def __call__(self, request: Request) -> Response:
        answer = self._work.answer(await request.body())
        return Response(json.dumps(answer), media_type="application/json")


def main(port: int, workers: int) -> None:
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    deployment = serve.deployment(
        Mammograms, num_replicas=workers, max_ongoing_requests=_MAX_ONGOING_REQUESTS
    )
    serve.run(deployment.bind(), route_prefix="/predict", blocking=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
