"""MLServer: a custom handler, so that bytes need no JSON, and a parallel worker per core.

https://mlserver.readthedocs.io/en/latest/user-guide/parallel-inference.html
"""

# No postponed annotations: FastAPI reads the type of the body from the handler
import asyncio
import sys
from typing import Annotated, Any

from fastapi import Body
from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.handlers.custom import custom_handler

from benchmarks.peers.work import Work
from benchmarks.service import free_port


class Mammograms(MLModel):
    async def load(self) -> bool:
        self._work = Work()
        return True

    @custom_handler(rest_path="/predict")
    async def score(
        self, data: Annotated[bytes, Body(media_type="application/octet-stream")]
    ) -> dict[str, Any]:
        return self._work.answer(data)


async def main() -> None:
    settings = Settings(
        host="127.0.0.1",
        http_port=int(sys.argv[1]),
        grpc_port=free_port(),
        metrics_endpoint=None,
        parallel_workers=int(sys.argv[2]),
        debug=False,
    )
    model = ModelSettings(name="mammograms", implementation="benchmarks.peers.mlserver.Mammograms")
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
