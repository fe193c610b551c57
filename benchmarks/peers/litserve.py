"""LitServe: a worker process per core and, as it recommends, as many HTTP servers.

https://lightning.ai/docs/litserve/api-reference/litserver
"""

# No postponed annotations: LitServe reads the types of requests and responses from the functions
import json
import sys
from typing import Annotated

import litserve
from fastapi import Body, Response

from benchmarks.peers.work import Work

Bytes = Annotated[bytes, Body(media_type="application/octet-stream")]


class Mammograms(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._work = Work()

    def decode_request(self, request: Bytes) -> bytes:
        return request

    def predict(self, data: bytes) -> str:
        return json.dumps(self._work.answer(data))

    def encode_response(self, answer: str) -> Response:
        return Response(answer, media_type="application/json")


if __name__ == "__main__":
    server = litserve.LitServer(
        Mammograms(), accelerator="cpu", workers_per_device=int(sys.argv[2]), timeout=False
    )
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
