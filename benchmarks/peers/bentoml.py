"""BentoML: a worker process per core, each with as many threads: with one, a core idles whenever a
worker has been given more than its share of the connections.

https://docs.bentoml.com/en/latest/build-with-bentoml/parallelize-requests.html
"""

from __future__ import annotations

import json
import os
import sys
from typing import Annotated

import bentoml
from bentoml.validators import ContentType

from benchmarks.peers.work import Work

_WORKERS = "PEER_WORKERS"


@bentoml.service(
    workers=int(os.environ.get(_WORKERS, "1")),
    threads=int(os.environ.get(_WORKERS, "1")),
    traffic={"timeout": 600},
    logging={"access": {"enabled": False}},
)
class Mammograms:
    def __init__(self) -> None:
        self._work = Work()

    @bentoml.api
    def predict(self, data: bytes, /) -> Annotated[str, ContentType("application/json")]:
        return json.dumps(self._work.answer(data))


if __name__ == "__main__":
    os.environ[_WORKERS] = sys.argv[2]
    command = ["serve", "benchmarks.peers.bentoml:Mammograms", "--port", sys.argv[1]]
    os.execv(sys.executable, [sys.executable, "-m", "bentoml", *command])
